"""`orch up`: the local stack in the foreground."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Callable
from queue import Empty, SimpleQueue
from types import FrameType

import click
from rich.console import Console
from rich.text import Text

from orchestrator.adapters.mcp import probe
from orchestrator.cli.project import here, start_anew_without
from orchestrator.local.up import Stack

COLOURS = {"worker": "green", "control": "cyan", "beat": "magenta", "flower": "yellow", "redis": "red", "orch": "bold"}
LOOK_EVERY_S = 1.0


@click.command("up")
@click.option("--flower/--no-flower", default=True, help="Flower, on port 5555 if that is free; its login is printed.")
def command(flower: bool) -> None:
    """Run everything this repo needs, until Ctrl-C: Redis, workers, beat, Flower.

    \b
    Example:  orch up
    Ready issues are claimed within seconds; watch them with `orch status --watch`.
    The first Ctrl-C lets sessions reach their next step boundary (for up to 10 s)
    and hands them over; the second ends everything now. Nothing is lost either
    way: the next `orch up` goes on from the last recorded step.
    """
    start_anew_without()
    console = Console(highlight=False, soft_wrap=True)
    asked: SimpleQueue[int] = SimpleQueue()  # not an Event: a signal may come while its lock is held
    stopping = False

    def say(name: str, line: str) -> None:
        console.print(Text(f"{name:>8} ", style=COLOURS.get(name, "")), Text.from_ansi(line), sep="")

    def on_signal(number: int, _frame: FrameType | None) -> None:
        nonlocal stopping
        if stopping:
            # By unwinding, so that locks are released; and once, so that a third Ctrl-C does not break the ending off.
            on_signals(signal.SIG_IGN)
            sys.exit(130)
        stopping = True
        asked.put(number)

    stack = Stack(here().settings, os.environ, say=say, flower=flower)
    on_signals(on_signal)
    with stack:
        stack.wait_ready(unless=lambda: stopping)
        settings = stack.settings
        if not stopping:
            say("orch", f"{settings.root} is up: {settings.concurrency} slots" + (f", {stack.flower}" * flower))
            with stack.wiring.tracker as tracker:
                for problem in probe(tracker):
                    say("tracker", problem)
        while not stopping:
            stack.check()
            with contextlib.suppress(Empty):
                asked.get(timeout=LOOK_EVERY_S)
        say("orch", "stopping; sessions hand over (Ctrl-C again ends everything now)")
    say("orch", "stopped")


def on_signals(handler: Callable[[int, FrameType | None], None] | signal.Handlers) -> None:
    """Set the handler of SIGINT and SIGTERM."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, handler)
