"""Text of others, made fit to store, show or send: without secrets, bounded, printable, in one line."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping

from orchestrator.text.forge import inert
from orchestrator.text.redaction import REDACTED, Stream, redacted, redactor

__all__ = [
    "REDACTED",
    "Stream",
    "bounded",
    "bounded_text",
    "commit_message",
    "inert",
    "last_line",
    "line",
    "one_line",
    "plain",
    "redacted",
    "redactor",
    "sendable",
    "span",
]

SUBJECT_CHARS = 72


def commit_message(*, subject: str, body: str, trailers: Mapping[str, str]) -> str:
    """A commit message with a subject of one line and at most 72 characters, and the trailers as its last block.

    Subject and body may be an agent's words: control characters and invisible ones that reorder text are removed, and
    secrets that were split by them; they mention nobody, close nothing and look like no trailer.
    """
    line = inert(redacted(one_line(subject))) or "(no subject)"
    if len(line) > SUBJECT_CHARS:
        line = line[: SUBJECT_CHARS + 1].rsplit(" ", 1)[0][:SUBJECT_CHARS]
    text = inert(redacted("\n".join(_printable(row).rstrip() for row in body.splitlines()).strip()))
    block = "\n".join(f"{key}: {one_line(value)}" for key, value in trailers.items())
    return "\n\n".join(part for part in (line, text, block) if part) + "\n"


def one_line(text: str) -> str:
    """The text's words in one line, without characters that do not show."""
    return _printable(" ".join(text.split()))


def _printable(text: str) -> str:
    return "".join(char for char in text if char == "\t" or unicodedata.category(char) not in {"Cc", "Cf", "Cs"})


# A snapshot is one argument of a tracker call, and sudocode refuses arguments of 128 KiB. In JSON's ASCII one
# character of text takes up to 12 bytes, so two lists of 25 items of 200 characters stay under it at their worst.
MAX_ITEMS = 25


MAX_ITEM_CHARS = 200


def sendable(text: str) -> str:
    """The text with `?` for NUL and for halves of characters: JSON can spell them, no argument or file takes them."""
    return text.replace("\0", "?").encode(errors="replace").decode()


def bounded(items: tuple[str, ...] | list[str]) -> list[str]:
    """At most MAX_ITEMS of at most MAX_ITEM_CHARS; what was cut is said. The history has them whole."""
    shown = [bounded_text(item) for item in items[:MAX_ITEMS]]
    return shown + ([f"... and {len(items) - MAX_ITEMS} more"] if len(items) > MAX_ITEMS else [])


def bounded_text(text: str) -> str:
    """At most MAX_ITEM_CHARS, sendable, with an ellipsis where it was cut."""
    return sendable(text if len(text) <= MAX_ITEM_CHARS else text[: MAX_ITEM_CHARS - 3] + "...")


def last_line(output: str) -> str:
    """The last line that says something."""
    return next((line.strip() for line in reversed(output.splitlines()) if line.strip()), "(no output)")


def span(seconds: float) -> str:
    """A time span in its largest fitting unit."""
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(0.0, seconds):.0f} s"


def plain(text: str) -> str:
    """Text that others wrote, safe to print: what could steer a terminal is replaced; lines and tabs stay."""
    return "".join(c if c in "\n\t" or unicodedata.category(c) not in ("Cc", "Cf", "Cs") else "\ufffd" for c in text)


def line(text: str) -> str:
    """As `plain`, in one line."""
    return " ".join(plain(text).split())
