"""What the program keeps, as files that can be read and reviewed: written from one project, unpacked into another.

Four files make a state: `redis.json` (each key with its type and value), `tracker.sql` (the bundled tracker's
database), `repo.fast-export` (the commits and refs of the clone) and `files.json` (the state folder, and git's notes
of its worktrees; what is no text in base64). Paths are those of the folder where the state was made: unpacking puts
the new folder in their place, so the state looks as if it had been made there.

Nothing of the program is imported here: what is stored has its own names, whatever the code calls things by now.
"""

from __future__ import annotations

import base64
import fnmatch
import json
import shutil
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

DATABASE = ".sudocode/orch-tracker.db"
GIT_FILES = (".git/config", ".git/worktrees")
LEFT_OUT = ("redis/*", "r.sock", "beat.alive", "*.lock", "*/lock", "*.prompt", "*/logs/HEAD")
"""Data of Redis, which is written by itself, and what says nothing once the processes are gone."""
MOMENTS = ("held", "known")
"""Sorted sets of moments in milliseconds that mean something only beside the present: until when an issue waits, and
which issues were in use in the last 30 days. All other times stay as they were: a lease that is long over, an entry
that has waited for months."""


@dataclass(frozen=True)
class Place:
    """A project on disk: the clone is `repo`, its state folder `state`."""

    folder: Path

    @property
    def repo(self) -> Path:
        return self.folder / "repo"

    @property
    def state(self) -> Path:
        return self.folder / "state"


def write(place: Place, client: Any, to: Path) -> None:
    """Write the state of a project of which nothing runs but its Redis."""
    _write_json(to / "redis.json", {"at_ms": _now_ms(client), "keys": dict(_stored(client))})
    _write_json(to / "files.json", {"folder": str(place.folder), "refs": _refs(place.repo), "files": _files(place)})
    with closing(sqlite3.connect(place.repo / DATABASE)) as database:
        (version,) = database.execute("PRAGMA user_version").fetchone()
        lines = [*database.iterdump(), f"PRAGMA user_version = {version};"]
    (to / "tracker.sql").write_text("".join(f"{line}\n" for line in lines))
    (to / "repo.fast-export").write_bytes(_git(place.repo, "fast-export", "--all"))


def unpack(source: Path, place: Place) -> None:
    """Put clone, tracker and state folder into a new project, whose own commits go; its settings stay."""
    kept = json.loads((source / "files.json").read_text())
    folder = kept["folder"]
    shutil.rmtree(place.repo / ".git")
    _git(place.repo, "init", "--quiet", "--template=", "--initial-branch=main")
    _git(place.repo, "fast-import", "--quiet", stdin=(source / "repo.fast-export").read_bytes())
    _git(place.repo, "reset", "--quiet", "--hard", "main")
    place.state.mkdir(mode=0o700, exist_ok=True)
    for name, content in kept["files"].items():
        path = place.folder / name
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        text = isinstance(content, str)
        path.write_bytes(_moved(content, folder, place) if text else base64.b64decode(content["base64"]))
    with closing(sqlite3.connect(place.repo / DATABASE)) as database:
        database.executescript(_moved((source / "tracker.sql").read_text(), folder, place).decode())
        lines = database.execute("SELECT line FROM lines WHERE file = 'issues.jsonl' ORDER BY created_at, id")
        (place.repo / ".sudocode/issues.jsonl").write_text("".join(f"{line}\n" for (line,) in lines))
    assert kept["refs"] == _refs(place.repo)


def load(source: Path, place: Place, client: Any) -> None:
    """Fill an empty Redis. What was to be forgotten is forgotten as long after now as it was to be then."""
    folder = json.loads((source / "files.json").read_text())["folder"]
    stored = json.loads(_moved((source / "redis.json").read_text(), folder, place))
    later_ms = _now_ms(client) - stored["at_ms"]
    for key, kept in stored["keys"].items():
        shift_ms = later_ms if key.rpartition(":")[2] in MOMENTS else 0
        _restore(client, key, kept, shift_ms=shift_ms)
        if "ttl_ms" in kept:
            client.pexpire(key, kept["ttl_ms"])


def _stored(client: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    for key in sorted(client.scan_iter()):
        kind, ttl_ms = client.type(key), client.pttl(key)
        match kind:
            case "string":
                value: Any = client.get(key)
            case "hash":
                value = dict(sorted(client.hgetall(key).items()))
            case "list":
                value = client.lrange(key, 0, -1)
            case "set":
                value = sorted(client.smembers(key))
            case "zset":
                value = {member: str(score) for member, score in client.zrange(key, 0, -1, withscores=True)}
            case "stream":
                value = dict(client.xrange(key))
            case _:
                raise AssertionError(f"{key} is a {kind}: say here how it is written")
        yield key, {"type": kind, "value": value} | ({"ttl_ms": ttl_ms} if ttl_ms >= 0 else {})


def _restore(client: Any, key: str, kept: dict[str, Any], *, shift_ms: int) -> None:
    value = kept["value"]
    match kept["type"]:
        case "string":
            client.set(key, value)
        case "hash":
            client.hset(key, mapping=value)
        case "list":
            client.rpush(key, *value)
        case "set":
            client.sadd(key, *value)
        case "zset":
            client.zadd(key, {member: float(score) + shift_ms for member, score in value.items()})
        case "stream":
            for entry_id, fields in value.items():
                client.xadd(key, fields, id=entry_id)
        case kind:
            raise AssertionError(f"{key} is a {kind}: say here how it is loaded")


def _files(place: Place) -> dict[str, Any]:
    tops = [*(place.repo / name for name in GIT_FILES), place.state]
    found = [path for top in tops for path in (top, *sorted(top.rglob("*"))) if path.is_file()]
    names = {path.relative_to(place.folder).as_posix(): path for path in found}
    left_out = [f"*/{pattern}" for pattern in LEFT_OUT]
    return {
        name: _content(path)
        for name, path in names.items()
        if not any(fnmatch.fnmatch(name, pattern) for pattern in left_out)
    }


def _content(path: Path) -> str | dict[str, str]:
    content = path.read_bytes()
    try:
        text = content.decode()
    except UnicodeDecodeError:
        text = "\0"
    return {"base64": base64.b64encode(content).decode()} if "\0" in text else text


def _refs(repo: Path) -> list[str]:
    return _git(repo, "for-each-ref", "--format=%(objectname) %(refname)").decode().splitlines()


def _moved(text: str, folder: str, place: Place) -> bytes:
    return text.replace(folder, str(place.folder)).encode()


def _now_ms(client: Any) -> int:
    seconds, micros = client.time()
    return int(seconds) * 1000 + int(micros) // 1000


def _write_json(path: Path, content: object) -> None:
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def _git(repo: Path, *args: str, stdin: bytes = b"") -> bytes:
    return subprocess.run(["git", *args], cwd=repo, input=stdin, capture_output=True, check=True).stdout
