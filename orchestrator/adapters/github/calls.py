"""One call to GitHub: a yes in time, or an error that says whether asking again can help.

GitHub says "later" in four ways, and "no" in others; this module tells them apart. While GitHub asks for quiet, no call
is made at all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta

import httpx2

from orchestrator.adapters.github.clock import MOST_QUIET, ahead, quiet
from orchestrator.adapters.github.exchange import Exchanges, Reply
from orchestrator.errors import GitHubRateLimited, GitHubRefused, GitHubUnavailable

MOST_WORDS = 200
"""Characters of GitHub's own words, or of another program's, in an error of ours."""

_HEADERS = {
    "Accept": "application/vnd.github+json",
    "X-GitHub-Api-Version": "2022-11-28",
    "User-Agent": "sudocode-orchestrator",
}
_WHAT_TO_DO = {
    401: "give a token that is valid",
    403: "give the token the permissions `pull requests: write` and `contents: read`",
    404: "see that the repo is spelled right and that the token may see it",
}


class NotFound(GitHubRefused):
    """There is no such thing, or not for this token."""


class GitHubCalls:
    """Calls to one repo. Each ends within about `timeout_s`.

    Raises `GitHubUnavailable` when asking again may help (`GitHubRateLimited` says when), else `GitHubRefused`.
    """

    def __init__(self, repo: str, *, token: str, api: str, timeout_s: float, now: Callable[[], datetime]) -> None:
        self._repo = repo
        self._now = now
        self._quiet_until = datetime.min.replace(tzinfo=UTC)
        try:
            self._exchange = Exchanges(api, _HEADERS | {"Authorization": f"Bearer {token}"}, timeout_s)
        except httpx2.InvalidURL as error:
            raise GitHubRefused(f"{api!r} is no address ({error}): correct [github] api in orch.toml") from error
        self.ahead = timedelta()
        """How far our clock was ahead of GitHub's at the last answer."""

    def close(self) -> None:
        """Let go of the connections."""
        self._exchange.close()

    def __call__(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str | int] | None = None,
        content: Mapping[str, object] | None = None,
        etag: str = "",
    ) -> Reply:
        """GitHub's yes to one call; its no, and its silence, are raised."""
        if self._quiet():
            raise self._rate_limited(self._quiet_until)
        what = f"{method} {path} of {self._repo}"
        known = {"If-None-Match": etag} if etag.isascii() and etag else {}
        try:
            answer = self._exchange(method, f"/repos/{self._repo}{path}", params=params, content=content, headers=known)
        except (httpx2.HTTPError, TimeoutError, ValueError) as error:
            raise GitHubUnavailable(f"GitHub gave no whole answer to {what}: {_why(error)}") from error
        now = self._now()
        self.ahead = ahead(answer.headers, now)
        if wait := quiet(answer.status, answer.headers, message(answer), now):
            self._quiet_until = now + wait
        if answer.status < 300 or answer.status == 304:
            return answer
        raise self._no(answer, what)

    def _quiet(self) -> bool:
        """True until GitHub may be asked again; a wait longer than any means that our clock was set back."""
        return timedelta() < self._quiet_until - self._now() <= MOST_QUIET

    def _no(self, reply: Reply, what: str) -> GitHubUnavailable | GitHubRefused:
        if self._quiet() and reply.status in {403, 429}:
            return self._rate_limited(self._quiet_until)
        said = f"GitHub answered {reply.status} to {what}" + (f" ({words})" if (words := message(reply)) else "")
        if reply.status >= 500 or reply.status in {408, 429}:
            return GitHubUnavailable(said)
        if reply.status == 404:
            return NotFound(f"{said}; {_WHAT_TO_DO[404]}")
        if reply.status in _WHAT_TO_DO:
            return GitHubRefused(f"{said}; {_WHAT_TO_DO[reply.status]}")
        if reply.status < 400 and not self._exchange.leads_here(reply):
            return GitHubUnavailable(f"{said}; that leads away from GitHub: see what stands between, and [github] api")
        if reply.status < 400:
            return GitHubRefused(f"{said}; the repo has moved to another name, give that one")
        return GitHubRefused(said)

    def _rate_limited(self, until: datetime) -> GitHubRateLimited:
        return GitHubRateLimited(f"GitHub's rate limit for {self._repo} is used up until {until:%H:%M:%S} UTC", until)


def _why(error: BaseException) -> str:
    """The error in one line; of a connection that failed, why the last attempt did."""
    if isinstance(error, httpx2.ConnectError):
        while below := error.__cause__ or error.__context__:
            error = below
        if isinstance(error, BaseExceptionGroup):
            error = error.exceptions[-1]
    return _one_line(str(error)) or type(error).__name__


def _one_line(text: str) -> str:
    line = " ".join(text[: 10 * MOST_WORDS].split())[:MOST_WORDS]
    return "".join(char if char.isprintable() else "?" for char in line)


def message(reply: Reply) -> str:
    """GitHub's own words in one line, with the details of a validation that failed; empty when it has none."""
    if not isinstance(reply.body, Mapping):
        return ""
    details = reply.body.get("errors")
    said = [str(reply.body.get("message", ""))]
    said += [_words(detail) for detail in details if isinstance(detail, Mapping)] if isinstance(details, list) else []
    return _one_line(": ".join(said))


def _words(detail: Mapping[str, object]) -> str:
    return str(detail.get("message") or f"{detail.get('field')} is {detail.get('code')}")
