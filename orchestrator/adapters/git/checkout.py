"""One issue's refs in the user's repo, its files, and the repository of its own that its agents work in."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

from orchestrator.adapters.git.clone import Clone, content, make_folders, remove
from orchestrator.adapters.git.command import Git
from orchestrator.adapters.git.files import Files
from orchestrator.adapters.git.refs import aside_ref, branch_ref, start_ref
from orchestrator.errors import CommitMissing, LeaseLost, WorkspaceError
from orchestrator.models import branch_of

LISTED_SUBJECTS = 50
LOCK_LOOK_S = 0.02


class Checkout:
    """One issue's refs, files and repository of its own. Each method is one thing to ask of git."""

    def __init__(
        self, issue_id: str, *, folders: tuple[Path, Path], worktrees: Path, timeout_s: float, lock_s: float
    ) -> None:
        self.issue_id = issue_id
        self.branch = branch_of(issue_id)
        self.branch_ref = branch_ref(issue_id)
        self.start_ref = start_ref(issue_id)
        self.path = worktrees / issue_id
        self.state = worktrees / ".orch" / issue_id
        self.clean_path = self.state / "clean"
        self._lock_s = lock_s
        self._common, self._main = folders
        self.git = Git(self._common, about=issue_id, timeout_s=timeout_s, own=self.state / "ours")
        self.files = Files(self.git, self.path, self.state / "index")
        self.clone = Clone(self.path, self.state / "theirs", branch=self.branch)

    def alone(self) -> contextlib.AbstractContextManager[None]:
        """The verbs on one issue wait for each other."""
        return flock(self.state / "lock", patience_s=self._lock_s)

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

    def agents_commits(self, known: Sequence[str]) -> list[str]:
        """The commits that the agents' refs stand on and `known` does not hold; HEAD's is the first.

        They are in the user's repo then. What the agents broke themselves is passed over.
        """
        head = self.clone.head()
        tips = sorted(self.clone.tips().difference(known), key=lambda commit: (commit != head, commit))
        strange = [tip for tip, found in zip(tips, self.git.commits_of(*tips), strict=True) if found is None]
        if strange:
            revisions = "\n".join((*strange, *(f"^{commit}" for commit in known)))
            target = str(self._common / "objects/pack/pack")
            packing = ("pack-objects", "--revs", "--quiet", "--delta-base-offset", target)
            borrowed = {"GIT_ALTERNATE_OBJECT_DIRECTORIES": self.clone.objects}
            self.git.ask(*packing, folder=self.path, stdin=f"{revisions}\n", **borrowed)
        return [commit for commit in tips if self.git.commit_of(commit) and self.git.beyond(commit, *known)]

    def put_aside(self, tree: str | None, *, known: Sequence[str]) -> list[str]:
        """Give a ref under refs/orch/wip to what `known` does not hold: commits of the step, the files in `tree`.

        Gives the refs.
        """
        agents = self.agents_commits(known)
        left = set(self.git.commits_of(self.branch_ref, self.start_ref)).difference(known)
        aside = {*agents, *(commit for commit in left if commit and self.git.beyond(commit, *known))}
        if tree is not None:
            head = self.clone.head()
            parent = head if head in agents else next(iter(known), None)
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
        tree = self.files.write(target).id
        refs = self.put_aside(tree, known=(target,))
        self.move(found, target)
        self.show(target)
        self.files.sweep()
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

    def make_folders(self, branch: str, commit: str, *, shown: str) -> None:
        """Make what the issue's repository and our look at it are made from, upon a branch and its commit.

        The files of commit `shown` can be seen with it.
        """
        make_folders(self.git, self.state, branch=self.branch, base=(branch, commit), shown=shown)

    def has_folders(self) -> bool:
        """True when they have been made."""
        return all((self.state / name).is_dir() for name in ("ours", "theirs"))

    def fence(self, token: int, *, take: bool = False) -> None:
        """Let no holder of an older token in, once a newer one came to `take` the files over. Raises LeaseLost."""
        known = content(self.state / "token")
        newest = int(known) if known.isdecimal() else 0
        if token < newest:
            raise LeaseLost(f"{self.issue_id}: a worker with a newer lease has taken its worktree over")
        if take and token > newest:
            (self.state / "token").write_text(f"{token}\n", encoding="utf-8")

    def show(self, commit: str) -> None:
        """Files, index and the agents' repository as in `commit`."""
        self.files.show(commit)
        self.clone.make(commit, self.files.index)

    def check_out(self, commit: str) -> Path:
        """A folder with the files of a commit and nothing else, around which is a repository of its own."""
        path, index = self.clean_path, self.state / "clean.index"
        remove(path)
        index.unlink(missing_ok=True)
        path.mkdir(parents=True)
        Files(self.git, path, index).show(commit)
        Clone(path, self.state / "theirs", branch=self.branch).make(commit, index)
        index.unlink()
        return path

    def recover(self) -> None:
        """Clear what a killed git or a power cut left: locks on what is ours, an index that cannot be read."""
        refs = [self._common / f"{ref}.lock" for ref in (self.branch_ref, self.start_ref)]
        for lock in (*self.state.glob("*.lock"), *refs):
            lock.unlink(missing_ok=True)
        index = self.files.index
        if index.exists() and self.git.ask("ls-files", "--unmerged", GIT_INDEX_FILE=index) is None:
            index.unlink()  # only costs reading every file once more
        if self.path.is_symlink() or self.path.is_file():
            self.path.unlink()

    def free_branch(self, tip: str | None) -> None:
        """Let go of the branch where it is checked out: a linked worktree keeps its files, with a detached HEAD.

        Ours was one in earlier versions: that one is struck off git's list.
        """
        on_branch = f"ref: {self.branch_ref}"
        for folder in {self._common, self._main}:
            if content(folder / "HEAD") == on_branch:
                raise WorkspaceError(
                    f"{self.issue_id}: {self.branch} is checked out in the main checkout of {self._common}; "
                    "switch it to another branch, then reopen the issue"
                )
        for head in self._common.glob("worktrees/*/HEAD"):
            if content(head.with_name("gitdir")) == str(self.path / ".git"):
                remove(head.parent)
            elif tip and content(head) == on_branch:
                # A registration that git cannot read is no checkout either: nothing to let go of.
                self.git.ask("update-ref", "--no-deref", "HEAD", tip, GIT_DIR=head.parent)

    def remove(self) -> None:
        """Files, start, index and what the repository is made from; the order lets a second run find what is left."""
        remove(self.path)
        self.git("update-ref", "-d", self.start_ref)
        self.files.index.unlink(missing_ok=True)
        for name in ("theirs", "ours", "new", "clean"):
            remove(self.state / name)


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
