"""The kinds of values that a setting may have, each with its own error."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field

from orchestrator.settings import redis_url
from orchestrator.settings.keys import shown

SHELL_WORDS = frozenset("|&;<>()")


def _argv(value: object) -> object:
    """Text is split into words as a shell would, but no shell ever runs it."""
    if not isinstance(value, str):
        return tuple(value) if isinstance(value, list) else value
    words = shlex.shlex(value, posix=True, punctuation_chars=True)
    words.whitespace_split, words.commenters = True, ""
    argv = tuple(words)
    if any(SHELL_WORDS.issuperset(word) for word in argv if word) or (argv and re.match(r"\w+=", argv[0])):
        raise ValueError('has shell syntax in it, but no shell runs it (["sh", "-c", "..."] would)')
    return argv


def _runnable(argv: tuple[str, ...]) -> tuple[str, ...]:
    if not argv or not argv[0]:
        raise ValueError("names no program")
    if any("\0" in word for word in argv):
        raise ValueError("has a NUL character in it")
    return argv


def _one_or_several(value: object) -> object:
    """A list of lists is several commands, one after the other; anything else is one."""
    several = isinstance(value, list) and value and all(isinstance(part, list) for part in value)
    return tuple(value) if several and isinstance(value, list) else (value,)


def _no_sentence(commands: tuple[tuple[str, ...], ...]) -> tuple[tuple[str, ...], ...]:
    for words in commands:
        if re.search(r"\s", words[0]):
            raise ValueError(
                f"names a program with a space in it: {shown(words[0])}; several commands are a list of lists"
            )
    return commands


def fits(pattern: str, what: str) -> AfterValidator:
    """Text that the whole of a pattern matches; `what` it must be is said when it does not."""

    def check(text: str) -> str:
        if not re.fullmatch(pattern, text):
            raise ValueError(f"must be {what} (is {shown(text)})")
        return text

    return AfterValidator(check)


def _accepted(url: str) -> str:
    redis_url.client_url(url)
    return url


def _absolute(path: Path) -> Path:
    if not path.is_absolute():
        raise ValueError("must be a whole path, from / on")
    return path


Command = Annotated[tuple[str, ...], BeforeValidator(_argv), AfterValidator(_runnable)]
Commands = Annotated[tuple[Command, ...], BeforeValidator(_one_or_several), AfterValidator(_no_sentence)]
Seconds = Annotated[float, Field(gt=0, le=7 * 86400, json_schema_extra={"unit": "seconds"})]
Count = Annotated[int, Field(ge=1, le=100)]
ProjectName = Annotated[str, fits(r"[a-z0-9-]{1,40}", "1 to 40 of a-z, 0-9 and -")]
BranchName = Annotated[str, fits(r"(?!-)(?!.*\.\.)[^\s~^:?*\[\\\x00-\x1f]+", "the name of a branch")]
RemoteName = Annotated[str, fits(r"((?!-)[\w./-]+)?", "the name of a git remote, or empty")]
HostName = Annotated[
    str,
    fits(
        r"(\*\.)?[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*\.?|[0-9A-Fa-f.]*:[0-9A-Fa-f.]*:[0-9A-Fa-f:.]*",
        "a host's name or address without its port, or *.example.com",
    ),
]
VariableName = Annotated[str, fits(r"[A-Za-z_][A-Za-z0-9_]*", "the name of an environment variable")]
HomePath = Annotated[str, fits(r"(/|~/|~$)[^\0]*", "a whole path, from / or ~ on")]
AnyCase = BeforeValidator(lambda value: value.lower() if isinstance(value, str) else value)
RedisUrl = Annotated[str, AfterValidator(_accepted)]
WholePath = Annotated[Path, AfterValidator(_absolute)]


def toml(value: str | tuple[str, ...] | tuple[tuple[str, ...], ...]) -> str:
    """A TOML string, a list of strings, or a list of such lists. JSON's are TOML's, but for DEL."""
    if isinstance(value, tuple):
        return f"[{', '.join(map(toml, value))}]"
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
