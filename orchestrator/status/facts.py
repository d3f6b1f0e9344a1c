"""The one set of facts: what Redis, the tracker and this host's logs say at one moment, of all issues and of one.

Every view is words about these. `read` gathers them; nothing here asks anything.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Generic, TypeVar

from orchestrator.issue import Issue
from orchestrator.merge_close.record import MergeMarker
from orchestrator.models import (
    NOTHING_TO_MERGE,
    BaseTrouble,
    Holding,
    IssueStatus,
    Limits,
    Paused,
    Report,
    SessionRecord,
    Stage,
    Step,
    Verdict,
    VerificationEvidence,
    branch_of,
)
from orchestrator.poll.candidates import too_many_fixes
from orchestrator.status.told import SessionTold, limit_of, step_name
from orchestrator.text import last_line, redacted, span

T = TypeVar("T")


@dataclass(frozen=True)
class Asked(Generic[T]):
    """An answer, or None and why there is none. With both, the answer is an earlier one; with neither, see the field.

    An empty `away` means for Redis that orch is not running here, and for the tracker that it is still being asked.
    """

    answer: T | None = None
    away: str = ""


@dataclass(frozen=True)
class Blocker:
    """An issue that another one waits for."""

    issue_id: str
    status: str


@dataclass(frozen=True)
class Tracked:
    """One issue as the tracker has it; `issue` is None when it has no such issue, and `refusal` says so.

    `shown`: it was asked for by itself; else it is a row of a list, which has no feedback and no blockers, and nothing
    from `ready` on is known. `blockers` are the open ones; `chain` leads from the first of them to its root, or round
    in a `cycle`. `sessions`, `merges` and those after the last session are what its feedback tells, oldest first.
    `ours`: this checkout ran the last session, and it has not ended.
    """

    issue: Issue | None
    refusal: str = ""
    malformed: str = ""
    shown: bool = True
    ready: bool = True
    blockers: tuple[str, ...] = ()
    chain: tuple[Blocker, ...] = ()
    cycle: bool = False
    sessions: tuple[SessionTold, ...] = ()
    merges: tuple[MergeMarker, ...] = ()
    merges_since: tuple[MergeMarker, ...] = ()
    ours: bool = False

    @property
    def status(self) -> IssueStatus | None:
        """Its status."""
        return self.issue.status if self.issue else None

    @property
    def last(self) -> SessionTold | None:
        """Its last session, as the tracker was told of it."""
        return self.sessions[-1] if self.sessions else None


@dataclass(frozen=True)
class TrackerSays:
    """The issues that were asked for, in claiming order; `unasked` counts those whose blockers were not looked up."""

    issues: Mapping[str, Tracked] = field(default_factory=dict)
    unasked: int = 0


@dataclass(frozen=True)
class RedisSays:
    """The state in Redis, at the time `now` of its own clock, by which leases run.

    `sessions` has the last session of each issue, or all of them where these were asked for, oldest first; `reports`
    those of an issue's last session. `untold` counts an issue's entries in the outbox, `deliver_at_ms` is when its
    work is brought to its place. `live` are the issues in a slot.
    """

    now: datetime
    holdings: Mapping[str, Holding] = field(default_factory=dict)
    sessions: Mapping[str, tuple[SessionTold, ...]] = field(default_factory=dict)
    reports: Mapping[str, Sequence[Report]] = field(default_factory=dict)
    deliver_at_ms: Mapping[str, float] = field(default_factory=dict)
    untold: Mapping[str, int] = field(default_factory=dict)
    wanted: tuple[str, ...] = ()
    live: tuple[str, ...] = ()
    slots: int = 0
    outbox: int = 0
    refused: tuple[str, ...] = ()
    no_writes: str = ""
    paused: Paused | None = None
    base: BaseTrouble | None = None


@dataclass(frozen=True)
class Policy:
    """The settings by which issues wait."""

    lease_s: float = 15.0
    poll_s: float = 5.0
    rescues: int = 3
    errors: int = 3


@dataclass(frozen=True)
class Facts:
    """All that is known. `logs` has the file that an issue's session wrote last on this host, and when it grew."""

    now: datetime
    redis: Asked[RedisSays]
    tracker: Asked[TrackerSays]
    policy: Policy = Policy()
    logs: Mapping[str, tuple[str, datetime]] = field(default_factory=dict)

    def of(self, issue_id: str) -> IssueFacts:
        """The facts of one issue."""
        return IssueFacts(self, issue_id)


