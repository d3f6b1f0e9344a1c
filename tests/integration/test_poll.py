"""Polls over a real Redis: which issues start, how many, each once, and what becomes of what could not be started."""

from __future__ import annotations

import queue
import threading
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

import pytest
import structlog.testing

from orchestrator.adapters.redis.leases import RedisLeases
from orchestrator.errors import (
    AgentFailed,
    InvalidMCPResponseError,
    RedisUnavailable,
    TrackerUnavailable,
    TransientMCPError,
)
from orchestrator.memory import MemoryTracker
from orchestrator.models import Claim, Entry, Progress, Report, SessionRecord, Step, Verdict
from orchestrator.text import redacted
from tests.engine import MAX_RESCUES, Engine, doing, saying_yes
from tests.support import Roles, gateway_to, wait_until


class Killed(BaseException):
    """The poll was killed here."""


class Fragile(MemoryTracker):
    """A tracker on which a call of the named tool may fail: before it is carried out, or after."""

    def __init__(self) -> None:
        super().__init__()
        self.fails_before: dict[str, BaseException] = {}
        self.fails_after: dict[str, BaseException] = {}

    def ready(self) -> Any:
        return self._call("ready", super().ready)

    def show_issue(self, issue_id: str) -> Any:
        return self._call(f"show {issue_id}", lambda: super(Fragile, self).show_issue(issue_id))

    def upsert_issue(self, **arguments: Any) -> Any:
        return self._call("upsert", lambda: super(Fragile, self).upsert_issue(**arguments))

    def _call(self, tool: str, call: Callable[[], Any]) -> Any:
        if tool in self.fails_before:
            raise self.fails_before[tool]
        answer = call()
        if tool in self.fails_after:
            raise self.fails_after[tool]
        return answer


@pytest.fixture
def fragile(engine: Engine) -> Fragile:
    """The engine's tracker, which may fail."""
    engine.tracker = Fragile()
    engine.gateway = gateway_to(engine.tracker)
    return engine.tracker


# --- how many, and in which order ---


