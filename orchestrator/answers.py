"""Find an agent's answer: the one JSON object that ends what it printed, and that belongs to the question asked.

Form is forgiven: colours, a byte order mark, a fence, a raw line break in a text, a CLI's envelope. What is broken,
contradicts itself or may be a quotation is malformed, and never guessed at.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Never, TypeVar

from pydantic import BaseModel, ValidationError

from orchestrator.errors import MalformedAnswer
from orchestrator.text import REDACTED, one_line

SEARCHED_CHARS = 262_144
"""How much of the end of the output is looked at, so that hostile output costs bounded time."""

AnswerT = TypeVar("AnswerT", bound=BaseModel)


@dataclass(frozen=True)
class Question:
    """What an agent was asked. The nonce is new each time: who wrote the issue or the change cannot have known it.

    `prompt` is all that the agent may quote from. `earlier` is what it printed when it was asked before, if it was.
    """

    role: str
    prompt: str
    nonce: str
    earlier: str | None = None


def parse_answer(question: Question, printed: str, shape: type[AnswerT]) -> AnswerT:
    """The answer in what an agent printed. Raises MalformedAnswer: role, what is wrong, and how the output ends."""
    shown = _shown(printed)
    said = _shown(_out_of_its_envelope(shown))
    try:
        start, found = _last_object(said)
        answer = shape.model_validate(found)
        _check_nonce(question, said, start, found, shown)
    except ValidationError as invalid:
        wrong = "; ".join(_problem(e["loc"], e["msg"]) for e in invalid.errors())
    except ValueError as bad:
        wrong = str(bad)
    else:
        return answer
    ending = one_line(said[-300:])[-80:]
    raise MalformedAnswer(f"{question.role}: {wrong}; " + (f"it ends with '{ending}'" if ending else "it said nothing"))


def _problem(place: tuple[int | str, ...], message: str) -> str:
    return ": ".join(filter(None, (".".join(map(str, place)), message.removeprefix("Value error, "))))


# Commands to a terminal (colours, links, titles), and characters that do not show. Tabs and newlines stay.
_UNSEEN = re.compile(
    r"\x1b\][^\x07\x1b\n]*(?:\x07|\x1b\\)?|(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]|\x1b[ -/]*[0-~]"
    r"|[\0-\x08\x0b-\x1f\x7f\u200b\u2060\ufeff]"
)


def _shown(printed: str) -> str:
    """The end of an output as a person would see it, without the fence that closes it."""
    text = _UNSEEN.sub("", printed[-SEARCHED_CHARS:])
    return text.strip().rstrip("`~").rstrip()


# Ends of streams that say what was used up, after the agent's last word.
_AFTERWARDS = ("result", "turn.completed", "step_finish", "rate_limit_event")


def _out_of_its_envelope(text: str) -> str:
    """The agent's last words, where its CLI printed JSON of its own around them; else the text as it is."""
    pieces: list[str] = []
    for event in _events(text):
        match event:
            case {"passed": _} | {"code_changed_at": _}:
                break
            case {"type": "message", "role": "assistant", "content": str(piece)}:
                pieces.append(piece)
            case _ if pieces:
                break
            case {"structured_output": dict(answer)}:
                return json.dumps(answer)
            case (
                {"result": str(words)}
                | {"response": str(words)}
                | {"type": "text", "part": {"text": str(words)}}
                | {"type": "item.completed", "item": {"type": "agent_message", "text": str(words)}}
            ):
                return words
            case {"type": str(kind)} if kind in _AFTERWARDS:
                continue
            case _:
                break
    return "".join(reversed(pieces)) or text


def _events(text: str) -> Iterator[object]:
    """What could be a CLI's JSON, last first: an event a line, a list of events, or one object over several lines."""
    last = text.rpartition("\n")[2]
    try:
        if text.startswith("[") and text.endswith("]"):
            yield from reversed(_JSON.decode(text))
        elif last.startswith("{"):
            yield from map(_JSON.decode, reversed(text.split("\n")))
        else:
            yield _last_object(text)[1]
    except (ValueError, RecursionError):
        return  # here the CLI's JSON begins, or it is none


