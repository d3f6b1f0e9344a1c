"""Pull requests, merges and deliveries: the facts that forges, git and Redis exchange with the rules."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

import pydantic
from pydantic import AwareDatetime

from orchestrator.models import ISSUE_ID, branch_of

ISSUE_LINE = "Sudocode-Issue: {}"
MENTION = re.compile(r"sudocode-issue(?=[\s*_`]*:)", re.IGNORECASE)
"""What makes a line one that names an issue, if the line begins with it."""

SHORT = 7
"""So many characters of a commit's id are git's short form of it, which people type."""

_PULL_URL = re.compile(r"https?://(?:[^/]+/)+?([^/]+/[^/]+)/pull/(\d+)(?:/.*)?")
_DECORATION = " \t>*_`#-+"
# Keys of trailers are the same in any case; `git merge --squash` indents those of the commits it lists.
_TRAILER = re.compile(rf"\s*(?i:sudocode-issue):[ \t]*({ISSUE_ID.pattern})\s*")
_TAKES_BACK = re.compile(
    r"^\s*(?:This reverts commit ([0-9a-f]{7,40})|Reverts (?:[\w.-]+/[\w.-]+)?(#\d+))", re.MULTILINE
)
_NUMBER = re.compile(r"^(?:.*\((#\d+)\)$|Merge pull request (#\d+) )")


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
    `on_forge`: a forge says so and has nothing but its time to show that the last session's work was merged.
    """

    issue_id: str
    pr_url: str
    merge_sha: str
    merged_at: AwareDatetime | None
    merged: bool
    source: Literal["daemon", "workflow", "operator"]
    objection: str = ""
    on_forge: bool = False

    @property
    def identity(self) -> str:
        """The key of this merge among those of its issue, the same from every source."""
        return merge_identity(self.pr_url, self.merge_sha)


def merge_identity(pr_url: str, merge_sha: str) -> str:
    """The short id of the commit that a merge made on the base; of a pull request that made none, its place.

    A pull request, a branch and an operator tell of one merge when they name one commit.
    """
    return merge_sha.lower()[:SHORT] or pull_identity(pr_url)


def pull_identity(pr_url: str) -> str:
    """`repo#number` for a pull request's URL, in lower case; any other URL or ref stands for itself."""
    pull = _PULL_URL.fullmatch(pr_url)
    return (f"{pull[1]}#{pull[2]}" if pull else pr_url).lower()


def naming_lines(text: str) -> list[str]:
    """The lines that begin like one that names an issue, also when they are quoted, decorated or malformed."""
    return [line for line in text.splitlines() if MENTION.match(line.lstrip(_DECORATION))]


def issue_of_message(message: str) -> str:
    """The one issue that a commit's message names, in whichever of its lines; empty when it is not exactly one."""
    found = [_TRAILER.fullmatch(line) for line in naming_lines(message)]
    named = {one[1] if one else "" for one in found}
    return named.pop() if len(named) == 1 else ""


@dataclass(frozen=True)
class Commit:
    """A commit on the base, and what its message says."""

    sha: str
    message: str

    @property
    def names(self) -> set[str]:
        """What others may call it: its id, and the number of the pull request that it came from."""
        number = _NUMBER.match(self.message.partition("\n")[0])
        return {self.sha[:SHORT]} | ({number[1] or number[2]} if number else set())


def taken_back(names: Iterable[str], later: Iterable[Commit]) -> str:
    """The commit that says it reverts one of the named, and was not reverted itself; empty if there is none.

    `later` are those that came after, newest first; a name is a commit's id or `#` and a pull request's number.
    """
    reverted: dict[str, str] = {}
    for commit in later:
        if reverted.keys() & commit.names:
            continue
        for sha, number in _TAKES_BACK.findall(commit.message):
            reverted.setdefault(number or sha[:SHORT], commit.sha)
    return next((reverted[name] for name in names if name in reverted), "")


@dataclass(frozen=True)
class Delivered:
    """The commit that the last session of an issue verified, to be merged.

    `base` is the commit that its branch grew out of when the session began, and empty where an earlier version did not
    record it; `since` is when it began.
    """

    issue_id: str
    commit: str
    base: str = ""
    since: datetime | None = None

    @property
    def empty(self) -> bool:
        """True when the session changed nothing, so that no merge can bring its work."""
        return bool(self.base) and self.commit == self.base

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
