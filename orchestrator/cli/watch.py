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

from orchestrator.cli.issue_row import age, bar, brief, headline, step, why
from orchestrator.models import Verdict, utc_now
from orchestrator.status import EngineStatus, IssueStatus, Seen, ask_redis, ask_tracker, put_together
from orchestrator.text import line, span
from orchestrator.wiring import Wiring

DRAWN_EVERY_S = 0.5
TRACKER_SHARE = 0.1
"""How much of the tracker's time looking may take: it answers one call at a time, and sessions need it more."""
TRACKER_EVERY_S = 5.0
UNHEARD_S = 60.0

T = TypeVar("T")
Row = tuple[RenderableType, ...]

WAITING = ("open", "blocked")
WIDE = {"why": 3, "title": 2}
"""The columns that share what the others leave."""


def watch(here: Wiring, *, every_s: float) -> None:
    """Show how things stand until Ctrl-C; where there is no terminal, as one picture after another."""
    console = Console(highlight=False)
    sessions = Look(lambda: ask_redis(here), "Redis", rest_s=lambda _: every_s)
    tracked = Look(lambda: ask_tracker(here.tracker), "the tracker", rest_s=_calm)
    # A polite kill leaves the terminal as clean as Ctrl-C does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with contextlib.suppress(KeyboardInterrupt):
        sessions.start()
        tracked.start()
        sessions.wait()

        def found() -> EngineStatus:
            return put_together(here.settings.project, sessions.seen(), tracked.seen(), now=utc_now())

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


class Look(Generic[T]):
    """Asks again and again in a thread of its own, and keeps the last answer.

    A thread, because neither a slow tracker nor a Redis that is away may freeze the screen. `rest_s` says how long to
    wait after a look that took so long.
    """

    def __init__(self, ask: Callable[[], Seen[T]], name: str, *, rest_s: Callable[[float], float]) -> None:
        self._ask, self._name, self._rest_s = ask, name, rest_s
        self._seen: Seen[T] = Seen(None)
        self._answered: tuple[T, float] | None = None
        self._first = threading.Event()
        self._bug: Exception | None = None

    def start(self) -> None:
        """Ask from now on, for as long as the process lives."""
        threading.Thread(target=self._run, name=f"look at {self._name}", daemon=True).start()

    def wait(self) -> None:
        """Wait for the first look to end."""
        self._first.wait()

    def seen(self) -> Seen[T]:
        """What was seen last. While nobody answers, the last answer, with its age among the problems."""
        if self._bug:
            raise self._bug
        seen, answered = self._seen, self._answered
        if seen.answer is not None or answered is None:
            return seen
        answer, at = answered
        old = f"what is shown of {self._name} is {span(time.monotonic() - at)} old"
        return Seen(answer, (*seen.problems, old))

    def _run(self) -> None:
        try:
            while True:
                started = time.monotonic()
                seen = self._ask()
                if seen.answer is not None:
                    self._answered = seen.answer, time.monotonic()
                self._seen = seen
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
    sections = (
        Section(
            "Problems", (), [(Text(line(problem), "yellow"),) for problem in problems] or [(Text("none", "green"),)]
        ),
        Section("Running", ("", "step", "age", "heard", "worker", "title"), [_running(issue) for issue in running]),
        Section("Queue", ("why", "title"), [_waiting(issue, found) for issue in queue]),
        Section("Done lately", ("", "verdict", "ended", "why", "title"), [_done(issue) for issue in done]),
    )
    room = None if height is None else max(0, height - 1 - 2 * len(sections))
    shown = shares([len(section.rows) for section in sections], room)
    looking = "" if found.complete or found.problems else "   asking the tracker ..."
    head = headline(found).append(f"   {now:%H:%M:%S}{looking}", "dim")
    head.no_wrap, head.overflow = True, "ellipsis"
    tables = [table for section, count in zip(sections, shown, strict=True) for table in (Text(), section.table(count))]
    return Group(head, *tables)


@dataclass(frozen=True)
class Section:
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
    """How many of its rows each section shows: a few of each, and what room is left goes to the first ones first."""
    if room is None:
        return list(wanted)
    given = [0] * len(wanted)
    for least in (1, 3, max(wanted, default=0)):
        for n, want in enumerate(wanted):
            more = max(0, min(least, want) - given[n])
            given[n] += min(more, room - sum(given))
    return given


def problems_of(found: EngineStatus) -> Iterator[str]:
    """What a person should see to; nothing on a good night."""
    yield from found.problems
    for issue in found.issues:
        if trouble := _trouble(issue):
            # The command first: the end of a long line is cut off.
            yield f"`orch explain {issue.id}`: {trouble}"


def _trouble(issue: IssueStatus) -> str:
    if issue.live:
        unheard = (issue.heard_s or 0) > UNHEARD_S
        return f"its worker has not been heard of for {span(issue.heard_s or 0)}" if unheard else ""
    return brief(issue.id, issue.trouble)


def _running(issue: IssueStatus) -> Row:
    heard = "" if issue.heard_s is None else f"{span(issue.heard_s)} ago"
    host = (issue.worker or "").partition("@")[2].rpartition("/")[0]
    return issue.id, bar(issue), step(issue), age(issue), heard, line(host), _title(issue)


def _waiting(issue: IssueStatus, found: EngineStatus) -> Row:
    return issue.id, Text(line(_why(issue, found))), _title(issue)


def _why(issue: IssueStatus, found: EngineStatus) -> str:
    if issue.status == "blocked" or issue.blockers:
        return why(issue) or "blocked"
    # What another verdict says is no reason to wait: a person has reopened it.
    if issue.reason and issue.verdict in (None, Verdict.ERROR):
        return why(issue)
    if found.paused:
        return "waits for `orch resume`"
    if not found.slots_total:
        return "waits for a worker"
    return "waits for a slot" if found.slots_used >= found.slots_total else "is next"


def _done(issue: IssueStatus) -> Row:
    return issue.id, bar(issue), step(issue), age(issue), Text(why(issue)), _title(issue)


def _title(issue: IssueStatus) -> Text:
    return Text(line(issue.title))