def test_two_pollers_run_forty_issues_each_once_in_order_within_the_slots(engine: Engine) -> None:
    """Forty issues, two pollers, four slots: never more than four at once, urgent ones first, all done."""
    engine.slots(3)
    engine.slots(1, "second@test")
    issues = [engine.tracker.file(f"Issue {n}", priority=n % 3) for n in range(40)]
    messages: queue.Queue[tuple[str, int]] = queue.Queue()
    started: list[tuple[int, str]] = []
    most_inflight: list[int] = []
    running, most_running, guard = Counter[str](), [0], threading.Lock()
    over = threading.Event()

    def start(issue_id: str, token: int) -> None:
        started.append((token, issue_id))
        most_inflight.append(len(engine.inflight()))
        messages.put((issue_id, token))

    def poll(mine: Engine) -> None:
        while not over.is_set():
            mine.poll(start=start)

    def work(mine: Engine) -> None:
        while not over.is_set():
            try:
                issue_id, _ = messages.get(timeout=0.05)
            except queue.Empty:
                continue
            with guard:
                running[issue_id] += 1
                most_running[0] = max(most_running[0], sum(running.values()))
            mine.sessions().run(issue_id)
            with guard:
                running[issue_id] -= 1

    threads = [threading.Thread(target=poll, args=(engine.elsewhere(),)) for _ in range(2)]
    threads += [threading.Thread(target=work, args=(engine.elsewhere(),)) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        wait_until(lambda: _ended(engine) == 40, "all sessions should have ended", timeout=60)
    finally:
        over.set()
        for thread in threads:
            thread.join()
    engine.publish()

    assert sorted(issues, key=lambda issue_id: (engine.tracker.issues[issue_id]["priority"], issue_id)) == [
        issue_id for _, issue_id in sorted(started)
    ]
    assert max(most_inflight) <= 4
    assert most_running[0] <= 4
    assert {"needs_review"} == {engine.status(issue_id) for issue_id in issues}
    assert {1} == {engine.events(issue_id).count("SESSION_START") for issue_id in issues}
    assert {5} == {len(engine.events(issue_id)) for issue_id in issues}


def _ended(engine: Engine) -> int:
    return sum(one.verdict == "DONE" for one in engine.leases.holdings())


def test_a_full_engine_does_not_ask_the_tracker(engine: Engine, fragile: Fragile) -> None:
    """The tracker is slow: it is asked only while a slot is free."""
    engine.slots(1)
    engine.running("i-0")
    fragile.fails_before["ready"] = AssertionError("nobody needs to know what is ready")

    assert [] == engine.poll()


# --- which ---


def test_a_malformed_record_is_reported_by_name_and_skipped(engine: Engine) -> None:
    """One odd record stops none of the others."""
    good, bad = engine.tracker.file("Good"), engine.tracker.file("Bad", priority=0)
    engine.tracker.issues[bad]["priority"] = True
    with structlog.testing.capture_logs() as lines:
        started = engine.poll()

    assert [good] == started
    assert [True] == [bad in line["problem"] for line in lines if line["event"] == "malformed_ready_record"]


def test_an_issue_waits_until_its_blockers_are_closed(engine: Engine) -> None:
    """A blocker in needs_review is not merged yet: what builds on it waits, though the tracker holds it ready."""
    blocker, dependant = engine.tracker.file("First"), engine.tracker.file("Then")
    engine.tracker.link(from_id=dependant, to_id=blocker, type="depends-on")
    engine.tracker.upsert_issue(issue_id=blocker, status="needs_review")

    assert [] == engine.poll()
    assert "open" == engine.status(dependant)
    assert set() == engine.inflight()

    engine.tracker.upsert_issue(issue_id=blocker, status="closed")

    assert [dependant] == engine.poll()


@pytest.mark.parametrize("status", ["in_progress", "blocked", "needs_review", "closed"])
def test_an_issue_that_changed_between_ready_and_claim_is_not_started(engine: Engine, status: str) -> None:
    """The issue is read again once it is claimed; what is not open any more is given back, untouched."""
    issue_id = engine.tracker.file("One")
    ready = engine.tracker.ready()
    engine.tracker.upsert_issue(issue_id=issue_id, status=status)
    engine.tracker.ready = lambda: ready  # type: ignore[method-assign] # the moment is what is tested
    engine.gateway = gateway_to(engine.tracker)

    assert [] == engine.poll()
    assert status == engine.status(issue_id)
    assert 4 == engine.leases.free()
    assert 0 == engine.outbox.waiting()


def test_a_fix_issue_goes_on_from_its_original_s_branch(engine: Engine) -> None:
    """The session of a [FIX] issue starts where the original's session left its branch."""
    original = engine.tracker.file("One")
    engine.poll()
    engine.sessions(doing(saying_yes(Roles(quality_noes=2)))).run(original)
    engine.publish()
    (fix,) = engine.poll()

    assert f"orch/{original}" == engine.acquired(fix).record.start_from


def test_reviewers_who_never_agree_do_not_go_on_all_night(engine: Engine) -> None:
    """Three [FIX] issues in a row run by themselves; the fourth waits until somebody asks for it."""
    engine.tracker.file("One")
    started = []
    while begun := engine.poll():
        started += begun
        engine.sessions(doing(saying_yes(Roles(quality_noes=2)))).run(begun[0])
        engine.publish()
    *_, fourth = engine.tracker.issues
    engine.leases.want(fourth)

    assert 4 == len(started)
    assert [fourth] == engine.poll()


def test_only_a_fix_issue_goes_on_from_another_branch(engine: Engine) -> None:
    """That an issue's text names an original is not enough."""
    issue_id = engine.tracker.file("Copy the [FIX]", content="Original issue: i-abc1")
    engine.poll()

    assert "" == engine.acquired(issue_id).record.start_from


def test_an_issue_that_cannot_be_read_stops_none_of_the_others(engine: Engine, fragile: Fragile) -> None:
    """An issue that the tracker cannot show is given back, and the next one starts."""
    odd, good = fragile.file("Odd", priority=0), fragile.file("Good")
    fragile.fails_before[f"show {odd}"] = InvalidMCPResponseError("show_issue: not an object")

    assert [good] == engine.poll()
    assert {good} == engine.inflight()


def test_a_secret_in_an_issue_stays_in_the_tracker(engine: Engine) -> None:
    """Its session has the text without it, and one line says whose it is and what to do."""
    secret = f"ghp_{'a1' * 18}"
    issue_id = engine.tracker.file(f"Log in with {secret}", content=f"password=hunter2\n\n- [ ] {secret} works\n")
    clean = engine.tracker.file("Clean")
    with structlog.testing.capture_logs() as said:
        engine.poll(redact=redacted)
    issue = engine.acquired(issue_id).record.issue

    assert ("Log in with [redacted]", "- [ ] [redacted] works") == (issue.title, issue.dod_checklist_full)
    assert "password=[redacted]" == issue.description
    told = [line for line in said if line["event"] == "secret_in_issue"]
    assert [(issue_id, "warning")] == [(line["issue"], line["log_level"]) for line in told]
    assert "make that secret anew" in told[0]["hint"]
    assert "Clean" == engine.acquired(clean).record.issue.title


# --- asked for ---


def test_an_issue_asked_for_goes_first(engine: Engine) -> None:
    """What somebody asked for starts before what is more urgent, even while it is still in progress."""
    engine.slots(1)
    urgent, asked = engine.tracker.file("Urgent", priority=0), engine.tracker.file("Asked", priority=4)
    engine.tracker.upsert_issue(issue_id=asked, status="in_progress")
    engine.leases.want(asked)

    assert [asked] == engine.poll()
    assert "it is running" == engine.leases.answered(asked)
    assert [] == engine.leases.wanted()
    assert "open" == engine.status(urgent)


def test_who_asks_for_what_cannot_run_is_told_why(engine: Engine) -> None:
    """A closed issue, one that waits for others, one that runs and one that does not exist: each is answered."""
    closed, waits, blocker = (engine.tracker.file(title) for title in ("Closed", "Waits", "Blocker"))
    engine.tracker.upsert_issue(issue_id=closed, status="closed")
    engine.tracker.upsert_issue(issue_id=blocker, status="needs_review")
    engine.tracker.link(from_id=blocker, to_id=waits, type="blocks")
    engine.running("i-running")
    for issue_id in (closed, waits, "i-running", "i-none"):
        engine.leases.want(issue_id)

    assert [] == engine.poll()
    assert {
        closed: "its status is closed; only an open issue is claimed",
        waits: f"it waits for {blocker} to be closed",
        "i-running": "it is running already",
        "i-none": "Issue not found: i-none",
    } == {issue_id: engine.leases.answered(issue_id) for issue_id in (closed, waits, "i-running", "i-none")}
    assert [] == engine.leases.wanted()


def test_an_issue_asked_for_while_all_slots_are_taken_is_next(engine: Engine) -> None:
    """It is told so, stays on the list, and takes the slot that is freed."""
    engine.slots(1)
    lease = engine.running("i-0")
    engine.tracker.file("Urgent", priority=0)
    asked = engine.tracker.file("Asked", priority=4)
    engine.leases.want(asked)

    assert [] == engine.poll()
    assert "it waits for a free slot and is next" == engine.leases.answered(asked)

    engine.history(lease).close(Verdict.DONE, [])

    assert [asked] == engine.poll()


# --- what died, and what was away ---


@pytest.mark.parametrize("moment", ["before in_progress", "after in_progress"])
def test_a_claim_whose_poll_was_killed_is_begun_again(engine: Engine, fragile: Fragile, moment: str) -> None:
    """Killed between claim and in_progress, or between in_progress and opening: the issue starts, once."""
    issue_id = fragile.file("One")
    fails = fragile.fails_before if moment == "before in_progress" else fragile.fails_after
    fails["upsert"] = Killed()
    with pytest.raises(Killed):
        engine.poll()
    fails.clear()

    assert [] == engine.poll()

    engine.fall_silent(issue_id)

    assert [issue_id] == engine.poll()

    engine.sessions().run(issue_id)
    engine.publish()

    assert "needs_review" == engine.status(issue_id)
    assert 1 == engine.events(issue_id).count("SESSION_START")


def test_a_session_whose_message_was_lost_is_started_again(engine: Engine) -> None:
    """Killed between opening and enqueueing, the poll leaves a session that the next one starts."""

    def lost(issue_id: str, token: int) -> None:
        raise Killed

    issue_id = engine.tracker.file("One")
    with pytest.raises(Killed):
        engine.poll(start=lost)
    engine.fall_silent(issue_id)

    assert [issue_id] == engine.poll()


@pytest.mark.parametrize(
    ("error", "raised"),
    [(TransientMCPError("no answer"), TrackerUnavailable), (InvalidMCPResponseError("not JSON"), None)],
)
def test_a_claim_is_kept_when_in_progress_may_have_been_applied(
    engine: Engine, fragile: Fragile, error: Exception, raised: type[Exception] | None
) -> None:
    """What the tracker did is not known, so the claim is kept: it is what brings the issue to run after all."""
    issue_id = fragile.file("One")
    fragile.fails_after["upsert"] = error
    if raised:
        with pytest.raises(raised):
            engine.poll()
    else:
        assert [] == engine.poll()

    assert "in_progress" == engine.status(issue_id)
    assert {issue_id} == engine.inflight()

    fragile.fails_after.clear()
    engine.fall_silent(issue_id)

    assert [issue_id] == engine.poll()


def test_a_claim_is_kept_when_redis_goes_away_before_it_is_opened(engine: Engine) -> None:
    """in_progress is applied already; giving the claim back would leave the issue in progress with nobody to run it."""

    class Away(RedisLeases):
        def open(self, claim: Claim, record: SessionRecord, entries: Iterable[Entry]) -> None:
            raise RedisUnavailable("Redis is away")

    issue_id = engine.tracker.file("One")
    away = Away(engine.client, engine.keys, lease_s=30)
    with pytest.raises(RedisUnavailable):
        engine.poll(claims=away)

    assert {issue_id} == engine.inflight()

    engine.fall_silent(issue_id)

    assert [issue_id] == engine.poll()


def test_a_tracker_that_is_away_does_not_hold_up_what_is_running(engine: Engine, fragile: Fragile) -> None:
    """Sessions whose worker died go on without the tracker; a claim that needs it does not come before them."""
    fragile.fails_before["ready"] = TransientMCPError("no answer")
    unopened, silent = fragile.file("Unopened"), fragile.file("Silent")
    fragile.fails_before[f"show {unopened}"] = TransientMCPError("no answer")
    engine.claimed(unopened)
    engine.running(silent)
    for issue_id in (unopened, silent):
        engine.fall_silent(issue_id)
    with pytest.raises(TrackerUnavailable):
        engine.poll()

    assert [silent] == [issue_id for issue_id, _ in engine.started]


def test_a_session_that_kills_every_worker_is_given_up(engine: Engine) -> None:
    """Rescued too often in the same step, it ends in SESSION_ERROR, is open again and is held back."""
    issue_id = engine.tracker.file("Deadly")
    engine.poll()
    rescued = []
    for _ in range(MAX_RESCUES + 1):
        engine.acquired(issue_id)
        engine.fall_silent(issue_id)
        rescued.append(engine.poll())
    engine.publish()

    assert [*[[issue_id]] * MAX_RESCUES, []] == rescued
    assert ["SESSION_START", "SESSION_ERROR"] == engine.events(issue_id)
    assert "open" == engine.status(issue_id)
    assert set() == engine.inflight()
    assert [] == engine.poll()


def test_errors_in_a_row_stop_an_issue_until_somebody_asks_for_it(engine: Engine) -> None:
    """An issue that ends in errors again and again waits for a person; the others run."""

    def fails(step: Step, progress: Progress) -> Report:
        raise AgentFailed("the agent exited with 3")

    issue_id = engine.tracker.file("One")
    for _ in range(3):
        engine.client.delete(engine.keys("held"))  # as if the wait were over
        assert [issue_id] == engine.poll()
        with pytest.raises(AgentFailed):
            engine.sessions(doing(fails)).run(issue_id)
        engine.publish()
        assert [] == engine.poll()

    assert float("inf") == engine.client.zscore(engine.keys("held"), issue_id)

    engine.leases.want(issue_id)

    assert [issue_id] == engine.poll()
