"""The one application that `orch web` serves."""

from __future__ import annotations

from collections.abc import Iterable

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from orchestrator.web.hosts import OnlyOurHosts


def make_app(*routes: Route, names: Iterable[str] = ()) -> Starlette:
    """An application of these routes and `/healthz`, which checks this process alone; `names` lead here."""
    return Starlette(
        routes=[Route("/healthz", _healthz), *routes], middleware=[Middleware(OnlyOurHosts, names=tuple(names))]
    )


async def _healthz(_request: Request) -> Response:
    return PlainTextResponse("ok\n")
