"""`orch demo`: the whole stack at work on a made-up project."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import shutil
import sys
import tempfile
import time
from collections import deque
from pathlib import Path
from types import TracebackType
from typing import Self

import click
from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from orchestrator.cli.issue_row import step
from orchestrator.cli.status import page
from orchestrator.cli.terminal import line
from orchestrator.errors import OrchestratorError
from orchestrator.local import demo
from orchestrator.local.demo import Demo, Outcome
from orchestrator.local.up import Stack
from orchestrator.status import EngineStatus

LOG_LINES = 8
READY_S = 60.0


@click.command("demo")
@click.option(
    "--dir",
    "folder",
    type=click.Path(file_okay=False, path_type=Path),
    help="A new folder for all of it. Default: one in the system's folder for temporary files.",
)
@click.option("--json", "as_json", is_flag=True, help="Progress on stderr, one JSON object on stdout.")
@click.option("--keep-open", is_flag=True, help="Keep the stack up until Ctrl-C, to look around.")
def command(*, folder: Path | None, as_json: bool, keep_open: bool) -> None:
    """See sessions run: a small project, eight issues, four agents at once. Takes half a minute, needs no set-up.

    \b
    orch demo
    orch demo --dir /tmp/look --keep-open

    Redis, workers, tracker, git and tests are real; only the agents follow a script. One issue fails its reviews and
    is fixed, one overflows into a [FIX] issue, one fails verification, one agent breaks down. One issue waits for
    another: that one's branch is merged, so it is closed, and the one that waited starts. The folder is kept. Exit
    code 0 when all came out as scripted.
    """
    console = Console(stderr=as_json, highlight=False)
    folder = folder or Path(tempfile.mkdtemp(prefix="orch-demo-"))
    console.print(f"Building a project and its issues in {folder}", soft_wrap=True)
    made = demo.build(folder, os.environ)
    started = time.monotonic()
    screen = Screen(console, made)
    with Stack(made.settings, made.environ, say=screen.say, flower=False) as stack:
        with screen:
            stack.wait_ready(READY_S)
            found = demo.follow(stack, screen.show)
            merged = demo.merge(made, found)
            for branch in merged.values():
                console.print(f"git merge {branch}   (as you would: its issue closes, what waited starts)")
            last = demo.follow(stack, screen.show, without=merged)
            with stack.wiring.tracker as tracker:
                found = demo.with_closed(last, found, tracker)
        elapsed_s = time.monotonic() - started
        at_once = demo.most_at_once(stack.wiring.leases.holdings())
        outcome = demo.outcome(made, found, at_once=at_once, elapsed_s=elapsed_s)
        console.print(report(made, outcome), soft_wrap=True)
        if as_json:
            click.echo(json.dumps(as_object(outcome)))
        if keep_open:
            _keep_open(console, made, stack)
    if outcome.surprises:
        said = "; ".join(outcome.surprises)
        raise OrchestratorError(f"not all came out as scripted: {said} (everything is in {folder})")


class Screen:
    """The screen of a running demo, as a context manager: a live table on a terminal, else a line per change.

    Leaving it with an error prints the last log lines.
    """

    def __init__(self, console: Console, made: Demo) -> None:
        self._console = console
        self._made = made
        self._log: deque[Text] = deque(maxlen=LOG_LINES)
        self._live = Live(console=console, transient=True, auto_refresh=False) if console.is_terminal else None
        self._shown: dict[str, str] = {}
        self._started = time.monotonic()

    def say(self, name: str, text: str) -> None:
        """A log line of a part of the stack."""
        self._log.append(Text.assemble((f"{name:>8} ", "dim"), line(Text.from_ansi(text).plain)))

    def show(self, found: EngineStatus) -> None:
        """Show the state of all issues."""
        if self._live is not None:
            log = [Text(), *(self._cut(entry) for entry in list(self._log))]
            self._live.update(Group(page(found, reasons="ellipsis"), *log), refresh=True)
            return
        for issue in found.issues:
            now = f"{step(issue).plain}: {line(issue.reason)}" if issue.reason else step(issue).plain
            if self._shown.get(issue.id) != now:
                self._shown[issue.id] = now
                since = time.monotonic() - self._started
                name = self._made.name(issue.id, found)
                self._console.print(f"{since:5.1f} s  {issue.id}  {name:<12}  {now}", markup=False, soft_wrap=True)

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
            self._live.update(Text("starting Redis, workers and beat ..."), refresh=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()
        if isinstance(error, KeyboardInterrupt):
            self._console.print(f"stopping; what was done is in {self._made.project.parent}", soft_wrap=True)
        elif error is not None:
            for entry in self._log:
                self._console.print(entry, soft_wrap=True)

    def _cut(self, entry: Text) -> Text:
        entry = entry.copy()
        entry.truncate(self._console.width, overflow="ellipsis")
        return entry


def report(made: Demo, outcome: Outcome) -> Group:
    """The result: outcomes, the place of the work, and commands to type next."""
    names = {issue.id: made.name(issue.id, outcome.found) for issue in outcome.found.issues}
    stories = [
        Text.assemble(f"{issue.id}  {names[issue.id]:<12}  ", _padded(step(issue), 13), f"  {line(demo.story(issue))}")
        for issue in sorted(outcome.found.issues, key=lambda issue: names[issue.id])
    ]
    branch, project = outcome.branch, shlex.quote(str(made.project))
    return Group(
        Text(f"\n{outcome.elapsed_s:.0f} s, {outcome.at_once} sessions at once\n", "bold"),
        *stories,
        Text(f"\nThe tests of {branch}, in a fresh clone: {outcome.tests}"),
        Text("\nLook at a branch, at what happened to its issue, at what the agents said; then try a repo of yours:\n"),
        Text(f"  git -C {project} log --oneline main..{branch}"),
        Text(f"  {_orch(made)} history {outcome.example}"),
        Text(f"  ls {shlex.quote(str(made.settings.logs / outcome.example))}/*"),
        Text("  cd my-repo; orch init; orch doctor; orch up"),
    )


def _padded(text: Text, width: int) -> Text:
    text.pad_right(max(0, width - len(text)))
    return text


def _keep_open(console: Console, made: Demo, stack: Stack) -> None:
    console.print(f"\nThe stack stays up until Ctrl-C. {_orch(made)} status --watch", soft_wrap=True)
    with contextlib.suppress(KeyboardInterrupt):
        while True:
            stack.check()
            time.sleep(1.0)


def _orch(made: Demo) -> str:
    """The words for calling `orch` on this demo's project."""
    orch = "orch" if shutil.which("orch") else shlex.quote(str(Path(sys.executable).with_name("orch")))
    return f"ORCH_STATE_DIR={shlex.quote(str(made.settings.state_dir))} {orch} -C {shlex.quote(str(made.project))}"


def as_object(outcome: Outcome) -> dict[str, object]:
    """The outcome of each issue, as JSON values."""
    return {
        "issues": {
            issue.id: {
                "status": issue.status,
                "verdict": issue.verdict,
                "attempts": {"spec": issue.spec, "quality": issue.quality},
                "branch": issue.branch,
            }
            for issue in outcome.found.issues
        },
        "max_parallel": outcome.at_once,
        "elapsed_s": round(outcome.elapsed_s, 1),
    }
