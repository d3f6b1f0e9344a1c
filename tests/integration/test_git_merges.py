"""Merges seen in a git repo, without a forge: however somebody merges, and nothing that is no merge."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pytest

from orchestrator.adapters.git.workspace import GitWorkspace
from orchestrator.errors import WorkspaceError
from orchestrator.merge_close.events import Delivered, MergeClosePayload
from orchestrator.text import commit_message
from tests.git_project import Project

BRANCH = "orch/i-abc"
TRAILER = "Sudocode-Issue: i-abc"


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


def session(project: Project, issue_id: str = "i-abc", *, steps: int = 2) -> Delivered:
    """A session's work as it delivers it: one commit per step, each with its trailers."""
    workspace = project.workspace()
    worktree = workspace.prepare(issue_id)
    commit = worktree.base
    for step in range(steps):
        (worktree.path / "src/calc.py").write_text(f"def add(a, b):\n    return sum((a, b), {step})\n")
        (worktree.path / f"step{step}.py").write_text("x\n")
        message = commit_message(
            subject=f"Step {step}", body="", trailers={"Sudocode-Issue": issue_id, "Orch-Session": "s"}
        )
        commit = workspace.commit(worktree, message).commit
    return Delivered(issue_id, commit)


def look(project: Project, *delivered: Delivered, base: str = "main") -> list[MergeClosePayload]:
    return list(project.workspace(base=base).merges().merged(delivered))


def merge(project: Project) -> str:
    project.git("merge", "--quiet", "--no-ff", "--no-edit", BRANCH)
    return project.git("rev-parse", "HEAD")


def move_on(project: Project) -> str:
    project.git("merge", "--quiet", "--ff-only", BRANCH)
    return project.git("rev-parse", "HEAD")


def merge_elsewhere_first(project: Project) -> str:
    project.git("switch", "--quiet", "-c", "integration")
    merge(project)
    project.git("switch", "--quiet", "main")
    project.git("merge", "--quiet", "--no-ff", "--no-edit", "integration")
    return project.git("rev-parse", "HEAD")


def octopus(project: Project) -> str:
    project.git("switch", "--quiet", "-c", "other")
    project.commit("other.py")
    project.git("switch", "--quiet", "main")
    project.git("merge", "--quiet", "--no-ff", "--no-edit", "other", BRANCH)
    return project.git("rev-parse", "HEAD")


def merge_with_a_persons_commit_on_top(project: Project) -> str:
    project.git("checkout", "--quiet", "--detach", BRANCH)
    tip = project.commit("polish.py")
    project.git("switch", "--quiet", "main")
    project.git("merge", "--quiet", "--no-ff", "--no-edit", tip)
    return project.git("rev-parse", "HEAD")


def squash(project: Project) -> str:
    project.git("merge", "--quiet", "--squash", BRANCH)
    project.git("commit", "--quiet", "-m", "Add numbers", "-m", TRAILER)
    return project.git("rev-parse", "HEAD")


def squash_with_more_since(project: Project) -> str:
    commit = squash(project)
    project.commit("src/calc.py", "def add(a, b):\n    raise NotImplementedError\n")
    return commit


def squash_onto_a_base_that_moved(project: Project) -> str:
    project.commit("src/text.py", "def shout(words):\n    return words\n")
    return squash(project)


def rebase(project: Project) -> str:
    project.commit("other.py")
    project.git("cherry-pick", f"main..{BRANCH}")
    return project.git("rev-parse", "HEAD")


def merge_and_delete_the_branch(project: Project) -> str:
    commit = merge(project)
    project.workspace().drop("i-abc")
    project.git("branch", "--delete", "--force", BRANCH)
    return commit


MERGES = [
    merge,
    move_on,
    merge_elsewhere_first,
    octopus,
    merge_with_a_persons_commit_on_top,
    squash,
    squash_with_more_since,
    squash_onto_a_base_that_moved,
    rebase,
    merge_and_delete_the_branch,
]


@pytest.mark.parametrize("how", MERGES, ids=lambda how: how.__name__)
def test_a_merge_is_seen_however_it_is_made(project: Project, how: Callable[[Project], str]) -> None:
    """The payload names the issue, the branch, and the commit that brought the work into the base, and when."""
    delivered = session(project)
    commit = how(project)
    project.commit("after.py")
    at = datetime.fromisoformat(project.git("log", "-1", "--format=%cI", commit))

    assert [MergeClosePayload("i-abc", f"refs/heads/{BRANCH}", commit, at, True, "daemon")] == look(project, delivered)


def not_yet(project: Project) -> None:
    project.commit("other.py")


def squash_without_the_trailer(project: Project) -> None:
    project.git("merge", "--quiet", "--squash", BRANCH)
    project.git("commit", "--quiet", "-m", "Add numbers")


def squash_for_another_issue(project: Project) -> None:
    project.git("merge", "--quiet", "--squash", BRANCH)
    project.git("commit", "--quiet", "-m", "Add numbers", "-m", "Sudocode-Issue: i-other")


