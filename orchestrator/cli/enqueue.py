"""`orch enqueue`: run an issue next."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Protocol

import click
from rich.console import Console

from orchestrator.cli import project
from orchestrator.cli.terminal import IssueId, json_option, line, pause_words, print_json
from orchestrator.poll import RUNNING, RUNNING_ALREADY

_LOOK_S = 0.05


class EnqueueOutcome(StrEnum):
    """The state of a wanted issue so far."""

    RUNNING = "running"
    QUEUED = "queued"
    REFUSED = "refused"


class Wanted(Protocol):
    """The part of the leases that knows of issues that a person asked for."""

    def answered(self, issue_id: str, /) -> str | None:
        """The last answer, or None while there is none."""

    def wanted(self) -> list[str]:
        """The issues that are still to run next."""


@dataclass(frozen=True)
class EnqueueAnswer:
    """One issue's outcome, and what there is to say about it."""

    issue: str
    outcome: EnqueueOutcome
    says: str


@click.command
@click.argument("issues", nargs=-1, required=True, type=IssueId(), metavar="ISSUE...")
@click.option(
    "--wait",
    "wait_s",
    type=click.FloatRange(min=0),
    default=5.0,
    show_default=True,
    metavar="SECONDS",
    help="How long to wait for what becomes of it.",
)
@json_option
@click.pass_context
def command(ctx: click.Context, issues: Sequence[str], wait_s: float, as_json: bool) -> None:
    """Run an issue next, before whatever is ready, and say what became of it.

    An issue that waits after errors is tried again at once. Asking twice changes nothing. Exit code 1 when an issue
    was refused: it is closed, it waits for another, or there is no such issue.

    \b
      orch enqueue i-a1b2
      orch enqueue i-a1b2 i-c3d4 --wait 30
    """
    leases = project.here().leases
    wanted = list(dict.fromkeys(issues))
    for issue in wanted:
        leases.want(issue)
    paused = project.here().controls.paused()
    free = leases.free()
    if paused:
        answers = _queued(wanted, f"queued; orch is {pause_words(paused)}, it waits for `orch resume`")
    elif not leases.workers():
        answers = _queued(wanted, "queued; no worker runs, `orch up` starts them")
    else:
        project.poll_soon()
        why = "no answer yet, `orch status` shows what goes on" if free > 0 else "every slot is taken"
        with Console(stderr=True).status("waiting for an answer"):
            answers = _answers(leases, wanted, f"queued; {why}", wait_s)
    if as_json:
        print_json([asdict(answer) for answer in answers])
    else:
        for answer in answers:
            click.echo(f"{answer.issue}: {line(answer.says)}", err=answer.outcome is EnqueueOutcome.REFUSED)
    if any(answer.outcome is EnqueueOutcome.REFUSED for answer in answers):
        ctx.exit(1)


def _queued(issues: Sequence[str], says: str) -> list[EnqueueAnswer]:
    return [EnqueueAnswer(issue, EnqueueOutcome.QUEUED, says) for issue in issues]


def _answers(leases: Wanted, issues: Sequence[str], unanswered: str, wait_s: float) -> list[EnqueueAnswer]:
    """Look until no issue is queued any more or the time is over; gives the last answers."""
    deadline = time.monotonic() + wait_s
    while True:
        answers = [answer(leases, issue, unanswered) for issue in issues]
        if time.monotonic() >= deadline or all(answer.outcome is not EnqueueOutcome.QUEUED for answer in answers):
            return answers
        time.sleep(_LOOK_S)


def answer(leases: Wanted, issue: str, unanswered: str) -> EnqueueAnswer:
    """The answer to a wanted issue by now; `unanswered` is the text for one without an answer.

    The answer is read first: it and the end of wanting are written at once.
    """
    says = leases.answered(issue)
    if says is None:
        return EnqueueAnswer(issue, EnqueueOutcome.QUEUED, unanswered)
    if says in (RUNNING, RUNNING_ALREADY):
        return EnqueueAnswer(issue, EnqueueOutcome.RUNNING, says)
    return EnqueueAnswer(issue, EnqueueOutcome.QUEUED if issue in leases.wanted() else EnqueueOutcome.REFUSED, says)
