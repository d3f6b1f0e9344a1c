"""What a poll asks of the leases."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from orchestrator.models import Claim, Entry, Lease, Refusal, SessionRecord


class Claims(Protocol):
    """What the poll asks of the leases."""

    def free(self) -> int:
        """How many more sessions could run now; none while orch is paused."""

    def expired(self, *, opened_only: bool = False) -> list[Claim]:
        """Sessions whose holder fell silent and, unless `opened_only`, claims too."""

    def wanted(self) -> list[str]:
        """Issues that somebody asked to run next."""

    def answer(self, issue_id: str, answer: str, *, done: bool) -> None:
        """What became of a wanted issue."""

    def claim(self, issue_id: str, *, forced: bool = False) -> Claim | Refusal:
        """Win an issue, if nobody has it and a slot is free."""

    def open(self, claim: Claim, record: SessionRecord, entries: Iterable[Entry]) -> None:
        """Make the claim a session. Raises `LeaseLost`, or `StoppedByHand` when it was stopped meanwhile."""

    def abandon(self, claim: Claim) -> None:
        """Give a claim back."""

    def acquire(self, issue_id: str, owner: str) -> Lease | None:
        """Take an opened session over."""
