"""All metrics: each one's name, its meaning, and how its value is found.

Labels have few values (stages, verdicts, queues, tools): an issue is never one.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Generic, TypeVar

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

from beat import QUEUES, TICKS
from orchestrator.adapters.redis import BUCKETS, STOPPED, Seen, SeenSession, ServerMemory
from orchestrator.models import LIVE, Limits, Stage, Verdict
from orchestrator.session_loop import under_way
from orchestrator.settings import Settings

STAGES = tuple(str(stage) for stage in Stage if stage not in (Stage.OVERFLOW, Stage.DONE, Stage.REVIEW_GATE))
VERDICTS = (*(str(verdict) for verdict in Verdict), STOPPED)
"""What a person stopped is no error that says anything of the agents."""
TOOLS = ("ready", "show_issue", "upsert_issue", "add_feedback", "link", "list_issues")
OUTCOMES = ("ok", "unavailable", "refused", "invalid", "failed")


@dataclass(frozen=True)
class View:
    """All facts from Redis at one moment."""

    seen: Seen
    memory: ServerMemory


Labels = tuple[str, ...]
Values = float | Mapping[Labels, float]
Family = type[GaugeMetricFamily] | type[CounterMetricFamily]
S = TypeVar("S")


@dataclass(frozen=True)
class Measure(Generic[S]):
    """A gauge or a counter. `read` gives its value, or one for each combination of its labels' values."""

    family: Family
    name: str
    says: str
    read: Callable[[S], Values]
    labels: Labels = ()

    def of(self, source: S) -> Metric:
        """The metric with its values."""
        metric = self.family(self.name, self.says, labels=self.labels)
        values = self.read(source)
        for labels, value in (values if isinstance(values, Mapping) else {(): values}).items():
            metric.add_metric(labels, value)
        return metric


@dataclass(frozen=True)
class Durations:
    """A histogram of the durations counted as `counted`, with a series for each of `values` from the start."""

    name: str
    says: str
    counted: str
    labels: Labels = ()
    values: Labels = ("",)

    def of(self, view: View) -> Metric:
        """The metric with its values."""
        metric = HistogramMetricFamily(self.name, self.says, labels=self.labels)
        for value in self.values:
            ends = _buckets(view, self.counted, value)
            buckets = [
                (str(float(bound)), float(sum(n for end, n in ends.items() if end <= bound)))
                for bound in BUCKETS[self.counted]
            ]
            total_ms = view.seen.counts.get(f"{self.counted}|{value}|ms", 0)
            metric.add_metric([value] * len(self.labels), [*buckets, ("+Inf", sum(ends.values()))], total_ms / 1000)
        return metric


def _buckets(view: View, counted: str, label: str) -> Mapping[float, int]:
    """The count in each bucket, by its end."""
    start = f"{counted}|{label}|"
    found = {field.removeprefix(start): n for field, n in view.seen.counts.items() if field.startswith(start)}
    return {float(end): n for end, n in found.items() if end != "ms"}


def stage_of(row: SeenSession) -> str:
    """The stage of the step that is running or next; of a claim, the first."""
    record = row.read_record()
    limits = Limits(record.spec_limit, record.quality_limit) if record else Limits()
    return under_way((passed == "1" for passed in row.passes), limits).stage


def _sessions(view: View) -> Mapping[Labels, float]:
    there: dict[Labels, float] = {(state, stage): 0.0 for state in LIVE for stage in STAGES}
    for row in view.seen.sessions.values():
        there[row.state, stage_of(row)] += 1
    return there


def _oldest_wait(view: View) -> Mapping[Labels, float]:
    waits = max((row.waits_s for row in view.seen.sessions.values()), default=0.0)
    return {("worker",): waits, ("claim",): view.seen.wanted_s}


def _tracker_calls(view: View) -> Mapping[Labels, float]:
    return {(t, o): view.seen.counts.get(f"tracker_calls|{t}|{o}", 0) for t in TOOLS for o in OUTCOMES}


def _ages(ticks: Iterable[str], suffix: str, view: View) -> Mapping[Labels, float]:
    return {(tick,): view.seen.ticks.get(tick + suffix, math.inf) for tick in ticks}


def _disk(settings: Settings) -> Path:
    """A folder on the disk of the worktrees."""
    folder = settings.state_dir
    return next(there for there in (folder, *folder.parents) if there.exists())


def _gauge(name: str, says: str, read: Callable[[S], Values], labels: Labels = ()) -> Measure[S]:
    return Measure(GaugeMetricFamily, name, says, read, labels)


def _counter(name: str, says: str, read: Callable[[S], Values], labels: Labels = ()) -> Measure[S]:
    return Measure(CounterMetricFamily, name, says, read, labels)


