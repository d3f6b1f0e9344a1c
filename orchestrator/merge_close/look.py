"""Deliver finished work, look for merges, and close the issues that they name.

One look asks every source and tries every delivery that is due. A look carries no data, so looks may be lost, doubled
or late without harm.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import IntEnum
from typing import Protocol

import structlog

from orchestrator.errors import (
    CheckpointUnreadable,
    GitHubRefused,
    GitHubUnavailable,
    InvalidMCPResponseError,
    NothingToMerge,
    OrchestratorError,
    SettingsError,
    TrackerRefused,
    WorkspaceError,
)
from orchestrator.issue import shown
from orchestrator.logs import Once
from orchestrator.merge_close.events import Delivered, LastLook, MergeClosePayload, PullText
from orchestrator.merge_close.poll import MergePoll
from orchestrator.merge_close.pull_text import pull_text
from orchestrator.merge_close.rules import MergeCloseResult, apply_merge_close, foresee
from orchestrator.models import NOTHING_TO_MERGE, IssueTracker, Report, SessionRecord, branch_of

log = structlog.get_logger(__name__)

TRY_AGAIN_S = 60.0
STALE_AFTER = timedelta(minutes=2)

_PASSED_OVER = (GitHubUnavailable, GitHubRefused, CheckpointUnreadable, WorkspaceError, SettingsError)
"""The errors that stop one source and not the others."""


class Health(IntEnum):
    """The health of looking for merges. The value is the exit code of `orch merges health`."""

    HEALTHY = 0
    DEGRADED = 1
    STALE = 2


def health(look: LastLook, *, now: datetime, stale_after: timedelta = STALE_AFTER) -> tuple[Health, str]:
    """The health of looking for merges, and the reason."""
    if look.at is None:
        return Health.STALE, "merges have not been looked for yet"
    if now - look.at > stale_after:
        return Health.STALE, f"merges have not been looked for since {look.at:%Y-%m-%d %H:%M:%S} UTC"
    if look.failed:
        return Health.DEGRADED, f"{look.failed} looks in a row went wrong, the last because {look.problem}"
    return Health.HEALTHY, f"all went well at {look.at:%H:%M:%S} UTC"


class FinishedSessions(Protocol):
    """Finished sessions, from their end to their merge. Every method raises `RedisUnavailable`."""

    def finished(self) -> Iterable[Delivered]:
        """The verified commit of each session that ended DONE and whose issue is not closed yet."""

    def work(self, issue_id: str) -> tuple[SessionRecord, Sequence[Report]] | None:
        """The issue's last session and what it did; None when it is forgotten."""

    def settled(self, issue_id: str, *, merged_at: datetime | None = None) -> None:
        """The issue is closed, or forgotten: look for it no more. `merged_at` is what a forge says."""

    def due(self) -> Sequence[str]:
        """The issues whose work is to be delivered now."""

    def delivered(self, issue_id: str, session_id: str, place: str) -> None:
        """The session's work is at this place: a pull request's URL, or a branch."""

    def postponed(self, issue_id: str, session_id: str, reason: str, *, wait_s: float) -> None:
        """It could not be delivered; it is tried again later."""

    def nothing(self, issue_id: str, session_id: str, reason: str) -> None:
        """There is nothing to merge of the session's work, so it is delivered no more."""

    def looked(self, problem: str) -> None:
        """Record a look for merges just now; `problem` is what went wrong, or empty."""


@dataclass(frozen=True)
class Delivery:
    """Deliver finished work: `push` publishes its branch, `open_pull` its pull request; None leaves that out."""

    push: Callable[[str, str], None] | None = None
    open_pull: Callable[[str, PullText], str] | None = None

    def __call__(self, work: Delivered, text: PullText) -> str:
        """Deliver it and give its place: a pull request's URL, or a branch. Harmless to repeat: all of it is set."""
        if self.push:
            self.push(work.issue_id, work.commit)
        return self.open_pull(work.branch, text) if self.open_pull else work.branch


