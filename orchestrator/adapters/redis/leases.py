"""Leases in Redis: which worker runs which issue, how many run, and what became of each."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping, Sequence

import redis

from orchestrator.adapters.redis.keys import KEPT_S, Keys
from orchestrator.adapters.redis.scripts import Scripts
from orchestrator.adapters.redis.stored import RECORDS, told_args
from orchestrator.adapters.redis.words import Opening
from orchestrator.errors import LeaseLost, StoppedByHand
from orchestrator.models import Claim, Entry, Holding, Lease, Refusal, SessionRecord, SessionState, Stop

SLOWEST_HAND_ON = 20
"""Leases between two messages for a session that no worker takes, at most."""
ANSWER_KEPT_S = 60
"""For how long a person can read what became of a wanted issue."""


class RedisLeases:
    """Claims, leases and stops. One instance per process; a holder that says nothing keeps a lease for `lease_s`.

    Every write may run twice: see the script of the same name in `lua/`.
    """

    def __init__(self, client: redis.Redis, keys: Keys, *, lease_s: float) -> None:
        self._scripts = Scripts(client, keys)
        self._keys = keys
        self._lease_ms = int(lease_s * 1000)
        self._session_prefix = f"{keys('session')}:"

    def announce(self, worker: str, slots: int, *, for_s: float) -> None:
        """Note that a session worker lives and has so many slots, for the next `for_s` seconds."""
        self._scripts.run("announce", worker=worker, slots=slots, for_ms=int(for_s * 1000))

    def withdraw(self, worker: str) -> None:
        """Take back what a session worker announced."""
        self._scripts.client.hdel(self._keys("workers"), worker)

    def free(self) -> int:
        """The number of sessions that could start now: live slots less what is taken, and none while orch is paused."""
        return int(self._scripts.run("free"))

    def claim(self, issue_id: str, *, forced: bool = False) -> Claim | Refusal:
        """Win the lease on an issue without a session, if a slot is free and orch is not paused.

        `forced` overlooks a wait after errors.
        """
        refusal, *won = self._scripts.run(
            "claim", issue=issue_id, nonce=uuid.uuid4().hex, lease_ms=self._lease_ms, forced=int(forced)
        )
        return Refusal(refusal) if refusal else Claim(issue_id, int(won[0]), int(won[1]))

    def open(self, claim: Claim, record: SessionRecord, entries: Iterable[Entry]) -> None:
        """Make a claim a session that a worker can acquire, and put its opening into the outbox, once.

        Raises LeaseLost when the claim is another's, and StoppedByHand when a person stopped it meanwhile.
        """
        opening, *stop = self._scripts.run(
            "open",
            *told_args(entries),
            issue=claim.issue_id,
            token=claim.token,
            session_id=record.session_id,
            record=RECORDS.dump_json(record).decode(),
            kept_ms=KEPT_S * 1000,
        )
        match Opening(opening):
            case Opening.LOST:
                raise LeaseLost(f"{claim.issue_id}: another poll claimed it or gave it back meanwhile; nothing to do")
            case Opening.STOPPED:
                raise StoppedByHand(*stop)
            case Opening.OPEN:
                pass

    def abandon(self, claim: Claim) -> None:
        """Give back a claim that was not opened."""
        self._scripts.run("abandon", issue=claim.issue_id, token=claim.token, kept_s=KEPT_S)

    def silent(self) -> bool:
        """True when a session's lease is over."""
        return bool(self._scripts.run("silent", session_prefix=self._session_prefix))

    def expired(self, *, opened_only: bool = False) -> list[Claim]:
        """Collect the sessions, and unless `opened_only` the claims, whose lease is over.

        Each is extended by a lease or more, for the caller to see to it.
        """
        rows = self._scripts.run(
            "expired",
            session_prefix=self._session_prefix,
            lease_ms=self._lease_ms,
            slowest=SLOWEST_HAND_ON,
            opened_only=int(opened_only),
        )
        return [
            Claim(issue, int(token), int(at), opened=opened == "1", rescues=int(rescues), stop=stop or "")
            for token, at, opened, rescues, stop, issue in rows
        ]

    def acquire(self, issue_id: str, owner: str) -> Lease | None:
        """Take an opened session over, with a new token; None if a live worker runs it or there is none."""
        nonce = uuid.uuid4().hex
        won = self._scripts.run("acquire", issue=issue_id, owner=owner, nonce=nonce, lease_ms=self._lease_ms)
        if not won:
            return None
        token, record, before, stop = won
        return Lease(issue_id, int(token), RECORDS.validate_json(record), taken_from=before, stop=stop)

    def renew(self, lease: Lease) -> bool:
        """Keep the lease for another `lease_s` from now; False when it is another's."""
        return bool(self._scripts.run("renew", issue=lease.issue_id, token=lease.token, lease_ms=self._lease_ms))

    def release(self, lease: Lease) -> None:
        """Give a running session back, so that the next poll hands it to another worker."""
        self._scripts.run("release", issue=lease.issue_id, token=lease.token)

    def stop(self, issue_id: str, stop: str, *, hold: bool) -> Stop:
        """Ask the issue's session to end; `stop` says who asked and why, and of two stops the first one's words hold.

        With `hold` the issue is not claimed again until a person asks for it.
        """
        return Stop(self._scripts.run("stop", issue=issue_id, stop=stop, hold=int(hold)))

    def stop_asked(self, lease: Lease) -> str:
        """The words of the stop that our session was asked for; empty when it was not."""
        token, stop = self._scripts.client.hmget(self._keys("session", lease.issue_id), "token", "stop")
        return stop or "" if token == str(lease.token) else ""

    def inflight(self) -> list[str]:
        """The issues that are claimed or running."""
        issues: list[str] = self._scripts.client.zrange(self._keys("inflight"), 0, -1)
        return issues

    def want(self, issue_id: str) -> None:
        """Have this issue run next. What held it back after errors is forgotten."""
        self._scripts.run("want", issue=issue_id)

    def wanted(self) -> list[str]:
        """Issues asked for, first asked first."""
        asked: list[str] = self._scripts.client.zrange(self._keys("wanted"), 0, -1)
        return asked

    def answer(self, issue_id: str, answer: str, *, done: bool) -> None:
        """Note what became of a wanted issue, for a minute; `done` takes it off the list at the same moment."""
        self._scripts.run("answer", issue=issue_id, text=answer, done=int(done), kept_s=ANSWER_KEPT_S)

    def answered(self, issue_id: str) -> str | None:
        """The note on a wanted issue, if there is one."""
        answer: str | None = self._scripts.client.get(self._keys("answer", issue_id))
        return answer

    def unheld(self, issue_ids: Sequence[str]) -> list[str]:
        """Those of the issues without anything under way: not taken, not wanted, nothing to be told."""
        unheld: list[str] = self._scripts.run("unheld", *issue_ids)
        return unheld

    def met(self) -> str | None:
        """The installation whose control side this Redis served last, if any."""
        met: str | None = self._scripts.client.get(self._keys("installation"))
        return met

    def meet(self, installation: str) -> None:
        """Note the installation that this Redis serves from now on."""
        self._scripts.client.set(self._keys("installation"), installation)

    def holdings(self) -> list[Holding]:
        """Every issue this Redis knows, the last changed last; those first that were stopped before they ever ran."""
        client = self._scripts.client
        deadlines = dict(client.zrange(self._keys("inflight"), 0, -1, withscores=True))
        waits = dict(client.zrange(self._keys("held"), 0, -1, withscores=True))
        ran: list[str] = client.zrange(self._keys("known"), 0, -1)
        known = [*sorted(waits.keys() - set(ran)), *ran]
        rows = [client.hgetall(self._keys("session", issue)) for issue in known]
        return [
            _holding(issue, row, deadlines, waits)
            for issue, row in zip(known, rows, strict=True)
            if row or issue in waits
        ]

    def holding(self, issue_id: str) -> Holding | None:
        """One issue as this Redis knows it; one that was stopped before it ever ran is known, too."""
        client = self._scripts.client
        row = client.hgetall(self._keys("session", issue_id))
        deadline, waits = (client.zscore(self._keys(name), issue_id) for name in ("inflight", "held"))
        return _holding(issue_id, row, {issue_id: deadline}, {issue_id: waits}) if row or waits else None

    def workers(self) -> dict[str, int]:
        """The live session workers, with their slots."""
        rows: list[str] = self._scripts.run("workers")
        return {name: int(row.split()[0]) for name, row in zip(rows[::2], rows[1::2], strict=True)}

    def runs(self, issue_id: str) -> list[str]:
        """The ids of the issue's sessions, oldest first."""
        ids: list[str] = self._scripts.client.lrange(self._keys("runs", issue_id), 0, -1)
        return ids

    def snapshots(self, session_id: str) -> list[str]:
        """Every snapshot of a session, in order, told already or not."""
        texts: list[str] = self._scripts.client.lrange(self._keys("snapshots", session_id), 0, -1)
        return texts


Moments = Mapping[str, float | None]


def _holding(issue: str, row: Mapping[str, str], deadlines: Moments, waits: Moments) -> Holding:
    return Holding(
        issue_id=issue,
        state=SessionState(row.get("state", SessionState.ENDED)),
        record=RECORDS.validate_json(row["record"]) if "record" in row else None,
        owner=row.get("owner", ""),
        stage=row.get("stage", ""),
        attempt=int(row.get("attempt", 0)),
        verdict=row.get("verdict", ""),
        reason=row.get("reason", ""),
        claimed_at_ms=int(row.get("claimed_at", 0)),
        started_at_ms=int(row.get("started_at", 0)),
        ended_at_ms=int(row.get("ended_at", 0)),
        deadline_ms=deadlines.get(issue),
        held_until_ms=waits.get(issue),
        fix_issue_id=row.get("fix_issue_id"),
        delivered_to=row.get("delivered_to", ""),
        undelivered=row.get("undelivered", ""),
        opened=row.get("opened") == "1",
        rescues=int(row.get("rescues", 0)),
        stop=row.get("stop", ""),
    )
