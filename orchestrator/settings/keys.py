"""The catalogue of keys, read off the settings models: for the docs, and for error messages."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING, get_args

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo
    from pydantic_core import ErrorDetails

REASONS = {
    "bool_type": "must be true or false",
    "float_type": "must be a number",
    "int_type": "must be a whole number",
    "model_type": "must be a table",
    "path_type": "must be a path in quotes",
    "string_type": "must be text in quotes",
    "tuple_type": "must be a list",
}


@dataclass(frozen=True)
class Key:
    """One key of orch.toml, dotted, or one environment variable. `default` is empty when it is unset or required."""

    name: str
    default: str
    unit: str
    meaning: str
    example: str


def keys(model: type[BaseModel], prefix: str = "") -> Iterator[Key]:
    """Every key of a model and of the tables in it, in order. A field without a description is only a table."""
    for field_name, field in model.model_fields.items():
        name = prefix + (field.alias or field_name)
        if field.description:
            yield _key(name, field)
        for table in _tables(field.annotation):
            yield from keys(table, f"{name}.")


def key_table(known: Iterable[Key]) -> str:
    """The keys as a Markdown table."""
    rows = [
        (f"`{key.name}`", f"`{key.default}`" if key.default else "", key.unit, key.meaning.replace("|", "\\|"))
        for key in known
    ]
    head = ("key", "default", "unit", "meaning")
    return "".join(f"| {' | '.join(row)} |\n" for row in (head, ("---",) * len(head), *rows))


def problem(source: str, error: ErrorDetails, known: Sequence[Key]) -> str:
    """One line for one error of pydantic: the key, the problem, and what to write instead."""
    name = _dotted(error["loc"])
    if error["type"] == "extra_forbidden":
        return f"{source}: unknown {'variable' if _variable(name) else 'key'} `{name}`{_nearest(name, known)}"
    return f"{source}: {name}: {_reason(error)}{_instead(name.partition('[')[0], known)}"


def shown(value: object) -> str:
    """A value as one writes it in orch.toml, cut when it is long."""
    text = repr(value) if isinstance(value, float) else json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _key(name: str, field: FieldInfo) -> Key:
    unset = field.default in (None, PydanticUndefined)
    value = _short(field.examples[0] if field.examples else field.default)
    extra = field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}
    return Key(
        name=name,
        default="" if unset else _plain(name, _short(field.default)),
        unit=str(extra.get("unit", "")),
        meaning=field.description or "",
        example=f"{name}={value}" if _variable(name) else f"{name.rpartition('.')[2]} = {shown(value)}",
    )


def _short(value: object) -> object:
    """A number of seconds reads better without its `.0`, and TOML takes it."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _plain(name: str, value: object) -> str:
    return str(value) if _variable(name) else shown(value)


def _variable(name: str) -> bool:
    return name.startswith("ORCH_")


def _tables(annotation: object) -> Iterator[type[BaseModel]]:
    """The models in an annotation, however deep in unions."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _tables(part)


def _dotted(loc: tuple[int | str, ...]) -> str:
    """`limits.rescues`, `agents.env[0]`; parts in parentheses are pydantic's names for the branches of a union."""
    parts = [f"[{part}]" if isinstance(part, int) else f".{part}" for part in loc if not str(part).startswith("(")]
    return "".join(parts).removeprefix(".")


def _reason(error: ErrorDetails) -> str:
    context = error.get("ctx", {})
    match error["type"]:
        case "missing":
            return "is missing"
        case "value_error":
            return str(context["error"])
        case "greater_than_equal":
            rule = f"must be at least {context['ge']:g}"
        case "greater_than":
            rule = f"must be more than {context['gt']:g}"
        case "less_than_equal":
            rule = f"must be at most {context['le']:g}"
        case "literal_error":
            rule = f"must be {context['expected']}"
        case other:
            rule = REASONS.get(other, error["msg"])
    return f"{rule} (is {shown(error['input'])})"


def _instead(name: str, known: Sequence[Key]) -> str:
    for key in known:
        if key.name == name:
            return f"; write e.g. {key.example}"
    for key in known:
        if key.name.startswith(f"{name}."):
            return f"; write e.g. [{name}] and below it {key.example}"
    return ""


def _nearest(name: str, known: Sequence[Key]) -> str:
    """The key that was meant: one of its table that looks like it, or one of just this name in another table."""
    table, _, word = name.rpartition(".")
    prefix = f"{table}." if table else ""
    siblings = _words(prefix, known)
    meant = [f"{prefix}{close}" for close in get_close_matches(word, siblings, n=1)]
    meant += [key.name for key in known if key.name.rpartition(".")[2] == word]
    return f"; did you mean `{meant[0]}`?" if meant else f"; known are {', '.join(siblings)}"


def _words(prefix: str, known: Sequence[Key]) -> list[str]:
    """The words that may follow a prefix: keys and tables, each once, in order."""
    below = (key.name.removeprefix(prefix) for key in known if key.name.startswith(prefix))
    return list(dict.fromkeys(name.partition(".")[0] for name in below))