@dataclass(frozen=True)
class MergeLook:
    """One look. Callers take turns.

    `publish` tells the tracker what it does not know yet: an issue is closed from needs_review only. `local` sees
    merges in the repo, `poll` those of a forge, if there is one. `deliver` is a `Delivery`, or finds out what one can
    do; `adds` says whether merging a commit would change anything. `closed` is told the ids of closed issues.
    """

    publish: Callable[[], object]
    tracker: IssueTracker
    finished: FinishedSessions
    local: Callable[[Iterable[Delivered]], Iterable[MergeClosePayload]]
    poll: MergePoll | None
    deliver: Callable[[Delivered, PullText], str]
    adds: Callable[[str], bool]
    closed: Callable[[Sequence[str]], None]
    once: Once = field(default_factory=Once)

    def __call__(self) -> list[str]:
        """Look once, and give the issues that are closed now. An error at one source does not stop the others.

        Raises the errors of the tracker and of Redis.
        """
        problems: list[str] = []
        try:
            self.publish()
            closed = [issue for result in self._results(problems) for issue in result.closed]
            self._deliver_due(problems)
        except OrchestratorError as error:
            self.finished.looked(str(error))
            raise
        self.finished.looked("; ".join(problems))
        return closed

    def close(self, payload: MergeClosePayload) -> MergeCloseResult:
        """Close what an operator says was merged, by the same rules."""
        self.publish()
        result = apply_merge_close(gateway=self.tracker, payload=payload)
        self._settle(result)
        return result

    def foresee(self) -> Iterator[str]:
        """Give a line for each merge: what a look would do now. Read-only by what it calls."""
        for payload in self.local(list(self.finished.finished())):
            yield self._foreseen(f"branch {branch_of(payload.issue_id)}", payload)
        for pull, merge in self.poll.foresee() if self.poll else ():
            yield self._foreseen(pull.url, merge) if not isinstance(merge, str) else f"{pull.url}: nothing: {merge}"

    def _foreseen(self, what: str, payload: MergeClosePayload) -> str:
        try:
            ruling, reason = foresee(functools.partial(shown, self.tracker.show_issue), payload)
        except TrackerRefused as refusal:
            return f"{what}: nothing: {refusal}"
        return f"{what}: {ruling.lower()} {payload.issue_id}: {reason}"

    def _results(self, problems: list[str]) -> Iterator[MergeCloseResult]:
        for name, source in (("local git", self._local), ("the forge", self._forge)):
            try:
                for result, merged_at in source():
                    self._settle(result, merged_at=merged_at)
                    yield result
                self.once.forget(name)
            except _PASSED_OVER as error:
                problems.append(str(error))
                if self.once.is_new(name, str(error)):
                    log.warning("merges_not_seen", source=name, reason=str(error))

    def _local(self) -> Iterator[tuple[MergeCloseResult, None]]:
        """The merges in this repo, at a time not known: a fast-forward leaves no trace but the commit itself."""
        for payload in self.local(list(self.finished.finished())):
            try:
                result = apply_merge_close(gateway=self.tracker, payload=payload)
            except (TrackerRefused, InvalidMCPResponseError) as error:
                result = MergeCloseResult(False, str(error))
            if self.once.is_new(payload.issue_id, result.reason):
                log.info("branch_merged", issue=payload.issue_id, applied=result.applied, reason=result.reason)
            yield result, None

    def _forge(self) -> Iterator[tuple[MergeCloseResult, datetime | None]]:
        for settled in self.poll() if self.poll else ():
            yield settled.result, settled.pull.merged_at

    def _settle(self, result: MergeCloseResult, *, merged_at: datetime | None = None) -> None:
        for issue_id in result.closed:
            self.finished.settled(issue_id, merged_at=merged_at)
        if result.closed:
            self.closed(result.closed)

    def _deliver_due(self, problems: list[str]) -> None:
        for issue_id in self.finished.due():
            found = self.finished.work(issue_id)
            if found is None:
                self.finished.settled(issue_id)
                continue
            try:
                self._deliver(*found)
            except _PASSED_OVER as error:
                session_id = found[0].session_id
                problems.append(str(error))
                self.finished.postponed(issue_id, session_id, str(error), wait_s=TRY_AGAIN_S)
                if self.once.is_new(issue_id, str(error)):
                    log.warning("not_delivered", issue=issue_id, session=session_id, reason=str(error))

    def _deliver(self, record: SessionRecord, reports: Sequence[Report]) -> None:
        work = Delivered(record.issue.issue_id, reports[-1].commit)
        if not self.adds(work.commit):
            self._nothing(record, f"the base has all that is in commit {work.commit[:12]}")
            return
        try:
            place = self.deliver(work, pull_text(record, reports))
        except NothingToMerge as refused:
            self._nothing(record, str(refused))
            return
        self.finished.delivered(work.issue_id, record.session_id, place)
        log.info("delivered", issue=work.issue_id, session=record.session_id, target=place, commit=work.commit[:12])

    def _nothing(self, record: SessionRecord, because: str) -> None:
        """Deliver it no more: a person has to close its issue, unless its merge is seen after all."""
        issue_id, reason = record.issue.issue_id, f"{NOTHING_TO_MERGE}: {because}"
        self.finished.nothing(issue_id, record.session_id, reason)
        log.info("nothing_delivered", issue=issue_id, session=record.session_id, reason=reason)
