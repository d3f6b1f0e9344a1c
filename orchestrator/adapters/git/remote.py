"""An issue's work on the repo's remote, for other hosts to go on from: `refs/orch/<issue>`, which is its own fence.

The commit that the ref stands on names the token of the lease under which it was pushed, and every push is a
compare-and-swap from the value that was there. A worker that takes a session up pushes at once; where it has no commit
of its own yet, a marker, which changes nothing. So a worker that held the session before, froze and wakes finds another
value, and the server refuses its push, whatever its clock and its Redis tell it.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import structlog

from orchestrator.adapters.git.clone import large_files
from orchestrator.adapters.git.command import Git, run
from orchestrator.adapters.git.refs import branch_ref, remote_ref
from orchestrator.errors import CommitMissing, LeaseLost, WorkspaceError
from orchestrator.models import NOTHING_FETCHED, Fetched, Lease, branch_of
from orchestrator.text import commit_message, one_line, redacted

log = structlog.get_logger(__name__)

TRIES = 5
LARGE_S = 900.0
"""The time that large files may take."""
SSH = "ssh -o BatchMode=yes -o ConnectTimeout=10"
# Objects, and nothing else: no ref, no FETCH_HEAD, so any number may fetch into one repo at once.
FETCH = (
    *("-c", "fetch.writeCommitGraph=false", "fetch", "--quiet", "--no-tags", "--no-prune", "--no-recurse-submodules"),
    *("--no-write-fetch-head", "--refmap="),
)
PUSH = (
    *("-c", "push.pushOption=", "push", "--quiet", "--no-verify", "--no-follow-tags", "--no-signed"),
    "--recurse-submodules=no",
)

TOKEN, HOLDER = "Orch-Token", "Orch-Holder"
"""Trailers: the token is in our commits and markers, the holder in markers only."""


class RemoteAway(Exception):
    """The remote does not answer, or refuses; the message says why. Never leaves this package."""


class RemoteRefs:
    """The refs of one remote, read and moved by git, each call within `answer_s`. Raises `RemoteAway`."""

    def __init__(self, git: Git, name: str, *, answer_s: float) -> None:
        self.git = git
        self.name = name
        self._answer_s = answer_s

    def exists(self) -> bool:
        """True when the repo has a remote of this name."""
        return bool(self.name) and self.git.ask("remote", "get-url", self.name) is not None

    def list(self, *patterns: str) -> dict[str, str]:
        """The commits of the refs that match, by the refs' names."""
        lines = self._run("ls-remote", "--refs", self.name, *patterns).splitlines()
        return {ref: commit for commit, ref in (line.split("\t") for line in lines)}

    def read(self, *patterns: str) -> dict[str, str]:
        """The same, and the commits are in this clone then."""
        for _ in range(TRIES):
            found = self.list(*patterns)
            missing = [ref for ref, commit in found.items() if self.git.commit_of(commit) is None]
            if not missing:
                return found
            self._run(*FETCH, self.name, *missing)
        raise RemoteAway(f"{missing[0]} moves faster than it can be fetched")

    def swap(self, ref: str, old: str, new: str) -> None:
        """Move the ref from `old` to `new`, if it is still there; empty stands for no ref. Large files go first."""
        if new and shutil.which("git-lfs") and (large_files(self.git) / "objects").is_dir():
            # As its hook does it, and no hook runs here: told the ref, it sends what the remote lacks.
            told = f"{ref} {new} {ref} {old or '0' * len(new)}\n"
            self._run("lfs", "pre-push", self.name, self.name, stdin=told, answer_s=LARGE_S)
        self._run(*PUSH, f"--force-with-lease={ref}:{old}", self.name, f"{new}:{ref}")

    def _run(self, *args: str, stdin: str = "", answer_s: float = 0.0) -> str:
        limit_s = answer_s or self._answer_s
        env = {"GIT_DIR": str(self.git.common), **self._ssh()}
        try:
            done = run(args, folder=self.git.common, env=env, stdin=stdin.encode(), timeout_s=limit_s)
        except OSError as error:
            raise RemoteAway(str(error)) from error
        except subprocess.TimeoutExpired as error:
            raise RemoteAway(f"it did not answer in {limit_s:g} s") from error
        if done.returncode:
            raise RemoteAway(_why(done.stderr.decode("utf-8", "replace")))
        return os.fsdecode(done.stdout)

    def _ssh(self) -> dict[str, str]:
        """Have ssh fail instead of asking a question, unless the user has chosen how it is run."""
        chosen = {"GIT_SSH", "GIT_SSH_COMMAND"} & os.environ.keys() or self.git.ask("config", "core.sshCommand")
        return {} if chosen else {"GIT_SSH_COMMAND": SSH}


