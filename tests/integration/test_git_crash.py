"""Many processes at once, and processes that die between any two calls of git."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from orchestrator.errors import WorkspaceError
from orchestrator.models import Worktree
from tests.git_project import Project, put_before_git
from tests.support import wait_until

FORK = multiprocessing.get_context("fork")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    return Project(tmp_path)


def killed(tmp_path: Path, nth: int, verb: Callable[[], object]) -> bool:
    """Run the verb in a process that is killed with -9 before its nth git call that changes anything; was there one?"""
    count = tmp_path / f"count-{nth}"
    count.write_text("1\n")
    path = put_before_git(
        tmp_path / "bin",
        f"""for word; do case "$word" in
            add|update-ref|-u|clean|init|for-each-ref|pack-objects|commit-tree)
                read calls <{count}
                [ $calls -eq {nth} ] && kill -9 $PPID && exit 1
                echo $((calls + 1)) >{count}
                break;;
        esac; done""",
    )

    def die() -> None:
        os.environ["PATH"] = path
        verb()

    child = FORK.Process(target=die)
    child.start()
    child.join(60)
    assert child.exitcode in (0, -signal.SIGKILL), child.exitcode
    return child.exitcode != 0


def dirty(project: Project, worktree: Worktree) -> None:
    """A step half done: one commit of the agent's, one file not committed."""
    project.commit("one.py", cwd=worktree.path)
    (worktree.path / "two.py").write_text("x\n")


def kept(project: Project, worktree: Worktree) -> set[str]:
    """All files that any ref of the issue holds."""
    commits = [project.git("rev-parse", worktree.branch), *project.wip(worktree.issue_id)]
    return set().union(*(project.files(commit) for commit in commits))


def sound(project: Project, worktree: Worktree) -> bool:
    """Is the worktree on its branch, and clean?"""
    on = project.git("symbolic-ref", "--short", "HEAD", cwd=worktree.path)
    return (worktree.branch, "") == (on, project.git("status", "--porcelain", cwd=worktree.path))


def test_a_commit_that_dies_anywhere_is_made_again(project: Project, tmp_path: Path) -> None:
    """Killed before any of its git calls, commit run again gives the one commit on the branch."""
    workspace = project.workspace()
    for nth in itertools.count(1):
        worktree = workspace.prepare(f"i-{nth}")
        dirty(project, worktree)
        died = killed(tmp_path, nth, partial(workspace.commit, worktree, "One\n"))
        commit = workspace.commit(worktree, "One\n").commit

        assert [commit] == project.git("rev-list", f"main..{worktree.branch}").split()
        assert {"one.py", "two.py"} <= project.files(commit)
        assert sound(project, worktree)
        if not died:
            break
    assert nth > 5


def test_after_a_commit_that_dies_anywhere_prepare_loses_nothing(project: Project, tmp_path: Path) -> None:
    """The next worker's prepare finds the work on the branch or puts it aside, and the worktree is clean."""
    workspace = project.workspace()
    for nth in itertools.count(1):
        worktree = workspace.prepare(f"i-{nth}")
        dirty(project, worktree)
        died = killed(tmp_path, nth, partial(workspace.commit, worktree, "One\n"))
        workspace.prepare(worktree.issue_id)

        assert {"one.py", "two.py"} <= kept(project, worktree)
        assert sound(project, worktree)
        if not died:
            break
    assert nth > 5


def test_a_prepare_that_dies_anywhere_is_made_again(project: Project, tmp_path: Path) -> None:
    """Killed while it puts an interrupted step aside and makes its repository anew, prepare goes on where it was."""
    workspace = project.workspace()
    for nth in itertools.count(1):
        issue_id = f"i-{nth}"
        worktree = workspace.prepare(issue_id)
        dirty(project, worktree)
        died = killed(tmp_path, nth, partial(workspace.prepare, issue_id))

        assert worktree.path == workspace.prepare(issue_id).path
        assert {"one.py", "two.py"} <= kept(project, worktree)
        assert sound(project, worktree)
        if not died:
            break
    assert nth > 5


