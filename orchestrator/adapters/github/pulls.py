"""The pull requests of one GitHub repo: who was merged, and one pull request for each delivered branch.

What this file knows: GitHub's pages and ETags, and which of its many fields we read.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Self, TypeVar
from urllib.parse import quote

from pydantic import AwareDatetime, BaseModel, TypeAdapter, ValidationError

from orchestrator.adapters.github.calls import GitHubCalls, NotFound
from orchestrator.adapters.github.exchange import Reply
from orchestrator.errors import GitHubRefused, GitHubUnavailable, NothingToMerge
from orchestrator.merge_close.events import Commit, PullRequest, PullText, taken_back

T = TypeVar("T")

API = "https://api.github.com"
PAGE = 100
MAX_PAGES = 30
"""So many pages of commits are searched for one that takes a merge back."""
NO_COMMITS = "No commits between"
MOST_PAGES = 300
LIST_WITHIN_S = 600.0
"""One listing is over after so many pages, and this long: a first look of a busy repo has thirty."""

CLOCKS_AGREE = timedelta(seconds=5)
"""What a slow answer makes clocks look apart."""

CLOCKS_DIFFER = timedelta(hours=1)
"""With clocks further apart than that no time of GitHub's says what is new: looks go back as far."""


class _Repo(BaseModel):
    full_name: str


class _Side(BaseModel):
    ref: str
    repo: _Repo | None

    @property
    def repo_name(self) -> str:
        return self.repo.full_name if self.repo else ""


class _Home(_Repo):
    default_branch: str


class _User(BaseModel):
    login: str


class _Label(BaseModel):
    name: str


class _Pull(BaseModel):
    """The fields we read of the many that GitHub sends."""

    number: int
    html_url: str
    title: str
    body: str | None
    user: _User | None
    labels: list[_Label]
    head: _Side
    base: _Side
    merge_commit_sha: str | None
    merged_at: AwareDatetime | None
    closed_at: AwareDatetime | None
    updated_at: AwareDatetime

    def closed(self, *, ahead: timedelta = timedelta()) -> PullRequest:
        """Merged by our clock, which is so far ahead of GitHub's: that moment is compared with moments of ours."""
        return PullRequest(
            repo=self.base.repo_name,
            number=self.number,
            url=self.html_url,
            body=self.body or "",
            author=self.user.login if self.user else "",
            head_repo=self.head.repo_name,
            branch=self.head.ref,
            base=self.base.ref,
            # Of an unmerged one this is a trial merge, which is on no branch.
            merge_sha=(self.merge_commit_sha or "") if self.merged_at else "",
            merged_at=self.merged_at + ahead if self.merged_at else None,
            closed_at=self.closed_at or self.updated_at,
            updated_at=self.updated_at,
        )


class _Words(BaseModel):
    message: str


class _Made(BaseModel):
    """A commit; its files are those that differ from its first parent, and a list of commits has none."""

    sha: str
    commit: _Words
    parents: list[object]
    files: list[object] | None = None


class PullRequestEvent(BaseModel):
    """An event of a pull request, as GitHub sends it to a webhook and puts it into a workflow's event file."""

    action: str
    pull_request: _Pull
    repository: _Home


_PULL = TypeAdapter(_Pull)
_PULLS = TypeAdapter(list[_Pull])
_COMPARED = TypeAdapter(dict[str, object])
_COMMIT = TypeAdapter(_Made)
_COMMITS = TypeAdapter(list[_Made])


@dataclass(frozen=True)
class _Listed:
    """A whole listing; while the first page is the same, so is the rest: what changes moves to its top."""

    since: datetime
    etag: str
    pulls: list[PullRequest]


