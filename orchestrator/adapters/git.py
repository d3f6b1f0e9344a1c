"""The Workspace port over the `git` command line: one branch, one folder and one commit per step for each issue.

What this file knows and no other: an agent may do anything to its worktree (commit, switch branches, leave a rebase
going, delete `.git`), so nothing here believes the worktree's own `.git`, HEAD or index. We work through the repo's git
folder, the files, and an index of our own; the agent's side is put right at the end of every verb.

    refs/heads/orch/<issue>        the branch: the truth, and what is handed over
    refs/orch/start/<issue>        the commit the running step started from, so the parent of its commit
    refs/orch/wip/<issue>/<sha>    what was put aside: interrupted work, an agent's own commits. Never deleted here
    <worktrees>/<issue>/           the files
    <worktrees>/.orch/<issue>/     our lock, and our index, which no agent's git writes

Every verb goes in the same order, and that is why each may be cut off anywhere and run again: what could be lost is put
aside first, then branch and start move in one compare-and-swap, the files follow the branch last.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path

from orchestrator.commit_message import one_line
from orchestrator.errors import WorkspaceError
from orchestrator.ports import Worktree

ISSUE_ID = re.compile(r"i-[a-z0-9]+")
LISTED_SUBJECTS = 50
TERM_GRACE_S = 5.0

TRACKER_FOLDER = ".sudocode"
TRAILER = re.compile(r"[A-Za-z0-9-]+: ")
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
# Where a user may keep an identity or the global config; every other GIT_* could point git at another repo or index.
INHERITED = frozenset(
    {"GIT_AUTHOR_NAME", "GIT_AUTHOR_EMAIL", "GIT_COMMITTER_NAME", "GIT_COMMITTER_EMAIL"}
    | {"GIT_CONFIG_GLOBAL", "GIT_CONFIG_SYSTEM", "GIT_CONFIG_NOSYSTEM"}
)
# What an unfinished merge, rebase, pick, bisect or a killed git leaves in a worktree's git folder.
LEFTOVERS = ("*.lock", "*_HEAD", "MERGE_*", "AUTO_MERGE", "SQUASH_MSG", "rebase-*", "sequencer", "BISECT_*")


def create_project(folder: Path, files: Mapping[str, str], *, branch: str = "main") -> str:
    """A git repo in `folder` whose `branch` holds `files` in one commit; gives the commit.

    Running it again changes nothing: a repo that has a commit is left as it is.
    """
    folder.mkdir(parents=True, exist_ok=True)

    def git(*args: str) -> str:
        done = _run(args, folder=folder, env={}, stdin=b"", timeout_s=60)
        if done.returncode:
            raise WorkspaceError(f"no project could be made in {folder}: {_reason(done.stderr)}; name another folder")
        return os.fsdecode(done.stdout).strip()

    git("init", "--quiet", "--template=", f"--initial-branch={branch}")
    if not git("rev-list", "--all", "--max-count=1"):
        for name, text in files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        git("add", "--all")
        git(*IDENTITY, "commit", "--quiet", "--allow-empty", "--message=Start the project")
    return git("rev-parse", "HEAD")


class GitWorkspace:
    """The worktrees of `repo` under `worktrees`, each grown from branch `base`. Never touches the main checkout.

    Each git call may take `timeout_s`. Processes and threads may call at once: verbs on one issue wait for each other.
    """

    def __init__(self, repo: Path, *, worktrees: Path, base: str, timeout_s: float = 120.0) -> None:
        self._repo = repo
        self._worktrees = worktrees.resolve()
        self._base = base
        self._timeout_s = timeout_s

    def prepare(self, issue_id: str, *, start_from: str = "") -> Worktree:
        """The issue's worktree on `orch/<issue-id>`, clean and ready for a step.

        A new branch grows out of `start_from` if that has work of its own, else out of base.
        A branch with work that base does not have is continued; any other stands where base stands now. Work left by an
        interrupted step is put aside. Running it again is harmless: there is then nothing to put aside, and refs and
        files are where they should be.
        """
        with self._checkout(issue_id) as checkout:
            base = self._base_commit(checkout)
            found = checkout.commit_of(checkout.branch_ref)
            first = checkout.commit_of(f"refs/heads/{start_from}") if start_from else None
            tip = next((there for there in (found, first) if there and checkout.beyond(there, base)), base)
            grown_from = checkout.merge_base(base, tip)
            checkout.free_branch(found)
            checkout.path.mkdir(parents=True, exist_ok=True)
            checkout.put_aside(checkout.write_files(tip), known=(tip, base))
            checkout.move(found, tip)
            checkout.show(tip)
            checkout.sweep()
            return Worktree(issue_id, checkout.path, checkout.branch, grown_from)

    def head(self, worktree: Worktree) -> str:
        """The commit the branch stands on; where the worktree's HEAD stands does not matter."""
        checkout = self._look(worktree.issue_id)
        return checkout.need(checkout.branch_ref, do="prepare the worktree again")

    def commit(self, worktree: Worktree, message: str) -> str:
        """All changes since the step started as exactly one commit on the branch; without changes, the branch's commit.

        Ignored files and `.sudocode` are left out, and what happened to `.sudocode` is undone. Commits that the agent
        made itself are squashed: listed in the message, put aside in git. Running it again is harmless: start moves
        with the branch, so there is nothing more to commit; cut off before that, the same commit is made once more.
        """
        with self._checkout(worktree.issue_id) as checkout:
            checkout.need_folder()
            start = checkout.need(checkout.start_ref, do="prepare the worktree again")
            found = checkout.commit_of(checkout.branch_ref)
            own = [commit for commit in (found, checkout.agent_head()) if commit]
            tree = checkout.write_files(start, without=TRACKER_FOLDER)
            new = start
            if tree != checkout.tree_of(start):
                known = [commit for commit in (start, self._find_base(checkout)) if commit]
                new = checkout.record(tree, start, _with_list(message, checkout.subjects(own, known)))
            checkout.put_aside(None, known=(new,))
            checkout.move(found, new)
            checkout.show(new)
            return new

    def restore(self, worktree: Worktree, commit: str) -> list[str]:
        """Put branch, HEAD, index and files back to `commit`; gives the changed paths, untracked ones too, sorted.

        Ignored files stay, and what is thrown away here is put aside in git. Running it again gives an empty list.
        """
        with self._checkout(worktree.issue_id) as checkout:
            checkout.need_folder()
            target = checkout.need(commit, do="restore to a commit that `head` or `commit` gave")
            found = checkout.commit_of(checkout.branch_ref)
            tree = checkout.write_files(target)
            discarded = checkout.paths_between(target, tree)
            checkout.put_aside(tree, known=(target,))
            checkout.move(found, target)
            checkout.show(target)
            checkout.sweep()
            return discarded

    def change(self, worktree: Worktree, *, max_chars: int) -> str:
        """Files changed from base to the branch, then the diff, in max_chars characters; empty when nothing changed.

        When it is cut, its last line says how much is missing and which command shows it.
        """
        checkout = self._look(worktree.issue_id)
        span = (worktree.base, checkout.need(checkout.branch_ref, do="prepare the worktree again"))
        listed = checkout.git("diff-tree", "-r", "-M", "--name-status", *span)
        diff = checkout.git("diff-tree", "-r", "-M", "-p", "--no-ext-diff", "--no-textconv", "--no-color", *span)
        whole = os.fsencode(f"{listed}\n\n{diff}\n" if listed else "").decode("utf-8", "replace")
        return _cut(whole.replace("\0", "\ufffd"), max_chars, rest=f"git diff {worktree.base[:12]}..{worktree.branch}")

    def drop(self, issue_id: str) -> None:
        """Remove the worktree, also a broken one; the branch stays, and work not committed is put aside in git.

        Running it again changes nothing; cut off, it goes on where it was.
        """
        with self._checkout(issue_id) as checkout:
            tip = checkout.commit_of(checkout.branch_ref)
            tree = checkout.write_files(tip) if checkout.path.is_dir() else None
            checkout.put_aside(tree, known=(tip,) if tip else ())
            checkout.remove()

    def _base_commit(self, checkout: _Checkout) -> str:
        found = self._find_base(checkout)
        if found is None:
            raise WorkspaceError(
                f"{checkout.issue_id}: {self._repo} has no commit on a branch {self._base} or origin/{self._base}; "
                "set `base` in orch.toml to the branch that work starts from"
            )
        return found

    def _find_base(self, checkout: _Checkout) -> str | None:
        return checkout.commit_of(f"refs/heads/{self._base}") or checkout.commit_of(f"refs/remotes/origin/{self._base}")

    def _look(self, issue_id: str) -> _Checkout:
        if not ISSUE_ID.fullmatch(issue_id):
            raise WorkspaceError(
                f"{issue_id!r} is no issue id: it names a folder and a branch, so it must be like i-x7k9"
            )
        return _Checkout(issue_id, folders=self._git_folders, worktrees=self._worktrees, timeout_s=self._timeout_s)

    @contextlib.contextmanager
    def _checkout(self, issue_id: str) -> Iterator[_Checkout]:
        """The issue's checkout, for us alone, so what a killed git left locked is ours to unlock."""
        checkout = self._look(issue_id)
        try:
            with _flock(checkout.state / "lock"):
                checkout.recover()
                yield checkout
        except OSError as error:
            raise WorkspaceError(
                f"{issue_id}: the worktree could not be changed: {error}; check disk and owner"
            ) from error

    @cached_property
    def _git_folders(self) -> tuple[Path, Path]:
        """The git folder that all worktrees share, and the main checkout's own (most often the same)."""
        args = ("rev-parse", "--git-common-dir", "--absolute-git-dir")
        try:
            done = _run(args, folder=self._repo, env={}, stdin=b"", timeout_s=self._timeout_s)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise WorkspaceError(
                f"git cannot be asked about {self._repo}: {error}; check git and `repo` in orch.toml"
            ) from error
        if done.returncode:
            raise WorkspaceError(
                f"{self._repo} is no git repo for us: {_reason(done.stderr)}; check `repo` in orch.toml"
            )
        common, own = os.fsdecode(done.stdout).splitlines()
        return (self._repo / common).resolve(), Path(own).resolve()


