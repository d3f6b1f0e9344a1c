"""What is counted: each end, step, rescue and merge once, whoever dies or asks again; what is lost harms nobody."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from orchestrator.adapters.redis import connect
from orchestrator.adapters.redis.counts import RedisCounts, timed
from orchestrator.adapters.redis.merges import RedisMerges
from orchestrator.errors import InvalidMCPResponseError, LeaseLost, TrackerRefused, TransientMCPError
from orchestrator.models import Stage, Verdict
from tests.engine import Engine, a_report
from tests.integration.conftest import OwnRedis


def counted(engine: Engine) -> dict[str, str]:
    """Everything that is counted but how long it took."""
    counts = engine.client.hgetall(engine.keys("counts"))
    return {field: n for field, n in counts.items() if not field.endswith("|ms")}


def test_a_step_is_counted_once(engine: Engine) -> None:
    """A worker that lost its session and one that records again what was recorded add nothing."""
    lease = engine.running()
    first, again = engine.history(lease), engine.history(lease)
    first.record(a_report(), [])
    again.record(a_report(), [])
    engine.fall_silent(lease.issue_id)
    engine.leases.expired()
    engine.acquired(owner="another")
    with pytest.raises(LeaseLost):
        first.record(a_report(Stage.SPEC_REVIEW), [])

    assert {"step_seconds|RUNNING|10": "1", "rescues|": "1"} == counted(engine)


def test_an_end_is_counted_once(engine: Engine) -> None:
    """By its verdict."""
    lease = engine.running()
    for _ in range(2):
        engine.history(lease).close(Verdict.OVERFLOW, [])

    assert {"session_seconds|OVERFLOW|10": "1"} == counted(engine)


def test_a_stop_is_no_error(engine: Engine) -> None:
    """Whoever stops all sessions has not broken the agents."""
    lease = engine.running()
    engine.leases.stop(lease.issue_id, "stopped by me", hold=False)
    engine.history(lease).close(Verdict.ERROR, [])

    assert {"session_seconds|STOPPED|10": "1"} == counted(engine)


def test_a_step_takes_from_the_record_before_it(engine: Engine) -> None:
    """And the first from the start of its session, whatever the issue's last session recorded."""
    lease = engine.running()
    session = engine.keys("session", lease.issue_id)
    now, _ = engine.client.time()
    engine.client.hset(session, mapping={"started_at": 1000 * (now - 100), "recorded_at": 1000 * (now - 5000)})
    history = engine.history(lease)
    history.record(a_report(), [])
    engine.client.hset(session, "recorded_at", 1000 * (now - 20))
    history.record(a_report(Stage.SPEC_REVIEW), [])
    history.close(Verdict.ERROR, [])

    expected = {"step_seconds|RUNNING|120": "1", "step_seconds|SPEC_REVIEW|30": "1", "session_seconds|ERROR|120": "1"}
    assert expected == counted(engine)


def test_what_takes_longer_than_all_buckets_is_counted(engine: Engine) -> None:
    """In the last one."""
    lease = engine.running()
    engine.client.hset(engine.keys("session", lease.issue_id), "started_at", 1)
    engine.history(lease).close(Verdict.DONE, [])

    assert {"session_seconds|DONE|+Inf": "1"} == counted(engine)


def test_a_merge_is_counted_once_and_only_if_its_time_is_known(engine: Engine) -> None:
    """A pull request may be settled again, and an issue that nobody waits for adds nothing."""
    merges = RedisMerges(engine.client, engine.keys)
    engine.ended("i-a1b2")
    engine.ended("i-b1b2")
    before = counted(engine)
    merged_at = datetime.now(UTC) - timedelta(seconds=45)
    for _ in range(2):
        merges.settled("i-a1b2", merged_at=merged_at)
    merges.settled("i-b1b2")
    merges.settled("i-c1b2", merged_at=merged_at)

    assert {"merge_lag_seconds||60": "1"} == dict(counted(engine).items() - before.items())


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (None, "ok"),
        (TransientMCPError("away"), "unavailable"),
        (TrackerRefused("no"), "refused"),
        (InvalidMCPResponseError("what"), "invalid"),
        (KeyError("ours"), "failed"),
    ],
)
def test_a_tracker_call_is_noted_by_what_came_of_it(engine: Engine, error: Exception | None, outcome: str) -> None:
    """Its answer, or its error, is the caller's all the same."""

    def ready(answer: str) -> str:
        if error:
            raise error
        return answer

    call = timed(ready, RedisCounts(engine.client, engine.keys).tracker_call)
    if error:
        with pytest.raises(type(error)):
            call("all")
    else:
        assert "all" == call("all")

    assert {f"tracker_calls|ready|{outcome}": "1", "tracker_call_seconds|ready|0.05": "1"} == counted(engine)


def test_counting_fails_nobody(own_redis: OwnRedis) -> None:
    """What Redis does not take is a gap in a curve."""
    engine = Engine(own_redis.url, "counted")
    counts = RedisCounts(connect(own_redis.url, patience_s=0.1), engine.keys)
    own_redis.kill()
    counts.ticked("poll")
    counts.tracker_call("ready", "ok", 0.1)
    own_redis.start()

    assert {} == counted(engine)


def test_a_tick_that_failed_is_no_good_one(engine: Engine) -> None:
    """Both moments are kept: that somebody lives, and that it works."""
    counts = RedisCounts(engine.client, engine.keys)
    counts.ticked("poll")
    well = engine.client.hgetall(engine.keys("ticks"))
    engine.client.hset(engine.keys("ticks"), mapping={"poll": 1, "poll ok": 1})
    counts.ticked("poll", ok=False)
    after = engine.client.hgetall(engine.keys("ticks"))

    assert {"poll", "poll ok"} == set(well)
    assert after["poll"] > "1"
    assert "1" == after["poll ok"]
