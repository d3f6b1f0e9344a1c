"""A session's history, and the outbox that it fills, in Redis."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence

import redis
import structlog
from pydantic import ValidationError

from orchestrator.adapters.redis.keys import KEPT_S, Keys
from orchestrator.adapters.redis.scripts import Argument, Scripts
from orchestrator.adapters.redis.stored import ENTRIES, REPORTS, told_args
from orchestrator.adapters.redis.words import Written
from orchestrator.errors import LeaseLost, SessionStopped
from orchestrator.models import NOTHING_TO_MERGE, Entry, Lease, Report, Untold, Verdict, wait_after_error

WAKE_TTL_MS = 10_000
"""For how long a publisher that was woken is waited for, before another one is."""
KEPT_REFUSALS = 1000

log = structlog.get_logger(__name__)


class RedisHistory:
    """One session's recorded reports. `wake` is called when the outbox has something and no publisher is on its way.

    Writing raises LeaseLost when another worker has the session, and SessionStopped when Redis has fewer reports than
    were recorded (it was restarted without its last second): then the next worker replays what is left.
    """

    def __init__(
        self, client: redis.Redis, keys: Keys, lease: Lease, *, error_limit: int, wake: Callable[[], None]
    ) -> None:
        self._scripts = Scripts(client, keys)
        self._history = keys("history", lease.record.session_id)
        self._lease = lease
        self._waits = [wait_after_error(errors, limit=error_limit) for errors in range(1, error_limit)]
        self._wake = wake
        self._count = 0

    def recorded(self) -> Sequence[Report]:
        """All reports so far."""
        reports = [REPORTS.validate_json(text) for text in self._scripts.client.lrange(self._history, 0, -1)]
        self._count = len(reports)
        return reports

    def record(self, report: Report, entries: Iterable[Entry]) -> None:
        """Record report number n with its entries, or nothing when number n is there already."""
        text = REPORTS.dump_json(report, exclude_defaults=True).decode()
        stage, attempt = report.stage, report.attempt
        written = self._write("record", entries, report=text, stage=stage, attempt=attempt, wake_ms=WAKE_TTL_MS)
        self._count += 1
        if written is Written.WAKE:
            self._wake()

    def close(self, verdict: Verdict, entries: Iterable[Entry], *, reason: str = "") -> None:
        """Record the end and free the slot, once. An error holds the issue back, unless a person stopped it.

        A DONE is to be delivered and merged, unless its reason says that there is nothing to merge.
        """
        waits, deliver = json.dumps(self._waits), int(not reason.startswith(NOTHING_TO_MERGE))
        self._write("close", entries, verdict=verdict, reason=reason, waits=waits, deliver=deliver, kept_s=KEPT_S)
        self._wake()

    def _write(self, script: str, entries: Iterable[Entry], **arguments: Argument) -> Written:
        lease = self._lease
        answer = self._scripts.run(
            script,
            *told_args(entries),
            issue=lease.issue_id,
            session_id=lease.record.session_id,
            token=lease.token,
            n=self._count,
            **arguments,
        )
        written = Written(answer)
        if written is Written.LOST:
            raise LeaseLost(f"{lease.issue_id}: another worker runs this session now; nothing more is written here")
        if written is Written.GAP:
            raise SessionStopped(
                f"{lease.issue_id}: Redis lost the last reports of this session; it goes on from those that are left"
            )
        return written


class RedisOutbox:
    """Entries that the tracker has still to be told, in order. One publisher at a time reads it (see `outbox.publish`).

    A Redis that lost its last second has forgotten which entry was begun, and may hold one again that was told. So
    begun is also what is older than this instance's first look, and what is no newer than the last entry it told.
    """

    def __init__(self, client: redis.Redis, keys: Keys) -> None:
        self._scripts = Scripts(client, keys)
        self._keys = keys
        self._fresh_after: tuple[int, ...] = ()

    def clear_wake(self) -> None:
        """Have the next entry wake a publisher again."""
        self._scripts.client.delete(self._keys("wake"))

    def next(self) -> Untold | None:
        """Mark the first entry as begun and give it; `begun` says that it was begun before and may have been told.

        An entry that cannot be read (another version wrote it) is put aside: it must not stop the rest for ever.
        """
        if not self._fresh_after:
            seconds, micros = self._scripts.client.time()
            self._fresh_after = (seconds * 1000 + micros // 1000, 0)
        while row := self._scripts.run("next"):
            entry_id, again, words = row
            fields: Mapping[str, str] = dict(zip(words[::2], words[1::2], strict=True))
            try:
                entry = ENTRIES.validate_json(fields["entry"])
            except ValidationError as error:
                log.warning("outbox_entry_unreadable", issue=fields["issue"], reason=str(error))
                self._take_off(entry_id, fields["issue"], refusal=f"unreadable: {fields['entry']}")
                continue
            begun = bool(again) or _number(entry_id) <= self._fresh_after
            return Untold(entry_id, fields["issue"], fields["session"], entry, begun=begun)
        return None

    def told(self, untold: Untold, *, fix_issue_id: str | None = None, refusal: str = "") -> None:
        """Take an entry off; a refusal is kept for a person to read."""
        self._take_off(untold.entry_id, untold.issue_id, fix_issue_id=fix_issue_id or "", refusal=refusal)
        self._fresh_after = max(self._fresh_after, _number(untold.entry_id))

    def _take_off(self, entry_id: str, issue: str, *, fix_issue_id: str = "", refusal: str = "") -> None:
        self._scripts.run(
            "told", entry_id=entry_id, issue=issue, fix_issue_id=fix_issue_id, refusal=refusal, kept=KEPT_REFUSALS
        )

    def waiting(self) -> int:
        """The number of entries that are still to be told."""
        return int(self._scripts.client.xlen(self._keys("outbox")))

    def untold(self, issue_id: str) -> int:
        """The number of those that are of this issue."""
        return int(self._scripts.client.hget(self._keys("pending"), issue_id) or 0)

    def refused(self) -> list[str]:
        """The entries that the tracker refused, newest first."""
        lines: list[str] = self._scripts.client.lrange(self._keys("refused"), 0, -1)
        return lines


def _number(entry_id: str) -> tuple[int, ...]:
    """An entry's place in the stream: Redis' milliseconds, then a count."""
    return tuple(map(int, entry_id.split("-")))
