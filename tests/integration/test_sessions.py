"""Sessions over a real Redis: to a verdict whatever dies, each step once, and nothing written by a zombie."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import structlog.testing

from orchestrator.adapters.redis import connect
from orchestrator.adapters.redis.leases import RedisLeases
from orchestrator.errors import AgentFailed, RedisUnavailable
from orchestrator.models import Lease, Progress, Refusal, Report, Step, Verdict
from orchestrator.session.keeper import LeaseKeeper
from orchestrator.session_loop import Doer, History
from tests.engine import Engine, doing, saying_yes
from tests.integration.conftest import Fork, OwnRedis
from tests.support import Roles, wait_until

ISSUE = "i-a1b2"
CLEAN = ["RUNNING/1", "SPEC_REVIEW/1", "QUALITY_REVIEW/1", "VERIFICATION/1"]
EVENTS = ["SESSION_START", "IMPLEMENT_DONE", "SPEC_REVIEW_PASS", "QUALITY_REVIEW_PASS", "SESSION_DONE"]


class Written:
    """A doer that writes down which steps it does, where other processes can read it."""

    def __init__(
        self,
        path: Path,
        before: Callable[[Step], object] = lambda step: None,
        after: Callable[[Step], object] = lambda step: None,
    ) -> None:
        self.path, self.before, self.after = path, before, after
        path.touch()

    def __call__(self, step: Step, progress: Progress) -> Report:
        self.before(step)
        with self.path.open("a") as steps:
            steps.write(f"{step.stage}/{step.attempt}\n")
        report = saying_yes()(step, progress)
        self.after(step)
        return report

    @property
    def steps(self) -> list[str]:
        """All steps done so far, by whomever."""
        return self.path.read_text().splitlines()


@pytest.fixture
def issue(engine: Engine) -> str:
    """An issue whose session is opened and started."""
    engine.tracker.file("One", issue_id=ISSUE)
    assert [ISSUE] == engine.poll()
    return ISSUE


def die() -> None:
    """As if somebody had killed this process."""
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("deadly", CLEAN)
@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_session_whose_worker_is_killed_goes_on_at_the_step_it_was_in(
    engine: Engine, issue: str, fork: Fork, tmp_path: Path, deadly: str, moment: str
) -> None:
    """Killed in whatever step: the next worker does that one again and no other; the tracker hears no difference."""

    def dies(step: Step) -> None:
        if f"{step.stage}/{step.attempt}" == deadly:
            die()

    doomed = Written(tmp_path / "steps", **{moment: dies})
    child = fork(lambda: engine.elsewhere().sessions(doing(doomed)).run(issue))
    os.waitpid(child, 0)
    engine.fall_silent(issue)

    assert [issue] == engine.poll()

    engine.sessions(doing(Written(tmp_path / "steps"))).run(issue)
    engine.publish()
    before, after = CLEAN[: CLEAN.index(deadly)], CLEAN[CLEAN.index(deadly) :]

    assert [*before, *([deadly] if moment == "after" else []), *after] == doomed.steps
    assert EVENTS == engine.events(issue)
    assert "needs_review" == engine.status(issue)


def test_a_session_killed_between_its_last_step_and_its_end_only_ends(
    engine: Engine, issue: str, fork: Fork, tmp_path: Path
) -> None:
    """When all steps are recorded, nothing is done again: the verdict follows from what is there."""

    def dies_at_the_end(lease: Lease) -> History:
        history = mine.history(lease)
        history.close = lambda *_told, **_why: die()  # type: ignore[method-assign] # the moment is what is tested
        return history

    written = Written(tmp_path / "steps")
    mine = engine.elsewhere()
    child = fork(lambda: mine.sessions(doing(written), history=dies_at_the_end).run(issue))
    os.waitpid(child, 0)

    assert CLEAN == written.steps

    engine.fall_silent(issue)
    engine.poll()
    engine.sessions(doing(written)).run(issue)
    engine.publish()

    assert CLEAN == written.steps
    assert EVENTS == engine.events(issue)


def test_messages_that_arrive_twice_run_the_session_once(engine: Engine, issue: str, tmp_path: Path) -> None:
    """Of several workers that get the same message at once, one runs the session and the others leave."""
    written = Written(tmp_path / "steps")
    workers = [
        threading.Thread(target=engine.elsewhere().sessions(doing(written)).run, args=(issue,)) for _ in range(4)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    engine.sessions(doing(written)).run(issue)

    assert CLEAN == written.steps


def test_a_worker_that_lost_its_session_writes_nothing_and_leaves_quietly(
    engine: Engine, issue: str, tmp_path: Path
) -> None:
    """A worker that stood still while another took its session over adds nothing to it, and raises nothing."""

    def overtaken(step: Step) -> None:
        if not heir:
            engine.fall_silent(issue)
            engine.poll()
            heir.append(engine.elsewhere().acquired(issue, "heir"))

    heir: list[Lease] = []
    with structlog.testing.capture_logs() as lines:
        engine.sessions(doing(Written(tmp_path / "steps", before=overtaken))).run(issue)

    assert [] == engine.history(heir[0]).recorded()
    assert engine.leases.renew(heir[0])
    assert ["session_left"] == [line["event"] for line in lines if line["event"] == "session_left"]
    assert "session_failed" not in [line["event"] for line in lines]


def test_a_lost_lease_is_noticed_while_a_step_runs(engine: Engine, issue: str, tmp_path: Path) -> None:
    """The holder renews while a step runs; when another worker has the session, the step is cut within a renewal."""
    cut = []

    def doer(lease: Lease, keeper: LeaseKeeper) -> Doer:
        def do(step: Step, progress: Progress) -> Report:
            engine.fall_silent(issue)
            engine.elsewhere().acquired(issue, "heir")
            wait_until(keeper.cut.is_set, "the step should have been cut")
            cut.append(step.stage)
            keeper.hold()
            raise AssertionError("a cut step must not go on")

        return do

    leases = RedisLeases(engine.client, engine.keys, lease_s=0.4)
    engine.sessions(doer, leases=leases, lease_s=0.4).run(issue)

    assert ["RUNNING"] == cut
    assert "running" == engine.held(issue).state


def test_a_long_step_keeps_its_lease(engine: Engine, issue: str, tmp_path: Path) -> None:
    """A step that takes several lease times is nobody else's as long as its worker renews."""
    leases = RedisLeases(engine.client, engine.keys, lease_s=0.3)
    expired = []

    def longer_than_a_lease(step: Step) -> None:
        begun = engine.client.time()[0]
        wait_until(
            lambda: expired.extend(engine.elsewhere().leases.expired()) or _s(engine) >= begun + 2, "two seconds"
        )

    written = Written(tmp_path / "steps", before=lambda step: step.stage == "RUNNING" and longer_than_a_lease(step))
    engine.sessions(doing(written), leases=leases, lease_s=0.3).run(issue)

    assert [] == expired
    assert CLEAN == written.steps


