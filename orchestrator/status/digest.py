"""The morning digest: what a night of sessions came to, in a minute's reading. Facts in, words out."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta

from orchestrator.models import IssueStatus, Verdict
from orchestrator.status.night import IssueNight
from orchestrator.status.told import SessionTold
from orchestrator.text import bounded_text, span

SLOWEST = 3

_AGO = re.compile(r"(\d+)([mhd])")
_UNITS = {"m": "minutes", "h": "hours", "d": "days"}
_MARKDOWN = re.compile(r"([\\*_\[\]<>#|])")


@dataclass(frozen=True)
class Item:
    """One line of a digest, what it is about, and what there is to say below it."""

    about: str
    says: str
    more: tuple[str, ...] = ()


@dataclass(frozen=True)
class Section:
    """Some items under a title."""

    title: str
    items: tuple[Item, ...]


@dataclass(frozen=True)
class Digest:
    """All of it. `gaps` says what could not be asked; `counts` are the totals, by name."""

    project: str
    since: datetime
    until: datetime
    counts: dict[str, int]
    sections: tuple[Section, ...]
    gaps: tuple[str, ...] = ()


def since_when(text: str, *, now: datetime) -> datetime:
    """`12h`, `2d`, `today`, `yesterday` or an ISO-8601 day or time, in the zone of `now`. ValueError for the rest."""
    if ago := _AGO.fullmatch(text):
        return now - timedelta(**{_UNITS[ago[2]]: int(ago[1])})
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
    if text in ("today", "yesterday"):
        return midnight - timedelta(days=text == "yesterday")
    at = datetime.fromisoformat(text)
    return at if at.tzinfo else at.replace(tzinfo=now.tzinfo)


def digest_of(
    project: str, issues: Sequence[IssueNight], *, since: datetime, until: datetime, gaps: Iterable[str] = ()
) -> Digest:
    """The digest of these issues."""
    asks = [issue for issue in issues if issue.needs_a_person]
    merged = [issue for issue in issues if issue.status == IssueStatus.CLOSED]
    running = [issue for issue in issues if issue.live]
    done = [issue for issue in issues if issue.last.verdict is Verdict.DONE]
    ready = [it for it in done if not it.live and it not in asks and it.status in (None, IssueStatus.NEEDS_REVIEW)]
    sessions = [session for issue in issues for session in issue.sessions]
    counts = {
        "merged": len(merged),
        "ready": len(ready),
        "need a person": len(asks),
        "running": len(running),
        "sessions": len(sessions),
        "retries": len(sessions) - len(issues),
        "reviews": sum(session.reviews for session in sessions),
        "reviews that said no": sum(session.said_no for session in sessions),
    }
    sections = (
        Section("Needs a person", tuple(_question(issue) for issue in asks)),
        Section("Ready for review", tuple(_evidence(issue) for issue in ready)),
        Section("Merged and closed", tuple(Item(issue.id, issue.title) for issue in merged)),
        Section("Still running", tuple(_running(issue, until) for issue in running)),
        Section("Failures by cause", tuple(_causes(issues))),
        Section("Slowest", tuple(_slowest(issues))),
    )
    return Digest(
        project, since, until, counts, tuple(section for section in sections if section.items), tuple(map(_line, gaps))
    )


def as_text(found: Digest) -> str:
    """For a terminal or a mail."""
    lines = [f"{found.project}: {_period(found)}", totals(found)]
    lines += [f"! {gap}" for gap in found.gaps]
    for section in found.sections:
        lines += ["", section.title]
        width = max(len(item.about) for item in section.items)
        for item in section.items:
            lines.append(f"  {item.about:<{width}}  {item.says}")
            lines += [f"  {'':<{width}}  {more}" for more in item.more]
    return "\n".join(lines)


def as_markdown(found: Digest) -> str:
    """For a chat or an issue."""
    lines = [f"# {found.project}: {_period(found)}", "", totals(found)]
    lines += [f"\n> {_escaped(gap)}" for gap in found.gaps]
    for section in found.sections:
        lines += ["", f"## {section.title}", ""]
        for item in section.items:
            lines.append(f"- **{_escaped(item.about)}** {_escaped(item.says)}")
            lines += [f"  - {_escaped(more)}" for more in item.more]
    return "\n".join(lines)


def as_object(found: Digest, issues: Sequence[IssueNight]) -> dict[str, object]:
    """The digest and the facts it is made of, as JSON values."""
    return {
        "project": found.project,
        "since": found.since.isoformat(),
        "until": found.until.isoformat(),
        "counts": {name.replace(" ", "_"): count for name, count in found.counts.items()},
        "gaps": list(found.gaps),
        "sections": {section.title: [asdict(item) for item in section.items] for section in found.sections},
        "issues": [_issue_as_object(issue) for issue in issues],
    }


def _issue_as_object(issue: IssueNight) -> dict[str, object]:
    names = ("id", "title", "status", "live", "held", "place", "commit", "fix_issue_id")
    found: dict[str, object] = {name: getattr(issue, name) for name in names}
    sessions = [_session_as_object(session) for session in issue.sessions]
    return found | {"fix_held": issue.fix is not None, "sessions": sessions}


def _session_as_object(session: SessionTold) -> dict[str, object]:
    names = ("session_id", "verdict", "reason", "reviews", "said_no", "command")
    found: dict[str, object] = {name: getattr(session, name) for name in names}
    times = {"started_at": session.started_at.isoformat(), "heard_at": session.heard_at.isoformat()}
    return found | times | {"steps": [asdict(step) for step in session.steps]}


def totals(found: Digest) -> str:
    """The counts in two sentences."""
    counts = found.counts
    sessions = "1 session" if counts["sessions"] == 1 else f"{counts['sessions']} sessions"
    return (
        f"{counts['merged']} merged, {counts['ready']} ready for review, {counts['need a person']} need a person, "
        f"{counts['running']} running. {sessions}, {counts['retries']} of them retries; "
        f"{counts['reviews that said no']} of {counts['reviews']} reviews said no."
    )


def cause_of(session: SessionTold) -> str:
    """The cause of an end that is not DONE, in words that sessions with the same trouble share."""
    match session.verdict:
        case Verdict.OVERFLOW:
            return "the reviews said no to the last attempt"
        case Verdict.VERIFY_FAILED:
            return f"verification failed: {session.reason.partition(': ')[0]}"
        case _:
            return re.split(r": |; ", _without_id(session.reason), maxsplit=1)[0]


def _question(issue: IssueNight) -> Item:
    asks = issue.fix or issue.now
    ended, why = _without_id(issue.last.reason), f"{issue.fix_issue_id}: {asks.row}" if issue.fix else asks.row
    do = "; ".join(f"`{command}`" for command in asks.do)
    return Item(issue.id, issue.title, tuple(map(_line, (why, do) if ended in why else (ended, why, do))))


def _evidence(issue: IssueNight) -> Item:
    said_no = f", {issue.last.said_no} of them said no" if issue.last.said_no else ""
    at = f" at {issue.commit[:12]}" if issue.commit else ""
    facts = f"`{issue.last.command}` passed{at}; {issue.last.reviews} reviews{said_no}"
    return Item(issue.id, issue.title, (issue.place, facts))


def _running(issue: IssueNight, until: datetime) -> Item:
    steps = issue.last.steps
    since = span((until - issue.last.started_at).total_seconds())
    return Item(issue.id, issue.title, (f"for {since}, {f'after {steps[-1].name}' if steps else 'in its first step'}",))


def _causes(issues: Sequence[IssueNight]) -> Iterator[Item]:
    failed = [
        (cause_of(session), issue)
        for issue in issues
        for session in issue.sessions
        if session.verdict not in (None, Verdict.DONE)
    ]
    for cause, count in Counter(cause for cause, _ in failed).most_common():
        whose = dict.fromkeys(_named(issue) for other, issue in failed if other == cause)
        yield Item(f"{count} x", f"{bounded_text(cause)}: {', '.join(whose)}")


def _named(issue: IssueNight) -> str:
    return f"{issue.id} (goes on as {issue.fix_issue_id})" if issue.fix_issue_id else issue.id


def _slowest(issues: Sequence[IssueNight]) -> Iterator[Item]:
    sessions = [(session.seconds, issue) for issue in issues for session in issue.sessions]
    steps = [(step, issue) for issue in issues for session in issue.sessions for step in session.steps]
    for seconds, issue in sorted(sessions, key=lambda it: -it[0])[:SLOWEST]:
        yield Item(span(seconds), f"session of {issue.id}, {issue.title}")
    for step, issue in sorted(steps, key=lambda it: -it[0].seconds)[:SLOWEST]:
        yield Item(span(step.seconds), f"{step.name} of {issue.id}, {issue.title}")


def _period(found: Digest) -> str:
    return f"{found.since:%a %d %b %H:%M} to {found.until:%a %d %b %H:%M}"


def _without_id(reason: str) -> str:
    """The reason without the id of its issue, which an error names."""
    return re.sub(r"^i-[a-z0-9]+: ", "", reason)


def _line(text: str) -> str:
    return " ".join(text.split())


def _escaped(text: str) -> str:
    return _MARKDOWN.sub(r"\\\1", text)
