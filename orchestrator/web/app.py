"""The one application that `orch web` serves."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route


def make_app(*routes: Route) -> Starlette:
    """An application of these routes and `/healthz`, which checks this process alone."""
    return Starlette(routes=[Route("/healthz", _healthz), *routes])


async def _healthz(_request: Request) -> Response:
    return PlainTextResponse("ok\n")
