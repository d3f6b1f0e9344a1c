"""GitHub's webhook: a signed hint that it is time to look for merges.

The content of a delivery is never believed: a poll asks GitHub itself. A lost delivery costs the wait for the next
poll, a repeated one nothing.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import re
from collections.abc import Callable
from typing import Protocol

import structlog
from pydantic import BaseModel, ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from orchestrator.errors import OrchestratorError

log = structlog.get_logger(__name__)

PATH = "/webhooks/github"
MAX_BODY = 1_000_000
BODY_WITHIN_S = 10.0
"""GitHub itself gives up after that."""

NO_SECRET = "no secret is set: start this with ORCH_GITHUB_WEBHOOK_SECRET set to the webhook's secret"  # noqa: S105
_DELIVERY = re.compile(r"[\w-]{1,64}")


class Taken(Protocol):
    """The webhooks taken, for as long as GitHub may repeat them. Both methods raise `OrchestratorError`."""

    def seen(self, delivery: str) -> bool:
        """True when this delivery was taken before."""

    def remember(self, delivery: str) -> None:
        """Note that this delivery is taken."""


class _Event(BaseModel):
    action: str = ""


def route(*, secret: str | None, taken: Taken, hint: Callable[[], None]) -> Route:
    """The route for GitHub; calls `hint` once for each closed pull request, which has merges looked for soon.

    `hint` and `taken` may block for a while. Their `OrchestratorError` is answered with 503: GitHub then shows the
    delivery as failed, and it can be sent again.
    """

    async def github(request: Request) -> Response:
        event = await _event(request, secret)
        delivery = request.headers.get("x-github-delivery", "")
        if event == "ping":
            return PlainTextResponse("pong\n")
        if event != "pull_request closed":
            return Response(status_code=204)
        if not _DELIVERY.fullmatch(delivery):
            raise _no(400, "no X-GitHub-Delivery")
        try:
            news = await run_in_threadpool(take, delivery)
        except OrchestratorError as error:
            log.warning("webhook_failed", delivery=delivery, reason=str(error))
            raise _no(503, "not taken, please send it again") from error
        return PlainTextResponse("a poll will look\n", 202) if news else Response(status_code=204)

    def take(delivery: str) -> bool:
        if taken.seen(delivery):
            return False
        hint()
        # Last: one that failed is sent again under the same id. In between the same hint may be given twice.
        taken.remember(delivery)
        return True

    return Route(PATH, github, methods=["POST"])


async def _event(request: Request, secret: str | None) -> str:
    """The event's name and action, after its signature is checked. HTTPException is the answer to anything else."""
    if not secret:
        raise _no(503, NO_SECRET)
    body = await _body(request)
    expected = "sha256=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
    # Headers come as Latin-1, and compare_digest takes no text beyond ASCII.
    if not hmac.compare_digest(expected.encode(), request.headers.get("x-hub-signature-256", "").encode("latin-1")):
        log.warning("webhook_refused", reason="wrong signature", client=request.client.host if request.client else "?")
        raise _no(401, "wrong signature")
    try:
        event = _Event.model_validate_json(body)
    except ValidationError as error:
        raise _no(400, "not a JSON object; set the webhook's content type to application/json") from error
    return f"{request.headers.get('x-github-event', '')} {event.action}".strip()


async def _body(request: Request) -> bytes:
    """Read the whole body, up to MAX_BODY, whatever its headers say of its length."""
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_WITHIN_S):
            async for piece in request.stream():
                body += piece
                if len(body) > MAX_BODY:
                    raise _no(413, f"longer than {MAX_BODY} bytes")
    except TimeoutError as error:
        raise _no(408, f"not whole within {BODY_WITHIN_S:g} s") from error
    except ClientDisconnect as error:
        raise _no(400, "not whole") from error
    return bytes(body)


def _no(status: int, reason: str) -> HTTPException:
    """A refusal that closes the connection, so that nothing more is read from the client."""
    return HTTPException(status, reason, headers={"Connection": "close"})
