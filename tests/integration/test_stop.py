"""Stopping over a real Redis: whoever has the session ends it, once, and nobody starts it again by himself."""

from __future__ import annotations

import math
import threading

import pytest

from orchestrator.errors import (
    LeaseLost,
    SessionStopped,
    StoppedByHand,
    TrackerRefused,
    TrackerUnavailable,
    WorkspaceError,
)
from orchestrator.leases import Claim, Refusal, Stop
from orchestrator.models import IssueStatus, StatusEntry, Verdict
from tests.engine import Engine, a_record, a_report, saying_yes
from tests.support import wait_until

ISSUE = "i-a1b2"
WORDS = "stopped by anna@here (wrong issue)"


@pytest.fixture
def issue(engine) -> str:
    """An issue whose session is opened and started."""
    engine.tracker.file("One", issue_id=ISSUE)
    assert [ISSUE] == engine.poll()
    return ISSUE


class AtWork:
    """An agent that works until it is cut off; the session's worker is a thread."""

    def __init__(self, engine: Engine, put_aside=lambda _lease: ["refs/orch/wip/i-a1b2/abc"]) -> None:
        self.began = threading.Event()
        sessions = engine.elsewhere().sessions(self._doer, put_aside=put_aside)
        self.worker = threading.Thread(target=sessions.run, args=(ISSUE,))
        self.worker.start()
        assert self.began.wait(30)

    def _doer(self, lease, keeper):
        def do(step, progress):
            try:
                self.began.set()
                assert keeper.cut.wait(30), "the agent should have been cut off"
                raise SessionStopped("the agent was cut off")
            finally:
                keeper.hold()

        return do


def test_a_running_session_ends_with_its_work_kept(engine, issue):
    """It is told as SESSION_ERROR with who, why and where its work is; the issue is open, and held."""
    at_work = AtWork(engine)

    assert Stop.ASKED == engine.leases.stop(issue, WORDS, hold=True)

    at_work.worker.join(30)
    engine.publish()
    holding = engine.leases.holding(issue)

    assert set() == engine.inflight()
    assert ("ended", Verdict.ERROR, WORDS) == (holding.state, holding.verdict, holding.stop)
    assert f"{WORDS}; unfinished work is at refs/orch/wip/i-a1b2/abc in the clone of test" in holding.reason
    assert ["SESSION_START", "SESSION_ERROR"] == engine.events(issue)
    assert "open" == engine.status(issue)
    assert [] == engine.poll()


def test_a_held_issue_runs_again_when_it_is_asked_for(engine, issue):
    """`orch stop ISSUE`, then `orch enqueue ISSUE`: a session of its own, to its end."""
    at_work = AtWork(engine)
    engine.leases.stop(issue, WORDS, hold=True)
    at_work.worker.join(30)
    engine.publish()
    engine.leases.want(issue)

    assert [issue] == engine.poll()

    engine.sessions().run(issue)
    engine.publish()

    assert "needs_review" == engine.status(issue)
    assert "" == engine.leases.holding(issue).stop


def test_a_stop_of_all_holds_nothing_beyond_the_pause(engine, issue):
    """After `orch stop --all` and `orch resume` the issue is claimed again by itself."""
    at_work = AtWork(engine)
    engine.controls.pause(by="anna@here", reason="")
    engine.leases.stop(issue, WORDS, hold=False)
    at_work.worker.join(30)
    engine.publish()

    assert [] == engine.poll()

    engine.controls.resume()

    assert [issue] == engine.poll()


def test_stops_are_no_errors(engine, issue):
    """However often an issue is stopped: the next one is not held back for it, neither for a time nor for good."""
    for _ in range(5):
        at_work = AtWork(engine)
        engine.leases.stop(issue, WORDS, hold=False)
        at_work.worker.join(30)
        engine.publish()

        assert [issue] == engine.poll()


def test_of_two_stops_the_first_words_hold(engine, issue):
    """A second stop changes nothing but that the issue is held now; one of a session that has ended finds it held."""
    at_work = AtWork(engine, put_aside=lambda _lease: second())

    def second():
        assert Stop.ASKED == engine.leases.stop(issue, "stopped by ben@there", hold=True)
        return []

    engine.leases.stop(issue, WORDS, hold=False)
    at_work.worker.join(30)
    engine.publish()

    assert WORDS == engine.leases.holding(issue).stop
    assert 1 == engine.events(issue).count("SESSION_ERROR")
    assert Refusal.WAITING == engine.leases.claim(issue)
    assert Stop.HELD == engine.leases.stop(issue, "stopped by ben@there", hold=True)


