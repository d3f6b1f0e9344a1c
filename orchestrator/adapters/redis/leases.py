"""Leases in Redis: who runs which issue, how many run, and what became of each."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping, Sequence

import redis
from pydantic import TypeAdapter

from orchestrator.adapters.redis import lease_scripts as scripts
from orchestrator.adapters.redis.client import KEPT_S, Keys, Scripts, told_args
from orchestrator.errors import LeaseLost, StoppedByHand
from orchestrator.leases import Claim, Holding, Lease, Refusal, SessionRecord, SessionState, Stop
from orchestrator.models import Entry

SLOWEST_HAND_ON = 20
"""Leases between two messages for a session that nobody takes, at most."""

RECORDS: TypeAdapter[SessionRecord] = TypeAdapter(SessionRecord)


class RedisLeases:
    """Who runs which issue. One instance per process; `lease_s`: for how long a silent holder keeps a lease."""

    def __init__(self, client: redis.Redis, keys: Keys, *, lease_s: float) -> None:
        self._redis = Scripts(client)
        self._keys = keys
        self._lease_ms = int(lease_s * 1000)

    def announce(self, worker: str, slots: int, *, for_s: float) -> None:
        """A session worker lives and has so many slots; it says so again before for_s seconds are over."""
        self._redis.call(scripts.ANNOUNCE, self._keys.all("workers"), [worker, slots, int(for_s * 1000)])

    def withdraw(self, worker: str) -> None:
        """A session worker takes no more."""
        self._redis.client.hdel(self._keys("workers"), worker)

    def free(self) -> int:
        """How many more sessions could run now: the live workers' slots less what is claimed or running.

        Not one while orch is paused.
        """
        return int(self._redis.call(scripts.FREE, self._keys.all("workers inflight paused"), []))

    def claim(self, issue_id: str, *, forced: bool = False) -> Claim | Refusal:
        """A lease on an issue nobody holds, if a slot is free and orch is not paused, in one call.

        Forced overlooks a wait after errors.
        """
        names = self._keys.all("inflight session fence workers pending held paused", issue=issue_id)
        refusal, *won = self._redis.call(
            scripts.CLAIM, names, [issue_id, uuid.uuid4().hex, self._lease_ms, int(forced)]
        )
        return Refusal(refusal) if refusal else Claim(issue_id, int(won[0]), int(won[1]))

    def open(self, claim: Claim, record: SessionRecord, entries: Iterable[Entry]) -> None:
        """Make a claim a session that a worker can acquire, and tell its opening, once.

        Raises LeaseLost, and StoppedByHand when the claim was stopped meanwhile, however often it is tried.
        """
        names = self._keys.all(
            "session inflight outbox pending snapshots known runs finished deliveries",
            issue=claim.issue_id,
            session=record.session_id,
        )
        args: list[str | int] = [
            claim.issue_id,
            claim.token,
            record.session_id,
            RECORDS.dump_json(record).decode(),
            KEPT_S * 1000,
            *told_args(entries),
        ]
        answer = self._redis.call(scripts.OPEN, names, args)
        if not answer:
            raise LeaseLost(f"{claim.issue_id}: another poll claimed it or gave it back meanwhile; nothing to do")
        if answer != "OPEN":
            raise StoppedByHand(answer)

    def abandon(self, claim: Claim) -> None:
        """Give up a claim that was not opened."""
        names = self._keys.all("inflight session", issue=claim.issue_id)
        self._redis.call(scripts.ABANDON, names, [claim.issue_id, claim.token, KEPT_S])

    def silent(self) -> bool:
        """Whether the holder of a session fell silent."""
        return bool(self._redis.call(scripts.SILENT, self._keys.all("inflight"), [f"{self._keys('session')}:"]))

    def expired(self, *, opened_only: bool = False) -> list[Claim]:
        """Sessions whose holder fell silent and, unless `opened_only`, claims too.

        Each is extended by a lease or more for us to see to it.
        """
        args: list[str | int] = [f"{self._keys('session')}:", self._lease_ms, SLOWEST_HAND_ON, int(opened_only)]
        return [
            Claim(issue, int(token), int(at), opened=opened == "1", rescues=int(rescues), stop=stop or "")
            for token, at, opened, rescues, stop, issue in self._redis.call(
                scripts.EXPIRED, self._keys.all("inflight counts"), args
            )
        ]

    def acquire(self, issue_id: str, owner: str) -> Lease | None:
        """The lease on an opened session, with a new token; None if somebody alive has it or there is none."""
        names = self._keys.all("inflight session fence", issue=issue_id)
        won = self._redis.call(scripts.ACQUIRE, names, [issue_id, owner, uuid.uuid4().hex, self._lease_ms])
        if not won:
            return None
        token, record, before, stop = won
        return Lease(issue_id, int(token), RECORDS.validate_json(record), taken_from=before, stop=stop)

    def renew(self, lease: Lease) -> bool:
        """Whether the lease is still ours; if so for another lease_s from now."""
        names = self._keys.all("inflight session", issue=lease.issue_id)
        return bool(self._redis.call(scripts.RENEW, names, [lease.issue_id, lease.token, self._lease_ms]))

    def release(self, lease: Lease) -> None:
        """Give a running session back: the next poll hands it to another worker at once."""
        names = self._keys.all("inflight session", issue=lease.issue_id)
        self._redis.call(scripts.RELEASE, names, [lease.issue_id, lease.token])

    def stop(self, issue_id: str, stop: str, *, hold: bool) -> Stop:
        """Have the issue's session end, by whom and why `stop` says; of two stops the first one's words hold.

        With hold the issue is not claimed again until somebody asks for it. Running it again changes nothing.
        """
        names = self._keys.all("inflight session wanted held", issue=issue_id)
        return Stop(self._redis.call(scripts.STOP, names, [issue_id, stop, int(hold)]))

    def stop_asked(self, lease: Lease) -> str:
        """By whom and why our session is to be ended; empty when it is not."""
        token, stop = self._redis.client.hmget(self._keys("session", lease.issue_id), "token", "stop")
        return stop or "" if token == str(lease.token) else ""

    def inflight(self) -> list[str]:
        """The issues that are claimed or running."""
        issues: list[str] = self._redis.client.zrange(self._keys("inflight"), 0, -1)
        return issues

    def want(self, issue_id: str) -> None:
        """Somebody asked to run this issue next. What held it back after errors is forgotten."""
        names = [*self._keys.all("wanted held errors"), self._keys("answer", issue_id)]
        self._redis.call(scripts.WANT, names, [issue_id])

    def wanted(self) -> list[str]:
        """Issues asked for, first asked first."""
        asked: list[str] = self._redis.client.zrange(self._keys("wanted"), 0, -1)
        return asked

    def answer(self, issue_id: str, answer: str, *, done: bool) -> None:
        """What became of a wanted issue, kept for a minute; done takes it off the list, at the same moment."""
        names = [self._keys("answer", issue_id), self._keys("wanted")]
        self._redis.call(scripts.ANSWER, names, [issue_id, answer, int(done)])

    def answered(self, issue_id: str) -> str | None:
        """What became of a wanted issue."""
        answer: str | None = self._redis.client.get(self._keys("answer", issue_id))
        return answer

    def unheld(self, issue_ids: Sequence[str]) -> list[str]:
        """Those of which Redis knows nothing under way: not in flight, not asked for, nothing still to be told."""
        unheld: list[str] = self._redis.call(scripts.UNHELD, self._keys.all("inflight wanted pending"), issue_ids)
        return unheld

    def met(self) -> str | None:
        """Which installation's control side this Redis served last, if any."""
        met: str | None = self._redis.client.get(self._keys("installation"))
        return met

    def meet(self, installation: str) -> None:
        """From now on it is this one."""
        self._redis.client.set(self._keys("installation"), installation)

    def holdings(self) -> list[Holding]:
        """Every issue this Redis knows, the last changed last; those first that were stopped before they ever ran."""
        client = self._redis.client
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
        client = self._redis.client
        row = client.hgetall(self._keys("session", issue_id))
        deadline, waits = (client.zscore(self._keys(name), issue_id) for name in ("inflight", "held"))
        return _holding(issue_id, row, {issue_id: deadline}, {issue_id: waits}) if row or waits else None

    def workers(self) -> dict[str, int]:
        """The live session workers, with their slots."""
        rows: list[str] = self._redis.call(scripts.WORKERS, self._keys.all("workers"), [])
        return {name: int(row.split()[0]) for name, row in zip(rows[::2], rows[1::2], strict=True)}

    def runs(self, issue_id: str) -> list[str]:
        """The ids of the issue's sessions, oldest first."""
        ids: list[str] = self._redis.client.lrange(self._keys("runs", issue_id), 0, -1)
        return ids

    def snapshots(self, session_id: str) -> list[str]:
        """Every snapshot of a session, in order, told already or not."""
        texts: list[str] = self._redis.client.lrange(self._keys("snapshots", session_id), 0, -1)
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