class _Checkout:
    """One issue's refs, files and index, seen from the repo's side. Each method is one thing to ask of git."""

    def __init__(self, issue_id: str, *, folders: tuple[Path, Path], worktrees: Path, timeout_s: float) -> None:
        self.issue_id = issue_id
        self.branch = f"orch/{issue_id}"
        self.branch_ref = f"refs/heads/{self.branch}"
        self.start_ref = f"refs/orch/start/{issue_id}"
        self.path = worktrees / issue_id
        self.state = worktrees / ".orch" / issue_id
        self._repo_lock = worktrees / ".orch" / "lock"
        self._index = self.state / "index"
        self._common, self._main = folders
        self._timeout_s = timeout_s

    # Asking git

    def git(self, *args: str, folder: Path | None = None, stdin: str = "", **env: Path) -> str:
        """What `git args` prints, without its last newlines; with a `folder`, on its files and our index."""
        done = self._ask(args, folder, stdin, env)
        if done.returncode:
            raise WorkspaceError(
                f"{self.issue_id}: git {_verb(args)} failed: {_reason(done.stderr)}; "
                f"put it right in {self._common}, then reopen the issue"
            )
        return os.fsdecode(done.stdout).rstrip("\n")

    def try_git(self, *args: str, **env: Path) -> str | None:
        """The same, or None when git refuses: for questions that may have no answer."""
        done = self._ask(args, None, "", env)
        return None if done.returncode else os.fsdecode(done.stdout).rstrip("\n")

    def _ask(
        self, args: Sequence[str], folder: Path | None, stdin: str, env: Mapping[str, Path]
    ) -> subprocess.CompletedProcess[bytes]:
        places = {"GIT_DIR": self._common}
        if folder is not None:
            places |= {"GIT_WORK_TREE": folder, "GIT_INDEX_FILE": self._index}
        where, text = folder or self._common, stdin.encode("utf-8", "replace")
        try:
            return _run(args, folder=where, env={**places, **env}, stdin=text, timeout_s=self._timeout_s)
        except OSError as error:
            raise WorkspaceError(
                f"{self.issue_id}: git {_verb(args)} could not be run in {where}: {error}; "
                "see that git is on PATH and the folder is there"
            ) from error
        except subprocess.TimeoutExpired as error:
            raise WorkspaceError(
                f"{self.issue_id}: git {_verb(args)} did not end in {self._timeout_s:g} s and was stopped; "
                f"look for a slow disk or a hanging filter in {self.path}, then reopen the issue"
            ) from error

    # Commits

    def commit_of(self, name: str) -> str | None:
        """The commit that a ref or an id stands for, if there is one."""
        return self.try_git("rev-parse", "--verify", "--quiet", f"{name}^{{commit}}")

    def need(self, name: str, *, do: str) -> str:
        """The same, and an error that says what to `do` when there is none."""
        if (commit := self.commit_of(name)) is None:
            raise WorkspaceError(f"{self.issue_id}: {name} is no commit of {self._common}; {do}")
        return commit

    def tree_of(self, commit: str) -> str:
        return self.git("rev-parse", "--verify", f"{commit}^{{tree}}")

    def merge_base(self, base: str, tip: str) -> str:
        if (found := self.try_git("merge-base", base, tip)) is None:
            raise WorkspaceError(
                f"{self.issue_id}: {self.branch} shares no history with base; rename that branch, then reopen the issue"
            )
        return found

    def beyond(self, commit: str, *known: str) -> bool:
        """Does `commit` bring any commit that cannot be reached from `known`?"""
        return bool(self.git("rev-list", "--max-count=1", commit, "--not", *known))

    def subjects(self, commits: Sequence[str], known: Sequence[str]) -> list[str]:
        """First lines of the commits that lead to `commits` from `known`, oldest first."""
        if not commits:
            return []
        shape = ("--no-show-signature", "--no-color", "--format=%s", "--reverse", f"--max-count={LISTED_SUBJECTS}")
        return self.git("log", *shape, *commits, "--not", *known).splitlines()

    def paths_between(self, commit: str, tree: str) -> list[str]:
        names = os.fsencode(self.git("diff-tree", "-r", "-z", "--name-only", "--no-renames", commit, tree)).split(b"\0")
        return sorted(name.decode("utf-8", "replace") for name in names if name)

    def record(self, tree: str, parent: str | None, message: str) -> str:
        """A commit object that no ref knows yet, by the user's git identity or else ours."""
        asked = ("-c", "user.useConfigOnly=true", "var")
        named = all(self.try_git(*asked, name) for name in ("GIT_AUTHOR_IDENT", "GIT_COMMITTER_IDENT"))
        parents = ("-p", parent) if parent else ()
        return self.git(*(() if named else IDENTITY), "commit-tree", tree, *parents, stdin=message)

    def put_aside(self, tree: str | None, *, known: Sequence[str]) -> None:
        """Give a ref under refs/orch/wip to what `known` does not hold: commits of the step, the files in `tree`."""
        head = self.agent_head()
        left = {self.commit_of(self.branch_ref), self.commit_of(self.start_ref), head}.difference(known)
        aside = {commit for commit in left if commit and self.beyond(commit, *known)}
        if tree is not None:
            parent = head or next(iter(known), None)
            there = {self.tree_of(commit) for commit in {parent, *known} if commit}
            if tree not in there and self.git("ls-tree", tree):
                aside.add(self.record(tree, parent, f"Work in progress on {self.issue_id}, put aside\n"))
        for commit in sorted(aside):
            self.git("update-ref", f"refs/orch/wip/{self.issue_id}/{commit[:12]}", commit)

    def move(self, found: str | None, commit: str) -> None:
        """Branch and start to `commit`, in one transaction, if the branch is still where we `found` it."""
        branch = f"update {self.branch_ref} {commit} {found}" if found else f"create {self.branch_ref} {commit}"
        self.git("update-ref", "-m", "orch", "--stdin", stdin=f"{branch}\nupdate {self.start_ref} {commit}\n")

    # Files

    def need_folder(self) -> None:
        if not self.path.is_dir() or self.path.is_symlink():
            raise WorkspaceError(f"{self.issue_id}: the worktree {self.path} is gone; prepare it again")

    def write_files(self, onto: str | None, *, without: str = "") -> str:
        """The files as a tree object: those of commit `onto` with all that was changed, added or deleted since.

        Ignored files are not in it; of the folder `without` it has what `onto` has. Leaves the same in our index.
        """
        spared = (f":(top,exclude,literal){without}",) if without else ()
        self._read(onto, self.path, self._index)
        declared = self._submodules()
        embedded = [name for name in self._embedded(self.path, self._index, spared) if name not in declared]
        return self._write(self.path, self._index, embedded, spared)

    def _write(self, folder: Path, index: Path, embedded: Sequence[str], spared: Sequence[str]) -> str:
        """Files of a repo inside the folder become ordinary files: a link to a repo that none can fetch loses them."""
        others = (*spared, *(f":(top,exclude,literal){name}" for name in embedded))
        self.git("add", "--all", "--", ".", *others, folder=folder, GIT_INDEX_FILE=index)
        for name in embedded:
            inner, scratch = folder / name, index.with_name(f"{index.name}+")
            self._read(None, inner, scratch)
            tree = self._write(inner, scratch, self._embedded(inner, scratch, ()), ())
            self.git("update-index", "--force-remove", "--", name, folder=folder, GIT_INDEX_FILE=index)
            self.git("read-tree", f"--prefix={name}/", tree, folder=folder, GIT_INDEX_FILE=index)
        return self.git("write-tree", folder=folder, GIT_INDEX_FILE=index)

    def _read(self, commit: str | None, folder: Path, index: Path) -> None:
        source = ("--reset", commit) if commit else ("--empty",)
        self.git("read-tree", "--no-recurse-submodules", *source, folder=folder, GIT_INDEX_FILE=index)

    def _embedded(self, folder: Path, index: Path, spared: Sequence[str]) -> list[str]:
        """Folders with a git repo of their own: the only ones that `ls-files` names, with a slash at the end."""
        listing = ("ls-files", "--others", "--killed", "--exclude-standard", "-z", "--", ".", *spared)
        names = self.git(*listing, folder=folder, GIT_INDEX_FILE=index).split("\0")
        return [name.rstrip("/") for name in names if name.endswith("/")]

    def _submodules(self) -> set[str]:
        """Embedded repos that are meant as such: `.gitmodules` says where they come from."""
        declared = self.path / ".gitmodules"
        if not declared.is_file():
            return set()
        listing = ("config", "--file", str(declared), "--null", "--get-regexp", r"^submodule\..*\.path$")
        entries = (self.try_git(*listing) or "").split("\0")
        return {entry.partition("\n")[2] for entry in entries if entry}

    def show(self, commit: str) -> None:
        """Files and index as in `commit`, where they differ; `.sudocode` to the last ignored file; a sound worktree."""
        self.git("read-tree", "--no-recurse-submodules", "--reset", "-u", commit, folder=self.path)
        self.git("clean", "-ffdxq", "--", f":(top,literal){TRACKER_FOLDER}", folder=self.path)
        self._attach(commit)

    def sweep(self) -> None:
        """Remove what is neither in the index nor ignored: empty folders, git folders of embedded repos."""
        self.git("clean", "-ffdq", folder=self.path)

    def recover(self) -> None:
        """Clear what a killed git or a power cut left: locks on what is ours, an index that cannot be read."""
        refs = [self._common / f"{ref}.lock" for ref in (self.branch_ref, self.start_ref)]
        for lock in (*self.state.glob("*.lock"), *refs):
            lock.unlink(missing_ok=True)
        if self.try_git("ls-files", "--unmerged", GIT_INDEX_FILE=self._index) is None:
            self._index.unlink(missing_ok=True)  # only costs reading every file once more
        if self.path.is_symlink() or self.path.is_file():
            self.path.unlink()

    # The agent's side: what its git sees in the worktree

    def agent_head(self) -> str | None:
        """The commit that the worktree's own HEAD stands on: another one than the branch's when the agent switched."""
        admin = self._admin()
        head = self.try_git("rev-parse", "--verify", "--quiet", "HEAD^{commit}", GIT_DIR=admin) if admin else None
        return self.commit_of(head) if head else None

    def free_branch(self, tip: str | None) -> None:
        """Let go of the branch where else it is checked out: an old worktree keeps its files, with a detached HEAD."""
        on_branch = f"ref: {self.branch_ref}"
        for folder in {self._common, self._main}:
            if _content(folder / "HEAD") == on_branch:
                raise WorkspaceError(
                    f"{self.issue_id}: {self.branch} is checked out in the main checkout of {self._common}; "
                    "switch it to another branch, then reopen the issue"
                )
        for head in self._common.glob("worktrees/*/HEAD"):
            if tip and _content(head) == on_branch and not self._claims(head.parent):
                # A registration that git cannot read is no checkout either: nothing to let go of.
                self.try_git("update-ref", "--no-deref", "HEAD", tip, GIT_DIR=head.parent)

    def remove(self) -> None:
        """Files, registration, start and our index; the order lets a second run find what is left."""
        _remove(self.path)
        with _flock(self._repo_lock):
            self._deregister()
        self.git("update-ref", "-d", self.start_ref)
        self._index.unlink(missing_ok=True)

    def _attach(self, commit: str) -> None:
        """A worktree as git itself would have left it: on the branch, our index, nothing in progress."""
        admin = self._admin() or self._register(commit)
        pointer = f"gitdir: {admin}"
        if _content(self.path / ".git") != pointer:
            _remove(self.path / ".git")
            (self.path / ".git").write_text(f"{pointer}\n", encoding="utf-8")
        for pattern in LEFTOVERS:
            for leftover in admin.glob(pattern):
                _remove(leftover)
        self.git("symbolic-ref", "-m", "orch", "HEAD", self.branch_ref, GIT_DIR=admin)
        # With its times: git tells by them whether a file changed after the index was written.
        shutil.copy2(self._index, admin / "index.orch")
        (admin / "index.orch").replace(admin / "index")

    def _register(self, commit: str) -> Path:
        """Make git know the folder as a worktree while its files stay: added beside it, then pointed to it."""
        scratch = self.state / "new" / self.issue_id
        with _flock(self._repo_lock):
            self._deregister()
            _remove(scratch)
            self.git("worktree", "add", "--force", "--force", "--no-checkout", "--detach", str(scratch), commit)
            admin = Path(_content(scratch / ".git").removeprefix("gitdir: "))
            (admin / "gitdir").write_text(f"{self.path / '.git'}\n", encoding="utf-8")
            _remove(scratch)
        return admin

    def _deregister(self) -> None:
        for admin in self._common.glob("worktrees/*"):
            if self._claims(admin):
                _remove(admin)

    def _admin(self) -> Path | None:
        """Git's own folder for this worktree if git can read it and it is of our repo; found from the repo's side."""
        for admin in self._common.glob("worktrees/*"):
            if self._claims(admin):
                common = self.try_git("rev-parse", "--git-common-dir", GIT_DIR=admin)
                if common and (admin / common).resolve() == self._common:
                    return admin
        return None

    def _claims(self, admin: Path) -> bool:
        """Is it the registration of our folder, or one by its name that was cut off before it said whose it is?"""
        pointer = _content(admin / "gitdir")
        if not pointer:
            return admin.name == self.issue_id
        return os.path.normpath(admin / pointer) == str(self.path / ".git")


