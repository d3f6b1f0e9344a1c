"""The alerts: each is provoked, by making real what it is about, and no other fires with it but those it implies."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections import namedtuple
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml

from orchestrator.adapters.redis.counts import timed
from orchestrator.cli import COMMANDS
from orchestrator.errors import TransientMCPError
from orchestrator.models import IssueStatus, StatusEntry, Verdict
from tests.engine import Engine, a_record
from tests.integration.conftest import OwnRedis
from tests.support import ROOT
from tests.watched import ALERTS, Watched, names_in, needs_promtool, objections

[GROUP] = yaml.safe_load(ALERTS.read_text("utf-8"))["groups"]
RULES = {rule["alert"]: rule for rule in GROUP["rules"]}
every_alert = pytest.mark.parametrize("alert", RULES)

Disk = namedtuple("Disk", "total used free")


@pytest.fixture
def watched(own_redis: OwnRedis, tmp_path: Path) -> Iterator[Watched]:
    with Watched(Engine(own_redis.url, "watched"), tmp_path) as watched:
        yield watched


Provoke = Callable[[Watched, OwnRedis, pytest.MonkeyPatch], object]
PROVOKED: dict[str, Provoke] = {}
IMPLIED = {"RedisTakesNoWrites": {"RedisMemoryNearlyFull"}}
"""What fires as well, because it is so as well."""


def provokes(alert: str) -> Callable[[Provoke], Provoke]:
    """What makes real what this alert is about."""

    def keep(provoke: Provoke) -> Provoke:
        PROVOKED[alert] = provoke
        return provoke

    return keep


@provokes("OrchDown")
def _nobody_serves(watched: Watched, _redis: OwnRedis, _patch: pytest.MonkeyPatch) -> None:
    watched.stop()


@provokes("RedisDown")
def _redis_is_killed(_watched: Watched, redis: OwnRedis, _patch: pytest.MonkeyPatch) -> None:
    redis.kill()


@provokes("RedisTakesNoWrites")
def _redis_is_full(watched: Watched, _redis: OwnRedis, _patch: pytest.MonkeyPatch) -> None:
    watched.engine.client.config_set("maxmemory", 1)


@provokes("RedisMemoryNearlyFull")
def _redis_is_nearly_full(watched: Watched, _redis: OwnRedis, _patch: pytest.MonkeyPatch) -> None:
    used = watched.engine.client.info()["used_memory"]
    watched.engine.client.config_set("maxmemory", int(1.05 * used))


@provokes("NoSessionWorker")
def _the_worker_leaves(watched: Watched, _redis: OwnRedis, _patch: pytest.MonkeyPatch) -> None:
    watched.engine.leases.withdraw("worker@test")


@provokes("ControlWorkerSilent")
def _no_poll_ends(watched: Watched, _redis: OwnRedis, _patch: pytest.MonkeyPatch) -> None:
    then = watched.ago(180)
    watched.engine.client.hset(watched.engine.keys("ticks"), mapping={"poll": then, "poll ok": then})


@provokes("BeatSilent")
def _beat_sends_nothing(watched: Watched, _redis: OwnRedis, _patch: pytest.MonkeyPatch) -> None:
    watched.engine.client.hset(watched.engine.keys("ticks"), "beat", watched.ago(180))


@provokes("TicksFailing")
def _each_sweep_fails(watched: Watched, _redis: OwnRedis, _patch: pytest.MonkeyPatch) -> None:
    watched.engine.client.hset(watched.engine.keys("ticks"), "sweep ok", watched.ago(1200))
    watched.counts.ticked("sweep", ok=False)


@provokes("PublishBehind")
def _an_entry_waits(watched: Watched, _redis: OwnRedis, _patch: pytest.MonkeyPatch) -> None:
    watched.engine.client.xadd(watched.engine.keys("outbox"), {"issue": "i-a1b2"}, id=f"{watched.ago(900)}-0")


@provokes("TrackerFailing")
def _the_tracker_is_away(watched: Watched, _redis: OwnRedis, _patch: pytest.MonkeyPatch) -> None:
    def ready() -> None:
        raise TransientMCPError("it is away")

    for _ in range(10):
        with pytest.raises(TransientMCPError):
            timed(ready, watched.counts.tracker_call)()


@provokes("MergeLookStale")
def _no_look_goes_well(watched: Watched, _redis: OwnRedis, _patch: pytest.MonkeyPatch) -> None:
    watched.engine.client.hset(watched.engine.keys("merge-look"), "well_at", watched.ago(1800))
    watched.merges.looked("GitHub is away")


@provokes("MergeLagHigh")
def _a_merge_is_seen_late(watched: Watched, _redis: OwnRedis, _patch: pytest.MonkeyPatch) -> None:
    watched.engine.ended("i-a1b2")
    watched.merges.settled("i-a1b2", merged_at=datetime.now(UTC) - timedelta(hours=1))


@provokes("SessionsFailing")
def _sessions_end_in_errors(watched: Watched, _redis: OwnRedis, _patch: pytest.MonkeyPatch) -> None:
    for number in range(4):
        watched.engine.ended(f"i-a{number}", Verdict.ERROR)


@provokes("OverflowRateHigh")
def _sessions_overflow(watched: Watched, _redis: OwnRedis, _patch: pytest.MonkeyPatch) -> None:
    for number in range(6):
        watched.engine.ended(f"i-a{number}", Verdict.OVERFLOW)


@provokes("RescuesFrequent")
def _workers_fall_silent(watched: Watched, _redis: OwnRedis, _patch: pytest.MonkeyPatch) -> None:
    engine = watched.engine
    lease = engine.running()
    for _ in range(6):
        engine.fall_silent(lease.issue_id)
        assert engine.leases.expired()
        lease = engine.acquired()


@provokes("LeaseNotRenewed")
def _a_worker_is_silent_for_an_hour(watched: Watched, _redis: OwnRedis, _patch: pytest.MonkeyPatch) -> None:
    watched.engine.running()
    watched.engine.client.zadd(watched.engine.keys("inflight"), {"i-a1b2": watched.ago(3600)})


@provokes("QueueOld")
def _nobody_takes_a_session(watched: Watched, _redis: OwnRedis, _patch: pytest.MonkeyPatch) -> None:
    watched.engine.opened()
    watched.engine.client.hset(watched.engine.keys("session", "i-a1b2"), "waits_since", watched.ago(900))


@provokes("PausedForLong")
def _somebody_paused_it(watched: Watched, _redis: OwnRedis, _patch: pytest.MonkeyPatch) -> None:
    watched.engine.controls.pause(by="me", reason="")
    watched.engine.client.hset(watched.engine.keys("paused"), "at", watched.ago(7200))


@provokes("RefusedEntries")
def _the_tracker_refuses(watched: Watched, _redis: OwnRedis, _patch: pytest.MonkeyPatch) -> None:
    engine = watched.engine
    engine.leases.open(engine.claimed("i-a1b2"), a_record("i-a1b2"), [StatusEntry("i-a1b2", IssueStatus.IN_PROGRESS)])
    engine.acquired()
    outbox = engine.outbox
    untold = outbox.next()
    assert untold
    outbox.told(untold, refusal="i-a1b2: no such issue")


@provokes("DiskNearlyFull")
def _the_disk_is_nearly_full(_watched: Watched, _redis: OwnRedis, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(shutil, "disk_usage", lambda _path: Disk(100_000_000_000, 99_000_000_000, 1_000_000_000))


@needs_promtool
@every_alert
def test_an_alert_fires_when_it_is_so(
    alert: str, watched: Watched, own_redis: OwnRedis, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """What it is about happens; a scrape before it, and one after, are all that the rules see of it."""
    before = watched.scrape()
    PROVOKED[alert](watched, own_redis, monkeypatch)
    after = watched.scrape()

    assert "" == objections(before, after, {alert} | IMPLIED.get(alert, set()), tmp_path)


@needs_promtool
def test_an_alert_that_is_missing_is_noticed(watched: Watched, tmp_path: Path) -> None:
    """The tests above would fail if nothing fired."""
    before = watched.scrape()

    assert "OrchDown" in objections(before, before, ["OrchDown"], tmp_path)


@needs_promtool
def test_a_good_night_is_a_quiet_one(watched: Watched, tmp_path: Path) -> None:
    """Sessions run and end, something is told and merged, somebody is asked for: no alert fires."""
    before = watched.scrape()
    engine = watched.engine
    for number in range(5):
        engine.ended(f"i-b{number}")
    engine.ended("i-c1", Verdict.ERROR)
    engine.running()
    engine.opened("i-c3")
    engine.leases.want("i-c4")
    watched.merges.settled("i-b1", merged_at=datetime.now(UTC))
    timed(lambda: None, lambda _tool, outcome, s: watched.counts.tracker_call("ready", outcome, s))()

    assert "" == objections(before, watched.scrape(), [], tmp_path)


@needs_promtool
def test_promtool_takes_rules_and_metrics(watched: Watched) -> None:
    """The rules are valid, and metrics are named as Prometheus has it."""
    rules = subprocess.run(["promtool", "check", "rules", ALERTS], capture_output=True, text=True, check=False)
    config = ROOT / "ops/prometheus/prometheus.yml"
    configured = subprocess.run(["promtool", "check", "config", config], capture_output=True, text=True, check=False)
    served = watched.get("/metrics").text
    named = subprocess.run(["promtool", "check", "metrics"], input=served, capture_output=True, text=True, check=False)

    assert (0, 0, 0, "") == (rules.returncode, configured.returncode, named.returncode, named.stdout + named.stderr)


# Without promtool


def test_alerts_ask_only_for_what_is_served(watched: Watched) -> None:
    """A metric that was renamed makes no alert mute."""
    asked = {alert: names_in(rule["expr"]) for alert, rule in RULES.items()}
    served = {name for name, _ in watched.scrape()}

    assert all(asked.values())
    assert {} == {alert: names - served for alert, names in asked.items() if names - served}


@every_alert
def test_an_alert_says_what_to_do_and_where_it_is_written(alert: str) -> None:
    """Its page bears its name, in kebab case and in its title."""
    rule = RULES[alert]
    page = ROOT / rule["annotations"]["runbook"]
    kebab = re.sub(r"(?<!^)(?=[A-Z])", "-", alert).lower()

    assert (f"{kebab}.md", True) == (page.name, page.read_text("utf-8").startswith(f"# {alert}: "))
    assert rule["labels"]["severity"] in ("critical", "warning")
    assert rule["annotations"]["summary"].endswith(".")
    assert alert in PROVOKED


@every_alert
def test_the_commands_of_a_page_exist(alert: str) -> None:
    """Whoever types what it says gets no "no such command"."""
    page = (ROOT / RULES[alert]["annotations"]["runbook"]).read_text("utf-8")
    commands = re.findall(r"(?:`|^)orch ([a-z][a-z-]*)", page, re.MULTILINE)

    assert commands
    assert [] == [command for command in commands if command not in COMMANDS]


def test_the_dashboard_asks_only_for_what_is_served(watched: Watched) -> None:
    """Each panel names metrics, and each name is one of ours."""
    dashboard = json.loads((ROOT / "ops/grafana/dashboards/orch.json").read_text("utf-8"))
    asked = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", ())]
    served = {name for name, _ in watched.scrape()}

    assert [] == [query for query in asked if "ALERTS" not in query and not names_in(query)]
    assert set() == {name for query in asked for name in names_in(query)} - served
