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
from pathlib import Path

from orchestrator.adapters.process import shim

NAMES = ("ORCH_ISSUE", "ORCH_SESSION", "ORCH_STATE", "ORCH_LEASE")
"""The variables that every child carries: issue, session, the state folder of both, and its holder's token.

Not named a token: agent CLIs take secrets, by their names, out of the environment of what they start.
"""

_STOP_S = shim.GRACE_S + 2.0
_DOUBT_S = 0.2


def of(env: Mapping[str, str]) -> dict[str, str]:
    """The marks in an environment."""
    return {name: env[name] for name in NAMES if name in env}


def sweep(markers: Mapping[str, str], *, newest: float = math.inf) -> int:
    """Kill every process that was started with all these variables, and not by a newer token; how many there were.

    For what a killed shim left behind, also when it forks its way from process to process. It never touches this
    process or those above it, nor other users' processes, and finds nothing where there is no /proc. Running it again
    is harmless. So it is for a holder that stood still and lost its session meanwhile, if `newest` is its own token:
    what runs there now has a newer one.
    """
    if not markers:
        raise ValueError("sweep needs a marker: without one it would kill everything")
    wanted = {os.fsencode(f"{name}={value}") for name, value in markers.items()}
    spared, killed = _above(os.getpid()), set[int]()
    start = time.monotonic()
    while True:
        found, vanished = _kill_bearers(wanted, spared, newest)
        killed |= found
        patience = _STOP_S if killed else _DOUBT_S
        if not (found or vanished) or time.monotonic() - start > patience:
            return len(killed)


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
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return "X", 0
    return fields[0].decode(), int(fields[1])


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
    """The variables a process was started with, as `NAME=value`."""
    with open(f"/proc/{pid}/environ", "rb", buffering=0) as environ:
        return set(environ.read().split(b"\0"))


def _token(environment: set[bytes]) -> int:
    """The token of the holder that a process was started by; 0, older than any, where there is none."""
    words = (word.removeprefix(b"ORCH_LEASE=") for word in environment if word.startswith(b"ORCH_LEASE="))
    return next((int(word) for word in words if word.isdigit() and len(word) < 20), 0)


def _kill_bearers(wanted: set[bytes], spared: set[int], newest: float) -> tuple[set[int], bool]:
    """One look at all processes: those that were killed, and whether one vanished before it could be looked at.

    That one may have been wanted, with a child that was born after we began to look: such a look proves nothing.
    """
    killed, vanished = set[int](), False
    for pid in _newest_first():
        try:
            if pid not in spared and wanted <= (found := _first_environment(pid)) and _token(found) <= newest:
                _kill_group(pid, spared)
                killed.add(pid)
        except (FileNotFoundError, ProcessLookupError):
            vanished = True
        except PermissionError:
            continue
    return killed, vanished


def _kill_group(pid: int, spared: set[int]) -> None:
    """A signal to a group reaches also those that are just being forked. A marked process began its session with us,
    so no other process is in its group; unless we, who sweep, were started by it.
    """
    group = os.getpgid(pid)
    if group in {os.getpgid(other) for other in spared}:
        os.kill(pid, signal.SIGKILL)
    else:
        os.killpg(group, signal.SIGKILL)