def test_what_nobody_runs_is_not_stopped(engine):
    """An issue that Redis knows nothing of stays as it is; one that was asked for is taken off that list, and held."""
    engine.leases.want("i-b2c3")

    assert Stop.IDLE == engine.leases.stop(ISSUE, WORDS, hold=True)
    assert isinstance(engine.leases.claim(ISSUE), Claim)
    assert Stop.HELD == engine.leases.stop("i-b2c3", WORDS, hold=True)
    assert [] == engine.leases.wanted()
    assert Refusal.WAITING == engine.leases.claim("i-b2c3")
    assert [("i-b2c3", math.inf)] == [(it.issue_id, it.held_until_ms) for it in engine.leases.holdings()]


def test_a_session_whose_worker_died_is_ended_by_the_next_poll(engine, issue):
    """The stop is not lost with the worker: the session is closed, not started again."""
    engine.acquired(issue, "sessions@dead/7")
    engine.leases.stop(issue, WORDS, hold=True)
    engine.started.clear()

    assert [] == engine.poll(), "its worker may yet answer"

    engine.fall_silent(issue)

    assert [] == engine.poll()

    engine.publish()

    assert [] == engine.started
    assert set() == engine.inflight()
    assert ["SESSION_START", "SESSION_ERROR"] == engine.events(issue)
    assert "open" == engine.status(issue)


def test_a_session_that_no_worker_has_yet_ends_without_waiting_for_one(engine, issue):
    """Its message may be lost, or wait for long: the next poll ends it, and the message finds nothing to run."""
    engine.leases.stop(issue, WORDS, hold=True)

    assert [] == engine.poll()
    assert set() == engine.inflight()

    engine.sessions().run(issue)
    engine.publish()

    assert ["SESSION_START", "SESSION_ERROR"] == engine.events(issue)


def test_a_worker_that_gets_its_message_after_the_stop_begins_no_step(engine, issue):
    """Whether the poll or the worker comes first makes no difference."""
    engine.leases.stop(issue, WORDS, hold=True)
    done = []

    def doer(_lease, keeper):
        def do(step, progress):
            keeper.check()
            done.append(step)
            return saying_yes()(step, progress)

        return do

    engine.sessions(doer).run(issue)

    assert [] == done
    assert Verdict.ERROR == engine.leases.holding(issue).verdict


def test_a_frozen_worker_that_wakes_writes_nothing(engine, issue):
    """Its session was ended by others meanwhile; its token is old."""
    frozen = engine.acquired(issue, "sessions@frozen/7")
    engine.leases.stop(issue, WORDS, hold=True)
    engine.fall_silent(issue)
    engine.poll()
    engine.publish()

    assert "" == engine.leases.stop_asked(frozen)
    with pytest.raises(LeaseLost):
        engine.history(frozen).close(Verdict.DONE, [StatusEntry(issue, IssueStatus.NEEDS_REVIEW)])
    assert "open" == engine.status(issue)


def test_a_claim_that_is_not_opened_is_given_back(engine, monkeypatch):
    """Stopped between claim and session: the issue is set open again, no session begins, and the issue is held."""
    engine.tracker.file("One", issue_id=ISSUE)
    show_issue = engine.gateway.show_issue

    def stopped_meanwhile(issue_id):
        assert Stop.ASKED == engine.leases.stop(ISSUE, WORDS, hold=True)
        return show_issue(issue_id)

    monkeypatch.setattr(engine.gateway, "show_issue", stopped_meanwhile)

    assert [] == engine.poll()
    assert set() == engine.inflight()
    assert "open" == engine.status(ISSUE)
    assert [] == engine.events(ISSUE)
    assert [] == engine.poll()


def test_a_poll_that_comes_too_late_with_a_stopped_claim_leaves_the_issue_open(engine):
    """Two polls have one claim (its lease ended while the tracker hung): the second one too finds out, and resets."""
    claim = engine.claimed(ISSUE)
    engine.leases.stop(ISSUE, WORDS, hold=True)
    engine.leases.abandon(claim)

    with pytest.raises(StoppedByHand, match="wrong issue"):
        engine.leases.open(claim, a_record(ISSUE), [])


