"""What runs found, as a Markdown table with a column for each seed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence

from orchestrator.models import Verdict
from tests.chaos.facts import Issue, Session
from tests.chaos.faults import KINDS, Hit
from tests.chaos.run import Outcome


def table(outcomes: Sequence[Outcome]) -> str:
    """Faults by kind, what they cost, and what must be 0."""
    columns = [_column(outcome) for outcome in outcomes]
    rows = [("", *(f"seed {outcome.seed}" for outcome in outcomes))]
    rows += [(name, *(column[name] for column in columns)) for name in columns[0]]
    widths = [max(len(row[number]) for row in rows) for number in range(len(rows[0]))]
    rows.insert(1, tuple("-" * width for width in widths))
    return "\n".join(
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in rows
    )


def lost(issue: Issue) -> int:
    """Snapshots that were not told, commits that cannot be reached, an end that did not come."""
    ended = issue.sessions and issue.sessions[-1].verdict not in (None, Verdict.ERROR)
    return issue.untold + len(issue.unreachable) + (0 if ended else 1)


def duplicated(issues: Collection[Issue]) -> int:
    """Snapshots that were told, steps that were recorded, [FIX] issues that were made beyond once."""
    sessions = [session for issue in issues for session in issue.sessions]
    fixes = sum(issue.title.startswith("[FIX]") for issue in issues)
    overflows = sum(session.verdict is Verdict.OVERFLOW for session in sessions)
    return sum(it.told_twice for it in issues) + sum(it.twice for it in sessions) + max(0, fixes - overflows)


def recoveries(sessions: Iterable[Session], hits: Sequence[Hit]) -> list[float]:
    """For each time a session was taken up again: seconds since the last fault that hit it."""
    found = []
    for session in sessions:
        for again in session.taken_up[1:]:
            struck = [hit.at for hit in hits if session.id in hit.struck.sessions.values() and hit.at < again]
            if struck:
                found.append((again - max(struck)).total_seconds())
    return found


def _column(outcome: Outcome) -> dict[str, str]:
    sessions = [session for issue in outcome.issues for session in issue.sessions]
    kinds = Counter(hit.kind for hit in outcome.hits)
    begun, recorded = sum(it.begun for it in sessions), sum(len(it.reports) for it in sessions)
    waits = recoveries(sessions, outcome.hits)
    figures = {
        **{kind: kinds[kind] for kind in KINDS},
        "faults": len(outcome.hits),
        "issues": len(outcome.issues),
        "sessions": len(sessions),
        "sessions taken up again": sum(len(it.taken_up) - 1 for it in sessions if it.taken_up),
        "steps run": begun,
        "steps recorded": recorded,
        "steps repeated": begun - recorded,
        "snapshots": sum(len(it.texts) for it in sessions),
        "lost": sum(map(lost, outcome.issues)),
        "duplicated": duplicated(outcome.issues),
        "violations": len(outcome.violations),
    }
    slowest = f"{max(waits):.1f} s" if waits else "-"
    return {name: str(figure) for name, figure in figures.items()} | {"slowest recovery": slowest}
