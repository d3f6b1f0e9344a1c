"""One call to GitHub: a yes in time, or an error that says whether asking again can help.

GitHub says "later" in four ways, and "no" in others; this module tells them apart. While GitHub asks for quiet, no call
is made at all.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import httpx2

from orchestrator.errors import GitHubRateLimited, GitHubRefused, GitHubUnavailable

QUIET_S = 60
"""For how long GitHub wants to be left alone when it does not say."""

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


@dataclass(frozen=True)
class Reply:
    """GitHub's yes: `body` as JSON, None when it is empty; `more` when another page follows."""

    status: int
    headers: httpx2.Headers
    body: object
    more: bool

    @property
    def message(self) -> str:
        """GitHub's own words, with the details of a validation that failed."""
        if not isinstance(self.body, Mapping):
            return ""
        details = self.body.get("errors")
        said = (
            [_words(detail) for detail in details if isinstance(detail, Mapping)] if isinstance(details, list) else []
        )
        return ": ".join([str(self.body.get("message", "")), *said])


class GitHubCalls:
    """Calls to one repo. Each ends within about `timeout_s`.

    Raises `GitHubUnavailable` when asking again may help (`GitHubRateLimited` says when), else `GitHubRefused`.
    """

    def __init__(self, repo: str, *, token: str, api: str, timeout_s: float, now: Callable[[], datetime]) -> None:
        self._repo = repo
        self._timeout_s = timeout_s
        self._now = now
        self._quiet_until = datetime.min.replace(tzinfo=UTC)
        headers = _HEADERS | {"Authorization": f"Bearer {token}"}
        self._client = httpx2.Client(base_url=api, headers=headers, timeout=timeout_s)

    def close(self) -> None:
        """Let go of the connections."""
        self._client.close()

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
        if self._now() < self._quiet_until:
            raise self._rate_limited(self._quiet_until)
        what = f"{method} {path} of {self._repo}"
        request = self._client.build_request(
            method,
            f"/repos/{self._repo}{path}",
            params=params,
            json=content,
            headers={"If-None-Match": etag} if etag else None,
        )
        try:
            answer = self._answer(request)
        except (httpx2.HTTPError, TimeoutError, ValueError) as error:
            raise GitHubUnavailable(
                f"GitHub gave no whole answer to {what}: {error or type(error).__name__}"
            ) from error
        self._mind_the_limit(answer)
        if answer.status < 300 or answer.status == 304:
            return answer
        raise self._no(answer, what)

    def _answer(self, request: httpx2.Request) -> Reply:
        """Read in pieces: a time limit of the client is for each piece, and a slow answer has no end of them."""
        deadline = time.monotonic() + self._timeout_s
        response = self._client.send(request, stream=True)
        try:
            pieces = []
            for piece in response.iter_bytes():
                if time.monotonic() > deadline:
                    raise TimeoutError(f"it took longer than {self._timeout_s:g} s")
                pieces.append(piece)
        finally:
            response.close()
        text = b"".join(pieces)
        try:
            body = json.loads(text) if text else None
        except ValueError:
            if response.is_success:
                raise
            body = None  # an error's page by something between GitHub and us
        return Reply(response.status_code, response.headers, body, "next" in response.links)

    def _mind_the_limit(self, reply: Reply) -> None:
        """Make no more calls when the last allowed one was made, or when GitHub says so."""
        headers = reply.headers
        spent = headers.get("x-ratelimit-remaining") == "0"
        refused = reply.status in {403, 429}
        wait = headers.get("retry-after", "")
        if refused and wait.isdecimal():
            self._quiet_until = self._now() + timedelta(seconds=int(wait))
        elif spent and headers.get("x-ratelimit-reset", "").isdecimal():
            self._quiet_until = datetime.fromtimestamp(int(headers["x-ratelimit-reset"]), UTC)
        elif reply.status == 429 or (refused and "rate limit" in reply.message.lower()):
            self._quiet_until = self._now() + timedelta(seconds=QUIET_S)

    def _no(self, reply: Reply, what: str) -> GitHubUnavailable | GitHubRefused:
        if self._now() < self._quiet_until and reply.status in {403, 429}:
            return self._rate_limited(self._quiet_until)
        said = f"GitHub answered {reply.status} to {what}" + (f" ({reply.message})" if reply.message else "")
        if reply.status >= 500 or reply.status in {408, 429}:
            return GitHubUnavailable(said)
        if reply.status == 404:
            return NotFound(f"{said}; {_WHAT_TO_DO[404]}")
        if reply.status in _WHAT_TO_DO:
            return GitHubRefused(f"{said}; {_WHAT_TO_DO[reply.status]}")
        if reply.status < 400:
            return GitHubRefused(f"{said}; the repo has moved to another name, give that one")
        return GitHubRefused(said)

    def _rate_limited(self, until: datetime) -> GitHubRateLimited:
        return GitHubRateLimited(f"GitHub's rate limit for {self._repo} is used up until {until:%H:%M:%S} UTC", until)


def _words(detail: Mapping[str, object]) -> str:
    return str(detail.get("message") or f"{detail.get('field')} is {detail.get('code')}")
