"""The ten tools: what they ask of the store, and the answers and error texts of sudocode."""

from __future__ import annotations

import json
import logging
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from orchestrator.tracker import content
from orchestrator.tracker.arguments import (
    Arguments,
    ToolError,
    check_strings,
    failed,
    number,
    optional,
    required,
    words,
)
from orchestrator.tracker.database import ISSUE, SPEC, EntityKind
from orchestrator.tracker.jsonl import FOLDER, JsonlError, Row
from orchestrator.tracker.store import NEW, STATUSES, Entity, Store

RELATIONS = ("blocks", "related", "discovered-from", "implements", "references", "depends-on")
FEEDBACK_TYPES = ("comment", "suggestion", "request")

logger = logging.getLogger(__name__)


class ToolAnswer(NamedTuple):
    """The one text block of a result."""

    text: str
    is_error: bool = False


class TrackerTools:
    """The tools over the tracker in `root`. One call at a time; `root` may be initialised later."""

    def __init__(self, root: Path, *, agent: str, clock: Callable[[], datetime]) -> None:
        self._root = root
        self._agent = agent
        self._clock = clock
        self._store: Store | None = None
        self._tools: dict[str, Callable[[Store, Arguments], object]] = {
            "ready": _ready,
            "list_issues": _list_issues,
            "show_issue": _show_issue,
            "upsert_issue": _upsert_issue,
            "list_specs": _list_specs,
            "show_spec": _show_spec,
            "upsert_spec": _upsert_spec,
            "link": _link,
            "add_reference": _add_reference,
            "add_feedback": self._add_feedback,
        }

    def call(self, name: str, arguments: Arguments) -> ToolAnswer:
        """Do it and answer in JSON, or say what is wrong; whatever is answered with an error has changed nothing."""
        try:
            store = self._open()
            if name not in self._tools:
                raise ToolError(f"Unknown tool: {name}")
            check_strings(arguments)
            result = self._tools[name](store, arguments)
        except ToolError as error:
            return ToolAnswer(str(error), is_error=True)
        except (sqlite3.Error, OSError, JsonlError) as error:
            logger.warning("tool=%s error=%r", name, error)
            return ToolAnswer(f"Error: {error}", is_error=True)
        return ToolAnswer(json.dumps(result, ensure_ascii=False, indent=2))

    def close(self) -> None:
        """Close the database; the next call opens it again."""
        if self._store is not None:
            self._store.close()
        self._store = None

    def _open(self) -> Store:
        folder = self._root / FOLDER
        if not folder.is_dir():
            self.close()
            raise ToolError(
                "⚠️  sudocode is not initialized in this directory.\n\n"
                f"Working directory: {self._root}\n\nPlease run 'sudocode init' in your project root first."
            )
        if self._store is not None and self._store.stale:
            self.close()
        if self._store is None:
            self._store = Store(folder, self._clock)
        return self._store

    def _add_feedback(self, store: Store, arguments: Arguments) -> object:
        kind = _one_of(FEEDBACK_TYPES, optional(arguments, "type") or "comment", "feedback type")
        target_id, giver_id = required(arguments, "to_id"), optional(arguments, "issue_id")
        with _writing(store, "create feedback"):
            if not target_id.startswith(("i-", "s-")):
                raise failed(f"✗ Failed to create feedback\nCannot infer entity type from ID: {target_id}")
            target = _found(store, target_id)
            giver = _found(store, giver_id) if giver_id else None
            return store.add_feedback(
                {
                    "from_id": giver and giver.id,
                    "from_uuid": giver and giver.row["uuid"],
                    "to_id": target.id,
                    "to_uuid": target.row["uuid"],
                    "feedback_type": kind,
                    "content": required(arguments, "content"),
                    "agent": self._agent,
                    "anchor": content.anchor(target.row["content"], arguments, store.now_ms()),
                }
            )


def _ready(store: Store, _: Arguments) -> object:
    return {"ready": {"issues": store.ready()}, "status": store.counts()}


def _list_issues(store: Store, arguments: Arguments) -> object:
    conditions: dict[str, object] = {}
    if status := optional(arguments, "status"):
        conditions["status = ?"] = _one_of(STATUSES, status, "status filter", "statuses")
    if "priority" in arguments:
        conditions["priority = ?"] = number(arguments, "priority")
    return _listing(store, ISSUE, arguments, conditions)


def _show_issue(store: Store, arguments: Arguments) -> object:
    return store.show(_found(store, required(arguments, "issue_id"), ISSUE))


def _upsert_issue(store: Store, arguments: Arguments) -> object:
    if not (issue_id := optional(arguments, "issue_id")):
        issue = _create(store, ISSUE, arguments)
        return {"id": issue["id"], "title": issue["title"], "status": NEW}
    if status := optional(arguments, "status"):
        _one_of(STATUSES, status, "status", "statuses")
    return _update(store, ISSUE, issue_id, arguments, {"status": status} if status else {})


