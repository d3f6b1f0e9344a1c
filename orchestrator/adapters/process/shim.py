"""Run one command and let nothing of it survive.

    python -m orchestrator.adapters.process.shim [--parent PID] [--box] [--] argv...

The one file that knows how to end a whole family of processes. It is the subreaper of everything the command starts,
so daemons and grandchildren in sessions of their own stay below it, and it ends them all

- when it gets SIGTERM, SIGINT or SIGHUP,
- when its parent dies (PID, or else its starter), be it by kill -9,
- when the command itself ends.

First SIGTERM, then up to GRACE_S to leave, then SIGKILL until none is left. With SIGUSR1 (AT_ONCE), or once that
comes, SIGKILL only. The exit code is the command's: 128+n
when signal n ended it, 127 when it was not found, 126 when it could not be executed (one line on stderr says so).

A command that is a sandbox (--box) hears no SIGTERM, or it would die before those inside could leave in their grace.
Inside it runs this file once more, with `--inside [--copy FILE AS]... [--] argv...`: it copies the files, and becomes
the command, which hears SIGTERM again.

Standard library only and free of the rest of the package, so that it starts in a few milliseconds, and can be run by
path under `python -I -S`: from a worktree, `-m` would import whatever the worktree happens to hold.

Without Linux's prctl and /proc the promise is smaller: the command's own process group ends, and a dead parent is seen
within PARENT_CHECK_S.
"""

# pathlib would take half of the start-up time, and is slow enough to lose a race with a fork loop.
# ruff: noqa: PTH110, PTH112, PTH123, PTH208

from __future__ import annotations

import ctypes
import os
import select
import signal
import sys
import time
from collections.abc import Iterable, Sequence

GRACE_S = 1.0
"""Between SIGTERM and SIGKILL. With it, a family that ignores SIGTERM and forks without end is gone within 2 s."""

PARENT_CHECK_S = 1.0
"""How often to look for the parent, where it could not be asked for by signal or died before we asked."""

NICENESS = 10
"""How far the command gives way to others: whatever it does to the CPU, leases are renewed and a stop comes through."""

NOT_FOUND = 127
NOT_EXECUTABLE = 126
MISUSED = 2

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
AT_ONCE = signal.SIGUSR1
"""Ends the family as SIGTERM does, but without grace."""

_STOP = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGHUP, AT_ONCE})
_HAVE_PROC = os.path.isdir("/proc/self")


def main(arguments: Sequence[str]) -> int:
    """Run the command in `arguments` to its end, or to ours; its exit code."""
    if arguments[:1] == ["--inside"]:
        _become(_copied(list(arguments[1:])))
    parent, box, command = _parse(arguments)
    if not command:
        _say("usage: python -m orchestrator.adapters.process.shim [--parent PID] [--box] [--] argv...")
        return MISUSED
    signals = _Signals()
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    _prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:  # it died before we asked to be told
        return 128 + signal.SIGTERM
    family = _Family(_start(command, signal.SIG_IGN if box else signal.SIG_DFL))
    heard: set[int] = set()
    while family.status is None and not _STOP & (heard := signals.wait(PARENT_CHECK_S)) and os.getppid() == parent:
        family.reap()
    family.end(signals, grace_s=0.0 if AT_ONCE in heard else GRACE_S)
    return family.exit_code()


def descendants(root: int) -> set[int]:
    """The ids of all processes below `root`, at any depth; also of those that ended and wait to be reaped."""
    found: set[int] = set()
    fresh = {root}
    while fresh:
        fresh = {child for pid in fresh for child in _children(pid)} - found
        found |= fresh
    return found


def kill_below(root: int) -> None:
    """SIGKILL to everything below `root`, stopped first, since a stopped process cannot fork its way out.

    One round: a process born meanwhile may be left, so callers repeat it until none is. Repeating is harmless.
    """
    stopped: set[int] = set()
    for _ in range(100):  # a chain of forks may slip away for a while; the next round is as good as this one
        fresh = _groups(root) - stopped
        if not fresh:
            break
        _signal_groups(fresh, signal.SIGSTOP)
        stopped |= fresh
    _signal_groups(_groups(root), signal.SIGKILL)


class _Signals:
    """Signals as something to wait for, with no handler that could interrupt anything."""

    def __init__(self) -> None:
        self._read, write = os.pipe()
        os.set_blocking(write, False)
        signal.set_wakeup_fd(write, warn_on_full_buffer=False)
        for number in (signal.SIGCHLD, *_STOP):
            signal.signal(number, lambda *_: None)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())

    def wait(self, timeout_s: float) -> set[int]:
        """The signals that came, as soon as there is one; empty when the time is over."""
        ready, _, _ = select.select([self._read], [], [], timeout_s)
        return set(os.read(self._read, 4096)) if ready else set()


