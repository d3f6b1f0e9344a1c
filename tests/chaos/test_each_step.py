"""kill -9 of a session's worker in the middle of each kind of step."""

from __future__ import annotations

import pytest

from orchestrator.models import Stage
from tests.chaos.parts import HANG, LEASE_S, NO, Measured, Parts, kill_worker

pytestmark = pytest.mark.timeout(300)

KILLS = (
    (Stage.RUNNING, "implementer", 1),
    (Stage.SPEC_REVIEW, "spec_reviewer", 1),
    (Stage.SPEC_FIX, "implementer", 3),
    (Stage.QUALITY_REVIEW, "quality_reviewer", 1),
    (Stage.QUALITY_FIX, "implementer", 5),
    (Stage.VERIFICATION, "verification", 1),
)
"""Each kind of step, who does it, and that one's run that is killed in it; the next run does the step again."""


def writes(name: str) -> dict[str, object]:
    """A turn of an implementer."""
    return {"write": {name: "done\n"}}


def test_a_worker_dies_in_each_kind_of_step(stack: Parts, measured: Measured) -> None:
    """Another worker goes on (in how long is printed); no finished step is repeated, and no half of a step is kept.

    It is one session, which is killed six times.
    """
    project = stack.project
    issue = project.file(
        "Six lives",
        verify="L1",
        implementer=[
            writes("half-1.txt") | HANG,
            writes("work.txt"),
            writes("half-3.txt") | HANG,
            writes("spec.txt"),
            writes("half-5.txt") | HANG,
            writes("quality.txt"),
        ],
        spec_reviewer=[HANG, NO, {}],
        quality_reviewer=[HANG, NO, {}],
    )

    def runs(role: str) -> int:
        return stack.verifications() if role == "verification" else project.asked(issue, role)

    def kill_in(stage: Stage, role: str, run: int) -> float:
        """Kill the worker in the middle of this run; seconds until the next one."""
        half = project.worktree(issue) / f"half-{run}.txt"
        stack.until(lambda: run == runs(role) and (role != "implementer" or half.exists()), f"{stage} should be done")
        holder, at_work = stack.holder(issue), stack.at_work(issue)
        stack.start_worker()  # for the next kill; the other one is up
        kill_worker(stack.workers[holder])
        took = stack.until(lambda: run + 1 == runs(role), f"{stage} should be done again")

        assert holder != stack.holder(issue)
        assert at_work
        assert not at_work & project.processes().keys()
        return took

    for stage, role, run in KILLS:
        took = kill_in(stage, role, run)
        measured(f"kill -9 of the worker in {stage}", f"{took:.1f} s, {took / LEASE_S:.2f} leases; one step again")
        stack.mend()

    stack.until(lambda: stack.done(issue), "the session should have ended")
    story = [
        "SESSION_START",
        *("IMPLEMENT_DONE", "SPEC_REVIEW_FAIL", "SPEC_FIX_APPLIED", "SPEC_REVIEW_PASS"),
        *("QUALITY_REVIEW_FAIL", "QUALITY_FIX_APPLIED", "QUALITY_REVIEW_PASS"),
        "SESSION_DONE",
    ]
    steps = project.git("log", "--reverse", "--format=%(trailers:key=Orch-Step,valueonly)", f"main..orch/{issue}")

    assert story == project.events(issue)
    assert project.snapshots(issue) == project.feedback(issue)
    assert ["RUNNING/1", "SPEC_FIX/1", "QUALITY_FIX/1"] == steps.split()
    assert {"README.md", "work.txt", "spec.txt", "quality.txt"} == project.files(issue).keys()
    assert [6, 3, 3, 2] == [runs(who) for who in ("implementer", "spec_reviewer", "quality_reviewer", "verification")]