HERE: tuple[Measure[Settings], ...] = (
    _gauge("orch_info", "1, for the project that is watched", lambda settings: {(settings.project,): 1}, ("project",)),
    _gauge("orch_poll_interval_seconds", "The setting `poll_interval`", lambda settings: settings.poll_interval),
    _gauge("orch_lease_duration_seconds", "The setting `lease_seconds`", lambda settings: settings.lease_seconds),
    _gauge(
        "orch_disk_free_bytes", "Free where the worktrees are", lambda settings: shutil.disk_usage(_disk(settings)).free
    ),
    _gauge("orch_disk_size_bytes", "The size of that disk", lambda settings: shutil.disk_usage(_disk(settings)).total),
)
"""What is known without Redis."""

UP: Measure[View | None] = _gauge("orch_redis_up", "1 while Redis answers", lambda view: view is not None)

MEASURES: tuple[Measure[View] | Durations, ...] = (
    _gauge(
        "orch_sessions",
        "Sessions that are claimed (and wait for a worker) or running, by the stage of their next or present step",
        _sessions,
        ("state", "stage"),
    ),
    _counter(
        "orch_sessions_ended",
        "Sessions that ended, by verdict; STOPPED is an ERROR that a person asked for",
        lambda view: {(verdict,): sum(_buckets(view, "session_seconds", verdict).values()) for verdict in VERDICTS},
        ("verdict",),
    ),
    Durations(
        "orch_session_duration_seconds",
        "From a session's first worker to its end",
        "session_seconds",
        ("verdict",),
        VERDICTS,
    ),
    Durations(
        "orch_step_duration_seconds",
        "From the record of the step before it to its own; what had to be done again is in it",
        "step_seconds",
        ("stage",),
        STAGES,
    ),
    _counter(
        "orch_rescues",
        "Sessions taken from a worker that fell silent",
        lambda view: view.seen.counts.get("rescues|", 0),
    ),
    _gauge("orch_workers", "Session workers that are alive", lambda view: len(view.seen.workers)),
    _gauge("orch_slots", "Sessions that the workers can run at once", lambda view: sum(view.seen.workers.values())),
    _gauge("orch_slots_used", "How many are claimed or running", lambda view: len(view.seen.sessions)),
    _gauge(
        "orch_lease_age_seconds",
        "Since the lease of the running session that is silent longest was renewed; 0 when none runs",
        lambda view: max((row.silent_s for row in view.seen.sessions.values()), default=0.0),
    ),
    _gauge(
        "orch_oldest_wait_seconds",
        "How long the claimed session that waits longest waits for a worker, and the issue asked for for its claim",
        _oldest_wait,
        ("waits_for",),
    ),
    _gauge(
        "orch_queue_messages",
        "Messages that wait in Celery's queues",
        lambda view: {(queue,): view.seen.queues[queue] for queue in QUEUES},
        ("queue",),
    ),
    _gauge("orch_issues_wanted", "Issues that were asked for and not yet claimed", lambda view: view.seen.wanted),
    _gauge("orch_issues_held", "Issues held back after errors", lambda view: view.seen.held),
    _gauge("orch_paused", "1 while nothing new is started", lambda view: view.seen.paused_s is not None),
    _gauge("orch_paused_seconds", "For how long", lambda view: view.seen.paused_s or 0.0),
    _gauge("orch_outbox_entries", "What the tracker has still to be told", lambda view: view.seen.outbox),
    _gauge("orch_outbox_age_seconds", "The age of the oldest of these", lambda view: view.seen.outbox_s),
    _gauge("orch_refused_entries", "What the tracker refused to be told", lambda view: view.seen.refused),
    _counter("orch_tracker_calls", "Calls of the tracker, by what came of them", _tracker_calls, ("tool", "outcome")),
    Durations(
        "orch_tracker_call_duration_seconds",
        "How long they took, with the wait for their turn",
        "tracker_call_seconds",
        ("tool",),
        TOOLS,
    ),
    _gauge(
        "orch_merge_look_age_seconds",
        "Since the last look for merges in which all went well",
        lambda view: math.inf if view.seen.look_s is None else view.seen.look_s,
    ),
    _gauge("orch_merge_looks_failed", "Looks in a row that went wrong", lambda view: view.seen.looks_failed),
    Durations(
        "orch_merge_lag_seconds",
        "From a pull request's merge to the closing of its issue",
        "merge_lag_seconds",
    ),
    _gauge("orch_sessions_unmerged", "Finished sessions whose work is not merged", lambda view: view.seen.unmerged),
    _gauge("orch_sessions_undelivered", "Of these, those to be delivered yet", lambda view: view.seen.undelivered),
    _gauge(
        "orch_tick_age_seconds",
        "Since such a tick was carried out, well or not; of beat, since it sent one",
        partial(_ages, (*TICKS, "beat"), ""),
        ("tick",),
    ),
    _gauge("orch_tick_ok_age_seconds", "Since one came to a good end", partial(_ages, TICKS, " ok"), ("tick",)),
    _gauge("orch_redis_writable", "1 while Redis takes writes", lambda view: not view.memory.refuses),
    _gauge("orch_redis_memory_used_bytes", "What Redis holds in memory", lambda view: view.memory.used_bytes),
    _gauge("orch_redis_memory_max_bytes", "Its maxmemory; 0 for none", lambda view: view.memory.max_bytes),
)
"""What Redis says, in the order in which it is served."""
