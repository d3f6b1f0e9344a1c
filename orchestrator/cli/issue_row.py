"""An issue's row on a terminal, and the line above all rows."""

from __future__ import annotations

import re

from rich.text import Text

from orchestrator.cli.terminal import line, pause_words, span
from orchestrator.models import SessionState, Stage, Verdict
from orchestrator.status import EngineStatus, IssueRow, step_name

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


def bar(issue: IssueRow) -> Text:
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


def step(issue: IssueRow) -> Text:
    """The step under way, or the verdict."""
    if issue.verdict:
        return Text(issue.verdict, COLOURS[issue.verdict])
    if not issue.live:
        return Text("-", "dim")
    if issue.stage is None or issue.state == SessionState.CLAIMED:
        return Text("starting", "dim")
    return Text(step_name(Stage(issue.stage), issue.attempt or 1, issue.limit))


def brief(reason: str) -> str:
    """A reason for a row, without the path of the log: `orch explain` says it all."""
    return line(_LOG.sub("", reason))


def age(issue: IssueRow) -> str:
    """The time that it has run, or since it ended, as briefly as can be."""
    if issue.age_s is None:
        return ""
    return span(issue.age_s) + ("" if issue.live else " ago")
