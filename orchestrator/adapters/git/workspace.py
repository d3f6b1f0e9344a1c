"""The Workspace port over the `git` command line: one branch, one folder and one commit per step for each issue.

Agents work in a repository of their own (`clone`), where they may do anything: commit, switch branches, set hooks,
delete `.git`. Nothing of it is believed. We see the files through a git directory and an index that are ours (`files`),
and the agents' repository is made anew at the end of every verb. The refs are in `refs`; the folders:

    <worktrees>/<issue>/           the files, with the agents' `.git`
    <worktrees>/.orch/<issue>/     our lock, our index, our git directory

Every verb goes in the same order, and that is why each may be cut off anywhere and run again: what could be lost is put
aside first, then branch and start move in one compare-and-swap, the files follow the branch last.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path

from orchestrator.adapters.git.checkout import Checkout, flock
from orchestrator.adapters.git.clone import remove
from orchestrator.adapters.git.command import Git, question, reason
from orchestrator.adapters.git.files import TRACKER_FOLDER
from orchestrator.adapters.git.leftovers import GitLeftovers
from orchestrator.adapters.git.merges import GitMerges
from orchestrator.adapters.git.outside import intrusion, look_outside
from orchestrator.adapters.git.remote import GitDelivery, GitRemote, RemoteRefs
from orchestrator.adapters.git.wording import cut, settings_remark, with_list
from orchestrator.errors import WorkspaceError
from orchestrator.models import BASE, ISSUE_ID, NOTHING_FETCHED, Committed, Fetched, Lease, Outside, Worktree
from orchestrator.text import inert, one_line, redacted


class GitWorkspace:
    """The worktrees of `repo` under `worktrees`, each grown from branch `base`. Never touches the main checkout.

    Each git call may take `timeout_s`, one to the remote `answer_s`. Processes and threads may call at once: verbs on
    one issue wait for each other, but no longer than `lock_s`, because the other may have been stopped in the middle.
    """

    def __init__(
        self,
        repo: Path,
        *,
        worktrees: Path,
        base: str,
        remote: str = "origin",
        timeout_s: float = 120.0,
        lock_s: float = 60.0,
        answer_s: float = 30.0,
        redact: Callable[[str], str] = redacted,
    ) -> None:
        self._repo = repo
        self._redact = redact
        self._worktrees = worktrees.resolve()
        self._base = base
        self._remote = remote
        self._timeout_s = timeout_s
        self._lock_s = lock_s
        self._answer_s = answer_s

    def tip(self) -> str:
        """The commit of the base that a new session starts from, as far as this clone knows. Raises WorkspaceError."""
        return self._base_commit(self._git("base"))

    def remote(self, lease: Lease, *, host: str) -> GitRemote:
        """The remote copy of a session's work, for other hosts, as its holder on `host` sees it."""
        return GitRemote(self._refs(self._look(lease.issue_id).git), base=self._base, lease=lease, host=host)

    def leftovers(self) -> GitLeftovers:
        """The leftovers of issues, here and on the remote."""
        return GitLeftovers(
            self._refs(self._git("leftovers")), worktrees=self._worktrees, base=self._base, drop=self.drop
        )

    def merges(self) -> GitMerges:
        """Merges of delivered work into base: here, or on the remote as this clone last saw it."""
        git = self._git("merges")
        return GitMerges(git, base=lambda: self._base_commit(git))

    def delivery(self) -> GitDelivery | None:
        """Delivery of finished work to the remote; None without one."""
        refs = self._refs(self._git("delivery"))
        return GitDelivery(refs) if refs.exists() else None

    def _git(self, about: str) -> Git:
        """Git for what is about no single issue."""
        return Git(self._git_folders[0], about=about, timeout_s=self._timeout_s)

    def _refs(self, git: Git) -> RemoteRefs:
        return RemoteRefs(git, self._remote, answer_s=self._answer_s)

    def prepare(
        self, issue_id: str, *, start_from: str = "", fetched: Fetched = NOTHING_FETCHED, token: int = 0
    ) -> Worktree:
        """The issue's worktree on `orch/<issue-id>`, clean and ready for a step.

        A new branch grows out of `start_from` if that has work of its own, else out of base.
        A branch with work that base does not have is continued; any other stands where base stands now. Put aside is
        the work of an interrupted step, and ours where the remote went another way: all hosts go on from one. Running
        it again is harmless: there is then nothing to put aside, and refs and files are where they should be.
        """
        try:
            return self._prepared(issue_id, start_from, fetched, token)
        except WorkspaceError:
            # If it was deleted meanwhile, a new one is as good; any other problem is raised once more.
            if self._look(issue_id).path.is_dir():
                raise
        return self._prepared(issue_id, start_from, fetched, token)

    def _prepared(self, issue_id: str, start_from: str, fetched: Fetched, token: int) -> Worktree:
        with self._checkout(issue_id) as checkout:
            checkout.fence(token, take=True)
            git = checkout.git
            base = self._base_commit(git, fetched.base)
            found = git.commit_of(checkout.branch_ref)
            own = _ahead(git, found, fetched.work)
            first = _ahead(git, git.commit_of(f"refs/heads/{start_from}"), fetched.start_from) if start_from else None
            tip = next((there for there in (own, first) if there and git.beyond(there, base)), base)
            grown_from = checkout.merge_base(base, tip)
            checkout.free_branch(found)
            fresh = not checkout.path.is_dir()
            checkout.path.mkdir(parents=True, exist_ok=True)
            checkout.make_folders(self._base, base, shown=tip)
            checkout.put_aside(None if fresh else checkout.files.write(tip).id, known=(tip, base))
            checkout.move(found, tip)
            checkout.show(tip)
            if not fresh:
                checkout.files.sweep()
            return Worktree(issue_id, checkout.path, checkout.branch, grown_from, token)

    def head(self, worktree: Worktree) -> str:
        """The commit the branch stands on; where the worktree's HEAD stands does not matter."""
        checkout = self._look(worktree.issue_id)
        return checkout.need(checkout.branch_ref, do="prepare the worktree again")

    def commit(self, worktree: Worktree, message: str) -> Committed:
        """All changes since the step started as exactly one commit on the branch; without changes, the branch's commit.

        Ignored files and `.sudocode` are left out, and what happened to `.sudocode` is undone. Commits that the agent
        made itself are squashed: listed in the message, put aside in git. Running it again is harmless: start moves
        with the branch, so there is nothing more to commit; cut off before that, the same commit is made once more.
        """
        with self._checkout(worktree.issue_id) as checkout:
            checkout.fence(worktree.token)
            checkout.need_folder()
            start = checkout.need(checkout.start_ref, do="prepare the worktree again")
            found = checkout.git.commit_of(checkout.branch_ref)
            known = [commit for commit in (start, self._find_base(checkout.git)) if commit]
            written = checkout.files.write(start, without=TRACKER_FOLDER)
            new = start
            if written.id != checkout.git.tree_of(start):
                head, agents = checkout.clone.head(), checkout.agents_commits(known)
                own = [commit for commit in (found, head if head in agents else None) if commit]
                subjects = [inert(self._redact(one_line(line))) for line in checkout.subjects(own, known)]
                new = checkout.git.record(written.id, start, with_list(message, subjects))
            remarks = (*written.left_out, *settings_remark(checkout.clone.settings_changed()))
            checkout.put_aside(None, known=(new,))
            checkout.move(found, new)
            checkout.show(new)
            return Committed(new, remarks)

    def restore(self, worktree: Worktree, commit: str) -> list[str]:
        """Put branch, HEAD, index and files back to `commit`; gives the changed paths, untracked ones too, sorted.

        Ignored files stay, and what is thrown away here is put aside in git. Running it again gives an empty list.
        """
        with self._checkout(worktree.issue_id) as checkout:
            checkout.fence(worktree.token)
            checkout.need_folder()
            target = checkout.need(commit, do="restore to a commit that `head` or `commit` gave")
            tree, _ = checkout.go_back(target)
            return checkout.paths_between(target, tree)

    @contextlib.contextmanager
    def clean(self, issue_id: str, commit: str) -> Iterator[Worktree]:
        """A checkout of exactly `commit` in a repository of its own, with nothing else in it; gone when left.

        One at a time for each issue. Running it again is harmless: what a killed one left is removed first.
        """
        look = self._look(issue_id)
        with flock(look.state / "verifying", patience_s=self._lock_s):
            with self._checkout(issue_id) as checkout:
                target = checkout.need(commit, do="check out a commit that `head` or `commit` gave")
                if not checkout.has_folders():
                    checkout.make_folders(self._base, self._base_commit(checkout.git), shown=target)
                made = Worktree(issue_id, checkout.check_out(target), checkout.branch, target)
            try:
                yield made
            finally:
                with contextlib.suppress(OSError):  # the next one removes it, or says why it cannot
                    remove(made.path)

    def outside(self, before: Outside | None = None) -> Outside:
        """What is the user's: refs, settings and main checkout as they are now. WorkspaceError when git refuses."""
        return look_outside(self._git("outside"), self._repo, base=self._base, before=before)

    def intrusion(
        self, worktree: Worktree, commit: str, *, base_was: str = "", fetched: Fetched = NOTHING_FETCHED
    ) -> str:
        """Why the base is not what people made it, as far as a session at work can tell; empty when nothing shows it.

        It has `commit`, which nobody could merge yet; or since it stood at `base_was` it got what nobody delivered.
        """
        git = self._git(worktree.issue_id)
        return intrusion(git, worktree, commit, base=self._base, base_was=base_was, theirs=fetched.base)

    def put_aside(self, issue_id: str) -> list[str]:
        """Put branch and files back to where the running step started; the refs that keep what was done since.

        Without a worktree, or before its first step, there is nothing to do. Running it again gives an empty list.
        """
        if not self._look(issue_id).path.is_dir():
            return []
        with self._checkout(issue_id) as checkout:
            checkout.need_folder()
            start = checkout.git.commit_of(checkout.start_ref)
            return checkout.go_back(start)[1] if start else []

    def change(self, worktree: Worktree, *, max_chars: int) -> str:
        """Files changed from base to the branch, then the diff, in max_chars characters; empty when nothing changed.

        When it is cut, its last line says how much is missing and which command shows it.
        """
        checkout = self._look(worktree.issue_id)
        span = (worktree.base, checkout.need(checkout.branch_ref, do="prepare the worktree again"))
        listed = checkout.git("diff-tree", "-r", "-M", "--name-status", *span)
        diff = checkout.git("diff-tree", "-r", "-M", "-p", "--no-ext-diff", "--no-textconv", "--no-color", *span)
        whole = os.fsencode(f"{listed}\n\n{diff}\n" if listed else "").decode("utf-8", "replace")
        return cut(whole.replace("\0", "\ufffd"), max_chars, rest=f"git diff {worktree.base[:12]}..{worktree.branch}")

    def adds(self, commit: str, *, grown_from: str = "") -> bool:
        """True if the commit has other files than the base it grew from, and the base has not got them since.

        Also true of a commit that is not in this clone. Read-only but for loose objects.
        """
        git = self._git(f"commit {commit[:12]}")
        if git.commit_of(commit) is None:
            return True
        base = self._base_commit(git)
        left = grown_from or git.ask("merge-base", base, commit)
        same = left is not None and git.tree_of(left) == git.tree_of(commit)
        return not same and not git.has_work(base, commit)

    def changed(self, worktree: Worktree, commit: str) -> list[str]:
        """The paths that differ between the worktree's base and a commit, sorted."""
        return self._look(worktree.issue_id).paths_between(worktree.base, commit)

    def drop(self, issue_id: str) -> None:
        """Remove the worktree, also a broken one; the branch stays, and work not committed is put aside in git.

        Running it again changes nothing; cut off, it goes on where it was.
        """
        with self._checkout(issue_id) as checkout:
            tip = checkout.git.commit_of(checkout.branch_ref)
            tree = checkout.files.write(tip).id if checkout.path.is_dir() else None
            checkout.put_aside(tree, known=(tip,) if tip else ())
            checkout.remove()

    def _base_commit(self, git: Git, fetched: str = "") -> str:
        found = self._find_base(git, fetched)
        if found is None:
            raise WorkspaceError(
                f"{git.about}: {self._repo} has no commit on a branch {self._base}, here or on the remote; "
                "set `base` in orch.toml to the branch that work starts from"
            )
        return found

    def _find_base(self, git: Git, fetched: str = "") -> str | None:
        """The commit sessions start from. A clone that only runs sessions is not pulled: its own branch may be old."""
        ours, theirs = git.commits_of(f"refs/heads/{self._base}", f"refs/remotes/{self._remote}/{self._base}")
        return _ahead(git, ours, fetched or theirs)

    def _look(self, issue_id: str) -> Checkout:
        if issue_id != BASE and not ISSUE_ID.fullmatch(issue_id):
            raise WorkspaceError(
                f"{issue_id!r} is no issue id: it names a folder and a branch, so it must be like i-x7k9"
            )
        return Checkout(
            issue_id,
            folders=self._git_folders,
            worktrees=self._worktrees,
            timeout_s=self._timeout_s,
            lock_s=self._lock_s,
        )

    @contextlib.contextmanager
    def _checkout(self, issue_id: str) -> Iterator[Checkout]:
        """The issue's checkout, for us alone, so what a killed git left locked is ours to unlock."""
        checkout = self._look(issue_id)
        try:
            with checkout.alone():
                checkout.recover()
                if checkout.path.is_dir() and not checkout.has_folders():
                    base = self._base_commit(checkout.git)
                    checkout.make_folders(self._base, base, shown=checkout.git.commit_of(checkout.branch_ref) or base)
                yield checkout
        except OSError as error:
            raise WorkspaceError(
                f"{issue_id}: the worktree could not be changed: {error}; check disk and owner"
            ) from error

    @property
    def git_folder(self) -> Path:
        """The git folder that all worktrees share."""
        return self._git_folders[0]

    @cached_property
    def _git_folders(self) -> tuple[Path, Path]:
        """The git folder that all worktrees share, and the main checkout's own (most often the same)."""
        done = question(self._repo, "rev-parse", "--git-common-dir", "--absolute-git-dir", timeout_s=self._timeout_s)
        if done.returncode:
            raise WorkspaceError(f"{self._repo} is no git repo for us: {reason(done.stderr)}; check ORCH_PROJECT_ROOT")
        common, own = done.stdout.splitlines()
        return (self._repo / common).resolve(), Path(own).resolve()


def _ahead(git: Git, ours: str | None, theirs: str | None) -> str | None:
    """Theirs, unless ours has all of it: every host that sees the remote then comes to the same."""
    return theirs if theirs and (not ours or git.beyond(theirs, ours)) else ours
