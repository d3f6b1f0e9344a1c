"""Every seam of delivering and closing: pull requests, merges, and what is asked of those who know of them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, Protocol

import pydantic
from pydantic import AwareDatetime

from orchestrator.models import Report, SessionRecord, branch_of

_PULL_URL = re.compile(r"https?://(?:[^/]+/)+?([^/]+/[^/]+)/pull/(\d+)(?:/.*)?")


@dataclass(frozen=True)
class PullText:
    """What a pull request says, and the labels that it must have."""

    title: str
    body: str
    labels: tuple[str, ...] = ()


@dataclass(frozen=True)
class PullRequest:
    """A closed pull request as its forge shows it; `merged_at` is None when it was closed without being merged.

    `head_repo` is empty when the fork it came from is gone, `author` when the account is. Times are the forge's own.
    """

    repo: str
    number: int
    url: str
    body: str
    author: str
    head_repo: str
    branch: str
    base: str
    merge_sha: str
    merged_at: datetime | None
    closed_at: datetime
    updated_at: datetime

    @property
    def identity(self) -> str:
        """What tells this end of a pull request from every other: `repo#number#commit`, or when it was closed."""
        end = self.merge_sha if self.merged_at else self.closed_at.isoformat()
        return f"{self.repo}#{self.number}#{end}".lower()


@pydantic.dataclasses.dataclass(frozen=True)
class MergeClosePayload:
    """A merge that names one issue. Times may be given as ISO-8601 text.

    `objection` is why it may not close that issue although it names it, found by who saw the merge; empty if nothing
    speaks against it.
    """

    issue_id: str
    pr_url: str
    merge_sha: str
    merged_at: AwareDatetime | None
    merged: bool
    source: Literal["daemon", "workflow", "operator"]
    objection: str = ""

    @property
    def identity(self) -> str:
        """What tells this merge from every other, whoever saw it: `repo#number#commit`."""
        return merge_identity(self.pr_url, self.merge_sha)


def merge_identity(pr_url: str, merge_sha: str) -> str:
    """`repo#number#commit` for a pull request's URL, in lower case; any other URL or ref stands for itself."""
    pull = _PULL_URL.fullmatch(pr_url)
    where = f"{pull[1]}#{pull[2]}" if pull else pr_url
    return f"{where}#{merge_sha}".lower()


@dataclass(frozen=True)
class Delivered:
    """The commit that the last session of an issue verified, to be merged."""

    issue_id: str
    commit: str

    @property
    def branch(self) -> str:
        """The branch that it is on."""
        return branch_of(self.issue_id)


@dataclass(frozen=True)
class Look:
    """The last look for merges: when, when last all went well, how many failed since, and why the last one did."""

    at: datetime | None
    well_at: datetime | None
    failed: int = 0
    problem: str = ""


NEVER = Look(None, None)
"""Nobody has looked yet."""


class Finished(Protocol):
    """Finished sessions, from their end to their merge. Every method raises `RedisUnavailable`."""

    def finished(self) -> Iterable[Delivered]:
        """The verified commit of each session that ended DONE and whose issue is not closed yet."""

    def work(self, issue_id: str) -> tuple[SessionRecord, Sequence[Report]] | None:
        """The issue's last session and what it did; None when it is forgotten."""

    def settled(self, issue_id: str, *, merged_at: datetime | None = None) -> None:
        """The issue is closed, or forgotten: nothing is looked for any more. `merged_at` is a forge's word."""

    def due(self) -> Sequence[str]:
        """The issues whose work is to be delivered now."""

    def delivered(self, issue_id: str, session_id: str, place: str) -> None:
        """The session's work is at this place: a pull request's URL, or a branch."""

    def postponed(self, issue_id: str, session_id: str, reason: str, *, wait_s: float) -> None:
        """It could not be delivered; it is tried again later."""

    def looked(self, problem: str) -> None:
        """Somebody looked for merges just now; `problem` is what went wrong, or empty."""


class CheckpointStore(Protocol):
    """Keeps one text. Both raise `RedisUnavailable` when they cannot."""

    def read(self) -> str | None:
        """The text, or None when there was never one."""

    def write(self, text: str) -> None:
        """Replace it, whole or not at all."""


class MergeFeed(Protocol):
    """What a forge says of merges. Raises `GitHubUnavailable` (try later) or `GitHubRefused` (it said no)."""

    def closed_since(self, since: datetime) -> Sequence[PullRequest]:
        """Every pull request closed at or after `since`, merged or not, oldest first."""

    def on_branch(self, commit: str, branch: str) -> bool:
        """Whether the branch holds the commit now."""
