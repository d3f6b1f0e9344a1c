"""`orch logs`: what agents and verifications printed, read where they ran."""

from __future__ import annotations

import contextlib
import re
import socket
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TypedDict

import click

from orchestrator.cli import project
from orchestrator.cli.terminal import IssueId, json_option, plain, print_json
from orchestrator.errors import OrchestratorError, RedisUnavailable
from orchestrator.models import Holding

TAIL_LINES = 30
LOOK_EVERY_S = 0.3
READ_BYTES = 1_000_000

STEPS = {
    "implementer": "implement",
    "spec_reviewer": "spec_review",
    "quality_reviewer": "quality_review",
    "set-up": "set_up",
    "verification": "verification",
}
"""What a step is called, by the name in its files. A fix is the implementer's work too."""

_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]")


class StepRunJson(TypedDict):
    """A run as JSON values. `at` is when something was last written."""

    number: int
    step: str
    at: str
    bytes: int
    files: list[str]


@dataclass(frozen=True)
class StepRun:
    """One run of an agent or of the verification, and the files it left, in the order of their names."""

    number: int
    step: str
    files: tuple[Path, ...]

    def as_json(self) -> StepRunJson:
        """The run as JSON values."""
        at = datetime.fromtimestamp(max(path.stat().st_mtime for path in self.files), UTC)
        return {
            "number": self.number,
            "step": self.step,
            "at": at.isoformat(),
            "bytes": sum(path.stat().st_size for path in self.outputs),
            "files": [str(path) for path in self.files],
        }

    @property
    def outputs(self) -> list[Path]:
        """The files of what it printed: an agent's two streams, or the verification's one."""
        return [path for path in reversed(self.files) if path.suffix != ".prompt"]


class StepName(click.ParamType[str]):
    """A run's number, or the name of a step."""

    name = "step"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The number or name, if it is one."""
        name = value.lower().replace("-", "_")
        if not name.isdecimal() and name not in STEPS.values():
            self.fail(f"{value!r} is neither a number of the list nor one of {', '.join(STEPS.values())}", param, ctx)
        return name


@click.command("logs")
@click.argument("issue", type=IssueId())
@click.option("--step", type=StepName(), metavar="STEP", help="All that this one printed: its number, or its name.")
@click.option("-f", "--follow", is_flag=True, help="Go on as more is printed, until the session ends.")
@click.option("--session", "wanted", metavar="ID", help="Another session than the last: how its id begins.")
@json_option
def command(*, issue: str, step: str | None, follow: bool, wanted: str | None, as_json: bool) -> None:
    """Show what the agents, set-ups and verifications of a session printed: a list, and the end of what came last.

    \b
    orch logs i-a1b2
    orch logs i-a1b2 --step spec_review
    orch logs i-a1b2 -f

    Steps are implement (fixes too), spec_review, quality_review, set_up and verification; a name means its last run.
    Logs stay on the host where they were written; elsewhere you are told which one that is.
    """
    if follow and (as_json or step):
        raise click.UsageError("-f follows a whole session, for people: leave out --step and --json")
    here = project.here()
    leases = here.leases if here.is_up else None
    try:
        holding = leases.holding(issue) if leases else None
    except RedisUnavailable as error:
        click.echo(f"Redis does not answer ({error}); these are the last logs here", err=True)
        leases = holding = None
    logs = Logs(issue, folder_of(here.settings.logs / issue, issue, holding, wanted))
    if follow:
        follow_session(logs, over=lambda: leases is None or over(leases.holding(issue), logs.session_id))
    elif as_json:
        print_json(as_object(logs, logs.picked(step)))
    elif step:
        for text in printed(logs.picked(step)[-1]):
            click.echo(text)
    else:
        print_list(logs)
    if holding and not wanted and (elsewhere := elsewhere_than_here(holding)):
        click.echo(f"the last steps ran on {elsewhere}: `orch logs {issue}` there has them", err=True)


def folder_of(sessions: Path, issue: str, holding: Holding | None, wanted: str | None) -> Path:
    """The folder of the wanted session's logs, or of the last one's. OrchestratorError says where else they may be."""
    known = sorted(sessions.iterdir(), key=lambda path: path.stat().st_mtime) if sessions.is_dir() else []
    if wanted:
        known = [path for path in known if path.name.startswith(wanted)]
        missing = f"no session whose id begins with {wanted} has left logs here; `orch history {issue}` lists them"
    elif holding and holding.record:
        folder, host = sessions / holding.record.session_id, elsewhere_than_here(holding)
        # Before its first step a session has no folder.
        known = [folder] if folder in known or (holding.live and not host) else []
        missing = f"its logs are on {host or 'no host'}; run `orch logs {issue}` there"
    else:
        missing = "no session has left logs here; `orch status` says what it waits for"
    if not known:
        raise OrchestratorError(f"{issue}: {missing}")
    return known[-1]


def elsewhere_than_here(holding: Holding) -> str:
    """The host of the worker that has the session, or had it last; empty for this one, and when there was none yet."""
    host = holding.owner.partition("@")[2].rpartition("/")[0]
    return "" if host == socket.gethostname() else host


def over(holding: Holding | None, session_id: str) -> bool:
    """True if nothing more will come of this session."""
    return not (holding and holding.record and holding.record.session_id == session_id and holding.live)


@dataclass(frozen=True)
class Logs:
    """The logs that one session left on this host."""

    issue: str
    folder: Path

    @property
    def session_id(self) -> str:
        """The session that they are of."""
        return self.folder.name

    def runs(self) -> list[StepRun]:
        """Every run so far, in order."""
        files: dict[int, list[Path]] = {}
        for path in sorted(self.folder.iterdir()) if self.folder.is_dir() else []:
            number, _, _ = path.name.partition("-")
            if number.isdecimal():
                files.setdefault(int(number), []).append(path)
        return [StepRun(number, _step(paths[0]), tuple(paths)) for number, paths in sorted(files.items())]

    def picked(self, step: str | None) -> list[StepRun]:
        """The runs of this number or name, or all. OrchestratorError when there is none."""
        runs = [run for run in self.runs() if step in (None, run.step, str(run.number))]
        if step and not runs:
            raise OrchestratorError(
                f"{self.issue}: there is no {step} yet; `orch logs {self.issue}` lists what there is"
            )
        return runs


def _step(path: Path) -> str:
    name = path.stem.partition("-")[2]
    return STEPS.get(name, name)


class Growing:
    """A file that is being written, in lines that are safe to print."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb")
        self._rest = b""

    def lines(self, *, all_of_it: bool) -> Iterator[str]:
        """The lines that are new since the last call; one that has no end yet only when asked for all of it."""
        while piece := self._file.read(READ_BYTES):
            whole, newline, self._rest = (self._rest + piece).rpartition(b"\n")
            if newline:
                yield from _harmless(whole)
        if all_of_it and self._rest:
            rest, self._rest = self._rest, b""
            yield from _harmless(rest)

    def close(self) -> None:
        """Read no more."""
        self._file.close()