def _last_object(text: str) -> tuple[int, dict[str, object]]:
    """The JSON object that ends a text, and where it starts. ValueError says what there is instead."""
    start = _start_of_last(text)
    if start is None:
        raise ValueError("its answer does not end with a JSON object")
    try:
        return start, _JSON.decode(text[start:])
    except RecursionError:
        raise ValueError("the JSON object that ends its answer is nested too deep") from None
    except ValueError as broken:
        raise ValueError(f"the JSON object that ends its answer is broken: {one_line(str(broken))}") from None


# A quote that is not escaped, or a brace.
_MARK = re.compile(r'(?<!\\)(?:\\\\)*"|[{}]')


def _start_of_last(text: str) -> int | None:
    """Where the object that ends a text starts, read backwards; one that is valid can start nowhere else."""
    depth, quoted = 0, False
    if not text.endswith("}"):
        return None
    for mark in reversed(list(_MARK.finditer(text))):
        if mark[0].endswith('"'):
            quoted = not quoted
        elif not quoted:
            depth += 1 if mark[0] == "}" else -1
            if depth == 0:
                return mark.start()
    return None


def _one_of_each(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found: dict[str, object] = {}
    for name, value in pairs:
        if found.setdefault(name, value) != value:
            raise ValueError(f"{name[:80]!r} is there twice, with different values")
    return found


def _no_number(word: str) -> Never:
    raise ValueError(f"{word} is no JSON")


_JSON = json.JSONDecoder(strict=False, object_pairs_hook=_one_of_each, parse_constant=_no_number)


def _check_nonce(question: Question, said: str, start: int, found: dict[str, object], shown: str) -> None:
    """ValueError unless the object that ends the answer belongs to this question.

    An agent that never learnt of nonces is believed when it is asked for the second time, and only so far: what stands
    in its prompt (or may, a secret being cut out of it) is a quotation, what is a part of something else is no answer,
    and no PASS outweighs a FAIL.
    """
    verdicts = _verdicts(said, question.nonce)
    if "nonce" in found:
        if found["nonce"] != question.nonce:
            raise ValueError(f"the nonce of its answer is not {question.nonce}, which it was asked for")
        if len(verdicts) > 1:
            raise ValueError("it gave several answers to the one question, and they disagree")
        return
    if verdicts:
        raise ValueError("another JSON object follows the one with the nonce")
    if question.earlier is None:
        raise ValueError("its answer has no nonce, by which it is told from a quotation")
    if said[:start].rstrip().endswith(('":', ",", "[")):
        raise ValueError("the JSON object that ends its answer is a part of something unfinished")
    if REDACTED in said[start:] or _letters(said[start:]) in _letters(question.prompt):
        raise ValueError("the JSON object that ends its answer may be a quotation from the prompt: it has no nonce")
    if found.get("passed") is True and any(map(_FAILS.search, (_shown(question.earlier), shown))):
        raise ValueError("it says both that it passed and that it did not, and has no nonce to tell which counts")


_BRACES = re.compile(r"[{}]")
_PASSED = re.compile(r'(?<!\\)"passed"\s*:\s*(true|false)')
_FAILS = re.compile(r"passed\W{1,8}false", re.IGNORECASE)
_ESCAPED = re.compile(r"(?<!\\)\\+u([0-9a-fA-F]{4})")
_NO_LETTERS = re.compile(r"[^A-Za-z0-9]+")


def _verdicts(text: str, nonce: str) -> set[str]:
    """What the objects with this nonce say, those that are broken too."""
    return {verdict for piece in _BRACES.split(text) if nonce in piece for verdict in _PASSED.findall(piece)}


def _letters(text: str) -> str:
    """Plain letters and digits alone: the same however a text is indented, escaped, or marked as added by a diff."""
    return _NO_LETTERS.sub("", _ESCAPED.sub(lambda code: chr(int(code[1], 16)), _UNSEEN.sub("", text)))