def test_a_worktree_deleted_under_prepare_is_made_anew(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever of its git calls the folder is deleted before, prepare gives a whole one."""
    workspace = project.workspace()
    path = workspace.prepare("i-1").path
    count = tmp_path / "count"
    delete = f'read left <"{count}"; echo $((left - 1)) >"{count}"; [ $left -eq 1 ] && rm -rf "{path}"'
    monkeypatch.setenv("PATH", put_before_git(tmp_path / "bin", delete))
    for nth in itertools.count(1):
        count.write_text(f"{nth}\n")
        worktree = workspace.prepare("i-1")
        deleted = int(count.read_text()) <= 0
        count.write_text("0\n")

        assert sound(project, worktree)
        if not deleted:
            break
    assert nth > 5


def test_a_restore_that_dies_anywhere_is_made_again(project: Project, tmp_path: Path) -> None:
    """Killed anywhere, restore run again has put everything back, and what it threw away is kept in git."""
    workspace = project.workspace()
    for nth in itertools.count(1):
        worktree = workspace.prepare(f"i-{nth}")
        dirty(project, worktree)
        died = killed(tmp_path, nth, partial(workspace.restore, worktree, project.first))
        workspace.restore(worktree, project.first)

        assert project.first == workspace.head(worktree)
        assert {"one.py", "two.py"} <= kept(project, worktree)
        assert sound(project, worktree)
        if not died:
            break
    assert nth > 5


def test_a_drop_that_dies_anywhere_is_made_again(project: Project, tmp_path: Path) -> None:
    """Killed anywhere, drop run again has removed the worktree and kept the work."""
    workspace = project.workspace()
    for nth in itertools.count(1):
        worktree = workspace.prepare(f"i-{nth}")
        dirty(project, worktree)
        died = killed(tmp_path, nth, partial(workspace.drop, worktree.issue_id))
        workspace.drop(worktree.issue_id)

        assert not worktree.path.exists()
        assert {"lock", "token"} >= {path.name for path in (project.worktrees / ".orch" / worktree.issue_id).iterdir()}
        assert {"one.py", "two.py"} <= kept(project, worktree)
        if not died:
            break
    assert nth > 3


def test_a_holder_that_was_stopped_in_the_middle_is_named(project: Project, tmp_path: Path) -> None:
    """A verb does not wait without end for one that was stopped: it names that process, and works once it has ended."""
    workspace = project.workspace(lock_s=0.3)
    stopped = tmp_path / "stopped"
    path = put_before_git(tmp_path / "bin", f"[ -e {stopped} ] || {{ touch {stopped}; kill -STOP $PPID; }}")

    def freeze() -> None:
        os.environ["PATH"] = path
        workspace.prepare("i-abc")

    workspace.prepare("i-abc")
    holder = FORK.Process(target=freeze)
    holder.start()
    try:
        wait_until(stopped.exists, "the holder should be in the middle of its verb")
        with pytest.raises(WorkspaceError, match=rf"process {holder.pid} has held .*i-abc/lock for 0.3 s"):
            workspace.prepare("i-abc")
    finally:
        os.kill(holder.pid or 0, signal.SIGCONT)
        holder.join(60)

    assert 0 == holder.exitcode
    assert project.first == workspace.head(workspace.prepare("i-abc"))


def test_a_branch_moved_by_somebody_else_meanwhile_is_refused(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Branch and start move by compare-and-swap: a commit that came in between is not run over."""
    workspace = project.workspace()
    worktree = workspace.prepare("i-abc")
    (worktree.path / "new.py").write_text("x\n")
    empty = project.git("hash-object", "-t", "tree", "-w", "/dev/null")
    theirs = project.git("commit-tree", empty, "-p", project.first, "-m", "theirs")
    update = f"update-ref refs/heads/{worktree.branch} {theirs}"
    path = put_before_git(tmp_path / "bin", f'case "$*" in *commit-tree*) $GIT --git-dir="$GIT_DIR" {update};; esac')
    with monkeypatch.context() as patch:
        patch.setenv("PATH", path)
        with pytest.raises(WorkspaceError, match=rf"i-abc: git update-ref failed: .* is at {theirs} but expected "):
            workspace.commit(worktree, "One\n")

    assert theirs == workspace.head(worktree)
    assert "x\n" == (worktree.path / "new.py").read_text()


def work(project: Project, mine: list[str], shared: list[str]) -> None:
    """One process of a crowd: five issues of its own, and every issue that all prepare."""
    workspace = project.workspace()
    for issue_id in mine:
        worktree = workspace.prepare(issue_id)
        (worktree.path / f"{issue_id}.py").write_text("x\n")
        workspace.commit(worktree, f"Work on {issue_id}\n")
    for issue_id in shared:
        workspace.prepare(issue_id)


def test_four_processes_with_five_issues_each_lose_nothing(project: Project) -> None:
    """Twenty issues prepared and committed at once, and two that all four prepare: each has its work, and only that."""
    crowds = [[f"i-{process}x{number}" for number in range(5)] for process in range(4)]
    shared = ["i-shared", "i-also"]
    before = project.main_checkout()
    children = [FORK.Process(target=work, args=(project, mine, shared)) for mine in crowds]
    for child in children:
        child.start()
    for child in children:
        child.join(60)

    assert [0, 0, 0, 0] == [child.exitcode for child in children]
    for issue_id in itertools.chain(*crowds):
        assert f"A\t{issue_id}.py" == project.git("diff", "--name-status", project.first, f"orch/{issue_id}")
        assert "1" == project.git("rev-list", "--count", f"main..orch/{issue_id}")
        assert "" == project.git("status", "--porcelain", cwd=project.worktrees / issue_id)
    for issue_id in shared:
        assert project.first == project.git("rev-parse", "HEAD", cwd=project.worktrees / issue_id)
    assert "" == project.git("for-each-ref", "refs/orch/wip/")
    assert before == project.main_checkout()
    project.git("fsck", "--strict", "--no-dangling")