@dataclass(frozen=True)
class IssueFacts:
    """One issue in the facts of all."""

    all: Facts
    issue_id: str

    @property
    def redis(self) -> RedisSays | None:
        """The answer of Redis, if it gave one."""
        return self.all.redis.answer

    @property
    def tracked(self) -> Tracked | None:
        """The issue as the tracker has it, if it answered."""
        return self.all.tracker.answer.issues.get(self.issue_id) if self.all.tracker.answer else None

    @property
    def now_ms(self) -> float:
        """The moment as Redis writes it."""
        return self.all.now.timestamp() * 1000

    @property
    def stack_down(self) -> bool:
        """True if orch is not running here at all."""
        return self.redis is None and not self.all.redis.away

    @property
    def status(self) -> IssueStatus | None:
        """Its status in the tracker, if that is known."""
        return self.tracked.status if self.tracked else None

    @property
    def title(self) -> str:
        """Its title in the tracker, or the one that its session started with; without secrets, as it is passed on."""
        known = (self.tracked.issue if self.tracked else None) or (self.record.issue if self.record else None)
        return redacted(known.title) if known else ""

    @property
    def holding(self) -> Holding | None:
        """The issue as Redis has it, if it has it."""
        return self.redis.holdings.get(self.issue_id) if self.redis else None

    @property
    def record(self) -> SessionRecord | None:
        """The record that its last session started with, if Redis has it."""
        return self.holding.record if self.holding else None

    @property
    def live(self) -> bool:
        """True while it is claimed or runs."""
        return self.holding is not None and self.holding.live

    @property
    def wanted(self) -> bool:
        """True if a person asked for it to run next."""
        return self.redis is not None and self.issue_id in self.redis.wanted

    @property
    def wait_s(self) -> float:
        """Seconds that its last end still holds it back; infinite until a person asks for it."""
        if self.holding is None or self.live or self.wanted:
            return 0.0
        return max(0.0, ((self.holding.held_until_ms or 0.0) - self.now_ms) / 1000)

    @property
    def too_many_fixes(self) -> str:
        """The reason why this [FIX] of a [FIX] does not run by itself; empty when it does."""
        waits = self.status is IssueStatus.OPEN and not self.live and not self.wanted
        return too_many_fixes(self.title) if waits else ""

    @property
    def held(self) -> bool:
        """True if only a person can start it."""
        return math.isinf(self.wait_s) or bool(self.too_many_fixes)

    @property
    def sessions(self) -> tuple[SessionTold, ...]:
        """Its sessions that were asked for, oldest first: as Redis has them, else as the tracker was told."""
        published = self.tracked.sessions if self.tracked else ()
        return (self.redis.sessions.get(self.issue_id) if self.redis else None) or published

    @property
    def told(self) -> SessionTold | None:
        """Its last session."""
        return self.sessions[-1] if self.sessions else None

    @property
    def limits(self) -> Limits:
        """Its session's limits of reviews."""
        return Limits(self.record.spec_limit, self.record.quality_limit) if self.record else Limits()

    @property
    def step(self) -> Step:
        """The step under way, or the last one."""
        return self.told.under_way(self.limits) if self.told else Step(Stage.RUNNING)

    @property
    def limit(self) -> int | None:
        """The most reviews of the step's kind that its session may ask for."""
        return limit_of(self.step.stage, self.limits)

    @property
    def step_words(self) -> str:
        """The step under way, in words."""
        return step_name(self.step.stage, self.step.attempt, self.limit)

    @property
    def end(self) -> tuple[Verdict | None, str]:
        """The end of the last session and its reason: by Redis, else by what the tracker was told."""
        if self.holding and self.holding.verdict:
            return Verdict(self.holding.verdict), self.holding.reason
        last = self.tracked.last if self.tracked else None
        return (last.verdict, last.reason) if last else (None, "")

    @property
    def verdict(self) -> Verdict | None:
        """The verdict of the last session that ended."""
        return self.end[0]

    @property
    def reason(self) -> str:
        """The reason of that verdict; without the issue's id, which a view says anyway."""
        return self.end[1].removeprefix(f"{self.issue_id}: ")

    @property
    def branch(self) -> str:
        """The branch of its work."""
        return branch_of(self.issue_id)

    @property
    def place(self) -> str:
        """The place of its work: a pull request or a branch."""
        return (self.holding.delivered_to if self.holding else "") or self.branch

    @property
    def nothing_to_merge(self) -> bool:
        """True if its last session ended without any work to merge."""
        return self.reason.startswith(NOTHING_TO_MERGE)

    @property
    def close_command(self) -> str:
        """The command by which a person closes it."""
        return f"orch issue close {self.issue_id}"

    @property
    def merge_command(self) -> str:
        """The command that merges its work: its pull request, or its branch into the one checked out.

        Where there is nothing to merge, the one that closes it.
        """
        if self.nothing_to_merge:
            return self.close_command
        if self.place.startswith("http"):
            return f"gh pr merge --merge {self.place}"
        return f"git merge --no-ff {self.branch}"

    @property
    def refused(self) -> list[str]:
        """The entries about it that the tracker refused."""
        return [text for text in self.redis.refused if text.startswith(f"{self.issue_id}:")] if self.redis else []

    @property
    def log_words(self) -> tuple[str, ...]:
        """The file of the last step's output, and when it last grew."""
        path, grew = self.all.logs.get(self.issue_id, ("", self.all.now))
        return (f"its output grew {span((self.all.now - grew).total_seconds())} ago: {path}",) if path else ()

    @property
    def evidence(self) -> VerificationEvidence | None:
        """The last verification of ours, where the reports were asked for."""
        reports = self.redis.reports.get(self.issue_id) if self.redis else None
        return reports[-1].evidence if reports and reports[-1].stage is Stage.VERIFICATION else None

    @property
    def verified(self) -> bool:
        """True if a verification of ours was run in its last session."""
        return self.evidence is not None or (self.told is not None and bool(self.told.command))

    @property
    def evidence_words(self) -> tuple[str, ...]:
        """The last verification of ours: command, exit code, its last line, remarks, and where its output is."""
        if (ran := self.evidence) is None:
            return ()
        words = f"`{ran.command}` exited with {ran.exit_code}: {last_line(ran.output)}"
        return tuple(filter(None, (words, *ran.remarks, ran.output_ref)))
