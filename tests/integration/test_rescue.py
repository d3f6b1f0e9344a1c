"""Work without an owner, over a real Redis: which issues are taken up again, which stay, whose agents end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import structlog.testing

from orchestrator.errors import AgentFailed
from orchestrator.issue import listed, shown
from orchestrator.memory import MemoryTracker
from orchestrator.models import Progress, Report, Step
from orchestrator.poll.rescue import Sweep
from orchestrator.publish.entries import About, opening_entries, tell
from orchestrator.session.orphans import end_orphans
from tests.engine import Engine, a_record, doing, saying_yes
from tests.support import NOON, Roles, an_issue, gateway_to

ISSUE = "i-a1b2"
US = "orch-main"


def sweep_of(engine: Engine) -> Sweep:
    """A sweep over the engine's tracker and leases."""
    return Sweep(
        in_progress=lambda: listed(engine.tracker.list_issues(status="in_progress")),
        show=lambda issue_id: shown(engine.tracker.show_issue, issue_id),
        claims=engine.leases,
        orchestrator_id=US,
    )


@pytest.fixture
def sweep(engine: Engine) -> Sweep:
    """The sweep of a process that Redis knows, and that goes on from sweep to sweep."""
    engine.leases.meet(US)
    return sweep_of(engine)


@pytest.fixture
def issue(engine: Engine) -> str:
    """An issue whose session the tracker knows to have started."""
    engine.tracker.file("One", issue_id=ISSUE)
    assert [ISSUE] == engine.poll()
    engine.publish()
    return ISSUE


def lose_memory(engine: Engine) -> None:
    """As FLUSHALL does, for this project. A worker lives on, and says so."""
    engine.client.delete(*engine.client.keys(engine.keys("*")))
    engine.slots(4)


def test_after_redis_lost_everything_sessions_start_again(engine: Engine, issue: str, sweep: Sweep) -> None:
    """An issue in progress under our name that Redis does not know runs again, from the claim on, to its verdict."""
    lose_memory(engine)

    assert [] == engine.poll()
    assert [] == sweep()  # whoever ran it may be at work for another lease
    assert [issue] == sweep()
    assert [issue] == engine.poll()

    engine.sessions().run(issue)
    engine.publish()

    assert ["SESSION_START", "SESSION_START"] == engine.events(issue)[:2]
    assert "SESSION_DONE" == engine.events(issue)[-1]
    assert "needs_review" == engine.status(issue)


def test_lost_memory_is_said_once(engine: Engine, sweep: Sweep) -> None:
    """One ERROR line says what happened and what happens now; from then on Redis knows us."""
    sweep()
    lose_memory(engine)
    with structlog.testing.capture_logs() as lines:
        sweep()
        sweep()

    (said,) = lines
    assert ("error", "redis_does_not_know_us") == (said["log_level"], said["event"])
    assert "emptied or replaced" in said["reason"]
    assert "go on from their branches" in said["hint"]
    assert US == engine.leases.met()


def test_another_control_side_is_said(engine: Engine, sweep: Sweep) -> None:
    """A Redis that serves the control side of another clone is a mistake of somebody; it is said, with its name."""
    engine.leases.meet("orch-elsewhere")
    with structlog.testing.capture_logs() as lines:
        sweep()

    assert "it served orch-elsewhere last; only one control side may work on a project" == lines[0]["reason"]


def test_what_redis_knows_is_left_alone(engine: Engine, issue: str, sweep: Sweep) -> None:
    """In flight, asked for, or with something still to be told: it is seen to already."""
    told = engine.tracker.file("Told")
    engine.sessions().run(issue)
    wanted = in_progress(engine, "i-wanted")
    engine.leases.want(wanted)
    engine.poll()

    assert [] == sweep()
    assert engine.inflight() >= {told}
    assert "in_progress" == engine.status(issue)  # its end waits in the outbox


def in_progress(engine: Engine, issue_id: str, by: str = US) -> str:
    """An issue that the installation `by` had begun when Redis forgot it."""
    engine.tracker.file("One", issue_id=issue_id)
    about = About(an_issue(issue_id=issue_id), f"session-of-{issue_id}", by)
    for entry in opening_entries(about, at=NOON):
        tell(entry, engine.gateway)
    return issue_id


def by_a_person(engine: Engine) -> None:
    engine.tracker.file("One", issue_id=ISSUE)
    engine.tracker.upsert_issue(issue_id=ISSUE, status="in_progress")


def by_a_person_with_remarks(engine: Engine) -> None:
    by_a_person(engine)
    engine.tracker.add_feedback(issue_id=ISSUE, to_id=ISSUE, content="I take this one")


def by_another_clone(engine: Engine) -> None:
    in_progress(engine, ISSUE, by="orch-elsewhere")


