"""The verbs of the tracker: what a new status or a new link does to the issues around it."""

from __future__ import annotations

import random
import string
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from orchestrator.models import IssueStatus
from orchestrator.tracker import database
from orchestrator.tracker.database import ISSUE, SPEC, EntityKind
from orchestrator.tracker.jsonl import Row

NEW = IssueStatus.OPEN.value
"""The status of a new issue."""
STATUSES = tuple(status.value for status in IssueStatus)

_AT_WORK = (IssueStatus.OPEN, IssueStatus.IN_PROGRESS)
_READY = f"status = '{IssueStatus.OPEN}' AND archived = 0 AND id NOT IN (SELECT waiting FROM held_up)"  # noqa: S608 - words of our own
_UNDONE = ", ".join(f"'{status}'" for status in (*_AT_WORK, IssueStatus.BLOCKED))
_HELD_UP = f"status IN ({_UNDONE}) AND archived = 0 AND id IN (SELECT waiting FROM held_up)"  # noqa: S608 - as above


class Entity(NamedTuple):
    """An issue or spec as it is now."""

    kind: EntityKind
    row: Row

    @property
    def id(self) -> str:
        """Its id in the tracker."""
        return str(self.row["id"])


class Store:
    """One connection to the tracker of one folder. Not for two threads at once; other processes may write at any time.

    Raises `sqlite3.Error` and `OSError` as they come; whatever raises inside `write` has changed nothing.
    """

    def __init__(self, folder: Path, clock: Callable[[], datetime]) -> None:
        self._folder = folder
        self._clock = clock
        self._touched: set[tuple[EntityKind, str]] = set()
        self._db = database.connect(folder, self._now())
        self._identity = self._on_disk()

    def close(self) -> None:
        """Close the connection."""
        self._db.close()

    @property
    def stale(self) -> bool:
        """True when the database file is no longer the one that was opened."""
        return self._identity != self._on_disk()

    @contextmanager
    def write(self) -> Iterator[None]:
        """Everything inside is kept and copied to the JSONL files, or nothing is.

        The copy is made under the write lock, so the files follow the order of the writes of all processes.
        """
        self._touched.clear()
        with database.transaction(self._db):
            yield
            database.copy(self._db, self._folder, self._touched)

    def find(self, entity_id: str) -> Entity | None:
        """The issue or spec with this id."""
        kind = SPEC if entity_id.startswith("s-") else ISSUE
        row = database.get(self._db, kind, entity_id)
        return None if row is None else Entity(kind, row)

    def show(self, entity: Entity) -> Row:
        """All that is known; an issue with the feedback it gave, a spec with the feedback it got."""
        end = "from_id" if entity.kind is ISSUE else "to_id"
        return entity.row | {
            "relationships": {
                "outgoing": database.links(self._db, "from_id", entity.id),
                "incoming": database.links(self._db, "to_id", entity.id),
            },
            "tags": database.tags(self._db, entity.id),
            "feedback": database.feedback(self._db, end, entity.id),
        }

    def rows(self, kind: EntityKind, condition: str, *parameters: object, limit: int = -1) -> list[Row]:
        """Rows without their content: lowest priority first, newest first; a limit of -1 is none."""
        columns = [name for name in kind.columns if name != "content"]
        rest = f"{kind.table} WHERE {condition} ORDER BY priority DESC, created_at DESC, rowid DESC LIMIT ?"
        return database.rows(self._db, columns, rest, *parameters, limit)

    def ready(self) -> list[Row]:
        """Open issues that no issue at work holds up."""
        return self.rows(ISSUE, _READY)

    def counts(self) -> Row:
        """The number of specs and of issues: by status, ready, and held up by another."""
        statuses = database.rows(self._db, ("status", "count(*)"), "issues GROUP BY status")
        by_status = dict.fromkeys(STATUSES, 0) | {row["status"]: row["count(*)"] for row in statuses}
        return {
            "specs": {"total": self._count("specs")},
            "issues": {
                "total": sum(by_status.values()),
                "by_status": by_status,
                "ready": self._count(f"issues WHERE {_READY}"),
                "blocked": self._count(f"issues WHERE {_HELD_UP}"),
            },
        }

    def create(self, kind: EntityKind, row: Row, tags: Sequence[str]) -> Row:
        """Insert an issue or spec under a new id; what `row` leaves out takes its default."""
        now = self._now()
        row = {"id": self._new_id(kind), "uuid": str(uuid.uuid4()), "created_at": now, "updated_at": now} | row
        if kind is SPEC:
            row["file_path"] = f"specs/{row['id']}.md"
        database.insert(self._db, kind.table, row)
        for tag in tags:
            database.insert(self._db, "tags", {"entity_id": row["id"], "tag": tag}, conflict="IGNORE")
        self._touched.add((kind, row["id"]))
        return row

    def update(self, entity: Entity, changes: Row) -> Row:
        """The row with the changes; what is so already changes nothing, not even the time of the last update."""
        changes = {name: value for name, value in changes.items() if entity.row[name] != value}
        if not changes:
            return entity.row
        changes["updated_at"] = now = self._now()
        if "archived" in changes:
            changes["archived_at"] = now if changes["archived"] else None
        if "status" in changes:
            changes["closed_at"] = now if changes["status"] == IssueStatus.CLOSED else None
        assignments = ", ".join(f"{name} = ?" for name in changes)
        sql = f"UPDATE {entity.kind.table} SET {assignments} WHERE id = ?"  # noqa: S608 - names of our own
        self._db.execute(sql, (*changes.values(), entity.id))
        self._touched.add((entity.kind, entity.id))
        if changes.get("status") == IssueStatus.CLOSED:
            self._release_from(entity.id)
        return entity.row | changes

    def link(self, source: Entity, target: Entity, relation: str) -> None:
        """Add a link, once; an issue that now waits for one that is not closed gets blocked."""
        row: Row = {"relationship_type": relation, "created_at": self._now()}
        for side, entity in (("from", source), ("to", target)):
            row |= {f"{side}_id": entity.id, f"{side}_uuid": entity.row["uuid"], f"{side}_type": entity.kind.name}
        if not database.insert(self._db, "relationships", row, conflict="IGNORE"):
            return
        self._touched.add((source.kind, source.id))
        match relation:
            case "blocks":
                self._block(target, source)
            case "depends-on":
                self._block(source, target)

    def add_feedback(self, row: Row) -> Row:
        """Insert one entry and give it as it will be shown; the times of the issues stay as they are.

        Anonymous feedback (`from_id` is None) is in no JSONL line, as with sudocode.
        """
        now = self.now_ms()
        entry: Row = {"id": str(uuid.uuid4()), "dismissed": False, "created_at": now, "updated_at": now}
        entry |= row
        database.insert(self._db, "feedback", entry)
        if entry["from_id"] is not None:
            self._touched.add((ISSUE, entry["from_id"]))
        return {name: entry[name] for name in database.FEEDBACK}

    def now_ms(self) -> str:
        """UTC as feedback carries it: milliseconds and a zone."""
        return self._clock().isoformat(timespec="milliseconds").replace("+00:00", "Z")

    def _now(self) -> str:
        """UTC as issues carry it: seconds and no zone."""
        return self._clock().strftime("%Y-%m-%d %H:%M:%S")

    def _block(self, waiting: Entity, blocker: Entity) -> None:
        at_work = waiting.kind is ISSUE and waiting.row["status"] in _AT_WORK
        if at_work and blocker.kind is ISSUE and blocker.row["status"] != IssueStatus.CLOSED:
            self.update(waiting, {"status": IssueStatus.BLOCKED.value})

    def _release_from(self, closed_id: str) -> None:
        """Open what is blocked, waited for the closed issue, and waits for no other at work."""
        waited = "id IN (SELECT waiting FROM waits WHERE blocker = ?)"
        still_waiting = "id IN (SELECT waiting FROM held_up)"
        rest = f"issues WHERE status = ? AND {waited} AND NOT {still_waiting}"
        for row in database.rows(self._db, ISSUE.columns, rest, IssueStatus.BLOCKED.value, closed_id):
            self.update(Entity(ISSUE, row), {"status": IssueStatus.OPEN.value})

    def _new_id(self, kind: EntityKind) -> str:
        """`i-` or `s-` and 4 letters or digits; 5 from 980 records, 6 from 5900, as sudocode does."""
        count = self._count(kind.table)
        length = 4 + (count >= 980) + (count >= 5900)
        while True:
            letters = random.choices(string.digits + string.ascii_lowercase, k=length)  # noqa: S311 - not a secret
            candidate = f"{kind.name[0]}-{''.join(letters)}"
            if database.get(self._db, kind, candidate) is None:
                return candidate

    def _count(self, rest: str) -> int:
        return int(database.rows(self._db, ("count(*)",), rest)[0]["count(*)"])

    def _on_disk(self) -> tuple[int, int] | None:
        try:
            found = (self._folder / database.DATABASE).stat()
        except FileNotFoundError:
            return None
        return found.st_dev, found.st_ino
