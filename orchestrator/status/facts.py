"""What is known of one issue when it is to be explained, and how that is put into words."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from datetime import datetime

from orchestrator.leases import Holding, Paused
from orchestrator.merge_close.record import MergeMarker
from orchestrator.models import Stage, Step, VerificationEvidence, branch_of
from orchestrator.text import last_line


@dataclass(frozen=True)
class Blocker:
    """An issue that another one waits for; `delivered_to` is where its work is, if it has been delivered."""

    issue_id: str
    status: str
    delivered_to: str = ""

    @property
    def merge_command(self) -> str:
        """What merges its work."""
        return merge_command(self.issue_id, self.delivered_to)


@dataclass(frozen=True)
class TrackerSays:
    """The issue as the tracker has it. `refusal` says that it has no such issue, `malformed` what is wrong with it.

    `blockers` are its own open ones; `chain` leads from the first of them to its root, or round in a `cycle`.
    `too_many_fixes` says why only a person may have it run. `merges`
    is what became of merges since its last session. `last_by` ran that session, `verdict` and `reason` are how it
    ended, by its published snapshots; it is `ours` when this checkout ran it and it has not ended.
    """

    status: str = ""
    refusal: str = ""
    malformed: str = ""
    ready: bool = True
    blockers: tuple[str, ...] = ()
    chain: tuple[Blocker, ...] = ()
    cycle: bool = False
    too_many_fixes: str = ""
    merges: tuple[MergeMarker, ...] = ()
    last_by: str = ""
    ours: bool = False
    verdict: str = ""
    reason: str = ""


@dataclass(frozen=True)
class RedisSays:
    """The issue as Redis has it, and what all issues share: slots, who has them, what keeps new claims away."""

    holding: Holding | None = None
    step: Step | None = None
    evidence: VerificationEvidence | None = None
    slots: int = 0
    live: tuple[str, ...] = ()
    wanted: bool = False
    untold: int = 0
    refused: tuple[str, ...] = ()
    deliver_at_ms: float | None = None
    no_writes: str = ""
    paused: Paused | None = None


@dataclass(frozen=True)
class Facts:
    """All of it at one moment. `tracker` or `redis` is None when it did not answer: `..._away` says why, in words.

    `redis_away` is empty when orch is not running here at all. `log` is the file that the step under way, or the last
    one, writes, and when it last grew.
    """

    issue_id: str
    now: datetime
    tracker: TrackerSays | None
    redis: RedisSays | None
    tracker_away: str = ""
    redis_away: str = ""
    log: tuple[str, datetime] | None = None
    lease_s: float = 15.0
    poll_s: float = 5.0
    max_rescues: int = 3
    errors: int = 3

    @property
    def now_ms(self) -> float:
        """The moment as Redis writes it."""
        return self.now.timestamp() * 1000

    @property
    def stack_down(self) -> bool:
        """Whether orch is not running here at all."""
        return self.redis is None and not self.redis_away

    @property
    def holding(self) -> Holding | None:
        """The issue as Redis has it, if it answered and has it."""
        return self.redis.holding if self.redis else None

    @property
    def session_id(self) -> str:
        """The last session's."""
        return self.holding.record.session_id if self.holding and self.holding.record else ""

    @property
    def verdict(self) -> str | None:
        """How the last session ended: by Redis, or by its published snapshots."""
        if self.holding and self.holding.verdict:
            return self.holding.verdict
        return (self.tracker.verdict if self.tracker else "") or None

    @property
    def reason(self) -> str:
        """Why it ended like that."""
        if self.holding and self.holding.verdict:
            return self.holding.reason
        return self.tracker.reason if self.tracker else ""

    @property
    def branch(self) -> str:
        """Where its work is."""
        return branch_of(self.issue_id)

    @property
    def merge_command(self) -> str:
        """What merges its work."""
        return merge_command(self.issue_id, self.holding.delivered_to if self.holding else "")

    @property
    def step_words(self) -> str:
        """The step under way."""
        step = self.redis.step if self.redis else None
        if step is None or step.stage is Stage.RUNNING:
            return Stage.RUNNING.words
        return f"{step.stage.words} {step.attempt}"

    @property
    def log_words(self) -> tuple[str, ...]:
        """Where the last step's output is, and when it last grew."""
        if self.log is None:
            return ()
        path, grew = self.log
        return (f"its output grew {max(0.0, (self.now - grew).total_seconds()):.0f} s ago: {path}",)

    @property
    def evidence_words(self) -> tuple[str, ...]:
        """The last verification of ours: command and exit code, the line that says it, where all of it is."""
        evidence = self.redis.evidence if self.redis else None
        if evidence is None:
            return ()
        ran = f"`{evidence.command}` exited with {evidence.exit_code}: {last_line(evidence.output)}"
        return (ran, evidence.output_ref) if evidence.output_ref else (ran,)

    @property
    def read_output(self) -> tuple[str, ...]:
        """The command that shows the last verification's whole output."""
        evidence = self.redis.evidence if self.redis else None
        return (f"less {shlex.quote(evidence.output_ref)}",) if evidence and evidence.output_ref else ()


def merge_command(issue_id: str, delivered_to: str) -> str:
    """What a person types to merge an issue's work: its pull request, or its branch into the one checked out."""
    if delivered_to.startswith("http"):
        return f"gh pr merge --merge {delivered_to}"
    return f"git merge --no-ff {branch_of(issue_id)}"
