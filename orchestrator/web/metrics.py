"""`/metrics`: what Prometheus is told. Everything is read when it is asked for, so no process counts for itself.

No label has more values than there are stages, verdicts, queues or tools: an issue is never one.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata

import structlog
from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, InfoMetricFamily

from beat.schedule import TICKS
from orchestrator.adapters.redis_counts import BUCKETS
from orchestrator.adapters.redis_metrics import QUEUES, Memory, RedisMetrics, Seen, SeenSession
from orchestrator.errors import RedisUnavailable
from orchestrator.models import Report, Stage, Step, Verdict
from orchestrator.session_loop import Limits, advance, session, utc_now
from orchestrator.settings import Settings

log = structlog.get_logger(__name__)

STATES = ("claimed", "running")
STAGES = tuple(stage for stage in Stage if stage not in (Stage.OVERFLOW, Stage.DONE, Stage.REVIEW_GATE))
TOOLS = ("ready", "show_issue", "upsert_issue", "add_feedback", "link", "list_issues")
OUTCOMES = ("ok", "unavailable", "refused", "invalid", "failed")


@dataclass(frozen=True)
class View:
    """What Redis says, beside what is known without it."""

    seen: Seen
    memory: Memory


Labels = tuple[str, ...]


@dataclass(frozen=True)
class Measure:
    """One metric: its name, what it says, its labels, and how it is read off a view. `kind` is its family."""

    kind: type[GaugeMetricFamily] | type[CounterMetricFamily]
    name: str
    says: str
    read: Callable[[View], Mapping[Labels, float]]
    labels: Labels = ()

    def family(self, view: View) -> Metric:
        """The metric with its values."""
        family = self.kind(self.name, self.says, labels=self.labels)
        for labels, value in self.read(view).items():
            family.add_metric(labels, value)
        return family


@dataclass(frozen=True)
class Durations:
    """One histogram of what is counted under `counted`, with a series for each of `known`, also before the first."""

    name: str
    says: str
    counted: str
    label: str = ""
    known: tuple[str, ...] = ("",)

    @property
    def labels(self) -> Labels:
        """Its label, if it has one."""
        return (self.label,) if self.label else ()

    def family(self, view: View) -> Metric:
        """The metric with its values."""
        family = HistogramMetricFamily(self.name, self.says, labels=self.labels)
        for value in self.known:
            ends = _counts(view, self.counted, value)
            bounds = [*BUCKETS[self.counted], math.inf]
            buckets = [
                (f"{bound:g}" if bound < math.inf else "+Inf", sum(n for end, n in ends.items() if float(end) <= bound))
                for bound in bounds
            ]
            total_ms = view.seen.counts.get(f"{self.counted}|{value}|ms", 0)
            family.add_metric([value] if self.label else [], buckets, total_ms / 1000)
        return family


def _counts(view: View, counted: str, label: str) -> Mapping[str, int]:
    """How much is in each bucket."""
    start = f"{counted}|{label}|"
    found = {field.removeprefix(start): n for field, n in view.seen.counts.items() if field.startswith(start)}
    return {end: n for end, n in found.items() if end != "ms"}


def _one(read: Callable[[View], float]) -> Callable[[View], Mapping[Labels, float]]:
    return lambda view: {(): read(view)}


def _gauge(name: str, says: str, read: Callable[[View], float]) -> Measure:
    return Measure(GaugeMetricFamily, name, says, _one(read))


def _sessions(view: View) -> Mapping[Labels, float]:
    there = dict.fromkeys(((state, stage) for state in STATES for stage in STAGES), 0.0)
    for row in view.seen.sessions.values():
        there[row.state, stage_of(row)] += 1
    return there


def stage_of(row: SeenSession) -> str:
    """The stage of the step that is under way, or waits to be; of a claim, the first."""
    record = row.read_record()
    life = session(Limits(record.spec_limit, record.quality_limit) if record else Limits())
    step = advance(life)
    assert isinstance(step, Step)
    for passed in row.passes:
        following = advance(life, Report(step.stage, step.attempt, utc_now(), passed == "1"))
        if not isinstance(following, Step):
            break
        step = following
    return step.stage


def _ages(names: Iterable[str], suffix: str = "") -> Callable[[View], Mapping[Labels, float]]:
    return lambda view: {(name,): view.seen.ticks.get(name + suffix, math.inf) for name in names}


def _oldest_wait(view: View) -> Mapping[Labels, float]:
    return {
        ("worker",): max((row.waits_s for row in view.seen.sessions.values()), default=0.0),
        ("claim",): view.seen.wanted_s,
    }


MEASURES: tuple[Measure | Durations, ...] = (
    Measure(
        GaugeMetricFamily,
        "orch_sessions",
        "Sessions that are claimed (and wait for a worker) or running, by the stage of their next or present step",
        _sessions,
        ("state", "stage"),
    ),
    Measure(
        CounterMetricFamily,
        "orch_sessions_ended",
        "Sessions that ended, by verdict",
        lambda view: {(v,): sum(_counts(view, "session_seconds", v).values()) for v in Verdict},
        ("verdict",),
    ),
    Durations(
        "orch_session_duration_seconds",
        "From a session's first worker to its end",
        "session_seconds",
        "verdict",
        tuple(Verdict),
    ),
    Durations(
        "orch_step_duration_seconds",
        "From the record of the step before it to its own; what had to be done again is in it",
        "step_seconds",
        "stage",
        STAGES,
    ),
    Measure(
        CounterMetricFamily,
        "orch_rescues",
        "Sessions whose worker fell silent and that were taken from it",
        _one(lambda view: view.seen.counts.get("rescues|", 0)),
    ),
    _gauge("orch_workers", "Session workers that are alive", lambda view: len(view.seen.workers)),
    _gauge("orch_slots", "Sessions that the workers can run at once", lambda view: sum(view.seen.workers.values())),
    _gauge("orch_slots_used", "Of these, how many are claimed or running", lambda view: len(view.seen.sessions)),
    _gauge(
        "orch_lease_age_seconds",
        "Since the lease of the running session that is silent longest was renewed",
        lambda view: max((row.silent_s for row in view.seen.sessions.values()), default=0.0),
    ),
    Measure(
        GaugeMetricFamily,
        "orch_oldest_wait_seconds",
        "The longest that a claimed session waits for a worker, or an issue that was asked for waits for its claim",
        _oldest_wait,
        ("waits_for",),
    ),
    Measure(
        GaugeMetricFamily,
        "orch_queue_messages",
        "Messages that wait in Celery's queues",
        lambda view: {(queue,): view.seen.queues[queue] for queue in QUEUES},
        ("queue",),
    ),
    _gauge("orch_issues_wanted", "Issues that were asked for and not yet claimed", lambda view: view.seen.wanted),
    _gauge("orch_issues_held", "Issues held back after errors", lambda view: view.seen.held),
    _gauge("orch_paused", "1 while nothing new is started, by `orch pause`", lambda view: view.seen.paused_s is not None),
    _gauge("orch_paused_seconds", "For how long it has been paused", lambda view: view.seen.paused_s or 0),
    _gauge("orch_outbox_entries", "What the tracker has still to be told", lambda view: view.seen.outbox),
    _gauge("orch_outbox_age_seconds", "The age of the oldest of these", lambda view: view.seen.outbox_s),
    _gauge("orch_refused_entries", "What the tracker refused to be told", lambda view: view.seen.refused),
    Measure(
        CounterMetricFamily,
        "orch_tracker_calls",
        "Calls of the tracker, by what came of them",
        lambda view: {(t, o): view.seen.counts.get(f"tracker_calls|{t}|{o}", 0) for t in TOOLS for o in OUTCOMES},
        ("tool", "outcome"),
    ),
    Durations(
        "orch_tracker_call_duration_seconds",
        "How long they took, with the wait for their turn",
        "tracker_call_seconds",
        "tool",
        TOOLS,
    ),
    _gauge(
        "orch_merge_look_age_seconds",
        "Since the last look for merges in which all went well",
        lambda view: math.inf if view.seen.look_s is None else view.seen.look_s,
    ),
    _gauge("orch_merge_looks_failed", "Looks in a row in which something went wrong", lambda v: v.seen.looks_failed),
    Durations(
        "orch_merge_lag_seconds", "From a pull request's merge to the closing of its issue", "merge_lag_seconds"
    ),
    _gauge("orch_sessions_unmerged", "Finished sessions whose work is not merged yet", lambda v: v.seen.unmerged),
    _gauge("orch_sessions_undelivered", "Of these, those still to be delivered", lambda view: view.seen.undelivered),
    Measure(
        GaugeMetricFamily,
        "orch_tick_age_seconds",
        "Since such a tick was carried out last, well or not; of beat, since it sent one",
        _ages((*TICKS, "beat")),
        ("tick",),
    ),
    Measure(
        GaugeMetricFamily, "orch_tick_ok_age_seconds", "Since one was that came to a good end", _ages(TICKS, " ok"), ("tick",)
    ),
    _gauge("orch_redis_writable", "1 while Redis takes writes", lambda view: not view.memory.refuses),
    _gauge("orch_redis_memory_used_bytes", "What Redis has in memory", lambda view: view.memory.used_bytes),
    _gauge("orch_redis_memory_max_bytes", "Its maxmemory; 0 for none", lambda view: view.memory.max_bytes),
)
"""All that needs Redis."""


UP = "1 while Redis answers"


class Collector:
    """The metrics of one project, for a registry of prometheus_client. Two calls to Redis each time."""

    def __init__(self, redis: RedisMetrics, settings: Settings) -> None:
        self._redis = redis
        self._settings = settings

    def describe(self) -> Iterator[Metric]:
        """Nothing: a registry that is being filled must not ask Redis."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        """Every metric; while Redis is away those that need none, after a second or two."""
        yield from self._known_without()
        try:
            view = View(self._redis.seen(), self._redis.memory())
        except RedisUnavailable as error:
            log.debug("redis_away", reason=str(error))
            yield GaugeMetricFamily("orch_redis_up", UP, value=0)
            return
        yield GaugeMetricFamily("orch_redis_up", UP, value=1)
        for measure in MEASURES:
            yield measure.family(view)

    def _known_without(self) -> Iterator[Metric]:
        settings = self._settings
        version = metadata.version("sudocode-orchestrator")
        yield InfoMetricFamily("orch", "What is watched", {"project": settings.project, "version": version})
        yield GaugeMetricFamily("orch_poll_interval_seconds", "The setting", value=settings.poll_interval)
        yield GaugeMetricFamily("orch_lease_duration_seconds", "The setting lease_seconds", value=settings.lease_seconds)
        disk = shutil.disk_usage(settings.state_dir)
        yield GaugeMetricFamily("orch_disk_free_bytes", "Free where worktrees and logs are", value=disk.free)
        yield GaugeMetricFamily("orch_disk_size_bytes", "The size of that disk", value=disk.total)
