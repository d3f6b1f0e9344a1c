"""What holds of every Lua script, read without a Redis."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import pytest

from orchestrator.adapters.redis import Keys, scripts, words
from orchestrator.adapters.redis.keys import PER_ISSUE, PER_PROJECT, PER_SESSION

NAMES = sorted(path.stem for path in scripts.LUA.glob("*.lua") if path.stem != "prelude")
PRELUDE = (scripts.LUA / "prelude.lua").read_text()


def lua(name: str) -> str:
    """The script's own text."""
    return (scripts.LUA / f"{name}.lua").read_text()


def callers() -> list[str]:
    """The name of the script in each call of `run`, `_write` and `_quietly` in the room."""
    found = []
    for path in Path(scripts.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            match node:
                case ast.Call(ast.Attribute(attr="run" | "_write" | "_quietly"), [ast.Constant(str() as name), *_]):
                    found.append(name)
    return found


def test_each_script_has_one_caller() -> None:
    """A script without a caller is dead; two callers would be two contracts."""
    assert NAMES == sorted(callers())


@pytest.mark.parametrize("name", NAMES)
def test_a_script_says_what_it_does_what_it_returns_and_why_again_is_harmless(name: str) -> None:
    """The contract stands at the top of the file, and its two lists of names are read by the loader."""
    head = lua(name).partition("\nlocal ")[0].splitlines()
    source = scripts.read(name)

    assert all(line.startswith("-- ") for line in head)
    assert ["-- Returns ", "-- Again: "] == [start for start in ("-- Returns ", "-- Again: ") if starts(head, start)]
    assert set(source.keys) <= {*PER_PROJECT, *PER_ISSUE, *PER_SESSION}
    assert source.keys


def starts(lines: list[str], start: str) -> bool:
    """One of the lines begins like this."""
    return any(line.startswith(start) for line in lines)


@pytest.mark.parametrize("name", [*NAMES, "prelude"])
def test_a_closed_set_is_named_and_never_spelled(name: str) -> None:
    """A misspelled member would be nil, and nil compares as something else without a word."""
    text = lua(name)
    enums = {enum.__name__: enum for enum in words.ENUMS}
    used = re.findall(rf"\b({'|'.join(enums)})\.(\w+)", re.sub(r"--.*", "", text))
    spelled = {f"'{member.value}'" for enum in words.ENUMS for member in enum} & set(re.findall(r"'\w*'", text))

    assert not [f"{enum}.{member}" for enum, member in used if member not in enums[enum].__members__]
    assert not spelled


@pytest.mark.parametrize("name", NAMES)
def test_only_redis_tells_the_time(name: str) -> None:
    """No argument is a moment of a client's clock, except when a merge happened, which a forge says."""
    arguments = set(scripts.read(name).arguments)

    assert not {argument for argument in arguments if re.search(r"now|_at$", argument)} - {"merged_at"}


def test_a_caller_that_forgets_an_argument_or_has_one_too_many_is_told_which() -> None:
    """Nothing is sent to Redis then."""
    runs = scripts.Scripts(no_client(), Keys("p"))

    with pytest.raises(TypeError, match=r"renew.lua and its caller differ about lease_ms$"):
        runs.run("renew", issue="i-1", token=1)
    with pytest.raises(TypeError, match=r"differ about tokens$"):
        runs.run("renew", issue="i-1", token=1, lease_ms=1, tokens=2)


def test_a_key_of_an_issue_or_a_session_needs_it() -> None:
    """Without its owner, the key of one would be the key of all."""
    keys = Keys("p")

    assert "orch:{p}:session:i-1" == keys.named("session", issue="i-1", session_id="s")
    assert "orch:{p}:history:s" == keys.named("history", issue="i-1", session_id="s")
    assert "orch:{p}:held" == keys.named("held", issue="i-1")
    with pytest.raises(ValueError, match="session needs its issue"):
        keys.named("session", session_id="s")
    with pytest.raises(KeyError):
        keys.named("no-such-key")


def test_words_and_buckets_reach_lua_as_tables() -> None:
    """The stored words and the ends of the buckets are those of Python."""
    text = words.as_lua()

    assert "local SessionState = {CLAIMED = 'claimed', RUNNING = 'running', ENDED = 'ended'}" in text
    assert "tracker_call_seconds = {0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 40}" in text


def no_client() -> Any:
    """Nothing that could be asked."""
    return None
