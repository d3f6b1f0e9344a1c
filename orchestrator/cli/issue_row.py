"""What one issue looks like in a row, and the line above all of them."""

from __future__ import annotations

import re

from rich.text import Text

from orchestrator.cli.terminal import pause_words
from orchestrator.leases import SessionState
from orchestrator.models import Stage, Verdict
from orchestrator.status import EngineStatus, IssueStatus
from orchestrator.text import line, span

COLOURS = {Verdict.DONE: "green", Verdict.OVERFLOW: "yellow", Verdict.VERIFY_FAILED: "red", Verdict.ERROR: "red"}
_LOG = re.compile(r"; log: [^;]*")
PLACES = {
    Stage.RUNNING: 0,
    Stage.SPEC_REVIEW: 1,
    Stage.SPEC_FIX: 1,
    Stage.QUALITY_REVIEW: 2,
    Stage.QUALITY_FIX: 2,
    Stage.VERIFICATION: 3,
}


def headline(found: EngineStatus) -> Text:
    """The project, its slots, what the tracker is still to be told, and who paused it."""
    head = Text.assemble(
        (found.project, "bold"), f"   sessions {found.slots_used} of {found.slots_total}   to tell {found.outbox}"
    )
    return head.append(f"   {line(pause_words(found.paused))}", "yellow") if found.paused else head


def bar(issue: IssueStatus) -> Text:
    """The lifecycle as four dots; blank without a session."""
    if issue.stage is None:
        return Text("")
    place, cut_short = PLACES[Stage(issue.stage)], issue.verdict not in (None, Verdict.DONE)
    dots = Text()
    for n in range(4):
        if n < place or issue.verdict is Verdict.DONE:
            dots.append("●", "green")
        elif n == place:
            dots.append("✗" if cut_short else "◐", "red" if cut_short else "yellow")
        else:
            dots.append("○", "dim")
    return dots


def step(issue: IssueStatus) -> Text:
    """The step under way, or the verdict."""
    if issue.verdict:
        return Text(issue.verdict, COLOURS[issue.verdict])
    if not issue.live:
        return Text("-", "dim")
    if issue.stage is None or issue.state == SessionState.CLAIMED:
        return Text("starting", "dim")
    attempt = f" {issue.attempt}/{issue.limit}" if issue.limit else ""
    return Text(f"{Stage(issue.stage).words}{attempt}")


def why(issue: IssueStatus) -> str:
    """Its reason, for its row."""
    return brief(issue.id, issue.reason)


def brief(issue_id: str, reason: str) -> str:
    """What is said of an issue, less what its row has already and where the log is: `orch explain` says it all."""
    return line(_LOG.sub("", reason.removeprefix(f"{issue_id}: ")))


def age(issue: IssueStatus) -> str:
    """How long it has run, or how long ago it ended, as briefly as can be."""
    if issue.age_s is None:
        return ""
    return span(issue.age_s) + ("" if issue.live else " ago")