def _run(
    args: Sequence[str], *, folder: Path, env: Mapping[str, Path], stdin: bytes, timeout_s: float
) -> subprocess.CompletedProcess[bytes]:
    """Run git in `folder`, in a clean environment; stopped with all it started when it takes too long or we must go."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GIT_") or name in INHERITED}
    fixed = {"LC_ALL": "C", "GIT_TERMINAL_PROMPT": "0", "GIT_PAGER": "cat", "GIT_EDITOR": "false"}
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


@contextlib.contextmanager
def _flock(path: Path) -> Iterator[None]:
    """Alone among processes and threads. Ends with its process; waits no longer than the git calls made under it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _remove(path: Path) -> None:
    """Remove a file or a whole folder; a link, never what it points to; nothing when nothing is there."""
    if not path.is_dir() or path.is_symlink():
        path.unlink(missing_ok=True)
        return
    for folder, _, _ in os.walk(path):
        Path(folder).chmod(0o700)  # module caches are read-only and could not be removed
    shutil.rmtree(path)


def _content(path: Path) -> str:
    """A small file of git's in one line; empty when there is none, or something else in its place."""
    try:
        return path.read_text(encoding="utf-8", errors="surrogateescape").strip()
    except OSError:
        return ""


def _verb(args: Sequence[str]) -> str:
    """The subcommand, past options like `-c name=value`."""
    rest = list(args)
    while rest[0] == "-c":
        rest = rest[2:]
    return rest[0]


