"""Worktrees are deleted, locked and broken, and disks are full."""

from __future__ import annotations

import re
import shutil
import time
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.project import CLEAN, GOOD, Project, up
from tests.chaos.parts import LEASE_S, POLL_S, ROLES, Measured, Parts, fill, once, reviewing, small_disk

pytestmark = pytest.mark.timeout(300)


def deleted(stack: Parts, issue: str) -> None:
    """The worktree is gone."""
    shutil.rmtree(stack.project.worktree(issue))


def locked(stack: Parts, issue: str) -> None:
    """A git that was killed left its locks: on the index, on HEAD, on the branch."""
    theirs = stack.project.worktree(issue) / ".git"
    locked = (theirs / "index.lock", theirs / "HEAD.lock", stack.project.repo / f".git/refs/heads/orch/{issue}.lock")
    for lock in locked:
        lock.touch()


def cut_off(stack: Parts, issue: str) -> None:
    """The worktree's .git leads nowhere."""
    git = stack.project.worktree(issue) / ".git"
    shutil.rmtree(git)
    git.write_text("gitdir: /nowhere\n")


DAMAGES = (deleted, locked, cut_off)


@pytest.mark.parametrize("step", ["implementer", "spec_reviewer", "verification"])
def test_a_worktree_is_damaged(stack: Parts, measured: Measured, step: str) -> None:
    """Whatever somebody does to a worktree in the middle of a step, the session ends well, without help.

    Only a worktree that was deleted costs something: the step is done again.
    """
    project = stack.project
    gate = project.folder / step
    turns: dict[str, dict[str, Any]] = {
        "implementer": {"implementer": [GOOD | {"run": [once(gate)]}]},
        "spec_reviewer": {"spec_reviewer": [reviewing(gate)]},
        "verification": {"verify": "L0"},
    }
    issues = {damage: project.file(f"{damage.__name__} in {step}", **turns[step]) for damage in DAMAGES}
    stack.until(stack.waiting(gate, *issues.values()), "all should be at work")
    for damage, issue in issues.items():
        damage(stack, issue)
    gate.touch()
    stack.until(lambda: stack.done(*issues.values()), "all should have ended")
    again = tuple(1 + (role == step) for role in ROLES)

    stack.assert_told_once(*issues.values())
    assert [again, (1, 1, 1), (1, 1, 1)] == [stack.asked(issue) for issue in issues.values()]
    assert 1 == sum(len(worker.lines("worktree_gone", issues[deleted])) for worker in stack.workers.values())
    measured(f"worktree deleted in {step}", "one step again")
    measured(f"worktree locked or its .git broken in {step}", "nothing again")


def test_an_agent_that_deletes_its_worktree(stack: Parts) -> None:
    """Once is forgiven, in a new worktree; the second time ends the session, which would else go on for ever."""
    project = stack.project
    delete = {"run": [["sh", "-c", 'rm -r "$PWD"']]}
    issue = project.file("Own goal", implementer=[delete, delete, GOOD])
    stack.until(lambda: stack.done(issue), "the session should have ended")

    assert (2, 0, 0) == stack.asked(issue)
    assert f"{issue}: its worktree was deleted twice in a row; find out what does it" == project.holding(issue).reason


def test_no_room_for_work(stack: Parts, measured: Measured) -> None:
    """On a full disk a session ends with one line that names issue and reason; with room again, the next goes well."""
    project = stack.project
    gate, worktrees = project.folder / "no-room", project.state / "worktrees"
    with small_disk(worktrees):
        issue = project.file("Big", implementer=[GOOD | {"run": [once(gate)]}])
        stack.until(stack.waiting(gate, issue), "it should be implemented")
        filler = fill(worktrees)
        gate.touch()
        stack.until(lambda: stack.done(issue), "the session should have ended")
        (line,) = stack.workers[stack.holder(issue)].lines("[warning]", issue)
        filler.unlink()

        assert "session_failed" in line
        assert re.search("Out of diskspace|No space left on device", line)
        assert "open" == project.status(issue)
        project.leases.want(issue)
        stack.until(lambda: "needs_review" == project.status(issue), "the next session should have gone well")
        stack.until(lambda: stack.done(issue), "all of it should have been told")

    assert ["SESSION_START", "SESSION_ERROR", *CLEAN] == project.events(issue)
    measured("no room for worktrees", "the session ends in ERROR; tried anew after 30 s")


def test_no_room_for_redis(tmp_path: Path, measured: Measured) -> None:
    """Nothing goes on, and a line says why; with room again everything does, without help."""
    with (
        small_disk(tmp_path / "state"),
        Project(tmp_path, lease_s=LEASE_S, poll_s=POLL_S) as project,
        up(project) as stack,
    ):
        gate = project.folder / "gate"
        issue = project.file("Big", spec_reviewer=[reviewing(gate)])
        stack.until(lambda: project.processes(f" {gate}"), "it should be reviewed")
        filler = fill(project.state)
        stack.says("No space left on device")
        stack.until(lambda: not project.processes(f" {gate}"), "the review should have been cut off")
        filler.unlink()
        back = time.monotonic()
        stack.until(lambda: project.processes(f" {gate}"), "it should be reviewed again")
        took = time.monotonic() - back
        gate.touch()
        stack.until(lambda: project.over(issue), "the session should have ended")

        assert CLEAN == project.events(issue)
        assert project.snapshots(issue) == project.feedback(issue)
        assert (1, 2, 1) == tuple(project.asked(issue, role) for role in ROLES)
    measured("no room for Redis", f"{took:.1f} s after there is room; one step again")
