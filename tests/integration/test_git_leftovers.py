"""What issues leave in git and on the remote: what is safe without it, and that only that is removed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.adapters.git import Leftover, LeftoverKind
from orchestrator.cli.gc import plan
from orchestrator.errors import WorkspaceError
from orchestrator.models import IssueStatus
from tests.git_project import Host, Project, with_bare

MERGED, PUSHED = "merged into main", "on a branch of origin"


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return with_bare(tmp_path)


@pytest.fixture
def host(project: Project) -> Host:
    return Host(project, "one")


@pytest.fixture
def git(project: Project, host: Host) -> Callable[..., str]:
    """What a person types in the clone."""
    return lambda *args: project.git(*args, cwd=host.repo)


def judged(host: Host, issue_id: str = "i-abc") -> dict[LeftoverKind, Leftover]:
    """The issue's leftovers as one finds them once it is closed, one of a kind."""
    found, problems = host.workspace.leftovers().find({issue_id})
    assert [] == problems
    return {leftover.kind: leftover for leftover in found if leftover.issue_id == issue_id}


def verdict(leftover: Leftover) -> tuple[bool, str]:
    return leftover.may_go, leftover.why


def test_merged_work_may_go(host: Host, git: Callable[..., str]) -> None:
    """A branch that base contains, and the same work on the remote."""
    host.work(host.remote(1), 1)
    git("merge", "--quiet", "orch/i-abc")
    found = judged(host)

    assert set(LeftoverKind) - {LeftoverKind.ASIDE} == set(found)
    assert [(True, MERGED)] * 2 == [verdict(found[kind]) for kind in (LeftoverKind.BRANCH, LeftoverKind.REMOTE)]


def test_squashed_work_may_go(host: Host, git: Callable[..., str]) -> None:
    """Base has the changes as another commit, and has gone on since: merging once more would change nothing."""
    host.work(host.remote(1), 1)
    git("merge", "--quiet", "--squash", "orch/i-abc")
    git("commit", "--quiet", "-m", "Squashed")
    git("commit", "--quiet", "--allow-empty", "-m", "Later")

    assert (True, MERGED) == verdict(judged(host)[LeftoverKind.BRANCH])


def test_work_merged_on_the_remote_may_go(project: Project, host: Host) -> None:
    """A pull request was merged there, and nobody has pulled here."""
    commit = host.work(host.remote(1), 1)
    project.git("update-ref", "refs/heads/main", commit, cwd=project.repo.parent / "bare.git")

    assert (True, MERGED) == verdict(judged(host)[LeftoverKind.BRANCH])


def test_pushed_work_may_go(host: Host, git: Callable[..., str]) -> None:
    """A branch of the remote has it, as this clone knows; its ref for other hosts is no such branch."""
    host.work(host.remote(1), 1)
    before = judged(host)[LeftoverKind.BRANCH]
    git("push", "--quiet", "origin", "orch/i-abc:feature")

    assert not before.may_go
    assert (True, PUSHED) == verdict(judged(host)[LeftoverKind.BRANCH])


def test_anything_else_stays(project: Project, host: Host, git: Callable[..., str]) -> None:
    """Work that is neither merged nor pushed stays everywhere; each is told how to let it go."""
    host.work(host.remote(1), 1)
    tree = host.workspace.prepare("i-abc")
    (tree.path / "half.py").write_text("x\n")
    host.workspace.prepare("i-abc")
    found = judged(host)
    aside = git("for-each-ref", "--format=%(refname)", "refs/orch/wip/i-abc")

    reasons = {kind: leftover.why for kind, leftover in found.items() if not leftover.may_go}
    assert {LeftoverKind.BRANCH, LeftoverKind.REMOTE, LeftoverKind.ASIDE} == set(reasons)
    assert reasons[LeftoverKind.BRANCH].endswith("end it with `git branch -D orch/i-abc`")
    assert reasons[LeftoverKind.REMOTE].endswith("end it with `git push origin :refs/orch/i-abc`")
    assert reasons[LeftoverKind.ASIDE].endswith(f"end it with `git update-ref -d {aside}`")


def test_a_branch_that_somebody_works_on_stays(host: Host, git: Callable[..., str]) -> None:
    """Merged or not: it is checked out elsewhere than in our worktree."""
    host.work(host.remote(1), 1)
    git("merge", "--quiet", "orch/i-abc")
    host.workspace.drop("i-abc")
    git("checkout", "--quiet", "orch/i-abc")

    why = f"it is checked out in {host.repo}; switch that to another branch"
    assert (False, why) == verdict(judged(host)[LeftoverKind.BRANCH])


def test_what_is_planned_is_what_vanishes(project: Project, host: Host, git: Callable[..., str]) -> None:
    """Merged, squashed, dropped and unmerged issues: exactly what was planned is gone, and a second look agrees."""
    issues = [f"i-{number}" for number in range(5)]
    for number, issue_id in enumerate(issues):
        host.work(host.remote(1, issue_id), 1, f"{number}\n", issue_id=issue_id, name=f"{issue_id}.py")
    git("merge", "--quiet", "orch/i-0")
    git("merge", "--quiet", "--squash", "orch/i-1")
    git("commit", "--quiet", "-m", "Squashed")
    (host.workspace.prepare("i-1").path / "dirty.py").write_text("x\n")
    host.workspace.drop("i-3")
    leftovers = host.workspace.leftovers()
    status = dict.fromkeys(issues[:4], IssueStatus.CLOSED) | {"i-4": IssueStatus.OPEN}
    closed = set(issues[:4])
    before = {leftover.name for leftover in leftovers.find(closed)[0]}
    planned = plan(leftovers.find(closed)[0], status=status, live={"i-2"})
    for leftover in planned.remove:
        leftovers.remove(leftover)
    after = {leftover.name for leftover in leftovers.find(closed)[0]}

    assert {leftover.name for leftover in planned.remove} == before - after
    assert 3 * 2 == len(planned.remove)
    assert "x" == git("show", f"{git('for-each-ref', '--format=%(refname)', 'refs/orch/wip/i-1')}:dirty.py")
    assert () == plan(leftovers.find(closed)[0], status=status, live={"i-2"}).remove


def test_what_has_moved_since_stays(host: Host, git: Callable[..., str]) -> None:
    """A branch, or a ref of the remote, that got another commit after it was judged is not removed."""
    host.work(host.remote(1), 1)
    git("merge", "--quiet", "orch/i-abc")
    found = judged(host)
    host.work(host.remote(2), 2, "more\n")

    for kind in (LeftoverKind.BRANCH, LeftoverKind.REMOTE):
        with pytest.raises(WorkspaceError):
            host.workspace.leftovers().remove(found[kind])
    assert {LeftoverKind.BRANCH, LeftoverKind.REMOTE} <= set(judged(host))


def test_a_remote_that_is_away_keeps_its_refs(project: Project, host: Host, git: Callable[..., str]) -> None:
    """One line says so; what is here is judged all the same."""
    host.work(host.remote(1), 1)
    git("merge", "--quiet", "orch/i-abc")
    (project.repo.parent / "bare.git").rename(project.repo.parent / "gone.git")
    found, [problem] = host.workspace.leftovers().find({"i-abc"})

    assert problem.startswith("origin does not answer, so what is there stays: ")
    assert {LeftoverKind.WORKTREE, LeftoverKind.BRANCH} == {leftover.kind for leftover in found if leftover.may_go}
