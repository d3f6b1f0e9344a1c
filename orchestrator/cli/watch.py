"""`orch status --watch`: one screen, drawn anew in place, that outlives a Redis and a tracker that do not answer."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Generic, TypeVar

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from orchestrator.cli.issue_row import age, bar, brief, headline, step
from orchestrator.cli.terminal import line, span
from orchestrator.models import IssueStatus
from orchestrator.status import Asked, EngineStatus, IssueRow, Sources, ask_redis, ask_tracker, board_of, facts_of

DRAWN_EVERY_S = 0.5
TRACKER_SHARE = 0.1
"""How much of the tracker's time looking may take: it answers one call at a time, and sessions need it more."""
TRACKER_EVERY_S = 5.0

T = TypeVar("T")
Row = tuple[RenderableType, ...]

WAITING = (IssueStatus.OPEN, IssueStatus.BLOCKED)
WIDE = {"why": 3, "title": 2}
"""The columns that share what the others leave."""


def watch(sources: Sources, *, every_s: float) -> None:
    """Show how things stand until Ctrl-C; where there is no terminal, as one picture after another."""
    console = Console(highlight=False)
    sessions = Asking(lambda: ask_redis(sources), rest_s=lambda _: every_s)
    tracked = Asking(lambda: ask_tracker(sources, sessions.asked().answer), rest_s=_calm)
    # A polite kill leaves the terminal as clean as Ctrl-C does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with contextlib.suppress(KeyboardInterrupt):
        sessions.start()
        sessions.wait()
        tracked.start()

        def found() -> EngineStatus:
            return board_of(sources.project, facts_of(sources, sessions.asked(), tracked.asked()))

        if not console.is_terminal:
            while True:
                console.print(picture(found(), now=datetime.now().astimezone(), height=None))
                time.sleep(every_s)
        with Live(console=console, screen=True, auto_refresh=False) as live:
            while True:
                screen = picture(found(), now=datetime.now().astimezone(), height=console.height)
                live.update(screen, refresh=True)
                time.sleep(min(every_s, DRAWN_EVERY_S))


def _calm(took_s: float) -> float:
    return max(TRACKER_EVERY_S, took_s / TRACKER_SHARE)


class Asking(Generic[T]):
    """Asks again and again in a thread of its own, and keeps the last answer.

    A thread, because neither a slow tracker nor a Redis that is away may freeze the screen. `rest_s` says how long to
    wait after an answer that took so long.
    """

    def __init__(self, ask: Callable[[], Asked[T]], *, rest_s: Callable[[float], float]) -> None:
        self._ask, self._rest_s = ask, rest_s
        self._asked: Asked[T] = Asked()
        self._answered: tuple[T, float] | None = None
        self._first = threading.Event()
        self._bug: Exception | None = None

    def start(self) -> None:
        """Ask from now on, for as long as the process lives."""
        threading.Thread(target=self._run, name="asking", daemon=True).start()

    def wait(self) -> None:
        """Wait for the first answer, or for its failure."""
        self._first.wait()

    def asked(self) -> Asked[T]:
        """The last answer; while there is no new one, how old it is and why."""
        if self._bug:
            raise self._bug
        asked, answered = self._asked, self._answered
        if asked.answer is not None or answered is None:
            return asked
        answer, at = answered
        return Asked(answer, f"{asked.away or 'it is gone'} (the answer shown is {span(time.monotonic() - at)} old)")

    def _run(self) -> None:
        try:
            while True:
                started = time.monotonic()
                asked = self._ask()
                if asked.answer is not None:
                    self._answered = asked.answer, time.monotonic()
                self._asked = asked
                self._first.set()
                time.sleep(self._rest_s(time.monotonic() - started))
        except Exception as bug:  # noqa: BLE001 - it is raised where a person sees it
            self._bug = bug
            self._first.set()


def picture(found: EngineStatus, *, now: datetime, height: int | None) -> Group:
    """Everything on one screen of so many lines; without a height, all there is."""
    running = [issue for issue in found.issues if issue.live]
    queue = [issue for issue in found.issues if not issue.live and not issue.held and issue.status in WAITING]
    done = sorted((issue for issue in found.issues if issue.verdict), key=lambda issue: issue.age_s or 0.0)
    problems = list(problems_of(found))
    panels = (
        Panel("Problems", (), [(Text(line(problem), "yellow"),) for problem in problems] or [(Text("none", "green"),)]),
        Panel("Running", ("", "step", "age", "heard", "worker", "title"), [_running(issue) for issue in running]),
        Panel("Queue", ("why", "title"), [_waiting(issue) for issue in queue]),
        Panel("Done lately", ("", "verdict", "ended", "why", "title"), [_done(issue) for issue in done]),
    )
    room = None if height is None else max(0, height - 1 - 2 * len(panels))
    shown = shares([len(panel.rows) for panel in panels], room)
    looking = "" if found.complete or found.problems else "   asking the tracker ..."
    head = headline(found).append(f"   {now:%H:%M:%S}{looking}", "dim")
    head.no_wrap, head.overflow = True, "ellipsis"
    tables = [table for panel, count in zip(panels, shown, strict=True) for table in (Text(), panel.table(count))]
    return Group(head, *tables)


@dataclass(frozen=True)
class Panel:
    """Rows under a title, with the names of all columns after the first."""

    title: str
    names: tuple[str, ...]
    rows: Sequence[Row]

    def table(self, shown: int) -> Table:
        """Its first rows, and how many it leaves out."""
        left_out = f" (and {len(self.rows) - shown} more)" if shown < len(self.rows) else ""
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim", expand=True)
        first = Text.assemble((self.title, "bold not dim"), left_out)
        table.add_column(first, no_wrap=True, overflow="ellipsis", ratio=None if self.names else 1)
        for name in self.names:
            table.add_column(name, no_wrap=True, overflow="ellipsis", ratio=WIDE.get(name))
        for row in self.rows[:shown]:
            table.add_row(*row)
        return table


def shares(wanted: Sequence[int], room: int | None) -> list[int]:
    """The number of rows that each panel shows: a few of each; the first panels get the room that is left."""
    if room is None:
        return list(wanted)
    given = [0] * len(wanted)
    for least in (1, 3, max(wanted, default=0)):
        for n, want in enumerate(wanted):
            more = max(0, min(least, want) - given[n])
            given[n] += min(more, room - sum(given))
    return given


def problems_of(found: EngineStatus) -> Iterator[str]:
    """Yield each problem that a person should see to; on a good night there is none."""
    yield from found.problems
    # The command first: the end of a long line is cut off.
    yield from (f"`orch explain {issue.id}`: {brief(issue.trouble)}" for issue in found.issues if issue.trouble)


def _running(issue: IssueRow) -> Row:
    heard = "" if issue.heard_s is None else f"{span(issue.heard_s)} ago"
    host = (issue.worker or "").partition("@")[2].rpartition("/")[0]
    return issue.id, bar(issue), step(issue), age(issue), heard, line(host), _title(issue)


def _waiting(issue: IssueRow) -> Row:
    return issue.id, Text(brief(issue.reason)), _title(issue)


def _done(issue: IssueRow) -> Row:
    return issue.id, bar(issue), step(issue), age(issue), Text(brief(issue.reason)), _title(issue)


def _title(issue: IssueRow) -> Text:
    return Text(line(issue.title))
