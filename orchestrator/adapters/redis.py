"""What everything in Redis shares: key names, scripts, and how entries are told.

Every change is one Lua call that checks the fencing token, so the state, its event and the check cannot come apart.
The clock is Redis's own. Every script may run twice for one call without harm, because redis-py retries silently:
a claim is recognised by its nonce, a report by its number, an end by its state, an outbox entry by its id.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import redis
from pydantic import TypeAdapter
from redis.backoff import ExponentialBackoff
from redis.commands.core import Script
from redis.retry import Retry

from orchestrator.models import Entry, SnapshotEntry

ENTRIES: TypeAdapter[Entry] = TypeAdapter(Entry)

NOW = "local t = redis.call('TIME'); local now = t[1] * 1000 + math.floor(t[2] / 1000)\n"


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


def connect(url: str, *, patience_s: float = 10.0) -> redis.Redis:
    """A client whose calls end: `patience_s` for an answer, a few times over. Nothing here blocks on purpose."""
    retry = Retry(ExponentialBackoff(cap=1.0, base=0.1), retries=3)
    return redis.Redis.from_url(
        url, socket_timeout=patience_s, socket_connect_timeout=patience_s, retry=retry, decode_responses=True
    )


class Scripts:
    """A client that calls Lua scripts by their hash; each is sent once. Untyped on purpose: a script has any shape.

    `client` is Any because redis-py types every text as `bytes | str`; it was made to decode.
    """

    def __init__(self, client: redis.Redis) -> None:
        self.client: Any = client

    def call(self, lua: str, keys: Sequence[str], args: Sequence[str | int]) -> Any:
        """What the script returned."""
        return self._script(lua)(keys=keys, args=args)

    @functools.cache  # noqa: B019 - one instance lives as long as its process
    def _script(self, lua: str) -> Script:
        script: Script = self.client.register_script(lua)
        return script


def told_args(entries: Iterable[Entry]) -> list[str]:
    """Entries as the arguments that TELL reads."""
    pairs = ((ENTRIES.dump_json(e).decode(), e.content if isinstance(e, SnapshotEntry) else "") for e in entries)
    return [text for pair in pairs for text in pair]
