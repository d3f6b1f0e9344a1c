"""`orch stop`: sessions end now, on every host, and their work is kept."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import click
from rich.console import Console

from orchestrator.cli import project
from orchestrator.cli.terminal import IssueId, because, json_option, line, me, print_json
from orchestrator.models import Holding, Stop, Verdict

_LOOK_S = 0.05


@dataclass(frozen=True)
class Answer:
    """The result for one issue: `stopped` when nothing runs it any more, and the words for that."""

    issue: str
    stopped: bool
    says: str


@click.command
@click.argument("issues", nargs=-1, type=IssueId(), metavar="[ISSUE...]")
@click.option("--all", "every", is_flag=True, help="Stop every session, and let none start until `orch resume`.")
@click.option("--reason", default="", metavar="TEXT", help="Why, for whoever wonders; it is told to the tracker.")
@click.option(
    "--wait",
    "wait_s",
    type=click.FloatRange(min=0),
    default=10.0,
    show_default=True,
    metavar="SECONDS",
    help="How long to wait for the sessions to end.",
)
@json_option
@click.pass_context
def command(
    ctx: click.Context, issues: Sequence[str], reason: str, wait_s: float, *, every: bool, as_json: bool
) -> None:
    """End sessions now, on whatever host they run: agents are killed within two seconds, with all they started.

    Finished steps stay on the issue's branch, unfinished work is kept on a ref that is printed, and the issue is open
    again. It waits for `orch enqueue ISSUE`; after --all, for `orch resume`. Exit code 1 when an issue has no session,
    or one that has not confirmed its end in time.

    \b
      orch stop i-a1b2 --reason "wrong issue"
      orch stop --all
    """
    if every == bool(issues):
        raise click.UsageError("name the issues to stop, or give --all")
    here, who = project.here(), me()
    leases = here.leases
    if every:
        here.controls.pause(by=who, reason=reason)
        issues = leases.inflight()
    stop = f"stopped by {who}{because(reason)}"
    met = {issue: leases.stop(issue, stop, hold=not every) for issue in dict.fromkeys(issues)}
    if Stop.ASKED in met.values():
        project.poll_soon()  # what no worker runs; what one runs ends without it
    with Console(stderr=True).status("waiting for the sessions to end"):
        answers = _answers(leases.holding, met, wait_s)
    if as_json:
        print_json([asdict(it) for it in answers])
    else:
        for it in answers:
            click.echo(f"{it.issue}: {line(it.says)}", err=not it.stopped)
        if every:
            click.echo("orch is paused; `orch resume` lets sessions start again")
    if not all(it.stopped for it in answers):
        ctx.exit(1)


def _answers(holding: Callable[[str], Holding | None], met: dict[str, Stop], wait_s: float) -> list[Answer]:
    """Look until every session has ended or the time is over; gives the last results."""
    deadline = time.monotonic() + wait_s
    while True:
        answers = [answer(issue, stop, holding(issue)) for issue, stop in met.items()]
        waiting = any(met[it.issue] is Stop.ASKED and not it.stopped for it in answers)
        if not waiting or time.monotonic() >= deadline:
            return answers
        time.sleep(_LOOK_S)


def answer(issue: str, met: Stop, holding: Holding | None) -> Answer:
    """The result for an issue whose stop met `met`, by what Redis knows of it now."""
    if met is Stop.IDLE:
        return Answer(issue, False, "nothing runs it; `orch status` shows what does run")
    if met is Stop.HELD:
        return Answer(issue, True, f"nothing runs it; it waits for `orch enqueue {issue}`")
    # Without its stop it is a session that somebody has asked for since.
    if holding is None or not holding.stop:
        return Answer(issue, True, "stopped, and started again since")
    if holding.live:
        owner = holding.owner or "a worker"
        says = f"{owner} has not confirmed yet; it ends when that answers, or when its lease is over: see `orch status`"
        return Answer(issue, False, says)
    if holding.ended_at_ms < holding.claimed_at_ms:
        return Answer(issue, True, holding.held_because)
    if holding.verdict != Verdict.ERROR:
        return Answer(issue, True, f"it had ended by itself: {holding.verdict}")
    return Answer(issue, True, holding.reason)