def squash_for_two_issues(project: Project) -> None:
    project.git("merge", "--quiet", "--squash", BRANCH)
    project.git("commit", "--quiet", "-m", "Add numbers", "-m", f"{TRAILER}\nSudocode-Issue: i-other")


def pick_one_step(project: Project) -> None:
    project.git("cherry-pick", f"{BRANCH}~1")


def forge_the_trailer(project: Project) -> None:
    project.git("commit", "--quiet", "--allow-empty", "-m", "I did it all", "-m", TRAILER)


def say_it_in_prose(project: Project) -> None:
    project.git("merge", "--quiet", "--squash", BRANCH)
    project.git("commit", "--quiet", "-m", f"{TRAILER} is what this is about, and more", "-m", "No trailer.")


def merge_and_force_push_away(project: Project) -> None:
    merge(project)
    project.git("reset", "--quiet", "--hard", project.first)


def merge_into_another_branch(project: Project) -> None:
    project.git("switch", "--quiet", "-c", "release")
    merge(project)


NO_MERGES = [
    not_yet,
    squash_without_the_trailer,
    squash_for_another_issue,
    squash_for_two_issues,
    pick_one_step,
    forge_the_trailer,
    say_it_in_prose,
    merge_and_force_push_away,
    merge_into_another_branch,
]


@pytest.mark.parametrize("how", NO_MERGES, ids=lambda how: how.__name__)
def test_what_is_no_merge_is_not_seen_as_one(project: Project, how: Callable[[Project], object]) -> None:
    """Words without the work, part of the work, or the work in another place."""
    delivered = session(project)
    how(project)

    assert [] == look(project, delivered)


def test_a_session_that_changed_nothing_was_not_merged(project: Project) -> None:
    """Its branch stands on the base, which holds it, but there is nothing that anybody could have merged."""
    assert [] == look(project, session(project, steps=0))


def test_with_its_base_on_record_work_needs_no_trailer_of_its_own(project: Project) -> None:
    """A [FIX] whose reviews passed at once hands over the commits of its original, which name that one."""
    original = session(project)
    fix = Delivered("i-fix", original.commit, base=project.first)
    merge(project)

    assert ["i-fix"] == [payload.issue_id for payload in look(project, fix)]
    assert [] == look(project, replace(fix, base=""), replace(fix, base=fix.commit))


def test_a_history_that_has_nothing_in_common_keeps_no_other_from_being_seen(project: Project) -> None:
    """As after a base was begun anew."""
    lost, seen = session(project, "i-lost"), session(project)
    project.git("switch", "--quiet", "--orphan", "anew")
    project.commit("src/calc.py", "x\n")
    project.git("commit", "--quiet", "--allow-empty", "-m", "All of it", "-m", "Sudocode-Issue: i-lost")
    project.git("merge", "--quiet", "--allow-unrelated-histories", "-X", "theirs", "--no-edit", seen.commit)

    assert ["i-abc"] == [payload.issue_id for payload in look(project, lost, seen, base="anew")]


def test_a_second_session_is_not_merged_with_the_first(project: Project) -> None:
    """The branch went on after it was merged: what counts is the commit that the last session delivered."""
    first = session(project)
    merge(project)
    second = session(project, steps=3)

    assert 1 == len(look(project, first))
    assert [] == look(project, second)


def test_each_of_many_is_seen(project: Project) -> None:
    """Merged ones are told in the order asked for, whatever there is between them."""
    work = [session(project, f"i-{n}") for n in range(3)]
    unknown = Delivered("i-9", "f" * 40)
    for n in (2, 0):
        project.git("merge", "--quiet", "-X", "ours", "--no-edit", f"orch/i-{n}")

    assert ["i-0", "i-2"] == [merge.issue_id for merge in look(project, unknown, *work)]


def test_looking_changes_nothing(project: Project) -> None:
    """Main checkout, index, branches and worktrees are as they were."""
    delivered = session(project)
    squash(project)
    before = (project.main_checkout(), project.git("for-each-ref"))
    look(project, delivered)

    assert before == (project.main_checkout(), project.git("for-each-ref"))


def test_a_base_that_is_not_there_is_an_error(project: Project, tmp_path: Path) -> None:
    """It says which repo, and what to set; so does a folder that is no repo."""
    with pytest.raises(WorkspaceError, match=r"repo has no commit on a branch trunk.* set `base`"):
        look(project, session(project), base="trunk")
    with pytest.raises(WorkspaceError, match="nowhere"):
        GitWorkspace(tmp_path / "nowhere", worktrees=tmp_path / "worktrees", base="main").merges()


def test_a_merge_on_the_remote_is_seen_once_it_is_fetched(project: Project, tmp_path: Path) -> None:
    """The clone that looks need not have pulled: what it last saw of the remote's base counts too."""
    delivered = session(project)
    bare = tmp_path / "bare.git"
    project.git("clone", "--quiet", "--bare", str(project.repo), str(bare))
    project.git("remote", "add", "origin", str(bare))
    project.git("update-ref", "refs/heads/main", delivered.commit, cwd=bare)

    assert [] == look(project, delivered)
    project.git("fetch", "--quiet", "origin")

    assert [delivered.commit] == [merge.merge_sha for merge in look(project, delivered)]