class _Family:
    """The command's process and all that came of it. `status` is its wait status, once it has ended."""

    def __init__(self, child: int) -> None:
        self._child = child
        self.status: int | None = None

    def reap(self) -> bool:
        """Collect the dead; True when any process still lives.

        A subreaper inherits every orphan below it, so no child means no descendant. No scan can say that as surely.
        """
        try:
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if pid == 0:
                    return True
                if pid == self._child:
                    self.status = status
        except ChildProcessError:
            return False

    def end(self, signals: _Signals, *, grace_s: float) -> None:
        """Return when no process is left: ask, wait for `grace_s` at most, then kill."""
        deadline = time.monotonic() + grace_s
        if grace_s:
            self._signal(signal.SIGTERM)
            self._signal(signal.SIGCONT)  # a stopped process could not react to it
        while self.reap() and (left := deadline - time.monotonic()) > 0:
            if AT_ONCE in signals.wait(left):
                break
        while self.reap():
            kill_below(os.getpid())
            if not _HAVE_PROC:
                self._signal(signal.SIGKILL)
            signals.wait(0.05)

    def exit_code(self) -> int:
        """The command's exit code as a shell would give it."""
        assert self.status is not None, "the family ends only after its first child was reaped"
        code = os.waitstatus_to_exitcode(self.status)
        return code if code >= 0 else 128 - code

    def _signal(self, number: int) -> None:
        _signal_groups(_groups(os.getpid()) if _HAVE_PROC else {self._child}, number)


def _parse(arguments: Sequence[str]) -> tuple[int, bool, list[str]]:
    parent, command = os.getppid(), list(arguments)
    if command[:1] == ["--parent"] and len(command) > 1 and command[1].isdecimal():
        parent, command = int(command[1]), command[2:]
    box = command[:1] == ["--box"]
    command = command[box:]
    return parent, box, command[1:] if command[:1] == ["--"] else command


def _copied(arguments: list[str]) -> list[str]:
    """Copy the files that are named before the command, which is the rest. One that is not there is passed over."""
    while arguments[:1] == ["--copy"]:
        if os.path.exists(arguments[1]):
            with open(arguments[1], "rb") as source, open(arguments[2], "xb") as copy:
                copy.write(source.read())
        arguments = arguments[3:]
    return arguments[1:] if arguments[:1] == ["--"] else arguments


def _start(command: list[str], on_term: signal.Handlers) -> int:
    """The process id of the command, in a session of its own; it dies with us even if we are killed."""
    shim = os.getpid()
    child = os.fork()
    if child:
        return child
    try:
        signal.set_wakeup_fd(-1)
        os.setsid()
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        os.nice(NICENESS)
        if os.getppid() != shim:
            os._exit(128 + signal.SIGKILL)
        _become(command, on_term)
    finally:
        os._exit(NOT_EXECUTABLE)


def _become(command: list[str], on_term: signal.Handlers = signal.SIG_DFL) -> None:
    """Turn this process into the command, or exit as a shell would. Never returns."""
    for number in (signal.SIGCHLD, *_STOP, signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGTERM, on_term)
    try:
        os.execvp(command[0], command)  # noqa: S606 - no shell is the point
    except (FileNotFoundError, NotADirectoryError) as error:
        _say(f"cannot run {command[0]}: {error.strerror if '/' in command[0] else 'command not found'}")
        os._exit(NOT_FOUND)
    except OSError as error:
        _say(f"cannot run {command[0]}: {error.strerror}")
    os._exit(NOT_EXECUTABLE)


def _children(pid: int) -> set[int]:
    """The direct children of a process; none when it is gone, or where there is no /proc."""
    found: set[int] = set()
    try:
        for task in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{task}/children", "rb", buffering=0) as children:
                found.update(map(int, children.read().split()))
    except (FileNotFoundError, ProcessLookupError):
        if _HAVE_PROC and not os.path.exists("/proc/thread-self/children"):
            return _children_by_scan(pid)
    return found


def _children_by_scan(pid: int) -> set[int]:
    """The same, for kernels built without the `children` file: slower, since it looks at every process."""
    found = set()
    for entry in filter(str.isdecimal, os.listdir("/proc")):
        try:
            with open(f"/proc/{entry}/stat", "rb", buffering=0) as stat:
                parent = stat.read().rpartition(b")")[2].split()[1]
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(parent) == pid:
            found.add(int(entry))
    return found


def _groups(root: int) -> set[int]:
    """The process groups below `root`. A signal to a group reaches all members at once, also those just being forked.

    And no other process: every group below is in a session that began below, and groups do not cross sessions.
    """
    groups = {_group(pid) for pid in descendants(root)}
    return groups - {_group(root), 0}


def _group(pid: int) -> int:
    try:
        return os.getpgid(pid)
    except ProcessLookupError:
        return 0


def _signal_groups(groups: Iterable[int], number: int) -> None:
    for group in groups:
        try:
            os.killpg(group, number)
        except (ProcessLookupError, PermissionError):  # gone; or it belongs to another user now, and is not ours to end
            continue


def _prctl(option: int, value: int) -> None:
    """Ask the kernel; where it is not Linux, the docstring above says what is lost."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(option, *map(ctypes.c_ulong, (value, 0, 0, 0)))


def _say(line: str) -> None:
    os.write(2, os.fsencode(f"orch: {line}\n"))


if __name__ == "__main__":
    # Not sys.exit: with our parent reading until we close our ends, the exit code must come at the same moment.
    os._exit(main(sys.argv[1:]))
