"""`orch up`: the local stack in the foreground."""

from __future__ import annotations

import os
import signal
import sys
import threading
from types import FrameType

import click
from rich.console import Console
from rich.text import Text

from orchestrator.settings import from_environment
from orchestrator.stack import Stack

COLOURS = {"worker": "green", "control": "cyan", "beat": "magenta", "flower": "yellow", "redis": "red", "orch": "bold"}
LOOK_EVERY_S = 1.0


@click.command("up")
@click.option("--flower/--no-flower", default=True, help="Flower's dashboard, on port 5555 if that is free.")
def command(flower: bool) -> None:
    """Run everything this repo needs, until Ctrl-C: Redis, workers, beat, Flower.

    \b
    Example:  orch up
    Ready issues are claimed within seconds; watch them with `orch status --watch`.
    The first Ctrl-C lets sessions reach their next step boundary (for up to 10 s)
    and hands them over; the second ends everything now. Nothing is lost either
    way: the next `orch up` goes on from the last recorded step.
    """
    console = Console(highlight=False, soft_wrap=True)
    stop = threading.Event()

    def say(name: str, line: str) -> None:
        console.print(Text(f"{name:>8} ", style=COLOURS.get(name, "")), Text.from_ansi(line), sep="")

    stack = Stack(from_environment(), os.environ, say=say, flower=flower)

    def on_signal(_number: int, _frame: FrameType | None) -> None:
        if stop.is_set():
            stack.kill()
            sys.exit(130)
        stop.set()

    with stack:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, on_signal)
        stack.wait_ready()
        settings = stack.settings
        say("orch", f"{settings.root} is up: {settings.concurrency} slots" + (f", {stack.flower_url}" * flower))
        while not stop.wait(LOOK_EVERY_S):
            stack.check()
        say("orch", "stopping; sessions hand over (Ctrl-C again ends everything now)")
    say("orch", "stopped")
