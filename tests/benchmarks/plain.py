"""A session's very Redis commands, sent by plain redis-py: what a session costs before there is an engine.

The commands are recorded from a real session, byte for byte; only the ids and the fencing token are filled in anew.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import redis

from orchestrator.models import session_id_for

Command = list[str | int]

ISSUE, SESSION, TOKEN = "{issue}", "{session}", "{token}"
LEAST_TOKEN = 10**12
"""Fencing tokens start at the clock's milliseconds, and no other number in a command is that large."""


class Recording(redis.Redis):
    """A client that keeps every command it sends."""

    sent: list[Command]

    def execute_command(self, *args: Any, **options: Any) -> Any:
        """Keep it, send it."""
        vars(self).setdefault("sent", []).append(list(args))
        return super().execute_command(*args, **options)  # type: ignore[no-untyped-call] # redis-py has no types


def session_id(issue_id: str) -> str:
    """The session of an issue; one is enough here."""
    return session_id_for(issue_id, "benchmark")


def blanks(commands: Sequence[Command], issue_id: str) -> list[Command]:
    """The commands of one session with blanks for what is its own."""

    def blank(word: str | int) -> str | int:
        if isinstance(word, int):
            return TOKEN if word > LEAST_TOKEN else word
        return word.replace(session_id(issue_id), SESSION).replace(issue_id, ISSUE)

    return [[blank(word) for word in command] for command in commands]


def run(client: redis.Redis, commands: Sequence[Command], issue_id: str) -> None:
    """One session: its commands, one after another, with the token that the first one gives."""
    own = session_id(issue_id)
    token: object = None

    def filled(word: str | int) -> object:
        if isinstance(word, int):
            return word
        return token if word == TOKEN else word.replace(SESSION, own).replace(ISSUE, issue_id)

    for command in commands:
        answer: Any = client.execute_command(*map(filled, command))  # type: ignore[no-untyped-call] # redis-py has no types there
        token = token or answer[0]


def run_all(url: str, file: Path, issue_ids: Sequence[str]) -> None:
    """Many sessions in this process."""
    client, commands = connected(url), load(file)
    for issue_id in issue_ids:
        run(client, commands, issue_id)


@functools.cache
def connected(url: str) -> redis.Redis:
    """This process's client."""
    return redis.Redis.from_url(url, decode_responses=True)


@functools.cache
def load(file: Path) -> list[Command]:
    """The commands, read once in each process."""
    commands: list[Command] = json.loads(file.read_text())
    return commands