def _list_specs(store: Store, arguments: Arguments) -> object:
    return _listing(store, SPEC, arguments, {})


def _show_spec(store: Store, arguments: Arguments) -> object:
    return store.show(_found(store, required(arguments, "spec_id"), SPEC))


def _upsert_spec(store: Store, arguments: Arguments) -> object:
    if spec_id := optional(arguments, "spec_id"):
        return _update(store, SPEC, spec_id, arguments, {})
    spec = _create(store, SPEC, arguments)
    return {"id": spec["id"], "title": spec["title"], "file_path": spec["file_path"]}


def _link(store: Store, arguments: Arguments) -> object:
    from_id, to_id = required(arguments, "from_id"), required(arguments, "to_id")
    if from_id == to_id:
        raise ToolError("Error: from_id and to_id cannot be the same")
    relation = _one_of(RELATIONS, optional(arguments, "type") or "references", "relationship type")
    with _writing(store, "create relationship"):
        store.link(_linkable(store, from_id), _linkable(store, to_id), relation)
    return {"from": from_id, "to": to_id, "type": relation, "success": True}


def _add_reference(store: Store, arguments: Arguments) -> object:
    entity_id, reference_id = required(arguments, "entity_id"), required(arguments, "reference_id")
    with _writing(store, "add reference"):
        entity = _linkable(store, entity_id)
        store.update(entity, {"content": content.with_reference(entity.row["content"], arguments)})
    text = optional(arguments, "text")
    location = f'text: "{text}"' if text else f"line {number(arguments, 'line')}"
    return {"entity_id": entity_id, "reference_id": reference_id, "location": location, "success": True}


def _listing(store: Store, kind: EntityKind, arguments: Arguments, conditions: dict[str, object]) -> object:
    conditions["archived = ?"] = int(bool(arguments.get("archived")))
    if search := optional(arguments, "search"):
        conditions["(title || char(10) || content) LIKE ?"] = f"%{search}%"
    limit = number(arguments, "limit")
    return store.rows(kind, " AND ".join(conditions), *conditions.values(), limit=50 if limit is None else limit)


def _create(store: Store, kind: EntityKind, arguments: Arguments) -> Row:
    title = optional(arguments, "title")
    if not title:
        raise ToolError(f"Error: title is required when creating a new {kind.name}")
    if title.startswith("-"):
        raise failed(f"error: unknown option '{title}'")
    with _writing(store, f"create {kind.name}"):
        return store.create(kind, _fields(store, kind, arguments, "create"), words(arguments, "tags"))


def _update(store: Store, kind: EntityKind, entity_id: str, arguments: Arguments, changes: Row) -> Row:
    with _writing(store, f"update {kind.name}"):
        entity = store.find(entity_id)
        if entity is None or entity.kind is not kind:
            raise failed(f"✗ Failed to update {kind.name}\n{kind.name.title()} not found: {entity_id}")
        changes |= _fields(store, kind, arguments, "update")
        if "archived" in arguments:
            changes["archived"] = int(bool(arguments["archived"]))
        return store.update(entity, changes)


def _fields(store: Store, kind: EntityKind, arguments: Arguments, verb: str) -> Row:
    """The columns that creating and updating share."""
    fields: Row = {}
    for column, name in (("title", "title"), ("content", "description")):
        if word := optional(arguments, name):
            fields[column] = word
    if "priority" in arguments:
        fields["priority"] = number(arguments, "priority")
    if parent_id := optional(arguments, "parent"):
        parent = store.find(parent_id)
        if parent is None or parent.kind is not kind:
            raise failed(f"✗ Failed to {verb} {kind.name}\nParent {kind.name} not found: {parent_id}")
        fields |= {"parent_id": parent.id, "parent_uuid": parent.row["uuid"]}
    return fields


def _found(store: Store, entity_id: str, kind: EntityKind | None = None) -> Entity:
    entity = store.find(entity_id)
    expected = kind or (SPEC if entity_id.startswith("s-") else ISSUE)
    if entity is None or entity.kind is not expected:
        raise failed(f"✗ {expected.name.title()} not found: {entity_id}")
    return entity


def _linkable(store: Store, entity_id: str) -> Entity:
    entity = store.find(entity_id)
    if entity is None:
        raise failed(f"✗ Entity not found: {entity_id}")
    return entity


def _one_of(valid: tuple[str, ...], word: str, what: str, plural: str = "types") -> str:
    if word not in valid:
        raise failed(f"✗ Invalid {what}: {word}\nValid {plural}: {', '.join(valid)}")
    return word


@contextmanager
def _writing(store: Store, what: str) -> Iterator[None]:
    """A transaction whose failures read as sudocode's: "Failed to create issue" and why."""
    try:
        with store.write():
            yield
    except sqlite3.IntegrityError as error:
        raise failed(f"✗ Failed to {what}\nConstraint violation: {error}") from error
    except (sqlite3.Error, OSError) as error:
        logger.warning("what=%r error=%r", what, error)
        raise failed(f"✗ Failed to {what}\n{error}") from error
