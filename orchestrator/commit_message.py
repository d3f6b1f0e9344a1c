"""A commit message worth keeping, made of words that may be an agent's."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping

SUBJECT_CHARS = 72


def commit_message(*, subject: str, body: str, trailers: Mapping[str, str]) -> str:
    """A commit message with a subject of one line and at most 72 characters, and the trailers as its last block.

    Control characters and invisible ones that reorder text are removed: subject and body may be an agent's words.
    """
    line = one_line(subject) or "(no subject)"
    if len(line) > SUBJECT_CHARS:
        line = line[: SUBJECT_CHARS + 1].rsplit(" ", 1)[0][:SUBJECT_CHARS]
    text = "\n".join(_printable(row).rstrip() for row in body.splitlines()).strip()
    block = "\n".join(f"{key}: {one_line(value)}" for key, value in trailers.items())
    return "\n\n".join(part for part in (line, text, block) if part) + "\n"


def one_line(text: str) -> str:
    """The text's words in one line, without characters that do not show."""
    return _printable(" ".join(text.split()))


def _printable(text: str) -> str:
    return "".join(char for char in text if char == "\t" or unicodedata.category(char) not in {"Cc", "Cf", "Cs"})
