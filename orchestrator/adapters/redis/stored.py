"""The stored form of what is JSON in Redis. What an earlier version wrote is read by this one."""

from __future__ import annotations

from collections.abc import Iterable

from pydantic import TypeAdapter

from orchestrator.models import BaseVerified, Entry, Report, SessionRecord, SnapshotEntry

BASES: TypeAdapter[BaseVerified] = TypeAdapter(BaseVerified)
ENTRIES: TypeAdapter[Entry] = TypeAdapter(Entry)
RECORDS: TypeAdapter[SessionRecord] = TypeAdapter(SessionRecord)
REPORTS: TypeAdapter[Report] = TypeAdapter(Report)


def told_args(entries: Iterable[Entry]) -> list[str]:
    """Entries as the unnamed arguments of a script that tells them: its JSON, and a snapshot's text or ''."""
    pairs = ((ENTRIES.dump_json(e).decode(), e.content if isinstance(e, SnapshotEntry) else "") for e in entries)
    return [text for pair in pairs for text in pair]
