"""The names by which `orch web` may be asked.

A page in somebody's browser may have its own name lead to this address (DNS rebinding), and would then read what is
served here. The browser says that name as `Host`, so only names that are ours are answered.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

import structlog
from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

log = structlog.get_logger(__name__)

HERE = ("localhost", "127.0.0.1", "::1")
_HOST = re.compile(r"(?:\[([0-9a-f:.]+)\]|([\w.-]{1,253}?)\.?)(?::\d{1,5})?", re.ASCII | re.IGNORECASE)


class OnlyOurHosts:
    """Hands on requests for one of `names`, for HERE, or for the very address that they came to; 400 for others.

    `*.example.com` is every name below it.
    """

    def __init__(self, app: ASGIApp, names: Iterable[str]) -> None:
        self._app = app
        self._names = {name.lower().rstrip(".") for name in (*HERE, *names)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand it on, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        name = name_in(Headers(scope=scope).get("host", ""))
        address = (scope.get("server") or ("",))[0].partition("%")[0]
        if name and (name == address or self._ours(name)):
            await self._app(scope, receive, send)
            return
        log.warning("host_refused", host=name, hint="hosts in [web] of orch.toml")
        await _refusal(name)(scope, receive, send)

    def _ours(self, name: str) -> bool:
        above = (f"*{name[dot:]}" for dot, char in enumerate(name) if char == ".")
        return not self._names.isdisjoint({name, *above})


def name_in(host: str) -> str:
    """The name or address in a `Host` header, in lower case and without its port; empty when there is none."""
    found = _HOST.fullmatch(host)
    return (found[1] or found[2]).lower() if found else ""


def _refusal(name: str) -> PlainTextResponse:
    said = f"{name} is not a name of this server" if name else "the Host header names no host"
    way_out = 'if it should be, add it to `hosts` in [web] of orch.toml, e.g. hosts = ["orch.example.com"]'
    return PlainTextResponse(f"{said}; {way_out}\n", 400, headers={"Connection": "close"})
