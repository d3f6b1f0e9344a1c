"""Each issue in a night: its sessions since then, and the explanation of where it stands now."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from orchestrator.models import IssueStatus, Verdict
from orchestrator.status.explanation import Explanation
from orchestrator.status.facts import Facts, IssueFacts
from orchestrator.status.told import SessionTold
from orchestrator.status.why import explain
from orchestrator.text import one_line


@dataclass(frozen=True)
class IssueNight:
    """An issue and its sessions since then, oldest first; `status` is None when the tracker does not say.

    `place` is where its work is, `commit` the verified one; `held` is set when only a person starts it again.
    `fix_issue_id` is the issue that goes on with it, and `fix` that one's explanation when only a person starts it.
    """

    id: str
    title: str
    status: str | None
    sessions: tuple[SessionTold, ...]
    now: Explanation
    live: bool = False
    held: bool = False
    place: str = ""
    commit: str = ""
    fix_issue_id: str = ""
    fix: Explanation | None = None

    @property
    def last(self) -> SessionTold:
        """Its last session."""
        return self.sessions[-1]

    @property
    def needs_a_person(self) -> bool:
        """True if nothing more happens to it unless a person acts."""
        if self.live or self.status == IssueStatus.CLOSED:
            return False
        unseen = self.status is None and self.last.verdict is Verdict.VERIFY_FAILED
        return self.now.trouble or self.held or self.fix is not None or unseen


def night_of(facts: Facts, since: datetime) -> list[IssueNight]:
    """Each issue that had a session since then, or was closed after one; the one with the oldest session first."""
    return sorted(_issues(facts, since), key=lambda issue: issue.sessions[0].started_at)


def gaps_of(facts: Facts) -> Iterator[str]:
    """A line for each source that could not be asked."""
    if facts.tracker.answer is None:
        yield f"the tracker does not answer, so what was merged is not known: {facts.tracker.away}"
    if facts.redis.answer is None:
        away = f"Redis does not answer ({facts.redis.away})" if facts.redis.away else "orch is not running here"
        yield f"{away}: sessions are as the tracker was told of them"


def _issues(facts: Facts, since: datetime) -> Iterator[IssueNight]:
    redis, tracker = facts.redis.answer, facts.tracker.answer
    for issue_id in redis.holdings if redis else tracker.issues if tracker else ():
        about = facts.of(issue_id)
        if sessions := _sessions(about, since):
            yield _night(about, sessions)


def _sessions(facts: IssueFacts, since: datetime) -> tuple[SessionTold, ...]:
    """The sessions since then; the last one, however old, if the issue was closed since."""
    recent = tuple(session for session in facts.sessions if session.heard_at >= since)
    issue = facts.tracked.issue if facts.tracked else None
    closed = issue is not None and issue.status is IssueStatus.CLOSED
    closed_since = closed and issue is not None and issue.closed_at is not None and issue.closed_at >= since
    return recent or (facts.sessions[-1:] if closed_since else ())


def _night(facts: IssueFacts, sessions: tuple[SessionTold, ...]) -> IssueNight:
    holding = facts.holding
    fix_issue_id = (holding.fix_issue_id if holding else None) or ""
    fix = facts.all.of(fix_issue_id)
    reports = facts.redis.reports.get(facts.issue_id) if facts.redis else None
    undelivered = holding.undelivered if holding else ""
    return IssueNight(
        id=facts.issue_id,
        title=one_line(facts.title),
        status=facts.status,
        sessions=sessions,
        now=explain(facts),
        live=facts.live,
        held=facts.held,
        place=f"not delivered yet: {undelivered}" if undelivered else facts.place,
        commit=reports[-1].commit if reports else "",
        fix_issue_id=fix_issue_id,
        fix=explain(fix) if fix.held else None,
    )