class GitRemote:
    """One holder's work on one issue, on the remote: `host` is where the holder runs.

    A remote that is away or refuses costs one warning line, whatever is asked of it; without a remote nothing is said.
    """

    def __init__(self, refs: RemoteRefs, *, base: str, lease: Lease, host: str) -> None:
        self._refs = refs
        self._git = refs.git
        self._lease = lease
        self._host = host
        self._ref = remote_ref(branch_of(lease.issue_id))
        self._base_ref = f"refs/heads/{base}"
        self._value: str | None = None  # the commit of the ref as far as we know, empty without a ref
        self._work = ""  # the commit that it has of us
        self._there = refs.exists()
        self._warned = False

    def fetch(self) -> Fetched:
        """Fetch the issue's commit, that of the branch it grows out of, and the base's."""
        if not self._there:
            return NOTHING_FETCHED
        start_from = self._lease.record.start_from
        first = remote_ref(start_from) if start_from else self._base_ref
        found: dict[str, str] = {}
        with self._forgiving():
            found = self._refs.read(self._ref, first, self._base_ref)
            self._value = found.get(self._ref, "")
        work, grown_from, base = (found.get(ref, "") for ref in (self._ref, first, self._base_ref))
        return Fetched(work_of(self._git, work), work_of(self._git, grown_from), base)

    def push(self, commit: str) -> None:
        """The remote has `commit` for the issue, under our token. Raises LeaseLost where it has a newer token.

        Running it again is harmless: what we pushed is there already, or a newer holder's work is.
        """
        if commit == self._work or not self._there:
            return
        with self._forgiving():
            self._put(commit if self._token(commit) == self._lease.token else self._marker(commit))
            self._work = commit

    def _put(self, new: str) -> None:
        """Judged by what became of the ref: an answer may be lost, and servers word their refusals as they like."""
        for _ in range(TRIES):
            before = self._known()
            try:
                self._refs.swap(self._ref, before, new)
                self._value = new
            except RemoteAway:
                self._value = None
                if self._known() == before:
                    raise
            if self._value == new:
                return
        raise RemoteAway(f"{self._ref} moves all the time")

    def _known(self) -> str:
        """The commit of the ref, as far as we know. LeaseLost when it bears a newer token than ours."""
        if self._value is None:
            self._value = self._refs.read(self._ref).get(self._ref, "")
        if self._token(self._value) > self._lease.token:
            raise LeaseLost(
                f"{self._lease.issue_id}: a worker with a newer lease has pushed to {self._refs.name}; "
                "nothing more is written here"
            )
        return self._value

    def _token(self, commit: str) -> int:
        """The token that a commit was made under; 0 for one that is not ours."""
        named = trailer(self._git, commit, TOKEN) if commit else ""
        return int(named) if named.isdecimal() else 0

    def _marker(self, commit: str) -> str:
        lease = self._lease
        message = commit_message(
            subject=f"Take up {lease.issue_id}",
            body="Changes nothing: from here on only this holder, or a newer one, can push.",
            trailers={
                "Sudocode-Issue": lease.issue_id,
                "Orch-Session": lease.record.session_id,
                TOKEN: str(lease.token),
                HOLDER: self._host,
            },
        )
        return self._git.record(self._git.tree_of(commit), commit, message)

    @contextmanager
    def _forgiving(self) -> Iterator[None]:
        """One warning for a remote that is away."""
        try:
            yield
        except RemoteAway as away:
            if not self._warned:
                log.warning(
                    "not_on_remote",
                    remote=self._refs.name,
                    reason=str(away),
                    hint='until it is, no other host can resume this session; remote = "" in orch.toml stops trying',
                )
            self._warned = True


class GitDelivery:
    """Finished work on the remote, as the branch that a person or a forge merges."""

    def __init__(self, refs: RemoteRefs) -> None:
        self._refs = refs

    def push(self, issue_id: str, commit: str) -> None:
        """Put the remote's `orch/<issue-id>` on `commit`. Raises WorkspaceError when the remote is away or refuses.

        Running it again changes nothing. A branch with commits that are not ours is left as it is.
        """
        name, branch = branch_of(issue_id), branch_ref(issue_id)
        try:
            found = self._refs.read(branch, remote_ref(name))
            if self._refs.git.commit_of(commit) is None:
                raise CommitMissing(f"{issue_id}: commit {commit[:12]} is neither here nor on {self._refs.name}")
            there = found.get(branch, "")
            if there and not self._ours(there, issue_id, commit):
                raise WorkspaceError(
                    f"{issue_id}: somebody else has pushed to {name} on {self._refs.name}; "
                    "merge or remove what is there, and the work is pushed"
                )
            if there != commit:
                self._refs.swap(branch, there, commit)
        except RemoteAway as away:
            raise WorkspaceError(f"{issue_id}: {name} could not be pushed: {away}") from away

    def _ours(self, there: str, issue_id: str, commit: str) -> bool:
        """True when replacing it loses no work of others: our commit has it, or a session of the issue made it."""
        if not self._refs.git.beyond(there, commit):
            return True
        return (
            trailer(self._refs.git, there, TOKEN) != "" and trailer(self._refs.git, there, "Sudocode-Issue") == issue_id
        )


def _why(stderr: str) -> str:
    """The server's reason for refusing a ref, else the first error line: the last one only repeats that it failed."""
    stderr = redacted(stderr)
    if rejected := re.search(r"\[(?:remote )?rejected\].*\((.*)\)", stderr):
        return rejected[1]
    said = (one_line(line) for line in stderr.splitlines())
    return next((line for line in said if line and not line.startswith("Warning:")), "git said nothing")


def work_of(git: Git, commit: str) -> str:
    """The commit itself, or what it marks."""
    return git("rev-parse", f"{commit}^") if commit and trailer(git, commit, HOLDER) else commit


def trailer(git: Git, commit: str, key: str) -> str:
    """The last value of a trailer, empty without one."""
    shape = ("--max-count=1", "--no-show-signature", "--no-color", f"--format=%(trailers:key={key},valueonly)")
    return (git.ask("log", *shape, commit) or "").strip().rpartition("\n")[2]
