"""Processes of sessions on this host, found by the markers in the environment that they were started with.

Killing a shim cuts the tie between an agent's family and us. The markers remain.
"""

# pathlib is slow enough to lose a race with a fork loop.
# ruff: noqa: PTH123, PTH208

from __future__ import annotations

import math
import os
import signal
import time
from collections.abc import Mapping
from contextlib import suppress

from orchestrator.adapters.process import shim

NAMES = ("ORCH_ISSUE", "ORCH_SESSION", "ORCH_STATE", "ORCH_LEASE")
"""The variables that every child carries: issue, session, the state folder of both, and its holder's token.

Not named a token: agent CLIs take secrets, by their names, out of the environment of what they start.
"""

_STOP_S = shim.GRACE_S + 2.0
_DOUBT_S = 0.2
_CHUNK = 64 << 10  # more than most environments; from 128 KiB on, each read would map memory of its own


def of(env: Mapping[str, str]) -> dict[str, str]:
    """The marks in an environment."""
    return {name: env[name] for name in NAMES if name in env}


def sweep(markers: Mapping[str, str], *, newest: float = math.inf) -> int:
    """Kill every process that was started with all these variables, and not by a newer token; how many there were.

    For what a killed shim left behind, also when it forks its way from process to process. It never touches this
    process or those above it, nor other users' processes, and finds nothing where there is no /proc. Running it again
    is harmless. So it is for a holder that stood still and lost its session meanwhile, if `newest` is its own token:
    what runs there now has a newer one. It looks until a look shows that none is left: for some seconds at most, or for
    a moment where it finds none.
    """
    if not markers:
        raise ValueError("sweep needs a marker: without one it would kill everything")
    wanted = {os.fsencode(f"{name}={value}") for name, value in markers.items()}
    spared, killed = _above(os.getpid()), set[int]()
    known, start, last = spared, time.monotonic(), False
    while True:
        found, known, doubt = _kill_bearers(wanted, spared, newest, known)
        killed |= found
        if last or not (found or doubt):
            return len(killed)
        last = time.monotonic() - start > (_STOP_S if killed else _DOUBT_S)


def families(state: str) -> dict[tuple[str, str, int], set[int]]:
    """The processes above those of sessions of this state folder on this host, for each issue, session and token.

    Empty where there is no /proc.
    """
    found: dict[tuple[str, str, int], set[int]] = {}
    for pid in _newest_first():
        with suppress(FileNotFoundError, ProcessLookupError, PermissionError):
            environment = _first_environment(pid)
            said = dict(word.decode(errors="replace").partition("=")[::2] for word in environment)
            if said.get("ORCH_STATE") == state and "ORCH_ISSUE" in said and "ORCH_SESSION" in said:
                family = (said["ORCH_ISSUE"], said["ORCH_SESSION"], _token(environment))
                found.setdefault(family, set()).update(_above(pid))
    return found


def stat(pid: int) -> tuple[str, int]:
    """State and parent of a process; ("X", 0) when it is gone."""
    try:
        fields = _fields(pid)
    except (FileNotFoundError, ProcessLookupError):
        return "X", 0
    return fields[0].decode(), int(fields[1])


def _fields(pid: int) -> list[bytes]:
    """What `stat` says of a process, from its third field on; proc(5) counts from one."""
    return _read(f"/proc/{pid}/stat").rpartition(b")")[2].split()


def _above(pid: int) -> set[int]:
    """A process and those above it."""
    found = set[int]()
    while pid:
        found.add(pid)
        pid = stat(pid)[1]
    return found


def _newest_first() -> list[int]:
    """All processes, newest first: a chain of forks is at the new end."""
    with suppress(FileNotFoundError):
        return sorted((int(name) for name in os.listdir("/proc") if name.isdecimal()), reverse=True)
    return []


def _first_environment(pid: int) -> set[bytes]:
    """The variables a process was started with, as `NAME=value`; empty while it becomes another program.

    Raises ProcessLookupError when it has ended, FileNotFoundError when it is not even listed any more, and
    PermissionError when it is not ours to see.
    """
    folder = f"/proc/{pid}"
    with suppress(ProcessLookupError, PermissionError):  # said of what has ended, too: it depends on the kernel
        if words := _variables(folder):
            return words
    fields = _fields(pid)
    threads, memory, code, start, end = (int(fields[number - 3]) for number in (20, 23, 26, 50, 51))
    if not memory:
        if threads <= 1:  # it has ended, or is one of the kernel's own
            raise ProcessLookupError(pid)
        folder += f"/task/{os.listdir(f'{folder}/task')[-1]}"  # the first thread may end before the others
    # Without code it is just becoming a program; with it, and still without variables, it was started with none.
    return _variables(folder) or ({b""} if code and start == end else set())


def _variables(folder: str) -> set[bytes]:
    words = _read(f"{folder}/environ")
    return set(words.split(b"\0")) if words else set()


def _read(path: str) -> bytes:
    """All that is in a file of /proc; in one call if it can be, as between two the process may end."""
    with open(path, "rb", buffering=0) as file:
        found = file.read(_CHUNK)
        return found + file.read() if len(found) == _CHUNK else found


def _token(environment: set[bytes]) -> int:
    """The token of the holder that a process was started by; 0, older than any, where there is none."""
    words = (word.removeprefix(b"ORCH_LEASE=") for word in environment if word.startswith(b"ORCH_LEASE="))
    return next((int(word) for word in words if word.isdigit() and len(word) < 20), 0)


def _kill_bearers(
    wanted: set[bytes], spared: set[int], newest: float, known: set[int]
) -> tuple[set[int], set[int], bool]:
    """One look at all processes but the known: those that were killed, those known now, and whether it is in doubt.

    It is when one has ended, or shows nothing: that one may have been wanted, with a child that was born after we began
    to look. The next look has the child. Known are those that had ended and those that were not wanted.
    """
    pids = _newest_first()
    killed, known, doubt = set[int](), known.intersection(pids), False
    for pid in pids:
        if pid in known:
            continue
        try:
            environment = _first_environment(pid)
            if not environment:
                doubt = True
            elif wanted <= environment and _token(environment) <= newest:
                _kill_group(pid, spared)
                killed.add(pid)
            else:
                known.add(pid)
        except ProcessLookupError:
            doubt = True
            known.add(pid)
        except FileNotFoundError:
            doubt = True  # at the next look another may have its number
        except PermissionError:
            known.add(pid)
    return killed, known, doubt


def _kill_group(pid: int, spared: set[int]) -> None:
    """A signal to a group reaches also those that are just being forked. A marked process began its session with us,
    so no other process is in its group; unless we, who sweep, were started by it.
    """
    group = _group(pid)
    with suppress(ProcessLookupError):  # what it left as it ended is for the next look
        if group <= 1 or group in map(_group, spared):  # of those two, killpg would take all
            os.kill(pid, signal.SIGKILL)
        else:
            os.killpg(group, signal.SIGKILL)


def _group(pid: int) -> int:
    """The group of a process; 0 when it is gone, or its group is not to be seen from here."""
    with suppress(ProcessLookupError):
        return os.getpgid(pid)
    return 0
