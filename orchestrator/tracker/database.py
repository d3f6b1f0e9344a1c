"""Open the database, fill it from the JSONL files of a fresh clone, and copy it back to them."""

from __future__ import annotations

import fcntl
import json
import os
import sqlite3
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from orchestrator.tracker import jsonl
from orchestrator.tracker.jsonl import JsonlError, Row

DATABASE = "orch-tracker.db"

_BUSY_TIMEOUT_S = 5.0
_SCHEMA = Path(__file__).with_name("schema.sql")
_SCHEMA_VERSION = 1


@dataclass(frozen=True)
class EntityKind:
    """Issues or specs: two tables, two files, one set of verbs. `columns` is a row as it is answered, in order."""

    name: str
    table: str
    columns: tuple[str, ...]

    @property
    def file(self) -> str:
        """The JSONL file of this kind."""
        return f"{self.table}.jsonl"


# fmt: off
ISSUE = EntityKind("issue", "issues", (
    "id", "uuid", "title", "content", "status", "priority", "assignee", "archived", "archived_at",
    "created_at", "updated_at", "closed_at", "parent_id", "parent_uuid", "external_links",
))
SPEC = EntityKind("spec", "specs", (
    "id", "uuid", "title", "file_path", "content", "priority", "archived", "archived_at",
    "created_at", "updated_at", "parent_id", "parent_uuid", "external_links",
))
RELATIONSHIP = (
    "from_id", "from_uuid", "from_type", "to_id", "to_uuid", "to_type", "relationship_type", "created_at", "metadata",
)
FEEDBACK = (
    "id", "from_id", "from_uuid", "to_id", "to_uuid", "feedback_type", "content", "agent", "anchor", "dismissed",
    "created_at", "updated_at",
)
# fmt: on


def connect(folder: Path, now: str) -> sqlite3.Connection:
    """The tracker of `folder`, made and filled from its JSONL files when it is new.

    `now` dates the links of a fresh clone, whose lines do not say when they were made. Raises `JsonlError`; nothing
    is kept then.
    """
    with _alone(folder):
        db = sqlite3.connect(folder / DATABASE, timeout=_BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False)
        try:
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = FULL")  # an answered write survives a power cut, for one fsync
            with transaction(db):
                jsonl.sweep(folder)
                jsonl.ignore_in_git(folder)
                if db.execute("PRAGMA user_version").fetchone() == (0,):
                    for statement in _SCHEMA.read_text(encoding="utf-8").split(";\n"):
                        db.execute(statement)
                    _fill(db, folder, now)
                    db.execute(f"PRAGMA user_version = {_SCHEMA_VERSION}")
        except BaseException:
            db.close()
            raise
    return db


@contextmanager
def transaction(db: sqlite3.Connection) -> Iterator[None]:
    """All of it or nothing, one writer at a time; waits for another writer as long as the busy timeout allows."""
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise


def rows(db: sqlite3.Connection, columns: Sequence[str], rest: str, *parameters: object) -> list[Row]:
    """`SELECT columns FROM rest` as JSON objects."""
    found = db.execute(f"SELECT {', '.join(columns)} FROM {rest}", parameters)  # noqa: S608 - names of our own
    return [dict(zip(columns, values, strict=True)) for values in found]


def insert(db: sqlite3.Connection, table: str, row: Row, *, conflict: str = "ABORT") -> bool:
    """Insert a row and say whether it is there now because of us (`conflict="IGNORE"`: an equal key stays as it is)."""
    names, marks = ", ".join(row), ", ".join("?" * len(row))
    sql = f"INSERT OR {conflict} INTO {table} ({names}) VALUES ({marks})"  # noqa: S608 - names of our own
    return db.execute(sql, tuple(row.values())).rowcount == 1


def get(db: sqlite3.Connection, kind: EntityKind, entity_id: str) -> Row | None:
    """One issue or spec."""
    return next(iter(rows(db, kind.columns, f"{kind.table} WHERE id = ?", entity_id)), None)


def links(db: sqlite3.Connection, end: str, entity_id: str) -> list[Row]:
    """The links that start (`end="from_id"`) or end (`end="to_id"`) here, newest first."""
    return rows(db, RELATIONSHIP, f"relationships WHERE {end} = ? ORDER BY created_at DESC, rowid", entity_id)


def tags(db: sqlite3.Connection, entity_id: str) -> list[str]:
    """The tags in alphabetical order."""
    return [row["tag"] for row in rows(db, ("tag",), "tags WHERE entity_id = ? ORDER BY tag", entity_id)]


