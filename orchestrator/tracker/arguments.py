"""Arguments as sudocode's server takes them: JavaScript values that become words of a command line.

They are not validated against the schemas, because the real server does not: what is missing reads `undefined`, unknown
ones are dropped, an empty string counts as not given.
"""

from __future__ import annotations

from collections.abc import Mapping

MAX_STRING_BYTES = 131_071
"""Linux takes no longer word in a command line; a longer string is answered with `Error: spawn E2BIG`."""

Arguments = Mapping[str, object]


class ToolError(Exception):
    """The tool failed; the text is what the caller gets."""


def failed(stderr: str) -> ToolError:
    """The error that sudocode's server gives when the command behind a tool failed."""
    return ToolError(f"Error: CLI command failed with exit code 1\n\nStderr:\n{stderr}\n")


def check_strings(arguments: Arguments) -> None:
    """Raise `ToolError` for a string that no command line takes: too long, or with a NUL or half a character in it."""
    for name in arguments:
        word = required(arguments, name)
        if "\0" in word:
            raise ToolError(f"Error: The argument '{name}' must be a string without null bytes.")
        try:
            size = len(word.encode())
        except UnicodeEncodeError:
            raise ToolError(f"Error: The argument '{name}' must be a string of whole Unicode characters.") from None
        if size > MAX_STRING_BYTES:
            raise ToolError("Error: spawn E2BIG")


def required(arguments: Arguments, name: str) -> str:
    """The argument as JavaScript's String() spells it."""
    match arguments.get(name):
        case str(word):
            return word
        case None:
            return "undefined"
        case bool(flag):
            return str(flag).lower()
        case list(words):
            return ",".join(required({"word": word}, "word") for word in words)
        case dict():
            return "[object Object]"
        case other:
            return str(other)


def optional(arguments: Arguments, name: str) -> str | None:
    """The argument, or None where there is nothing in it."""
    return required(arguments, name) if arguments.get(name) else None


def number(arguments: Arguments, name: str) -> int | None:
    """The whole part of a number; None for anything else."""
    try:
        value = float(required(arguments, name))
    except ValueError:
        return None
    return int(value) if abs(value) < 2**53 else None


def words(arguments: Arguments, name: str) -> list[str]:
    """A list, which travels joined by commas."""
    return [word.strip() for word in (optional(arguments, name) or "").split(",") if word.strip()]
