"""What is said of a step's work: in its commit's message, in remarks, and to its reviewers."""

from __future__ import annotations

import re
from collections.abc import Sequence

TRAILER = re.compile(r"[A-Za-z0-9-]+: ")


def settings_remark(names: Sequence[str]) -> list[str]:
    """The remark on settings that agents made in their repository, if they made any."""
    return [f"git settings of its own repository, which ended with the step: {', '.join(names)}"] if names else []


def with_list(message: str, subjects: Sequence[str]) -> str:
    """The message with the subjects of squashed commits, before its trailers: those stay the last block."""
    text = message.rstrip()
    if not subjects:
        return f"{text}\n"
    listing = "\n".join(("Squashed, as the agent had named them:", *(f"- {line}" for line in subjects)))
    before, _, last = text.rpartition("\n\n")
    if before and all(TRAILER.match(line) for line in last.splitlines()):
        return f"{before}\n\n{listing}\n\n{last}\n"
    return f"{text}\n\n{listing}\n"


def cut(text: str, max_chars: int, *, rest: str) -> str:
    """Text in max_chars characters, cut after a whole line, with a last line that says so."""
    if len(text) <= max_chars:
        return text
    note = "[cut: {} of {} characters are not shown; `{}` shows all]\n"
    room = max(0, max_chars - len(note.format(len(text), len(text), rest)))
    shown = text[: text.rfind("\n", 0, room) + 1] or text[:room]
    return shown + note.format(len(text) - len(shown), len(text), rest)