def _s(engine: Engine) -> int:
    return int(engine.client.time()[0])


def test_a_stopping_worker_hands_its_session_on_at_the_step_boundary(
    engine: Engine, issue: str, tmp_path: Path
) -> None:
    """A worker that stops ends the step it is in, records it, and the next poll hands the session on at once."""
    stop = threading.Event()
    first = Written(tmp_path / "steps", after=lambda step: stop.set())

    def checked(lease: Lease, keeper: LeaseKeeper) -> Doer:
        def do(step: Step, progress: Progress) -> Report:
            keeper.check()
            return first(step, progress)

        return do

    engine.sessions(checked, stopping=stop.is_set).run(issue)

    assert CLEAN[:1] == first.steps
    assert [issue] == engine.poll()
    assert 0 == int(engine.client.hget(engine.keys("session", issue), "rescues"))

    engine.sessions(doing(Written(tmp_path / "steps"))).run(issue)

    assert CLEAN == first.steps


@pytest.mark.parametrize("after", CLEAN)
def test_a_session_whose_last_step_redis_lost_does_that_step_again(
    engine: Engine, issue: str, tmp_path: Path, after: str
) -> None:
    """Redis came back without the last report: the session is given back at once, and goes on from what is left."""
    forgotten: list[object] = []

    def forgets(step: Step) -> None:
        done = f"{step.stage}/{step.attempt}"
        if not forgotten and CLEAN.index(done) == CLEAN.index(after) + 1:
            (session_id,) = engine.leases.runs(issue)
            forgotten.append(engine.client.rpop(engine.keys("history", session_id)))

    def forgets_at_the_end(lease: Lease) -> History:
        history = engine.history(lease)
        if after == CLEAN[-1] and not forgotten:
            close = history.close

            def forgets_first(*told: Any, **why: Any) -> None:
                forgotten.append(engine.client.rpop(engine.keys("history", lease.record.session_id)))
                close(*told, **why)

            history.close = forgets_first  # type: ignore[method-assign] # the moment is what is tested
        return history

    written = Written(tmp_path / "steps", before=forgets)
    engine.sessions(doing(written), history=forgets_at_the_end).run(issue)

    assert len(forgotten) == 1
    assert [issue] == engine.poll()
    assert 0 == int(engine.client.hget(engine.keys("session", issue), "rescues"))

    engine.sessions(doing(again := Written(tmp_path / "again"))).run(issue)
    engine.publish()

    assert CLEAN[CLEAN.index(after) :] == again.steps
    assert "SESSION_DONE" == engine.events(issue)[-1]
    assert "needs_review" == engine.status(issue)


