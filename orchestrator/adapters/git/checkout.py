"""One issue's refs, files and index, seen from the repo's side: an agent's own `.git` and index are not believed."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

from orchestrator.adapters.git.command import Git
from orchestrator.adapters.git.refs import aside_ref, branch_ref, start_ref
from orchestrator.errors import CommitMissing, WorkspaceError
from orchestrator.models import branch_of

LISTED_SUBJECTS = 50
LOCK_LOOK_S = 0.02
TRACKER_FOLDER = ".sudocode"

# What an unfinished merge, rebase, pick, bisect or a killed git leaves in a worktree's git folder.
LEFTOVERS = ("*.lock", "*_HEAD", "MERGE_*", "AUTO_MERGE", "SQUASH_MSG", "rebase-*", "sequencer", "BISECT_*")


class Checkout:
    """One issue's refs, files and index, seen from the repo's side. Each method is one thing to ask of git."""

    def __init__(
        self, issue_id: str, *, folders: tuple[Path, Path], worktrees: Path, timeout_s: float, lock_s: float
    ) -> None:
        self.issue_id = issue_id
        self.branch = branch_of(issue_id)
        self.branch_ref = branch_ref(issue_id)
        self.start_ref = start_ref(issue_id)
        self.path = worktrees / issue_id
        self.state = worktrees / ".orch" / issue_id
        self._lock_s = lock_s
        self._worktrees_lock = worktrees / ".orch" / "lock"
        self._index = self.state / "index"
        self._common, self._main = folders
        self.git = Git(self._common, about=issue_id, index=self._index, timeout_s=timeout_s)

    def alone(self) -> contextlib.AbstractContextManager[None]:
        """The verbs on one issue wait for each other."""
        return flock(self.state / "lock", patience_s=self._lock_s)

    def _registering(self) -> contextlib.AbstractContextManager[None]:
        """Git's list of worktrees is one for all issues."""
        return flock(self._worktrees_lock, patience_s=self._lock_s)

    # Commits

    def need(self, name: str, *, do: str) -> str:
        """The commit that a ref or an id stands for; an error that says what to `do` when there is none."""
        if (commit := self.git.commit_of(name)) is None:
            raise CommitMissing(f"{self.issue_id}: {name} is no commit of {self._common}; {do}")
        return commit

    def merge_base(self, base: str, tip: str) -> str:
        """The commit at which `tip` left base."""
        if (found := self.git.ask("merge-base", base, tip)) is None:
            raise WorkspaceError(
                f"{self.issue_id}: {self.branch} shares no history with base; rename that branch, then reopen the issue"
            )
        return found

    def subjects(self, commits: Sequence[str], known: Sequence[str]) -> list[str]:
        """First lines of the commits that lead to `commits` from `known`, oldest first."""
        if not commits:
            return []
        shape = ("--no-show-signature", "--no-color", "--format=%s", "--reverse", f"--max-count={LISTED_SUBJECTS}")
        return self.git("log", *shape, *commits, "--not", *known).splitlines()

    def paths_between(self, commit: str, tree: str) -> list[str]:
        """The paths that differ, sorted."""
        names = os.fsencode(self.git("diff-tree", "-r", "-z", "--name-only", "--no-renames", commit, tree)).split(b"\0")
        return sorted(name.decode("utf-8", "replace") for name in names if name)

    def put_aside(self, tree: str | None, *, known: Sequence[str]) -> list[str]:
        """Give a ref under refs/orch/wip to what `known` does not hold: commits of the step, the files in `tree`.

        Gives the refs.
        """
        head = self.agent_head()
        left = {self.git.commit_of(self.branch_ref), self.git.commit_of(self.start_ref), head}.difference(known)
        aside = {commit for commit in left if commit and self.git.beyond(commit, *known)}
        if tree is not None:
            parent = head or next(iter(known), None)
            there = {self.git.tree_of(commit) for commit in {parent, *known} if commit}
            if tree not in there and self.git("ls-tree", tree):
                aside.add(self.git.record(tree, parent, f"Work in progress on {self.issue_id}, put aside\n"))
        refs = {aside_ref(self.issue_id, commit): commit for commit in sorted(aside)}
        for ref, commit in refs.items():
            self.git("update-ref", ref, commit)
        return list(refs)

    def go_back(self, target: str) -> tuple[str, list[str]]:
        """Branch, files and index as in commit `target`; gives what the files were as a tree, and the refs that keep
        what `target` does not hold.
        """
        found = self.git.commit_of(self.branch_ref)
        tree = self.write_files(target)
        refs = self.put_aside(tree, known=(target,))
        self.move(found, target)
        self.show(target)
        self.sweep()
        return tree, refs

    def move(self, found: str | None, commit: str) -> None:
        """Branch and start to `commit`, in one transaction, if the branch is still where we `found` it."""
        branch = f"update {self.branch_ref} {commit} {found}" if found else f"create {self.branch_ref} {commit}"
        self.git("update-ref", "-m", "orch", "--stdin", stdin=f"{branch}\nupdate {self.start_ref} {commit}\n")

    # Files

    def need_folder(self) -> None:
        """WorkspaceError when there are no files to work on."""
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
        entries = (self.git.ask(*listing) or "").split("\0")
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
        if self.git.ask("ls-files", "--unmerged", GIT_INDEX_FILE=self._index) is None:
            self._index.unlink(missing_ok=True)  # only costs reading every file once more
        if self.path.is_symlink() or self.path.is_file():
            self.path.unlink()

    # The agent's side: what its git sees in the worktree

    def agent_head(self) -> str | None:
        """The commit that the worktree's own HEAD stands on: another one than the branch's when the agent switched."""
        admin = self._admin()
        head = self.git.ask("rev-parse", "--verify", "--quiet", "HEAD^{commit}", GIT_DIR=admin) if admin else None
        return self.git.commit_of(head) if head else None

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
                self.git.ask("update-ref", "--no-deref", "HEAD", tip, GIT_DIR=head.parent)

    def remove(self) -> None:
        """Files, registration, start and our index; the order lets a second run find what is left."""
        _remove(self.path)
        with self._registering():
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
        with self._registering():
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
                common = self.git.ask("rev-parse", "--git-common-dir", GIT_DIR=admin)
                if common and (admin / common).resolve() == self._common:
                    return admin
        return None

    def _claims(self, admin: Path) -> bool:
        """True for the registration of our folder, or for one of its name that was cut off before it named a folder."""
        pointer = _content(admin / "gitdir")
        if not pointer:
            return admin.name == self.issue_id
        return os.path.normpath(admin / pointer) == str(self.path / ".git")


@contextlib.contextmanager
def flock(path: Path, *, patience_s: float) -> Iterator[None]:
    """Alone among processes and threads; ends with its process. WorkspaceError names who holds it for too long."""
    path.parent.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + patience_s
    with path.open("a+", encoding="utf-8") as file:
        while not _locked(file):
            if time.monotonic() > deadline:
                file.seek(0)
                holder = file.read().strip() or "?"
                raise WorkspaceError(
                    f"process {holder} has held {path} for {patience_s:g} s; see with `ps {holder}` whether it is"
                    f" stopped or hangs, end it with `kill -9 {holder}`, then reopen the issue"
                )
            time.sleep(LOCK_LOOK_S)
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def _locked(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


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
