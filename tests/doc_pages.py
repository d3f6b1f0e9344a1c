"""What pages print for their readers to type: found, cut into single commands, and their printed output compared.

In a block marked `sh` or `bash` everything is typed. In one marked `console` the lines after `$ ` are, and what follows
each is what it prints.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.docs_generate import DOCS, ROOT

PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
SHELLS = ("sh", "bash", "console")

_BLOCK = re.compile(r"^(?P<margin> *)```(?P<language>\w+)\n(?P<text>.*?)^ *```$", re.DOTALL | re.MULTILINE)
_HEADING = re.compile(r"^#+ (.*)$", re.MULTILINE)
_HERE = re.compile(r"<<'?(\w+)'?")
_VARIES = re.compile(r"[\d…]|^[/~]|\.\.\.|^i-|^my-")


@dataclass(frozen=True)
class Command:
    """One command of a page, the heading it stands under, and what the page says that it prints."""

    page: Path
    line: int
    section: str
    text: str
    prints: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}: {self.text}"


def commands(page: Path) -> list[Command]:
    """Every command that a page prints, top to bottom."""
    return list(_commands(page, page.read_text("utf-8")))


def _commands(page: Path, text: str) -> Iterator[Command]:
    for block in _BLOCK.finditer(text):
        if block["language"] not in SHELLS:
            continue
        above = text[: block.start()]
        section = [""] + [heading[1] for heading in _HEADING.finditer(_BLOCK.sub("", above))]
        lines = [line.removeprefix(block["margin"]) for line in block["text"].splitlines()]
        cut = _typed_and_printed(lines) if block["language"] == "console" else _typed(lines)
        for number, typed, printed in cut:
            yield Command(page, above.count("\n") + 2 + number, section[-1], typed, printed)


def _typed(lines: list[str]) -> Iterator[tuple[int, str, tuple[str, ...]]]:
    """Lines as commands, each with where it starts: a command goes on until its quotes and its here-text end."""
    typed: list[str] = []
    for number, line in enumerate(lines):
        typed.append(line)
        if not _complete("\n".join(typed)):
            continue
        text = "\n".join(typed)
        if shlex.split(text, comments=True):
            yield number - len(typed) + 1, text, ()
        typed = []
    assert not typed, f"a command that does not end: {typed}"


def _typed_and_printed(lines: list[str]) -> Iterator[tuple[int, str, tuple[str, ...]]]:
    starts = [number for number, line in enumerate(lines) if line.startswith("$ ")]
    assert starts[:1] == [0], f"a console block begins with what is typed: {lines[:1]}"
    for start, end in zip(starts, [*starts[1:], len(lines)], strict=True):
        yield start, lines[start].removeprefix("$ "), tuple(filter(str.strip, lines[start + 1 : end]))


def _complete(text: str) -> bool:
    if here := _HERE.search(text):
        return text.splitlines()[-1] == here[1]
    try:
        shlex.split(text, comments=True)
    except ValueError:
        return False
    return not text.endswith("\\")


def not_printed(shown: tuple[str, ...], printed: str) -> list[str]:
    """The lines that a page shows and a command did not print.

    Words with digits, ids, paths, `my-...` and what is left out with three dots vary: a line was printed if its other
    words stand in one line, in their order.
    """
    lines = [line.split() for line in printed.splitlines()]
    return [line for line in shown if not any(_in_order(_lasting(line), words) for words in lines)]


def _lasting(line: str) -> list[str]:
    return [word for word in line.split() if not _VARIES.search(word)]


def _in_order(words: list[str], among: list[str]) -> bool:
    rest = iter(among)
    return all(word in rest for word in words)
