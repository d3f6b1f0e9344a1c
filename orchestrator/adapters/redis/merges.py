"""Finished sessions in Redis until their work is merged, and how looking for merges goes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

import redis

from orchestrator.adapters.redis.keys import Keys
from orchestrator.adapters.redis.scripts import Scripts
from orchestrator.adapters.redis.stored import RECORDS, REPORTS
from orchestrator.merge_close.events import Delivered, LastLook
from orchestrator.models import Report, SessionRecord


class RedisMerges:
    """Finished sessions, from their end to their merge. It is also the `CheckpointStore` of polling."""

    def __init__(self, client: redis.Redis, keys: Keys) -> None:
        self._scripts = Scripts(client, keys)
        self._keys = keys

    def finished(self) -> Iterator[Delivered]:
        """The verified commit of each session that ended DONE and whose issue is not closed yet."""
        for issue_id in sorted(self._scripts.client.smembers(self._keys("finished"))):
            if delivered := self.last(issue_id):
                yield delivered
            else:
                self.settled(issue_id)

    def last(self, issue_id: str) -> Delivered | None:
        """The commit that the issue's last session came to; None when it is forgotten."""
        found = self.work(issue_id)
        if found is None:
            return None
        reports = found[1]
        # A session that was handed on prepares anew, and its base may have moved on to its own work meanwhile.
        return Delivered(issue_id, reports[-1].commit, reports[0].base, self._started_at(issue_id))

    def work(self, issue_id: str) -> tuple[SessionRecord, Sequence[Report]] | None:
        """The issue's last session and its reports; None when it is forgotten."""
        client = self._scripts.client
        text = client.hget(self._keys("session", issue_id), "record")
        record = RECORDS.validate_json(text) if text else None
        rows = client.lrange(self._keys("history", record.session_id), 0, -1) if record else []
        return (record, [REPORTS.validate_json(row) for row in rows]) if record and rows else None

    def settled(self, issue_id: str, *, merged_at: datetime | None = None) -> None:
        """Stop looking for the merge of an issue's work: it is closed, or forgotten."""
        at = int(merged_at.timestamp() * 1000) if merged_at else ""
        self._scripts.run("settled", issue=issue_id, merged_at=at)

    def due(self) -> list[str]:
        """The issues whose work is to be delivered now."""
        issue_ids: list[str] = self._scripts.run("due")
        return issue_ids

    def due_at_ms(self, issue_id: str) -> float | None:
        """The Unix milliseconds at which the issue's work is to be delivered; None when it is not."""
        due: float | None = self._scripts.client.zscore(self._keys("deliveries"), issue_id)
        return due

    def delivered(self, issue_id: str, session_id: str, place: str) -> None:
        """Note where the session's work is: a pull request's URL, or a branch."""
        self._scripts.run("delivered", issue=issue_id, session_id=session_id, place=place)

    def postponed(self, issue_id: str, session_id: str, reason: str, *, wait_s: float) -> None:
        """Note why the session's work could not be delivered, and have it tried again in `wait_s`."""
        wait_ms = int(wait_s * 1000)
        self._scripts.run("postponed", issue=issue_id, session_id=session_id, reason=reason, wait_ms=wait_ms)

    def nothing(self, issue_id: str, session_id: str, reason: str) -> None:
        """Note why there is nothing to merge of the session's work, and deliver it no more."""
        self._scripts.run("nothing", issue=issue_id, session_id=session_id, reason=reason)

    def read(self) -> str | None:
        """The checkpoint."""
        text: str | None = self._scripts.client.get(self._keys("merge-checkpoint"))
        return text

    def write(self, text: str) -> None:
        """Replace the checkpoint."""
        self._scripts.client.set(self._keys("merge-checkpoint"), text)

    def looked(self, problem: str) -> None:
        """Note that merges were looked for just now; `problem` is what went wrong, or empty."""
        self._scripts.run("looked", problem=problem)

    def last_look(self) -> LastLook:
        """The note on looking for merges."""
        row = self._scripts.client.hgetall(self._keys("merge-look"))
        return LastLook(
            _moment(row.get("at")), _moment(row.get("well_at")), int(row.get("failed", 0)), row.get("problem", "")
        )

    def _started_at(self, issue_id: str) -> datetime | None:
        """The begin of the issue's last session; None if there is none on record."""
        at = self._scripts.client.hget(self._keys("session", issue_id), "started_at")
        return datetime.fromtimestamp(int(at) / 1000, UTC) if at else None


def _moment(ms: str | None) -> datetime | None:
    return datetime.fromtimestamp(int(ms) / 1000, UTC) if ms else None
