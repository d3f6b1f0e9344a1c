"""Run foreign programs: within bounds, streamed to files, and leaving no process behind.

This module alone knows how to give a program input without ever waiting for it to read, how to follow
its output in bounded memory, and how to be sure that all of it has ended (with `shim` and `marked`).
"""

from __future__ import annotations

import os
import re
import selectors
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from io import BufferedWriter
from pathlib import Path
from tempfile import TemporaryFile
from threading import Event

from orchestrator.adapters.process import marked, sandbox, shim
from orchestrator.errors import SettingsError, WorkspaceError
from orchestrator.text import Stream

RUN_MARKER = "ORCH_RUN"
"""Has another value in each run: two workers may run the same session while one of them does not know."""

_TICK_S = 0.05
_STOP_S = shim.GRACE_S + 2.0
_CHUNK = 65_536

_BASE_ENV = re.compile(
    r"PATH|HOME|LANG|LC_\w+|TERM|USER|LOGNAME|SHELL|TMPDIR|TZ|XDG_\w+|SSL_CERT_FILE|SSL_CERT_DIR", re.ASCII
)
_OUR_SECRETS = re.compile(r"(GH|GITHUB)_\w*(TOKEN|PAT|SECRET|KEY)\w*|(SUDOCODE|ORCH)_\w+", re.ASCII)


class Ended(Enum):
    """The end of a run: by itself, or by one of the bounds."""

    EXITED = "exited"
    WALL = "wall"
    SILENCE = "silence"
    CANCELLED = "cancelled"
    OUTPUT = "output"


@dataclass(frozen=True)
class Bounds:
    """The bounds of a program: seconds it may run, seconds without output, bytes kept of each stream.

    A program that goes beyond any of them is ended with all its descendants.
    """

    wall_s: float
    silence_s: float | None = None
    output_bytes: int = 100_000_000


@dataclass(frozen=True)
class Ran:
    """One run. `stderr` is the same file as `stdout` when they were merged; exit code 128+n stands for signal n."""

    ended: Ended
    exit_code: int
    stdout: Path
    stderr: Path
    started_at: datetime
    duration_s: float


def run(
    argv: Sequence[str],
    *,
    cwd: Path,
    env: Mapping[str, str],
    stdin: bytes = b"",
    bounds: Bounds,
    stdout: Path,
    stderr: Path | None,
    redact: Callable[[str], str],
    reach: sandbox.Reach | None = None,
    cancel: Event | None = None,
    on_output: Callable[[], None] | None = None,
) -> Ran:
    """Run a program to its end or to a bound; when this returns or raises, none of its descendants is alive.

    Output is in the files as soon as its line is whole, through `redact`: what it takes out never reaches the disk.
    `stderr=None` writes both streams into one, in the order in which they came. `on_output` is called after each
    piece, and may raise to end the run. `cancel` is seen within 50 ms, and ends the program without grace. With a
    `reach` it runs in a box, as `sandbox.boxed` has it.
    A program that cannot be started exits with 127 (not found) or 126, and a line in stderr.

    Raises `WorkspaceError` when cwd is no directory, OSError when the system cannot start a process or write a file.
    """
    if not cwd.is_dir():
        raise WorkspaceError(f"cannot run {argv[0]} in {cwd}: there is no such directory")
    started_at, start = datetime.now(UTC), time.monotonic()
    mark = {RUN_MARKER: uuid.uuid4().hex}
    with ExitStack() as stack:
        copies = stack.enter_context(selectors.DefaultSelector())
        out = stack.enter_context(stdout.open("wb"))
        err = stack.enter_context(stderr.open("wb")) if stderr else None
        errors = subprocess.PIPE if err else subprocess.STDOUT
        words = ["--box", "--", *sandbox.boxed(argv, reach, cwd=cwd)] if reach is not None else ["--", *argv]
        child = stack.enter_context(_start(words, cwd, {**env, **mark}, stdin, errors))
        stack.callback(_end, child, mark)
        for pipe, file in ((child.stdout, out), (child.stderr, err)):
            if pipe and file:
                os.set_blocking(pipe.fileno(), False)
                copy = _Copy(file, bounds.output_bytes, Stream(redact))
                copies.register(pipe, selectors.EVENT_READ, copy)
                stack.callback(copy.end)
        ended = _follow(child, copies, bounds, start, cancel or Event(), on_output)
        _end(child, mark, shim.AT_ONCE if ended is Ended.CANCELLED else signal.SIGTERM)
        for key in list(copies.get_map().values()):
            while key.data.room >= 0 and _copy(copies, key):
                pass
    code = child.returncode if child.returncode >= 0 else 128 - child.returncode
    return Ran(ended, code, stdout, stderr or stdout, started_at, time.monotonic() - start)


