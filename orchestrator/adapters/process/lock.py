"""The lock on a file: one holder on this host at a time, and gone with its process however that ends."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from orchestrator.errors import LockTimeout

LOOK_S = 0.01


@contextmanager
def locked(path: Path, *, wait_s: float) -> Iterator[None]:
    """Hold the lock of a file, which is made if need be, alone among the processes and threads of this host.

    Raises `LockTimeout`, which names the holder, when others keep it for `wait_s`. Nobody is owed a turn: waiters look
    again every 10 ms. A child that is forked meanwhile does not keep the lock.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + wait_s
    lock = open_lock(path)
    try:
        while not try_lock(lock):
            if time.monotonic() >= deadline:
                pid = holder(path)
                raise LockTimeout(f"another process has held {path} for {wait_s:g} s: {pid or 'it gave no id'}", pid)
            time.sleep(LOOK_S)
        try:
            with suppress(OSError):  # a full disk loses the holder's name, not the lock
                sign(lock)
            yield
        finally:
            fcntl.flock(lock, fcntl.LOCK_UN)  # closing alone would leave it to a child forked meanwhile
    finally:
        os.close(lock)


def open_lock(path: Path) -> int:
    """Open a lock file, anew each time: what is locked is the open file, and a copy of it is locked, too."""
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


def try_lock(lock: int) -> bool:
    """Lock an open file; False when it is locked through another open file. It ends when the last copy is closed."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def sign(lock: int) -> None:
    """Write our process id into a lock file that we hold, for those who wait for it."""
    os.truncate(lock, 0)
    os.pwrite(lock, str(os.getpid()).encode(), 0)


def holder(path: Path) -> str:
    """The process id that the last holder wrote; empty when there is none."""
    try:
        return path.read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return ""
