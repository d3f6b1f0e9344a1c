"""Turn ready issues into sessions that a worker can run, each one once.

A poll carries no data, so polls may be lost, doubled or late without harm. The claim decides, atomically.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime

import structlog

from orchestrator.errors import InvalidMCPResponseError, LeaseLost, StoppedByHand, TrackerRefused
from orchestrator.issue import Issue, context, shown
from orchestrator.logs import Once
from orchestrator.models import (
    BaseTrouble,
    Claim,
    IssueContext,
    IssueStatus,
    IssueTracker,
    Limits,
    Refusal,
    SessionRecord,
    branch_of,
    session_id_for,
)
from orchestrator.poll.candidates import Candidate, candidates, open_blockers, too_many_fixes
from orchestrator.poll.rescue import Claims, Rescue
from orchestrator.publish.entries import About, opening_entries

log = structlog.get_logger(__name__)

RUNNING = "it is running"
RUNNING_ALREADY = "it is running already"
"""The two final answers to a wanted issue that are no refusals."""

_ANSWERS = {
    Refusal.TAKEN: (RUNNING_ALREADY, True),
    Refusal.STOPPING: ("it is being stopped; it runs again after that", False),
    Refusal.PAUSED: ("orch is paused; it waits for `orch resume`", False),
    Refusal.FULL: ("it waits for a free slot and is next", False),
    Refusal.UNTOLD: ("it waits until the tracker knows the end of its last session", False),
    Refusal.WAITING: ("it waits after an error", False),
}
_BASE = "base"
MAKE_ANEW = (
    "its text in the tracker has what looks like a secret, and whoever wrote it there should make that secret anew"
    " and take it out of the text; agents and all that is stored have [redacted] instead"
)
_RUNNABLE = {IssueStatus.OPEN, IssueStatus.IN_PROGRESS}


@dataclass(frozen=True)
class Poll:
    """One look at the tracker. `start` enqueues a session; `once` is handed on from one poll to the next.

    `base` gives the reason why the base branch lets nothing be claimed, if there is one. The text of an issue passes
    through `redact` before it is stored.
    """

    tracker: IssueTracker
    claims: Claims
    start: Callable[[str, int], None]
    rescue: Rescue
    orchestrator_id: str
    limits: Limits
    once: Once = field(default_factory=Once)
    base: Callable[[], BaseTrouble | None] = lambda: None
    redact: Callable[[str], str] = str

    def __call__(self) -> list[str]:
        """Take up what fell silent, then what was asked for, then what is ready; the ids started, in order."""
        # Opened sessions first: starting those needs no tracker, so its outage does not hold them up.
        expired = sorted(self.claims.expired(), key=lambda claim: not claim.opened)
        started = [claim.issue_id for claim in expired if self._go_on(claim)]
        if trouble := self.base():
            self._claim_nothing(trouble)
            return started
        self.once.forget(_BASE)
        for issue_id, forced in self._wanted_then_ready():
            won = self.claims.claim(issue_id, forced=forced)
            if isinstance(won, Claim):
                if self._begin(won, forced=forced):
                    started.append(issue_id)
                continue
            if forced:
                answer, done = _ANSWERS[won]
                self.claims.answer(issue_id, answer, done=done)
            if won in (Refusal.PAUSED, Refusal.FULL):
                break
        return started

    def _claim_nothing(self, trouble: BaseTrouble) -> None:
        for issue_id in self.claims.wanted():
            self.claims.answer(issue_id, f"it waits: {trouble.says}", done=False)
        if self.once.is_new(_BASE, trouble.says):
            (log.warning if trouble.red else log.info)("nothing_claimed", reason=trouble.says)

    def _wanted_then_ready(self) -> Iterator[tuple[str, bool]]:
        """Wanted issues first, then ready ones in order; the tracker is asked only while a slot is free."""
        wanted = self.claims.wanted()
        yield from ((issue_id, True) for issue_id in wanted)
        if self.claims.free() <= 0:
            return
        yield from ((ready.issue_id, False) for ready in self._ready() if ready.issue_id not in wanted)

    def _ready(self) -> list[Candidate]:
        valid, problems = candidates(self.tracker.get_ready_issues())
        for problem in problems:
            if self.once.is_new(problem, problem):
                log.warning("malformed_ready_record", problem=problem)
        return valid

    def _go_on(self, claim: Claim) -> bool:
        return self.rescue.take_up(claim) if claim.opened else self._begin(claim, forced=True)

    def _begin(self, claim: Claim, *, forced: bool) -> bool:
        """From a claim to a session: read the issue once more, set it in_progress, open, enqueue.

        Dying between any two of these is harmless: the claim expires and is begun again. What cannot be begun is
        given back, and nothing else is stopped by it. While the tracker or Redis is away the claim is kept.
        """
        try:
            issue = shown(self.tracker.show_issue, claim.issue_id)
            if hindrance := self._hindrance(issue, forced=forced):
                return self._give_back(claim, hindrance, say=log.info)
            session = self._session(claim, issue)
        except (TrackerRefused, InvalidMCPResponseError) as error:
            return self._give_back(claim, str(error), say=log.warning)
        return self._open(claim, session)

    def _open(self, claim: Claim, session: SessionRecord) -> bool:
        """From here on in_progress may have been applied, and the claim is what says that it was us: only a no of the
        tracker gives it back.
        """
        about = About(session.issue, session.session_id, self.orchestrator_id)
        at = datetime.fromtimestamp(claim.claimed_at_ms / 1000, UTC)
        try:
            self.tracker.set_issue_status(claim.issue_id, IssueStatus.IN_PROGRESS)
            try:
                self.claims.open(claim, session, opening_entries(about, at=at))
            except StoppedByHand as stopped:
                self.tracker.set_issue_status(claim.issue_id, IssueStatus.OPEN)
                return self._give_back(claim, str(stopped), say=log.info)
        except LeaseLost as lost:
            log.info("not_claimed", issue=claim.issue_id, reason=str(lost))
            return False
        except TrackerRefused as error:
            return self._give_back(claim, str(error), say=log.warning)
        except InvalidMCPResponseError as error:
            log.warning("not_yet_claimed", issue=claim.issue_id, reason=str(error))
            return False
        self.once.forget(claim.issue_id)
        self.claims.answer(claim.issue_id, RUNNING, done=True)
        log.info("issue_claimed", issue=claim.issue_id, session=session.session_id, token=claim.token)
        self.start(claim.issue_id, claim.token)
        return True

    def _hindrance(self, issue: Issue, *, forced: bool) -> str | None:
        if issue.status is not IssueStatus.OPEN and not (forced and issue.status in _RUNNABLE):
            return f"its status is {issue.status_said or 'not known'}; only an open issue is claimed"
        if not forced and (why := too_many_fixes(issue.title)):
            return f"{why}; held back until `orch enqueue {issue.id}`"
        waits = open_blockers(issue, self.tracker)
        return f"it waits for {', '.join(waits)} to be closed" if waits else None

    def _give_back(self, claim: Claim, reason: str, *, say: Callable[..., object]) -> bool:
        if self.once.is_new(claim.issue_id, reason):
            say("not_claimed", issue=claim.issue_id, reason=reason)
        self.claims.abandon(claim)
        self.claims.answer(claim.issue_id, reason, done=True)
        return False

    def _session(self, claim: Claim, issue: Issue) -> SessionRecord:
        """The session's record. A [FIX] issue goes on from its original's branch: merging it brings in both."""
        return SessionRecord(
            session_id=session_id_for(claim.issue_id, str(claim.claimed_at_ms)),
            orchestrator_id=self.orchestrator_id,
            issue=self._redacted(issue),
            spec_limit=self.limits.spec,
            quality_limit=self.limits.quality,
            start_from=branch_of(issue.original) if issue.original else "",
        )

    def _redacted(self, issue: Issue) -> IssueContext:
        """The issue for its session, without the secrets that its author wrote into it."""
        found = context(issue, redact=self.redact)
        if found != context(issue, redact=str):
            log.warning("secret_in_issue", issue=issue.id, hint=MAKE_ANEW)
        return found
