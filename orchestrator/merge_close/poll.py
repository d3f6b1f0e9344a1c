"""Polling for merges: each closed pull request is settled once, and none is missed.

What was settled is kept in a checkpoint: a watermark in the forge's own time, and what was settled since shortly before
it. Looking back that far finds what the forge showed late. The watermark moves last, so a poll that is cut off is
simply done again, and every effect of it may happen twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

import structlog
from pydantic import AwareDatetime, BaseModel, ConfigDict, ValidationError

from orchestrator.errors import CheckpointUnreadable, InvalidMCPResponseError, TrackerRefused
from orchestrator.merge_close.events import Delivered, MergeClosePayload, PullRequest
from orchestrator.merge_close.rules import MergeCloseResult, Trust, apply_closed_unmerged, apply_merge_close, merge_of
from orchestrator.models import IssueTracker

log = structlog.get_logger(__name__)

LOOKBACK = timedelta(hours=1)
FIRST_LOOK = timedelta(days=30)
"""The span that a poll without a checkpoint looks back: as long as ended sessions are kept."""


class MergeFeed(Protocol):
    """A forge as polling asks it. Raises `GitHubUnavailable` (try later) or `GitHubRefused` (it said no)."""

    def closed_since(self, since: datetime) -> Sequence[PullRequest]:
        """Every pull request closed at or after `since`, merged or not, oldest first."""

    def on_branch(self, commit: str, branch: str) -> bool:
        """True when the branch holds the commit now."""

    def undone(self, pull: PullRequest) -> str:
        """The reason for which its base has nothing of what was merged, though it holds the commit; empty if it has."""


class CheckpointStore(Protocol):
    """The place of one text. Both methods raise `RedisUnavailable` when they cannot."""

    def read(self) -> str | None:
        """The text, or None when there was never one."""

    def write(self, text: str) -> None:
        """Replace it, whole or not at all."""


class Checkpoint(BaseModel):
    """The pulls that are settled: all that closed before `watermark - lookback`, and the ones in `settled`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    watermark: AwareDatetime
    settled: dict[str, AwareDatetime] = {}

    def since(self, lookback: timedelta) -> datetime:
        """The time from which on to look."""
        return self.watermark - lookback

    def unsettled(self, pulls: Iterable[PullRequest]) -> list[PullRequest]:
        """The pulls that are still to be settled, in the order in which they were closed."""
        return sorted((p for p in pulls if p.identity not in self.settled), key=lambda p: (p.closed_at, p.number))

    def with_settled(self, pull: PullRequest) -> Checkpoint:
        """The checkpoint once this one is settled."""
        return self.model_copy(update={"settled": self.settled | {pull.identity: pull.closed_at}})

    def moved(self, pulls: Iterable[PullRequest], lookback: timedelta, *, now: datetime) -> Checkpoint:
        """The checkpoint once these are settled: at the last change seen, without what the lookback leaves out.

        Never later than `now`: a forge whose clock is wrong must not hide what comes.
        """
        watermark = max([self.watermark, *(min(pull.updated_at, now) for pull in pulls)])
        kept = {identity: at for identity, at in self.settled.items() if at >= watermark - lookback}
        return Checkpoint(watermark=watermark, settled=kept)


def read_checkpoint(store: CheckpointStore, *, now: datetime, lookback: timedelta = LOOKBACK) -> Checkpoint:
    """The checkpoint, or a fresh one where there was none.

    `CheckpointUnreadable` when there is something else, or one of a time to come, which would hide merges: nothing may
    be closed then.
    """
    text = store.read()
    if text is None:
        return fresh_checkpoint(now=now)
    try:
        checkpoint = Checkpoint.model_validate_json(text)
    except ValidationError as error:
        raise _unreadable(f"{error.error_count()} things are wrong with it") from error
    if checkpoint.watermark > now + lookback:
        raise _unreadable(f"its watermark, {checkpoint.watermark:%Y-%m-%d %H:%M} UTC, is still to come")
    return checkpoint


def fresh_checkpoint(*, now: datetime) -> Checkpoint:
    """One that has settled nothing of the last 30 days: settling again is harmless, missing is not."""
    return Checkpoint(watermark=now - FIRST_LOOK)


@dataclass(frozen=True)
class Settled:
    """A closed pull request, and what became of it."""

    pull: PullRequest
    result: MergeCloseResult


@dataclass(frozen=True)
class MergePoll:
    """Settle what was closed at the forge since the last look. Callers take turns.

    `delivered` gives an issue's last session, or None if that is not known.
    """

    feed: MergeFeed
    tracker: IssueTracker
    store: CheckpointStore
    trust: Trust
    delivered: Callable[[str], Delivered | None]
    now: Callable[[], datetime]
    lookback: timedelta = LOOKBACK

    def __call__(self) -> list[Settled]:
        """Settle them one by one, oldest first; each is recorded before the next is begun.

        An error of GitHub, the tracker or Redis ends the poll; the next one goes on where it was.
        """
        done = []
        checkpoint, pulls = self._look()
        for pull in checkpoint.unsettled(pulls):
            done.append(Settled(pull, self._settle(pull)))
            checkpoint = checkpoint.with_settled(pull)
            self.store.write(checkpoint.model_dump_json())
        moved = checkpoint.moved(pulls, self.lookback, now=self.now())
        if moved != checkpoint:
            self.store.write(moved.model_dump_json())
        return done

    def foresee(self) -> list[tuple[PullRequest, MergeClosePayload | str]]:
        """The pulls to be settled now: each with a merge to be judged, or the reason that it is none. Read-only."""
        checkpoint, pulls = self._look()
        return [(pull, self._merge(pull)) for pull in checkpoint.unsettled(pulls)]

    def _look(self) -> tuple[Checkpoint, Sequence[PullRequest]]:
        checkpoint = read_checkpoint(self.store, now=self.now(), lookback=self.lookback)
        return checkpoint, self.feed.closed_since(checkpoint.since(self.lookback))

    def _settle(self, pull: PullRequest) -> MergeCloseResult:
        """Settle one. What cannot be settled is rejected, so that it holds up no other; an operator may still close."""
        try:
            if pull.merged_at is None:
                result = apply_closed_unmerged(gateway=self.tracker, pull=pull, trust=self.trust)
            else:
                result = self._apply(pull)
        except (TrackerRefused, InvalidMCPResponseError) as error:
            result = MergeCloseResult(False, str(error))
        log.info("pull_request_settled", url=pull.url, applied=result.applied, reason=result.reason)
        return result

    def _apply(self, pull: PullRequest) -> MergeCloseResult:
        merge = self._merge(pull)
        if isinstance(merge, str):
            return MergeCloseResult(False, merge)
        return apply_merge_close(gateway=self.tracker, payload=merge)

    def _merge(self, pull: PullRequest) -> MergeClosePayload | str:
        try:
            return merge_of(
                pull,
                self.trust,
                delivered=self.delivered,
                on_base=lambda commit: self.feed.on_branch(commit, self.trust.base),
                undone=self.feed.undone,
            )
        except ValueError as reason:
            return str(reason)


def _unreadable(what: str) -> CheckpointUnreadable:
    return CheckpointUnreadable(
        f"the record of settled merges cannot be used: {what}. Nothing is closed until it is made anew with"
        " `orch merges repair`, which closes nothing twice"
    )