def after_verify_failed(engine: Engine) -> None:
    engine.tracker.file("One", issue_id=ISSUE)
    engine.poll()
    engine.sessions(doing(saying_yes(Roles(exit_code=1)))).run(ISSUE)
    engine.publish()


def by_a_person_after_an_error(engine: Engine) -> None:
    def fails(step: Step, progress: Progress) -> Report:
        raise AgentFailed("the agent exited with 3")

    engine.tracker.file("One", issue_id=ISSUE)
    engine.poll()
    with pytest.raises(AgentFailed):
        engine.sessions(doing(fails)).run(ISSUE)
    engine.publish()
    engine.tracker.upsert_issue(issue_id=ISSUE, status="in_progress")


@pytest.mark.parametrize(
    "set_in_progress",
    [by_a_person, by_a_person_with_remarks, by_another_clone, after_verify_failed, by_a_person_after_an_error],
)
def test_what_is_not_ours_is_never_touched(
    engine: Engine, sweep: Sweep, set_in_progress: Callable[[Engine], None]
) -> None:
    """In progress for a person, another installation, or since a session of ours ended: it stays as it is."""
    set_in_progress(engine)

    assert [] == sweep()
    assert [] == engine.leases.wanted()
    assert "in_progress" == engine.status(ISSUE)


def test_an_end_that_the_tracker_shows_out_of_order_is_an_end(engine: Engine, sweep: Sweep) -> None:
    """Snapshots of one moment may come in any order; a session of which any says that it ended has ended."""
    after_verify_failed(engine)
    engine.tracker.issues[ISSUE]["feedback"].sort(key=lambda row: "VERIFY_FAILED" in row["content"])

    assert [] == sweep()


def test_a_tracker_is_asked_once_about_what_is_not_ours(engine: Engine, sweep: Sweep) -> None:
    """Looking at an issue costs a call; it is looked at again only when something changed."""

    class Counting(MemoryTracker):
        shown = 0

        def show_issue(self, issue_id: str) -> Any:
            self.shown += 1
            return super().show_issue(issue_id)

    tracker = Counting()
    engine.tracker, engine.gateway = tracker, gateway_to(tracker)
    by_a_person(engine)
    counted = sweep_of(engine)
    for _ in range(3):
        counted()

    assert 1 == tracker.shown

    tracker.issues[ISSUE]["updated_at"] = "later"
    counted()

    assert 2 == tracker.shown


def test_an_issue_that_is_reopened_meanwhile_is_left_alone(engine: Engine, sweep: Sweep) -> None:
    """It was listed as in progress and is open when it is looked at: the next poll claims it, if it is ready."""
    issue_id = in_progress(engine, ISSUE)
    rows = engine.tracker.list_issues(status="in_progress")
    engine.tracker.list_issues = lambda **_: rows  # type: ignore[method-assign] # the moment is what is tested
    engine.tracker.upsert_issue(issue_id=issue_id, status="open")

    assert [] == sweep()
    assert [] == engine.leases.wanted()


def test_an_issue_that_is_deleted_meanwhile_stops_none_of_the_others(engine: Engine, sweep: Sweep) -> None:
    """What the tracker cannot show is left out."""
    lost = in_progress(engine, "i-lost")
    rows = [*engine.tracker.list_issues(status="in_progress"), {"id": "i-gone", "status": "in_progress"}]
    engine.tracker.list_issues = lambda **_: rows  # type: ignore[method-assign] # the moment is what is tested

    assert [lost] == sweep()


# --- orphans ---


def ended_by(engine: Engine, families: dict[tuple[str, str, int], set[int]]) -> list[tuple[str, str, int]]:
    """The sessions whose processes a starting worker ends, each up to a token."""
    ended: list[tuple[str, str, int]] = []

    def end(issue_id: str, token: int, session_id: str) -> int:
        ended.append((issue_id, session_id, token))
        return 1

    end_orphans(families, engine.leases.holding, end)
    return ended


def test_orphans_are_those_whose_holder_is_not_above_them(engine: Engine) -> None:
    """A session's processes live as long as the one who has it by Redis is above them, on whatever host that is."""
    engine.opened(ISSUE)
    engine.acquired(ISSUE, "sessions@here/4711")
    mine = (ISSUE, a_record(ISSUE).session_id, 7)

    assert [] == ended_by(engine, {mine: {1, 4711, 5000}})
    assert [mine] == ended_by(engine, {mine: {1, 471, 11}})
    assert [(ISSUE, "an earlier one", 6)] == ended_by(engine, {(ISSUE, "an earlier one", 6): {1, 4711}})
    assert [("i-none", "s", 5)] == ended_by(engine, {("i-none", "s", 5): {1, 4711}})
