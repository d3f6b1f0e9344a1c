"""What `orch web` answers those who watch: metrics, health and readiness."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestrator.adapters.redis import Keys, connect
from orchestrator.adapters.redis.client import PatientRedis
from orchestrator.adapters.redis.metrics import RedisMetrics
from orchestrator.models import Stage, Verdict
from orchestrator.web.measures import HERE, MEASURES, UP
from orchestrator.web.metrics import Collector
from tests.engine import Engine, a_report
from tests.integration.conftest import OwnRedis
from tests.watched import Watched, settings_of


@pytest.fixture
def watched(engine: Engine, tmp_path: Path) -> Iterator[Watched]:
    with Watched(engine, tmp_path) as watched:
        yield watched


def test_sessions_are_told_by_state_and_stage(watched: Watched) -> None:
    """The stage is that of the step under way: a review that said no leads to its fix."""
    engine = watched.engine
    engine.opened("i-a1")
    engine.running("i-a2")
    history = engine.history(engine.running("i-a3"))
    history.record(a_report(), [])
    history.record(a_report(Stage.SPEC_REVIEW, passed=False), [])

    there = {
        tuple(dict(labels)[label] for label in ("state", "stage")): value
        for (name, labels), value in watched.scrape().items()
        if name == "orch_sessions" and value
    }
    assert {("claimed", "RUNNING"): 1, ("running", "RUNNING"): 1, ("running", "SPEC_FIX"): 1} == there
    assert (3, 4) == (watched.value("orch_slots_used"), watched.value("orch_slots"))


def test_a_claim_without_a_session_is_told(watched: Watched) -> None:
    """It holds a slot, too."""
    watched.engine.claimed("i-a1")

    assert 1 == watched.value("orch_sessions", state="claimed", stage="RUNNING")


def test_ends_are_told_by_verdict(watched: Watched) -> None:
    """As a counter that is there before the first, and as a histogram whose last bucket has all."""
    before = watched.scrape()
    watched.engine.ended("i-a1")
    watched.engine.ended("i-a2")
    after = watched.scrape()

    done = frozenset({("verdict", "DONE")})
    assert (0, 2) == tuple(scrape["orch_sessions_ended_total", done] for scrape in (before, after))
    assert 2 == after["orch_session_duration_seconds_count", done]
    assert 2 == after["orch_session_duration_seconds_bucket", done | {("le", "10.0")}]
    assert 2 == after["orch_session_duration_seconds_bucket", done | {("le", "+Inf")}]
    assert 0 == watched.value("orch_sessions_ended_total", verdict=Verdict.ERROR)


def test_what_waits_is_told_with_its_age(watched: Watched) -> None:
    """A session for its worker, an issue for its claim, and what the tracker does not know for its telling."""
    engine = watched.engine
    engine.opened("i-a1")
    engine.client.hset(engine.keys("session", "i-a1"), "waits_since", watched.ago(100))
    engine.client.zadd(engine.keys("wanted"), {"i-b1": 1000 * watched.ago(200)})
    engine.client.xadd(engine.keys("outbox"), {"issue": "i-a1"}, id=f"{watched.ago(300)}-0")

    assert 100 == pytest.approx(watched.value("orch_oldest_wait_seconds", waits_for="worker"), abs=30)
    assert 200 == pytest.approx(watched.value("orch_oldest_wait_seconds", waits_for="claim"), abs=30)
    assert 300 == pytest.approx(watched.value("orch_outbox_age_seconds"), abs=30)


def test_a_dead_workers_slots_are_not_told(watched: Watched) -> None:
    """Whoever did not announce itself in time is gone."""
    watched.engine.leases.announce("dead@host", 9, for_s=0)

    assert (1, 4) == (watched.value("orch_workers"), watched.value("orch_slots"))


def test_a_scrape_costs_two_calls(engine: Engine, tmp_path: Path) -> None:
    """However many sessions there are."""
    calls: list[Any] = []

    class Counting(PatientRedis):
        def execute_command(self, *args: Any, **options: Any) -> Any:
            calls.append(args[0])
            return super().execute_command(*args, **options)

    for number in range(4):
        engine.running(f"i-a{number}")
    pool = connect(engine.url).connection_pool
    collector = Collector(RedisMetrics(Counting(pool, 1), engine.keys, lease_s=15), settings_of(tmp_path))
    list(collector.collect())
    calls.clear()
    list(collector.collect())

    assert ["EVALSHA", "INFO"] == calls


def test_every_measure_is_served(watched: Watched) -> None:
    """Also when nothing has happened yet."""
    names = {name for name, _ in watched.scrape()}
    endings = ("", "_total", "_count")

    known = [measure.name for measure in (*HERE, UP, *MEASURES)]
    assert [] == [name for name in known if not any(name + ending in names for ending in endings)]


# While Redis is away, or takes nothing


def test_without_redis_metrics_say_so(own_redis: OwnRedis, tmp_path: Path) -> None:
    """Killed, or silent: the rest is served, and it is over when Redis is back."""
    with Watched(Engine(own_redis.url, "watched"), tmp_path) as watched:
        said = [watched.value("orch_redis_up")]
        own_redis.freeze()
        said.append(watched.value("orch_redis_up"))
        own_redis.thaw()
        own_redis.kill()
        said.append(watched.value("orch_redis_up"))
        free = watched.value("orch_disk_free_bytes")
        own_redis.start()
        said.append(watched.value("orch_redis_up"))

    assert [1, 0, 0, 1] == said
    assert free > 0


def test_ready_says_what_is_there(watched: Watched) -> None:
    """When sessions can run, each check is well and asks for nothing."""
    answer = watched.get("/readyz")

    checks = answer.json()["checks"]
    assert (200, True) == (answer.status_code, answer.json()["ready"])
    assert ["redis", "session worker", "control worker", "beat"] == [check["name"] for check in checks]
    assert all(check["ok"] and not check["next"] for check in checks)


@pytest.mark.parametrize(
    ("missing", "command"),
    [
        ("session worker", "celery -A orchestrator worker -Q sessions"),
        ("control worker", "celery -A orchestrator worker -Q poll,publish -c 1"),
        ("beat", "celery -A orchestrator beat"),
    ],
)
def test_ready_says_what_is_missing(watched: Watched, missing: str, command: str) -> None:
    """And what to start; the rest is well."""
    engine = watched.engine
    match missing:
        case "session worker":
            engine.leases.withdraw("worker@test")
        case "control worker":
            engine.client.hset(engine.keys("ticks"), "poll", watched.ago(120))
        case _:
            engine.client.hdel(engine.keys("ticks"), "beat")
    answer = watched.get("/readyz")

    [check] = [check for check in answer.json()["checks"] if not check["ok"]]
    assert (503, False, missing) == (answer.status_code, answer.json()["ready"], check["name"])
    assert check["next"].startswith(command)


def test_not_ready_without_a_redis_that_takes_writes(own_redis: OwnRedis, tmp_path: Path) -> None:
    """Full, then gone; all the while this process is healthy."""
    with Watched(Engine(own_redis.url, "watched"), tmp_path) as watched:
        watched.engine.client.config_set("maxmemory", 1)
        full = watched.get("/readyz")
        own_redis.kill()
        gone = watched.get("/readyz")
        healthy = watched.get("/healthz")

    assert [503, 503, 200] == [full.status_code, gone.status_code, healthy.status_code]
    assert "its memory is full" in full.json()["checks"][0]["says"]
    assert ["orch doctor"] == [check["next"] for check in gone.json()["checks"]]


def test_projects_are_told_apart(watched: Watched, tmp_path: Path) -> None:
    """On a shared Redis each `orch web` speaks of its own."""
    other = RedisMetrics(watched.engine.client, Keys("other"), lease_s=15)
    watched.engine.running()

    assert {} == other.seen().sessions
    assert 1 == watched.value("orch_info", project=watched.settings.project)
