"""The one application that `orch web` serves."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route


def make_app(*routes: Route) -> Starlette:
    """These routes, and `/healthz`: this process lives. Nobody else is asked for that, so nobody's death is its own."""
    return Starlette(routes=[Route("/healthz", _healthz), *routes])


async def _healthz(_request: Request) -> Response:
    return PlainTextResponse("ok\n")
