"""The Lua scripts in `lua/`, each called by its file's name.

A script is one change that Redis carries out whole, with its check of the fencing token. Its file says what it does,
what it returns and why running it again is harmless: our client tries again silently. It names its keys and arguments
in two lines, which are the only list of them:

    local inflight, session = unpack(KEYS)
    local issue, token, lease_ms = unpack(ARGV)

Before it stand `words.py` as Lua tables and `prelude.lua`. `REST` is the index of the first unnamed argument.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import redis
from redis.commands.core import Script

from orchestrator.adapters.redis import words
from orchestrator.adapters.redis.keys import Keys

LUA = Path(__file__).with_name("lua")

Argument = str | int | float


class Scripts:
    """Runs the scripts of one project. `client` is Any because redis-py types every text as `bytes | str`."""

    def __init__(self, client: redis.Redis, keys: Keys) -> None:
        self.client: Any = client
        self._keys = keys

    def run(self, name: str, *rest: Argument, **arguments: Argument) -> Any:
        """Run a script. Its keys follow from its own list, and from `issue` and `session_id` if given.

        Raises TypeError when an argument is missing or not the script's. The answer has any shape, and the caller gives
        it a type.
        """
        source = read(name)
        if missing_or_unknown := arguments.keys() ^ set(source.arguments):
            raise TypeError(f"{name}.lua and its caller differ about {', '.join(sorted(missing_or_unknown))}")
        owners = {owner: str(arguments[owner]) for owner in ("issue", "session_id") if owner in arguments}
        keys = [self._keys.named(key, **owners) for key in source.keys]
        args = [*(arguments[argument] for argument in source.arguments), *rest]
        return _registered(self.client, source.text)(keys=keys, args=args)


@dataclass(frozen=True)
class Source:
    """A script's whole text, and the names of its keys and arguments, in order."""

    text: str
    keys: tuple[str, ...]
    arguments: tuple[str, ...]


@functools.cache
def read(name: str) -> Source:
    """The script of this name."""
    script = (LUA / f"{name}.lua").read_text(encoding="utf-8")
    keys = tuple(key.replace("_", "-") for key in _unpacked("KEYS", script))
    arguments = _unpacked("ARGV", script)
    prelude = (LUA / "prelude.lua").read_text(encoding="utf-8")
    text = f"{words.as_lua()}local REST = {len(arguments) + 1}\n{prelude}{script}"
    return Source(text, keys, arguments)


def _unpacked(source: str, script: str) -> tuple[str, ...]:
    """The names in `local a, b = unpack(source)`."""
    found = re.search(rf"^local ([\w\s,]+?)\s*=\s*unpack\({source}\)$", script, re.MULTILINE)
    return tuple(re.findall(r"\w+", found[1])) if found else ()


@functools.cache  # there are thirty scripts, and one or two clients in a process
def _registered(client: redis.Redis, text: str) -> Script:
    return client.register_script(text)
