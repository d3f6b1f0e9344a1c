"""Run git, the one way in this program: a clean environment, a limit of time, and errors that say what to do.

Neither the user's configuration nor the caller's environment changes what a command does.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from orchestrator.errors import WorkspaceError
from orchestrator.text import one_line, redacted

TERM_GRACE_S = 5.0
IDENTITY = ("-c", "user.name=sudocode-orchestrator", "-c", "user.email=orch@localhost")

# What the repo or its owner configures for people must neither run, nor block, nor change what we commit.
CONFIG = (
    "core.hooksPath=/dev/null",
    "core.fsmonitor=false",
    "core.untrackedCache=false",
    "core.splitIndex=false",
    "core.sparseCheckout=false",  # the main checkout's patterns would hide files from us
    "core.trustctime=true",
    "core.checkStat=default",
    "core.safecrlf=false",  # would refuse mixed line endings instead of converting them
    "core.quotePath=false",
    "core.bigFileThreshold=16m",  # shown as binary in a diff, so a diff fits into memory
    "commit.gpgSign=false",
    "i18n.commitEncoding=UTF-8",
    "advice.addEmbeddedRepo=false",
    "worktree.useRelativePaths=false",
    "gc.auto=0",
    "maintenance.auto=false",
)
# Where a user may keep an identity, the config, the way to a remote and the borders of a search; any other GIT_* could
# point at another repo.
INHERITED = frozenset(
    {"GIT_AUTHOR_NAME", "GIT_AUTHOR_EMAIL", "GIT_COMMITTER_NAME", "GIT_COMMITTER_EMAIL"}
    | {"GIT_CONFIG_GLOBAL", "GIT_CONFIG_SYSTEM", "GIT_CONFIG_NOSYSTEM"}
    | {"GIT_CEILING_DIRECTORIES", "GIT_DISCOVERY_ACROSS_FILESYSTEM"}
    | {"GIT_SSH", "GIT_SSH_COMMAND", "GIT_SSH_VARIANT", "GIT_SSL_CAINFO", "GIT_PROXY_COMMAND"}
)


class Git:
    """Git on one repo's folder; errors begin with what it is asked `about`, most often an issue.

    With a `folder` it works on the files there, by the settings in the git directory `own` and nobody else's; objects
    are the repo's in both cases.
    """

    def __init__(self, common: Path, *, about: str, timeout_s: float, own: Path | None = None) -> None:
        self.common = common
        self.about = about
        self.own = own or common
        self._timeout_s = timeout_s

    def __call__(self, *args: str, folder: Path | None = None, stdin: str = "", **env: Path) -> str:
        """The output of `git args`, without its last newlines. WorkspaceError when git refuses."""
        done = self.attempt(*args, folder=folder, stdin=stdin, **env)
        if done.returncode:
            raise self.refused(args, done.stderr)
        return done.stdout.rstrip("\n")

    def ask(self, *args: str, folder: Path | None = None, stdin: str = "", **env: Path) -> str | None:
        """The same, or None when git refuses: for questions that may have no answer."""
        done = self.attempt(*args, folder=folder, stdin=stdin, **env)
        return None if done.returncode else done.stdout.rstrip("\n")

    def beside(self, folder: Path) -> Git:
        """The same for another repo, such as one of its submodules."""
        return Git(folder, about=self.about, timeout_s=self._timeout_s, own=self.own)

    def refused(self, args: Sequence[str], stderr: str) -> WorkspaceError:
        """The error for a call that git refused."""
        return WorkspaceError(
            f"{self.about}: git {_verb(args)} failed: {reason(stderr)}; "
            f"put it right in {self.common}, then reopen the issue"
        )

    def commit_of(self, name: str) -> str | None:
        """The commit that a ref or an id stands for, if there is one."""
        return self.commits_of(name)[0]

    def commits_of(self, *names: str) -> list[str | None]:
        """The same for several, in one call."""
        asked = "".join(f"{name}^{{commit}}\n" for name in names)
        said = (self.ask("cat-file", "--batch-check=%(objectname)", stdin=asked) or "").split("\n")
        found = [None if " " in line else line for line in said]
        return found if len(found) == len(names) else [None] * len(names)

    def tree_of(self, commit: str) -> str:
        """The commit's files."""
        return self("rev-parse", "--verify", f"{commit}^{{tree}}")

    def beyond(self, commit: str, *known: str) -> bool:
        """True when `commit` brings any commit that cannot be reached from `known`."""
        return bool(self("rev-list", "--max-count=1", commit, "--not", *known))

    def holds(self, tip: str, commit: str) -> bool:
        """True when `commit` can be reached from `tip`."""
        return self.ask("merge-base", "--is-ancestor", commit, tip) is not None

    def has_work(self, tip: str, commit: str) -> bool:
        """True when merging `commit` into `tip` would change nothing, also after a squash or a rebase.

        False where they conflict, and with a git older than 2.38, which cannot tell.
        """
        return self.ask("merge-tree", "--write-tree", tip, commit) == self.tree_of(tip)

    def record(self, tree: str, parent: str | None, message: str) -> str:
        """A commit object that no ref knows yet, by the user's git identity or else ours."""
        asked = ("-c", "user.useConfigOnly=true", "var")
        named = all(self.ask(*asked, name) for name in ("GIT_AUTHOR_IDENT", "GIT_COMMITTER_IDENT"))
        parents = ("-p", parent) if parent else ()
        return self(*(() if named else IDENTITY), "commit-tree", tree, *parents, stdin=message)

    def attempt(
        self, *args: str, folder: Path | None = None, stdin: str = "", **env: Path
    ) -> subprocess.CompletedProcess[str]:
        """What git did and said; a refusal is an answer too."""
        where, text = folder or self.common, stdin.encode("utf-8", "replace")
        places = {"GIT_DIR": self.common} if folder is None else {**self._alone(), "GIT_WORK_TREE": folder}
        try:
            return _decoded(run(args, folder=where, env={**places, **env}, stdin=text, timeout_s=self._timeout_s))
        except OSError as error:
            raise WorkspaceError(
                f"{self.about}: git {_verb(args)} could not be run in {where}: {error}; "
                "see that git is on PATH and the folder is there"
            ) from error
        except subprocess.TimeoutExpired as error:
            raise WorkspaceError(
                f"{self.about}: git {_verb(args)} did not end in {self._timeout_s:g} s and was stopped; "
                f"look for a slow disk or a hanging filter in {where}, then reopen the issue"
            ) from error

    def _alone(self) -> Mapping[str, Path | str]:
        """Our own git directory in place of the repo's, and no settings but those in it."""
        objects = {"GIT_DIR": self.own, "GIT_OBJECT_DIRECTORY": self.common / "objects"}
        return {**objects, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}


