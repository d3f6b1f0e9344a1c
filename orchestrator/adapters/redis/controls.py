"""Pausing, how the base stands, and the webhook deliveries that were taken: in Redis, so all outlive every process."""

from __future__ import annotations

from dataclasses import replace

import redis

from orchestrator.adapters.redis.keys import Keys
from orchestrator.adapters.redis.scripts import Scripts
from orchestrator.adapters.redis.stored import BASES
from orchestrator.models import BaseVerified, Paused

ORCH = "orch"
"""Who paused, when no person did."""


class RedisControls:
    """Pausing, and the base. While orch is paused no claim is won (the claim's script looks here), and none is tried
    while the base is red or under way; what runs goes on to its end.
    """

    def __init__(self, client: redis.Redis, keys: Keys) -> None:
        self._scripts = Scripts(client, keys)
        self._paused = keys("paused")
        self._base, self._under_way = keys("base"), keys("base-under-way")
        self._held = keys("base-held")

    def pause(self, *, by: str, reason: str) -> Paused:
        """Claim nothing new from now on. Gives the pause that holds: the first one, if there was one already."""
        by, reason, at_ms = self._scripts.run("pause", by=by, reason=reason)
        return Paused(by, reason, int(at_ms))

    def resume(self) -> Paused | None:
        """Let new sessions start again, from a base that was held too. Gives the pause that was ended, if any."""
        self._scripts.client.delete(self._held)
        return _pause(self._scripts.run("resume"))

    def hold_base(self, reason: str) -> None:
        """Pause because the base is in doubt; no merge into it closes anything either. The first reason holds."""
        self._scripts.client.set(self._held, reason, nx=True)
        self.pause(by=ORCH, reason=f"{reason}; look at it, put it right, then `orch resume`")

    def base_held(self) -> str:
        """Why the base is in doubt; empty when it is not."""
        return str(self._scripts.client.get(self._held) or "")

    def paused(self) -> Paused | None:
        """The pause that holds, if any."""
        return _pause(self._scripts.client.hmget(self._paused, "by", "reason", "at"))

    def base(self) -> BaseVerified | None:
        """The last verification of the base, if there was one."""
        text = self._scripts.client.get(self._base)
        return BASES.validate_json(text) if text else None

    def record_base(self, verified: BaseVerified) -> None:
        """Record a verification of the base, which is not under way any more. The last one holds."""
        self._scripts.client.set(self._base, BASES.dump_json(verified).decode())
        self.leave_base()

    def waive_base(self, *, by: str) -> BaseVerified | None:
        """Let sessions start from a red base until it is verified anew. Gives what was waived, if it was red."""
        known = self.base()
        if known is None or not known.red:
            return None
        self.record_base(replace(known, waived_by=by))
        return known

    def doubt_base(self) -> None:
        """Forget the last verification of the base: it has to be verified anew."""
        self._scripts.client.delete(self._base)

    def base_under_way(self) -> str:
        """The verification of the base that is under way, in words; empty when none is."""
        return str(self._scripts.client.get(self._under_way) or "")

    def begin_base(self, says: str, for_s: float) -> bool:
        """Have it under way for so long; False when it is already. A try that is repeated silently may say so too."""
        return bool(self._scripts.client.set(self._under_way, says, px=int(for_s * 1000), nx=True))

    def go_on_with_base(self, for_s: float) -> None:
        """Have it under way for so long from now on."""
        self._scripts.client.pexpire(self._under_way, int(for_s * 1000))

    def leave_base(self) -> None:
        """Have it under way no more."""
        self._scripts.client.delete(self._under_way)


def _pause(row: list[str | None]) -> Paused | None:
    by, reason, at_ms = row
    return None if by is None else Paused(by, reason or "", int(at_ms or 0))


DELIVERY_KEPT_S = 4 * 24 * 3600
"""GitHub sends a delivery again, under the same id, for three days."""


class RedisWebhooks:
    """Remembers a delivery for four days. Raises `RedisUnavailable`."""

    def __init__(self, client: redis.Redis, keys: Keys) -> None:
        self._client = client
        self._keys = keys

    def seen(self, delivery: str) -> bool:
        """True when it was remembered."""
        return bool(self._client.exists(self._keys("webhook", delivery)))

    def remember(self, delivery: str) -> None:
        """Remember it. A second time changes nothing but the four days."""
        self._client.set(self._keys("webhook", delivery), 1, ex=DELIVERY_KEPT_S)