def feedback(db: sqlite3.Connection, end: str, entity_id: str) -> list[Row]:
    """The feedback given by (`end="from_id"`) or to (`end="to_id"`) an issue or spec, newest first."""
    found = rows(db, FEEDBACK, f"feedback WHERE {end} = ? ORDER BY created_at DESC, rowid DESC", entity_id)
    return [entry | {"dismissed": bool(entry["dismissed"])} for entry in found]


def copy(db: sqlite3.Connection, folder: Path, touched: Iterable[tuple[EntityKind, str]]) -> None:
    """Bring the JSONL files up to date with the records just written; inside their transaction."""
    touched = set(touched)
    for kind, entity_id in touched:
        _keep_line(db, kind, entity_id)
    for kind in {kind for kind, _ in touched}:
        lines = db.execute("SELECT line FROM lines WHERE file = ? ORDER BY created_at, id", (kind.file,))
        jsonl.write(folder / kind.file, (line for (line,) in lines))


def _keep_line(db: sqlite3.Connection, kind: EntityKind, entity_id: str) -> None:
    record = get(db, kind, entity_id)
    if record is None:
        return
    if record["external_links"] is None:
        del record["external_links"]
    record["relationships"] = [
        {
            "from": link["from_id"],
            "from_type": link["from_type"],
            "to": link["to_id"],
            "to_type": link["to_type"],
            "type": link["relationship_type"],
        }
        for link in links(db, "from_id", entity_id)
    ]
    record["tags"] = tags(db, entity_id)
    if given := [_without_uuids(entry) for entry in feedback(db, "from_id", entity_id)]:
        record["feedback"] = given
    line = {"file": kind.file, "created_at": record["created_at"], "id": entity_id, "line": jsonl.render(record)}
    insert(db, "lines", line, conflict="REPLACE")


def _without_uuids(entry: Row) -> Row:
    entry = {name: value for name, value in entry.items() if not name.endswith("_uuid")}
    if entry["anchor"] is not None:
        entry["anchor"] = json.loads(entry["anchor"])
    return entry


def _fill(db: sqlite3.Connection, folder: Path, now: str) -> None:
    """Read the JSONL files into an empty database. Raises `JsonlError`."""
    records = {kind: list(jsonl.read(folder / kind.file)) for kind in (ISSUE, SPEC)}
    try:
        for kind in records:
            _fill_entities(db, kind, records[kind], now)
        uuids = {row["id"]: row["uuid"] for kind in records for row in rows(db, ("id", "uuid"), kind.table)}
        for record in records[ISSUE] + records[SPEC]:
            _fill_links(db, record, uuids, now)
            _fill_feedback(db, record, uuids)
    except (KeyError, TypeError, AttributeError, sqlite3.Error) as error:
        raise JsonlError(f"{folder}/*.jsonl: a record does not fit ({error!r}): mend the files") from error
    for kind in records:
        for record in records[kind]:
            _keep_line(db, kind, record["id"])


def _fill_entities(db: sqlite3.Connection, kind: EntityKind, records: list[Row], now: str) -> None:
    # A union merge leaves two lines for one issue: the later update wins.
    newest = {record["id"]: record for record in sorted(records, key=lambda record: str(record.get("updated_at")))}
    for record in newest.values():
        row = {"uuid": str(uuid.uuid4()), "created_at": now, "updated_at": now}
        row |= {name: record[name] for name in kind.columns if record.get(name) is not None}
        insert(db, kind.table, row)
        for tag in record.get("tags", ()):
            insert(db, "tags", {"entity_id": record["id"], "tag": tag}, conflict="IGNORE")


def _fill_links(db: sqlite3.Connection, record: Row, uuids: dict[str, str], now: str) -> None:
    for link in record.get("relationships", ()):
        if link["to"] not in uuids:
            continue
        row = {"relationship_type": link["type"], "created_at": now}
        for side in ("from", "to"):
            row |= {f"{side}_id": link[side], f"{side}_uuid": uuids[link[side]], f"{side}_type": link[f"{side}_type"]}
        insert(db, "relationships", row, conflict="IGNORE")


def _fill_feedback(db: sqlite3.Connection, record: Row, uuids: dict[str, str]) -> None:
    for entry in reversed(record.get("feedback", ())):
        if entry["to_id"] not in uuids:
            continue
        row = {name: entry.get(name) for name in FEEDBACK}
        row |= {"from_uuid": uuids.get(entry["from_id"]), "to_uuid": uuids[entry["to_id"]]}
        row["anchor"] = None if entry.get("anchor") is None else jsonl.render(entry["anchor"])
        row["dismissed"] = bool(entry.get("dismissed"))
        insert(db, "feedback", row, conflict="IGNORE")


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """One process at a time: making a database and switching it to WAL do not wait for each other by themselves."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
