"""Pull requests, merges and deliveries: the facts that forges, git and Redis exchange with the rules."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

import pydantic
from pydantic import AwareDatetime

from orchestrator.models import branch_of

_PULL_URL = re.compile(r"https?://(?:[^/]+/)+?([^/]+/[^/]+)/pull/(\d+)(?:/.*)?")


@dataclass(frozen=True)
class PullText:
    """The text of a pull request, and the labels that it must have."""

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
        """The key of this end of a pull request: `repo#number#commit`, or when it was closed."""
        end = self.merge_sha if self.merged_at else self.closed_at.isoformat()
        return f"{self.repo}#{self.number}#{end}".lower()


@pydantic.dataclasses.dataclass(frozen=True)
class MergeClosePayload:
    """A merge that names one issue. Times may be given as ISO-8601 text.

    `objection` is the reason for which it may not close that issue although it names it; empty if there is none.
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
        """The key of this merge, the same from every source: `repo#number#commit`."""
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
class LastLook:
    """The last look for merges: when it was, when all last went well, how many failed since, and why."""

    at: datetime | None
    well_at: datetime | None
    failed: int = 0
    problem: str = ""


NEVER = LastLook(None, None)
"""No look has been made yet."""
