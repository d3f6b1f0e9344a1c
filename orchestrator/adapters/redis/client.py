"""What everything in Redis shares: key names, scripts, and how entries are told.

Every change is one Lua call that checks the fencing token, so the state, its event and the check cannot come apart.
The clock is Redis's own. Every script may run twice for one call without harm, because our client tries again silently:
a claim is recognised by its nonce, a report by its number, an end by its state, an outbox entry by its id. Everything
here is one command, so that one place (PatientRedis) decides how long to try and what it means when Redis stays away.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import redis
from pydantic import TypeAdapter
from redis import exceptions
from redis.backoff import NoBackoff
from redis.commands.core import Script
from redis.retry import Retry

from orchestrator.errors import RedisUnavailable
from orchestrator.models import Entry, SnapshotEntry

ANSWER_S = 5.0
LONGEST_WAIT_S = 1.0
KEPT_S = 30 * 24 * 3600
"""For how long what ended is kept."""

ENTRIES: TypeAdapter[Entry] = TypeAdapter(Entry)

NOW = "local t = redis.call('TIME'); local now = t[1] * 1000 + math.floor(t[2] / 1000)\n"

# Not a plain counter: a Redis that lost its last second, or all it had, would count from an older number, and a token
# that was given away before would be given away again.
FENCE = """
local function next_token(fence, now)
  local token = string.format('%d', math.max(tonumber(redis.call('GET', fence) or 0) + 1, now))
  redis.call('SET', fence, token)
  return token
end
"""

# ARGV from `first` on are entries as pairs: what the outbox gets, and the snapshot's text or ''.
TELL = """
local function tell(outbox, pending, snapshots, issue, session_id, first)
  for i = first, #ARGV, 2 do
    redis.call('XADD', outbox, '*', 'issue', issue, 'session', session_id, 'entry', ARGV[i])
    if ARGV[i + 1] ~= '' then redis.call('RPUSH', snapshots, ARGV[i + 1]) end
    redis.call('HINCRBY', pending, issue, 1)
  end
end
"""


@dataclass(frozen=True)
class Keys:
    """Every key's name is made here. The braces keep one project on one cluster node."""

    project: str

    def __call__(self, name: str, of: str = "") -> str:
        """`orch:{project}:name` or `orch:{project}:name:of`."""
        return f"orch:{{{self.project}}}:{name}" + (f":{of}" if of else "")

    def all(self, names: str, *, issue: str = "", session: str = "") -> list[str]:
        """Several names at once; `session` and `runs` are per issue, `history` and `snapshots` per session id."""
        owner = {"session": issue, "runs": issue, "history": session, "snapshots": session}
        return [self(name, owner.get(name, "")) for name in names.split()]


class PatientRedis(redis.Redis):
    """A client that tries every command again while Redis is away or takes no writes, for `patience_s` in all.

    Then it raises RedisUnavailable, and no other error for that. redis-py's own retries are off: they count tries, of
    which each may take any time, and they nest.
    """

    def __init__(self, pool: redis.ConnectionPool, patience_s: float) -> None:
        super().__init__(connection_pool=pool)
        self._patience_s = patience_s

    def execute_command(self, *args: Any, **options: Any) -> Any:
        """The command's answer; the command may have been carried out more than once."""
        deadline = time.monotonic() + self._patience_s
        wait = 0.05
        while True:
            try:
                return super().execute_command(*args, **options)  # type: ignore[no-untyped-call] # redis-py's
            except exceptions.RedisError as error:
                if not _may_pass(error):
                    raise
                if time.monotonic() + wait > deadline:
                    raise RedisUnavailable(
                        f"{_in_words(error)}: Redis did not serve us for {self._patience_s:g} s;"
                        " `orch doctor` says what is wrong"
                    ) from error
            time.sleep(wait)
            wait = min(2 * wait, LONGEST_WAIT_S)


def _may_pass(error: exceptions.RedisError) -> bool:
    """Whether Redis is away, loads its data, moves to a replica, has no room for a write, or does not let us in.

    All of that a person can put right while we wait; the rest is a mistake of ours.
    """
    passing = (
        exceptions.ConnectionError,  # a refused password too
        exceptions.TimeoutError,
        exceptions.ReadOnlyError,
        exceptions.OutOfMemoryError,
        exceptions.NoPermissionError,
    )
    return isinstance(error, passing) or str(error).startswith("MISCONF")


def _in_words(error: exceptions.RedisError) -> str:
    if isinstance(error, exceptions.AuthenticationError):
        return "it wants a password, or another one than ORCH_REDIS_URL has"
    return str(error).rstrip(".")


def why_no_writes(client: redis.Redis) -> str:
    """What keeps a Redis that answers from taking writes, in words; empty when nothing does."""
    return what_refuses_writes(client.info())


def what_refuses_writes(info: Any) -> str:
    """The same, of what its INFO says."""
    if info["role"] != "master":
        return "it is a read-only replica"
    if 0 < info.get("maxmemory", 0) <= info["used_memory"]:
        return f"its memory is full ({info['used_memory_human']} of {info['maxmemory_human']})"
    if info.get("aof_last_write_status", "ok") != "ok":
        return "it cannot write its append-only file; its disk may be full"
    return ""


def connect(url: str, *, patience_s: float = 5.0) -> redis.Redis:
    """A client whose calls end: with an answer, or with RedisUnavailable when there was none for `patience_s`.

    Choose a lease time for what must not be lost while Redis restarts, and a second for who has to go on.
    """
    answer_s = min(ANSWER_S, patience_s)
    pool = redis.ConnectionPool.from_url(
        url,
        socket_timeout=answer_s,
        socket_connect_timeout=answer_s,
        retry=Retry(NoBackoff(), retries=0),
        decode_responses=True,
    )
    return PatientRedis(pool, patience_s)


class Scripts:
    """A client that calls Lua scripts by their hash; each is sent once. Untyped on purpose: a script has any shape.

    `client` is Any because redis-py types every text as `bytes | str`; it was made to decode.
    """

    def __init__(self, client: redis.Redis) -> None:
        self.client: Any = client

    def call(self, lua: str, keys: Sequence[str], args: Sequence[str | int]) -> Any:
        """What the script returned."""
        return _script(self.client, lua)(keys=keys, args=args)


@functools.cache  # there are a dozen scripts, and one or two clients in a process
def _script(client: redis.Redis, lua: str) -> Script:
    return client.register_script(lua)


def told_args(entries: Iterable[Entry]) -> list[str]:
    """Entries as the arguments that TELL reads."""
    pairs = ((ENTRIES.dump_json(e).decode(), e.content if isinstance(e, SnapshotEntry) else "") for e in entries)
    return [text for pair in pairs for text in pair]
