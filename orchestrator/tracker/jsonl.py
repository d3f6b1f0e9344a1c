"""The files in `.sudocode` that git keeps: one JSON object a line, in sudocode's own format."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

FOLDER = ".sudocode"

Row = dict[str, Any]
"""A JSON object on its way in from a file or out to a caller; its keys are sudocode's."""

_IGNORED = ("cache.db*", "issues/", "specs/", "worktrees/", "config.local.json", "telemetry-*")
_OURS = ("orch-tracker.db*", "issues.jsonl.*.tmp", "specs.jsonl.*.tmp")


class JsonlError(Exception):
    """A line of a JSONL file is not an issue or a spec; says which file and line."""


def init(root: Path) -> Path:
    """Make `root/.sudocode` as `sudocode init` does and give its path; what is there already stays as it is."""
    folder = root / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in (("config.json", "{}"), ("issues.jsonl", ""), ("specs.jsonl", "")):
        if not (folder / name).exists():
            (folder / name).write_text(content, encoding="utf-8")
    ignore_in_git(folder)
    return folder


def ignore_in_git(folder: Path) -> None:
    """See that git ignores our database and half-written copies; a second time changes nothing."""
    path = folder / ".gitignore"
    present = path.read_text(encoding="utf-8") if path.exists() else "".join(f"{line}\n" for line in _IGNORED)
    missing = [line for line in _OURS if line not in present.splitlines()]
    if missing:
        gap = "" if present.endswith("\n") or not present else "\n"
        path.write_text(present + gap + "".join(f"{line}\n" for line in missing), encoding="utf-8")


def render(record: Row) -> str:
    """One line, as JSON.stringify writes it."""
    return json.dumps(record, ensure_ascii=False, separators=(",", ":"))


def read(path: Path) -> Iterator[Row]:
    """The records of a file, none when it does not exist. Raises `JsonlError`."""
    if not path.exists():
        return
    for number, line in enumerate(path.read_bytes().split(b"\n"), start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except ValueError:  # neither JSON nor, perhaps, UTF-8
            record = None
        if not isinstance(record, dict) or not isinstance(record.get("id"), str):
            raise JsonlError(
                f"{path} line {number} is not a record (an unfinished merge?): mend the file; nothing was changed"
            )
        yield record


def write(path: Path, lines: Iterable[str]) -> None:
    """Replace a file whole: a reader sees the old lines or the new ones. The caller holds the database's write lock."""
    half_written = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    half_written.write_bytes("".join(f"{line}\n" for line in lines).encode())
    half_written.replace(path)


def sweep(folder: Path) -> None:
    """Remove what killed writers left half-written. The caller holds the database's write lock, so no other writes."""
    for leftover in folder.glob("*.jsonl.*.tmp"):
        leftover.unlink(missing_ok=True)
