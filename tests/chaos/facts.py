"""What is on record after a run, read from where it is kept: Redis, the tracker, git, the logs."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from orchestrator.models import Holding, Report, Stage, Step, Verdict
from orchestrator.session_loop import advance, session
from orchestrator.snapshot import Event, read_snapshot
from tests.acceptance.project import Project

VERDICTS = {
    Event.SESSION_DONE: Verdict.DONE,
    Event.OVERFLOW_FIX_CREATED: Verdict.OVERFLOW,
    Event.VERIFY_FAILED: Verdict.VERIFY_FAILED,
    Event.SESSION_ERROR: Verdict.ERROR,
}
_reports: TypeAdapter[Report] = TypeAdapter(Report)


@dataclass(frozen=True)
class Session:
    """One session: what Redis recorded, how many of its steps were begun, and when workers took it up."""

    id: str
    issue_id: str
    reports: tuple[Report, ...]
    texts: tuple[str, ...]
    begun: int
    taken_up: tuple[datetime, ...]

    @property
    def verdict(self) -> Verdict | None:
        """How it ended, by its last snapshot."""
        last = read_snapshot(self.texts[-1]) if self.texts else None
        return VERDICTS.get(last.event_type) if last else None

    @property
    def repeated(self) -> int:
        """Steps that were begun and never recorded."""
        return self.begun - len(self.reports)

    @property
    def twice(self) -> int:
        """Records of steps beyond the first."""
        return sum(count - 1 for count in Counter((it.stage, it.attempt) for it in self.reports).values())

    def wrong(self) -> str | None:
        """Why these reports are not a way through the lifecycle to this verdict, or the snapshots not their story."""
        life = session()
        following = advance(life)
        for report in self.reports:
            if not isinstance(following, Step) or (report.stage, report.attempt) != (
                following.stage,
                following.attempt,
            ):
                return f"recorded {report.stage} {report.attempt} where the lifecycle has {following}"
            following = advance(life, report)
        verdict = self.verdict
        if isinstance(following, Step) if verdict is not Verdict.ERROR else not isinstance(following, Step):
            return f"ended as {verdict} where the lifecycle has {following}"
        told = [snapshot for text in self.texts if (snapshot := read_snapshot(text))]
        stages = [it.stage for it in self.reports if it.stage is not Stage.VERIFICATION]
        if [Stage.RUNNING, *stages] != [snapshot.stage for snapshot in told[:-1]]:
            return f"its reports are {stages}, its snapshots {[str(snapshot.event_type) for snapshot in told]}"
        return None


@dataclass(frozen=True)
class Issue:
    """One issue, by all who know of it. `unreachable` are recorded commits that no ref leads to any more."""

    id: str
    title: str
    content: str
    status: str
    feedback: tuple[str, ...]
    related: frozenset[str]
    holding: Holding | None
    sessions: tuple[Session, ...]
    tip: str
    unreachable: tuple[str, ...]

    @property
    def commits(self) -> list[str]:
        """What its sessions recorded, each once, in order."""
        return _commits(self.sessions)

    @property
    def told(self) -> list[str]:
        """Every snapshot that Redis made for it, in order."""
        return [text for session in self.sessions for text in session.texts]

    @property
    def untold(self) -> int:
        """Snapshots that the tracker lacks."""
        return (Counter(self.told) - Counter(self.feedback)).total()

    @property
    def told_twice(self) -> int:
        """What the tracker has beyond every snapshot once."""
        return (Counter(self.feedback) - Counter(self.told)).total()


def read(project: Project, logs: Iterable[Path]) -> list[Issue]:
    """Every issue of the tracker. The stack may be down, Redis must be up."""
    taken_up = _taken_up(logs)
    holdings = {holding.issue_id: holding for holding in project.leases.holdings()}
    reachable = frozenset(project.git("rev-list", "--all").splitlines())
    refs = project.git("for-each-ref", "--format=%(refname:lstrip=3) %(objectname)", "refs/heads/orch").splitlines()
    tips = dict(ref.split() for ref in refs)
    issues = []
    for issue_id in sorted(str(row["id"]) for row in project.tracker.list_issues()):
        shown = project.tracker.show_issue(issue_id)
        sessions = [_session(project, issue_id, run, taken_up.get(run, ())) for run in project.leases.runs(issue_id)]
        links = shown["relationships"]["outgoing"]
        issues.append(
            Issue(
                id=issue_id,
                title=str(shown["title"]),
                content=str(shown["content"]),
                status=str(shown["status"]),
                feedback=tuple(str(entry["content"]) for entry in reversed(shown["feedback"])),
                related=frozenset(str(link["to_id"]) for link in links if link["relationship_type"] == "related"),
                holding=holdings.get(issue_id),
                sessions=tuple(sessions),
                tip=tips.get(issue_id, ""),
                unreachable=tuple(commit for commit in _commits(sessions) if commit not in reachable),
            )
        )
    return issues


def _commits(sessions: Iterable[Session]) -> list[str]:
    return list(dict.fromkeys(it.commit for session in sessions for it in session.reports if it.commit))


def _session(project: Project, issue_id: str, session_id: str, taken_up: Sequence[datetime]) -> Session:
    rows: Any = project.redis.lrange(project.keys("history", session_id), 0, -1)
    folder = project.state / "logs" / issue_id / session_id
    reports = tuple(_reports.validate_json(row) for row in rows)
    # A red verification is run again within its step.
    again = sum(len(report.evidence.red_before) for report in reports if report.evidence)
    return Session(
        id=session_id,
        issue_id=issue_id,
        reports=reports,
        texts=tuple(project.leases.snapshots(session_id)),
        begun=len([*folder.glob("*.prompt"), *folder.glob("*-verification.log")]) - again,
        taken_up=tuple(taken_up),
    )


def _taken_up(logs: Iterable[Path]) -> dict[str, list[datetime]]:
    """When workers took sessions up, or began a step again because its worktree was gone: by session, in order."""
    found: dict[str, list[datetime]] = {}
    for log in logs:
        for line in log.read_text(errors="replace").splitlines():
            if '"event": "session_started"' in line or '"event": "worktree_gone"' in line:
                event = json.loads(line)
                found.setdefault(event["session"], []).append(datetime.fromisoformat(event["timestamp"]))
    return {session_id: sorted(moments) for session_id, moments in found.items()}