def question(folder: Path, *args: str, timeout_s: float = 20.0) -> subprocess.CompletedProcess[str]:
    """Ask git in a folder; a no is an answer too. WorkspaceError when there is no git, no folder, or no answer."""
    try:
        done = run(args, folder=folder, env={}, stdin=b"", timeout_s=timeout_s)
    except FileNotFoundError as error:
        missing = (
            f"there is no folder {folder}" if not folder.is_dir() else "git is not on PATH; install git 2.30 or newer"
        )
        raise WorkspaceError(missing) from error
    except OSError as error:
        raise WorkspaceError(f"{folder}: git could not be run: {error}") from error
    except subprocess.TimeoutExpired as error:
        raise WorkspaceError(f"{folder}: git did not answer in {timeout_s:g} s") from error
    return _decoded(done)


def _decoded(done: subprocess.CompletedProcess[bytes]) -> subprocess.CompletedProcess[str]:
    """The output keeps whatever bytes a file's name has; what git says about it is text."""
    out, err = os.fsdecode(done.stdout), done.stderr.decode("utf-8", "replace")
    return subprocess.CompletedProcess(done.args, done.returncode, out, err)


def run(
    args: Sequence[str], *, folder: Path, env: Mapping[str, Path | str], stdin: bytes, timeout_s: float
) -> subprocess.CompletedProcess[bytes]:
    """Run git in `folder`, in a clean environment; stopped with all it started when it takes too long or we must go."""
    foreign = ("GIT_", "ORCH_")  # git has no use for our tokens, and what runs as git can be looked into
    kept = {name: value for name, value in os.environ.items() if not name.startswith(foreign) or name in INHERITED}
    fixed = {"LC_ALL": "C", "GIT_TERMINAL_PROMPT": "0", "GIT_ASKPASS": "", "GIT_PAGER": "cat", "GIT_EDITOR": "false"}
    options = [word for setting in CONFIG for word in ("-c", setting)]
    argv = ["git", "--no-pager", *options, *args]
    pipe = subprocess.PIPE
    with subprocess.Popen(
        argv,
        cwd=folder,
        env=kept | fixed | {name: str(path) for name, path in env.items()},
        stdin=pipe,
        stdout=pipe,
        stderr=pipe,
        start_new_session=True,
    ) as git:
        try:
            out, err = git.communicate(stdin, timeout=timeout_s)
        except BaseException:
            _stop(git)
            raise
    return subprocess.CompletedProcess(argv, git.returncode, out, err)


def _stop(git: subprocess.Popen[bytes]) -> None:
    """SIGTERM first, because git then takes its lock files with it; SIGKILL for what is still there."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(git.pid, signal.SIGTERM)
        try:
            git.communicate(timeout=TERM_GRACE_S)
        except subprocess.TimeoutExpired:
            os.killpg(git.pid, signal.SIGKILL)


def _verb(args: Sequence[str]) -> str:
    """The subcommand, past options like `-c name=value`."""
    rest = list(args)
    while rest[0] == "-c":
        rest = rest[2:]
    return rest[0]


def reason(stderr: str) -> str:
    """The last error line of git, without the secrets that the address of a remote may have."""
    lines = [one_line(line) for line in redacted(stderr).splitlines() if line.strip()]
    grave = [line for line in lines if line.startswith(("fatal:", "error:"))]
    return (grave or lines or ["git said nothing"])[-1]
