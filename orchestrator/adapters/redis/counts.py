"""Best-effort counters in Redis, for the metrics: they never raise, and may count a call twice or not at all.

In the hash `counts`, a field is what was counted, its label, and for a duration its bucket: `step_seconds|RUNNING|60`.
What a session adds is not counted here but in the script that records it, so neither a death nor a retry counts it
wrongly.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import redis
import structlog

from orchestrator.adapters.redis.keys import Keys
from orchestrator.adapters.redis.scripts import Argument, Scripts
from orchestrator.errors import InvalidMCPResponseError, RedisUnavailable, TrackerRefused, TransientMCPError

log = structlog.get_logger(__name__)

P = ParamSpec("P")
T = TypeVar("T")


class RedisCounts:
    """Counts what no session records. Give it a client that gives up soon: its callers wait for it."""

    def __init__(self, client: redis.Redis, keys: Keys) -> None:
        self._scripts = Scripts(client, keys)

    def ticked(self, tick: str, *, ok: bool = True) -> None:
        """Note that a tick came to its end just now; `ok` says that it was a good one."""
        self._quietly("ticked", tick=tick, ok=int(ok))

    def tracker_call(self, tool: str, outcome: str, seconds: float) -> None:
        """Count a call of the tracker. The call took a process; counting it takes a thousandth of that."""
        self._quietly("tracker_call", tool=tool, outcome=outcome, ms=int(1000 * seconds))

    def _quietly(self, script: str, **arguments: Argument) -> None:
        try:
            self._scripts.run(script, **arguments)
        except (RedisUnavailable, redis.RedisError) as error:
            log.debug("not_counted", what=script, reason=str(error))


def timed(call: Callable[P, T], note: Callable[[str, str, float], None]) -> Callable[P, T]:
    """Wrap a tracker call so that `note` is given its name, its outcome and its seconds."""

    @functools.wraps(call)
    def noted(*args: P.args, **kwargs: P.kwargs) -> T:
        started = time.monotonic()
        outcome = "failed"
        try:
            answer = call(*args, **kwargs)
            outcome = "ok"
            return answer
        except TransientMCPError:
            outcome = "unavailable"
            raise
        except TrackerRefused:
            outcome = "refused"
            raise
        except InvalidMCPResponseError:
            outcome = "invalid"
            raise
        finally:
            note(call.__name__, outcome, time.monotonic() - started)

    return noted