def _reason(stderr: bytes) -> str:
    """Git's last word on what went wrong."""
    lines = [one_line(line) for line in stderr.decode("utf-8", "replace").splitlines() if line.strip()]
    grave = [line for line in lines if line.startswith(("fatal:", "error:"))]
    return (grave or lines or ["git said nothing"])[-1]


def _with_list(message: str, subjects: Sequence[str]) -> str:
    """The message with the subjects of squashed commits, before its trailers: those stay the last block."""
    text = message.rstrip()
    if not subjects:
        return f"{text}\n"
    listing = "\n".join(("Squashed, as the agent had named them:", *(f"- {one_line(line)}" for line in subjects)))
    before, _, last = text.rpartition("\n\n")
    if before and all(TRAILER.match(line) for line in last.splitlines()):
        return f"{before}\n\n{listing}\n\n{last}\n"
    return f"{text}\n\n{listing}\n"


def _cut(text: str, max_chars: int, *, rest: str) -> str:
    """Text in max_chars characters, cut after a whole line, with a last line that says so."""
    if len(text) <= max_chars:
        return text
    note = "[cut: {} of {} characters are not shown; `{}` shows all]\n"
    room = max(0, max_chars - len(note.format(len(text), len(text), rest)))
    shown = text[: text.rfind("\n", 0, room) + 1] or text[:room]
    return shown + note.format(len(text) - len(shown), len(text), rest)