def test_an_error_ends_the_session_and_reopens_the_issue(engine: Engine, issue: str) -> None:
    """What ends a session is told with its reason, the issue is open again, and waits before it is tried again."""

    def fails(step: Step, progress: Progress) -> Report:
        raise AgentFailed(f"{issue}: the agent exited with 3")

    with pytest.raises(AgentFailed):
        engine.sessions(doing(fails)).run(issue)
    engine.publish()

    assert ["SESSION_START", "SESSION_ERROR"] == engine.events(issue)
    assert "open" == engine.status(issue)
    assert Refusal.WAITING == engine.leases.claim(issue)
    assert f"{issue}: the agent exited with 3" == engine.held(issue).reason


def test_an_overflow_ends_in_a_fix_issue(engine: Engine, issue: str) -> None:
    """A session whose reviews say no to the end is told as one [FIX] issue, and is for people to look at."""
    engine.sessions(doing(saying_yes(Roles(spec_noes=3)))).run(issue)
    engine.publish()

    assert "OVERFLOW_FIX_CREATED" == engine.events(issue)[-1]
    assert Verdict.OVERFLOW == engine.held(issue).verdict
    assert "needs_review" == engine.status(issue)


def test_a_session_whose_redis_goes_away_is_left_and_goes_on_later(own_redis: OwnRedis, tmp_path: Path) -> None:
    """Redis away for longer than our patience ends the run with one line, not the session with SESSION_ERROR."""
    engine = Engine(own_redis.url, "away", client=connect(own_redis.url, patience_s=0.3))
    engine.slots(1)
    engine.tracker.file("One", issue_id=ISSUE)
    engine.poll()
    steps = iter([lambda: None, own_redis.kill])
    written = Written(tmp_path / "steps", after=lambda step: next(steps)())
    with structlog.testing.capture_logs() as lines:
        engine.sessions(doing(written)).run(ISSUE)

    assert ["session_started", "session_left"] == [line["event"] for line in lines]

    own_redis.start()
    engine.fall_silent(ISSUE)

    assert [ISSUE] == engine.poll()

    again = Written(tmp_path / "again")
    engine.sessions(doing(again)).run(ISSUE)
    engine.publish()

    assert CLEAN[1:] == again.steps
    assert EVENTS == engine.events(ISSUE)


def test_a_client_that_waits_for_redis_does_not_keep_a_step_from_being_cut(own_redis: OwnRedis) -> None:
    """However patient the session's own client is, a step is cut when its lease could not be renewed in time."""
    engine = Engine(own_redis.url, "silent", client=connect(own_redis.url, patience_s=60))
    engine.slots(1)
    engine.tracker.file("One", issue_id=ISSUE)
    engine.poll()
    impatient = RedisLeases(connect(own_redis.url, patience_s=0.1), engine.keys, lease_s=1)

    def doer(lease: Lease, keeper: LeaseKeeper) -> Doer:
        def do(step: Step, progress: Progress) -> Report:
            own_redis.freeze()
            wait_until(keeper.cut.is_set, "the step should have been cut", timeout=4)
            own_redis.thaw()
            keeper.hold()
            raise AssertionError("a cut step must not go on")

        return do

    with structlog.testing.capture_logs() as lines:
        engine.sessions(
            doer, leases=RedisLeases(engine.client, engine.keys, lease_s=1), lease_s=1, renewals=impatient
        ).run(ISSUE)

    assert f"{ISSUE}: its lease could not be renewed for 1 s; nothing more is written here" == lines[-1]["reason"]


def test_a_message_that_meets_no_redis_is_left(tmp_path: Path) -> None:
    """Redis away before the session began is one line too; the session is handed on when Redis is back."""
    nobody = f"unix://{tmp_path}/nobody.sock"
    engine = Engine(nobody, "nobody", client=connect(nobody, patience_s=0.1))
    with structlog.testing.capture_logs() as lines:
        engine.sessions().run(ISSUE)

    assert ["session_left"] == [line["event"] for line in lines]
    with pytest.raises(RedisUnavailable):
        engine.leases.free()