class GitHub:
    """A `MergeFeed` over GitHub's REST API. Each call ends within `timeout_s`.

    `repo` is `owner/name`; `api` is another address for GitHub Enterprise. Raises `GitHubUnavailable` when asking again
    may help (`GitHubRateLimited` says when), else `GitHubRefused`.
    """

    def __init__(
        self,
        repo: str,
        *,
        token: str,
        api: str = API,
        timeout_s: float = 30.0,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._repo = repo
        self._call = GitHubCalls(repo, token=token, api=api, timeout_s=timeout_s, now=now)
        self._listed: _Listed | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._call.close()

    def closed_since(self, since: datetime) -> list[PullRequest]:
        """Every pull request closed at or after `since`, merged or not, oldest first; costs nothing if nothing changed.

        All pages are read, so that one call may give hundreds.
        """
        known = self._listed if self._listed and self._listed.since <= since else None
        first = self._page(1, etag=known.etag if known else "")
        self._mind_the_clocks()
        if first.status != 304 or known is None:
            known = self._listed = _Listed(since, first.headers.get("etag", ""), self._all_since(since, first))
        return [pull for pull in known.pulls if pull.closed_at >= since]

    def on_branch(self, commit: str, branch: str) -> bool:
        """True when the branch holds the commit now; False when GitHub does not know the commit."""
        try:
            answer = self._call("GET", f"/compare/{quote(branch)}...{quote(commit)}", params={"per_page": 1})
        except NotFound:
            return False
        return _parsed(_COMPARED, answer).get("status") in {"behind", "identical"}

    def undone(self, pull: PullRequest) -> str:
        """The reason for which the base has nothing of what was merged, as its commits say; empty when it has.

        Empty as well when GitHub does not know the commit, which `on_branch` says.
        """
        try:
            merge = _parsed(_COMMIT, self._call("GET", f"/commits/{quote(pull.merge_sha)}"))
            later = self._commits_since(pull)
        except NotFound:
            return ""
        if len(merge.parents) > 1 and merge.files == []:
            return f"its merge commit {pull.merge_sha[:12]} took nothing of it"
        names = Commit(pull.merge_sha, merge.commit.message).names | {f"#{pull.number}"}
        by = taken_back(names, later)
        return f"it was taken back by commit {by[:12]}" if by else ""

    def _commits_since(self, pull: PullRequest) -> list[Commit]:
        """The commits of the base that were made since the merge, newest first."""
        asked: dict[str, str | int] = {"sha": pull.base, "per_page": PAGE}
        if pull.merged_at:
            asked["since"] = pull.merged_at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        found: list[Commit] = []
        for page in range(1, MAX_PAGES + 1):
            answer = self._call("GET", "/commits", params={**asked, "page": page})
            found += [Commit(made.sha, made.commit.message) for made in _parsed(_COMMITS, answer)]
            if not answer.more:
                break
        return found

    def deliver(self, branch: str, *, base: str, text: PullText) -> str:
        """The branch's one open pull request, opened or brought up to date; gives its URL.

        Raises `NothingToMerge` when the base has all commits of the branch.
        Running it again is harmless: it is looked for before it is made, and what is as it should be is left alone.
        """
        pull = self._open_pull(branch) or self._opened(branch, base, text)
        if (pull.title, pull.body) != (text.title, text.body):
            self._call("PATCH", f"/pulls/{pull.number}", content={"title": text.title, "body": text.body})
        missing = [label for label in text.labels if label not in {there.name for there in pull.labels}]
        if missing:
            self._call("POST", f"/issues/{pull.number}/labels", content={"labels": missing})
        return pull.html_url

    def _opened(self, branch: str, base: str, text: PullText) -> _Pull:
        wanted = {"head": branch, "base": base, "title": text.title, "body": text.body}
        try:
            return _parsed(_PULL, self._call("POST", "/pulls", content=wanted))
        except GitHubRefused as refused:
            # It was opened between our look and this call.
            if pull := self._open_pull(branch):
                return pull
            if NO_COMMITS in str(refused):
                raise NothingToMerge(str(refused)) from refused
            raise

    def _open_pull(self, branch: str) -> _Pull | None:
        owner = self._repo.partition("/")[0]
        answer = self._call("GET", "/pulls", params={"state": "open", "head": f"{owner}:{branch}"})
        found = _parsed(_PULLS, answer)
        return found[0] if found else None

    def _mind_the_clocks(self) -> None:
        apart = self._call.ahead
        if abs(apart) > CLOCKS_DIFFER:
            which = "ahead of" if apart > timedelta() else "behind"
            raise GitHubUnavailable(
                f"the clock of this host is {abs(apart) // timedelta(minutes=1)} min {which} GitHub's: set it right,"
                " e.g. with `timedatectl set-ntp true`; until then no pull request is looked at"
            )

    def _all_since(self, since: datetime, first: Reply) -> list[PullRequest]:
        """Page by page, newest change first, until what is older; a pull request that moved meanwhile comes once."""
        found: dict[int, PullRequest] = {}
        answer, deadline = first, time.monotonic() + LIST_WITHIN_S
        ahead = self._call.ahead if abs(self._call.ahead) > CLOCKS_AGREE else timedelta()
        for page in range(1, MOST_PAGES + 1):
            pulls = [pull.closed(ahead=ahead) for pull in _parsed(_PULLS, answer)]
            known = len(found)
            found |= {pull.number: pull for pull in pulls if pull.updated_at >= since}
            if not answer.more or any(pull.updated_at < since for pull in pulls):
                return sorted(found.values(), key=lambda pull: (pull.closed_at, pull.number))
            if len(found) == known or time.monotonic() > deadline:
                break
            answer = self._page(page + 1)
        raise GitHubUnavailable(
            f"GitHub's list of closed pull requests has no end: after page {page} of {self._repo} it names a next one"
            + ("" if len(found) > known else ", but has nothing new")
        )

    def _page(self, page: int, *, etag: str = "") -> Reply:
        newest_first: dict[str, str | int] = {
            "state": "closed",
            "sort": "updated",
            "direction": "desc",
            "per_page": PAGE,
            "page": page,
        }
        return self._call("GET", "/pulls", params=newest_first, etag=etag)


def _parsed(shape: TypeAdapter[T], answer: Reply) -> T:
    try:
        return shape.validate_python(answer.body)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise GitHubUnavailable(
            f"GitHub's answer is not what its documentation says: {where}: {first['msg']}"
        ) from error
