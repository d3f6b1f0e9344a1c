"""One exchange with a server that may do anything: a whole answer, within bounds of time and size, or none."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

import httpx2
from pydantic_core import from_json

MOST_BYTES = 32_000_000
"""Of one answer, unpacked. A page of 100 pull requests, each as long as GitHub lets it be, has 27 MB."""


@dataclass(frozen=True)
class Reply:
    """What was answered: `body` as JSON, None when it is empty or, of a failure, no JSON; `more` if a page follows."""

    status: int
    headers: httpx2.Headers
    body: object
    more: bool


class Exchanges:
    """Exchanges with one host, each over within `timeout_s`, however its bytes come.

    A client's own time limits are for each piece, and a slow server has no end of those; asyncio's is for the whole.
    Redirects are not followed, so the headers, and the token in them, go to no other host.
    """

    def __init__(self, base_url: str, headers: Mapping[str, str], timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._client = httpx2.AsyncClient(base_url=base_url, headers=headers, timeout=timeout_s)
        self._runner = asyncio.Runner(loop_factory=asyncio.new_event_loop)

    def close(self) -> None:
        """Let go of the connections."""
        self._runner.run(self._client.aclose())
        self._runner.close()

    def __call__(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str | int] | None,
        content: Mapping[str, object] | None,
        headers: Mapping[str, str],
    ) -> Reply:
        """Raises `httpx2.HTTPError`, `TimeoutError` or `ValueError` when there is no whole answer."""
        request = self._client.build_request(method, path, params=params, json=content, headers=headers)
        return self._runner.run(self._answer(request))

    def leads_here(self, reply: Reply) -> bool:
        """True when a redirect leads to the same host."""
        try:
            return self._client.base_url.join(reply.headers.get("location", "")).host == self._client.base_url.host
        except httpx2.InvalidURL:
            return False

    async def _answer(self, request: httpx2.Request) -> Reply:
        try:
            async with asyncio.timeout(self._timeout_s):
                response = await self._client.send(request, stream=True)
                try:
                    text = await _text(response)
                finally:
                    await response.aclose()
        except TimeoutError as error:
            raise TimeoutError(f"it took longer than {self._timeout_s:g} s") from error
        return Reply(response.status_code, response.headers, _json(response, text), "next" in response.links)


async def _text(response: httpx2.Response) -> bytes:
    text = bytearray()
    async for piece in response.aiter_bytes():
        text += piece
        if len(text) > MOST_BYTES:
            raise ValueError(f"it is longer than {MOST_BYTES // 1_000_000} MB")
    return bytes(text)


def _json(response: httpx2.Response, text: bytes) -> object:
    if not text:
        return None
    try:
        return from_json(text)
    except ValueError as error:
        if response.is_success:
            raise ValueError(f"it is not JSON: {error}") from error
        return None  # an error's page by something between GitHub and us