def _harmless(text: bytes) -> Iterator[str]:
    """Colours are dropped and progress bars get a line for each state; what else could steer a terminal is replaced."""
    for line in text.decode(errors="replace").replace("\r\n", "\n").replace("\r", "\n").split("\n"):
        yield plain(_ESCAPES.sub("", line))


def printed(run: StepRun) -> Iterator[str]:
    """All lines of a run; what an agent said on stderr comes after what it said on stdout."""
    for path in run.outputs:
        with closing(Growing(path)) as file:
            yield from file.lines(all_of_it=True)


def print_list(logs: Logs) -> None:
    """Every run with its time, size and file, and the end of the last one."""
    runs = logs.runs()
    click.echo(f"{logs.issue} session {logs.session_id}\n{logs.folder}")
    for run in runs:
        said = run.as_json()
        at = datetime.fromisoformat(said["at"]).astimezone().strftime("%H:%M:%S")
        click.echo(f"{run.number:>3}  {run.step:<14}  {at}  {size(said['bytes']):>7}  {run.files[-1].name}")
    if not runs:
        click.echo(f"nothing yet; `orch logs {logs.issue} -f` waits for it")
        return
    last = deque(printed(runs[-1]), maxlen=TAIL_LINES)
    print_heading(runs[-1])
    for text in last:
        click.echo(text)


def print_heading(run: StepRun) -> None:
    """Print a heading that names the run of the lines below."""
    click.echo(click.style(f"==> {run.number} {run.step} <==", bold=True))


def follow_session(logs: Logs, *, over: Callable[[], bool]) -> None:
    """Print what runs print while they do, one after another, until the session is over. Ctrl-C ends it sooner."""
    with contextlib.suppress(KeyboardInterrupt), ExitStack() as files:
        shown, growing = 0, dict[Path, Growing]()
        while True:
            ended = _ended(over)
            # Asked for after that: what was there at the end is printed.
            runs = [run for run in logs.runs() if run.number >= shown]
            for run in runs:
                if run.number > shown:
                    print_heading(run)
                    shown = run.number
                for path in run.outputs:
                    if path not in growing:
                        growing[path] = files.enter_context(closing(Growing(path)))
                    for text in growing[path].lines(all_of_it=ended or run is not runs[-1]):
                        click.echo(text)
            if ended:
                return
            time.sleep(LOOK_EVERY_S)


def _ended(over: Callable[[], bool]) -> bool:
    try:
        return over()
    except RedisUnavailable:
        return False  # whether it goes on is not known, and what it prints can be read all the same


def as_object(logs: Logs, runs: Iterable[StepRun]) -> dict[str, object]:
    """The list as JSON values."""
    return {"issue": logs.issue, "session_id": logs.session_id, "runs": [run.as_json() for run in runs]}


def size(count: int) -> str:
    """A number of bytes, as briefly as can be."""
    for unit, worth in (("MB", 1_000_000), ("kB", 1_000)):
        if count >= worth:
            return f"{count / worth:.1f} {unit}"
    return f"{count} B"
