"""A client that waits for Redis for a set time, and then says what is wrong."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import redis
from redis import exceptions
from redis.backoff import NoBackoff
from redis.retry import Retry

from orchestrator.errors import RedisUnavailable

_STORING = frozenset({"EVALSHA", "SET"})
"""The commands by which texts of others come into Redis."""
ANSWER_S = 5.0
LONGEST_WAIT_S = 1.0


class PatientRedis(redis.Redis):
    """Tries every command again while Redis is away or takes no writes, for `patience_s` in all.

    Then it raises RedisUnavailable, and no other error for that. Every text that is stored passes through `redact`.
    redis-py's own retries are off: they count tries, of which each may take any time, and they nest.
    """

    def __init__(self, pool: redis.ConnectionPool, patience_s: float, redact: Callable[[str], str] = str) -> None:
        super().__init__(connection_pool=pool)
        self._patience_s = patience_s
        self._redact = redact

    def execute_command(self, *args: Any, **options: Any) -> Any:
        """The command's answer; the command may have been carried out more than once."""
        if args[0] in _STORING:
            args = tuple(self._redact(arg) if isinstance(arg, str) else arg for arg in args)
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
    """True when Redis is away, loads its data, moves to a replica, has no room for a write, or does not let us in.

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
    """The reason why a Redis that answers takes no writes; empty when it takes them."""
    return what_refuses_writes(client.info())


def what_refuses_writes(info: Any) -> str:
    """The same, from the answer to INFO."""
    if info["role"] != "master":
        return "it is a read-only replica"
    if 0 < info.get("maxmemory", 0) <= info["used_memory"]:
        return f"its memory is full ({info['used_memory_human']} of {info['maxmemory_human']})"
    if info.get("aof_last_write_status", "ok") != "ok":
        return "it cannot write its append-only file; its disk may be full"
    return ""


def connect(url: str, *, patience_s: float = 5.0, redact: Callable[[str], str] = str) -> redis.Redis:
    """A client whose calls end: with an answer, or with RedisUnavailable when there was none for `patience_s`.

    Choose a lease time for what must not be lost while Redis restarts, and a second for callers that must not block.
    What is stored passes through `redact`.
    """
    answer_s = min(ANSWER_S, patience_s)
    pool = redis.ConnectionPool.from_url(
        url,
        socket_timeout=answer_s,
        socket_connect_timeout=answer_s,
        retry=Retry(NoBackoff(), retries=0),
        decode_responses=True,
    )
    return PatientRedis(pool, patience_s, redact)