def clean_env(
    source: Mapping[str, str], *, allow: Iterable[str] = (), extra: Mapping[str, str] | None = None
) -> dict[str, str]:
    """The environment of a foreign program: the usual names of `source`, those allowed by name, and `extra` on top.

    Raises `SettingsError` when a name is allowed that holds our own secrets: agents read text from strangers, so tokens
    for the tracker and GitHub stay with the orchestrator.
    """
    allowed = frozenset(allow)
    if refused := sorted(filter(_OUR_SECRETS.fullmatch, allowed)):
        names = ", ".join(refused)
        raise SettingsError(f"{names} cannot be passed to agents: take it out of env in orch.toml, [agents]")
    kept = {name: value for name, value in source.items() if name in allowed or _BASE_ENV.fullmatch(name)}
    return kept | dict(extra or {})


def tail(path: Path, max_bytes: int) -> str:
    """The last `max_bytes` of a file as text; what is not UTF-8 is replaced."""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - max_bytes))
        return file.read(max_bytes).decode("utf-8", errors="replace")


def new_log(logs: Path, name: str, suffix: str) -> Path:
    """An empty file `<n>-<name><suffix>`, n being one more than the highest in `logs`; no other call gets the same."""
    logs.mkdir(parents=True, exist_ok=True)
    taken = (path.name.partition("-")[0] for path in logs.iterdir())
    number = max(map(int, filter(str.isdecimal, taken)), default=0)
    while True:
        number += 1
        path = logs / f"{number}-{name}{suffix}"
        with suppress(FileExistsError):
            path.touch(0o600, exist_ok=False)
            return path


@dataclass
class _Copy:
    """The file of a stream, and how many more bytes of it are kept."""

    file: BufferedWriter
    room: int
    redacted: Stream

    def add(self, piece: bytes) -> None:
        """Keep what there is room for."""
        self.file.write(self.redacted.feed(piece[: max(self.room, 0)]))
        self.file.flush()
        self.room -= len(piece)

    def end(self) -> None:
        """Write what was held back until its line is whole."""
        self.file.write(self.redacted.end())


def _start(
    words: Sequence[str], cwd: Path, env: Mapping[str, str], stdin: bytes, stderr: int
) -> subprocess.Popen[bytes]:
    """The program under a shim of its own, in a session of its own: a Ctrl-C at our terminal is for us to handle."""
    with TemporaryFile() as source:
        # A file, not a pipe: it needs no feeding, whether the program reads all of it or nothing.
        source.write(stdin)
        source.seek(0)
        return subprocess.Popen(
            [sys.executable, "-I", "-S", shim.__file__, "--parent", str(os.getpid()), *words],
            cwd=cwd,
            env=env,
            stdin=source,
            stdout=subprocess.PIPE,
            stderr=stderr,
            bufsize=0,
            start_new_session=True,
        )


def _follow(
    child: subprocess.Popen[bytes],
    copies: selectors.BaseSelector,
    bounds: Bounds,
    start: float,
    cancel: Event,
    on_output: Callable[[], None] | None,
) -> Ended:
    """Copy output until the program has ended or must be; the shim holds both streams open for as long as it runs."""
    heard = start
    while copies.get_map():
        now = time.monotonic()
        if cancel.is_set():
            return Ended.CANCELLED
        if now - start > bounds.wall_s:
            return Ended.WALL
        if bounds.silence_s is not None and now - heard > bounds.silence_s:
            return Ended.SILENCE
        ready = copies.select(_TICK_S)
        if not ready and child.poll() is not None:  # it was killed, and another process still holds its streams
            return Ended.EXITED
        for key, _ in ready:
            if not _copy(copies, key):
                continue
            if key.data.room < 0:
                return Ended.OUTPUT
            heard = time.monotonic()
            if on_output:
                on_output()
    return Ended.EXITED


def _copy(copies: selectors.BaseSelector, key: selectors.SelectorKey) -> bool:
    """Move what is there of one stream into its file, as far as there is room; False when there was nothing."""
    try:
        piece = os.read(key.fd, _CHUNK)
    except BlockingIOError:
        return False
    if not piece:
        copies.unregister(key.fileobj)
        return False
    copy: _Copy = key.data
    copy.add(piece)
    return True


def _end(child: subprocess.Popen[bytes], mark: Mapping[str, str], how: signal.Signals = signal.SIGTERM) -> None:
    """Leave nothing alive: tell the shim how, do its work if it cannot, sweep if it was killed. Harmless to repeat."""
    if child.poll() is None:
        child.send_signal(how)
        with suppress(subprocess.TimeoutExpired):
            child.wait(_STOP_S)
    if child.poll() is None:
        deadline = time.monotonic() + _STOP_S
        while _alive(shim.descendants(child.pid)) and time.monotonic() < deadline:
            shim.kill_below(child.pid)
        child.kill()
        child.wait()
    if child.returncode < 0:
        marked.sweep(mark)


def _alive(pids: Iterable[int]) -> bool:
    """True when one of them is more than a zombie."""
    return any(marked.stat(pid)[0] not in "XZ" for pid in pids)