def test_a_tracker_that_is_away_when_a_stopped_claim_is_given_back_is_told_later(engine, monkeypatch):
    """The claim is kept until the issue is open again."""
    engine.tracker.file("One", issue_id=ISSUE)
    set_issue_status = engine.gateway.set_issue_status

    def away(issue_id, status):
        if status == "open":
            raise TrackerUnavailable("it is away")
        set_issue_status(issue_id, status)
        engine.leases.stop(ISSUE, WORDS, hold=True)

    monkeypatch.setattr(engine.gateway, "set_issue_status", away)
    with pytest.raises(TrackerUnavailable):
        engine.poll()

    assert ("in_progress", {ISSUE}) == (engine.status(ISSUE), engine.inflight())

    monkeypatch.undo()
    engine.fall_silent(ISSUE)

    assert [] == engine.poll()
    assert ("open", set()) == (engine.status(ISSUE), engine.inflight())


def test_a_tracker_that_refuses_a_stopped_claim_holds_up_no_other_issue(engine, monkeypatch):
    """The claim is given back, its slot is free, and the same poll claims the next one."""
    engine.tracker.file("One", issue_id=ISSUE)
    engine.tracker.file("Two", issue_id="i-b2c3")
    set_issue_status = engine.gateway.set_issue_status

    def refuses(issue_id, status):
        if status == "open":
            raise TrackerRefused(f"{issue_id}: it was archived")
        set_issue_status(issue_id, status)
        if issue_id == ISSUE:
            engine.leases.stop(ISSUE, WORDS, hold=True)

    monkeypatch.setattr(engine.gateway, "set_issue_status", refuses)

    assert ["i-b2c3"] == engine.poll()
    assert {"i-b2c3"} == engine.inflight()


def test_an_issue_that_is_asked_for_while_it_stops_runs_after_that(engine, issue):
    """The wish is kept, with an answer that is true, and what held the issue is forgotten."""

    def asked_for(_lease):
        engine.leases.want(issue)
        assert [] == engine.poll()
        said.append(engine.leases.answered(issue))
        return []

    said: list[str | None] = []
    at_work = AtWork(engine, put_aside=asked_for)
    engine.leases.stop(issue, WORDS, hold=True)
    at_work.worker.join(30)
    engine.publish()

    assert ["it is being stopped; it runs again after that"] == said
    assert [issue] == engine.poll()


def test_a_session_that_ends_just_before_is_not_spoilt(engine, issue):
    """A stop that comes when all steps are done changes neither the verdict nor what happens to the issue next."""
    lease = engine.acquired(issue)
    engine.leases.stop(issue, WORDS, hold=True)
    history = engine.history(lease)
    history.recorded()
    history.record(a_report(), [])
    history.close(Verdict.DONE, [])
    engine.publish()

    assert Verdict.DONE == engine.leases.holding(issue).verdict
    assert isinstance(engine.leases.claim(issue), Claim)


def test_work_that_cannot_be_put_aside_is_told_of(engine, issue):
    """The session ends all the same, and says where its work is."""

    def refuses(_lease):
        raise WorkspaceError("git refused: the disk is full")

    at_work = AtWork(engine, put_aside=refuses)
    engine.leases.stop(issue, WORDS, hold=True)
    at_work.worker.join(30)

    expected = f"{WORDS}; its unfinished work stays in its worktree: git refused: the disk is full"
    assert expected == engine.leases.holding(issue).reason


def test_a_stop_reaches_a_worker_to_which_redis_was_away(own_redis):
    """The worker looks again when Redis is back, which keeps what it was told."""
    engine = Engine(own_redis.url, "test")
    engine.slots(1)
    engine.tracker.file("One", issue_id=ISSUE)
    engine.poll()
    at_work = AtWork(engine)
    own_redis.freeze()
    stopper = threading.Thread(target=engine.elsewhere().leases.stop, args=(ISSUE, WORDS), kwargs={"hold": True})
    stopper.start()
    own_redis.thaw()
    stopper.join(30)
    at_work.worker.join(30)

    wait_until(lambda: engine.leases.holding(ISSUE).verdict == Verdict.ERROR, "the session should have been stopped")


def test_a_rescue_needs_no_tracker(engine, issue):
    """It takes up sessions, ends stopped ones, and leaves a claim that needs the tracker to a poll."""
    engine.acquired(issue)
    engine.opened("i-b2c3")
    engine.claimed("i-c3d4")
    for silent in (issue, "i-b2c3", "i-c3d4"):
        engine.fall_silent(silent)
    engine.leases.stop("i-b2c3", WORDS, hold=True)

    assert engine.leases.silent()
    assert [issue] == engine.rescue()
    assert not engine.leases.silent()
    assert {issue, "i-c3d4"} == engine.inflight()
    assert ["i-c3d4"] == [claim.issue_id for claim in engine.leases.expired()]
