"""`orch web`: what others on the network may ask, served over HTTP."""

from __future__ import annotations

import contextlib
import functools
import socket

import click
import uvicorn

from orchestrator import wiring
from orchestrator.adapters.redis_webhooks import RedisWebhooks
from orchestrator.errors import OrchestratorError
from orchestrator.web.webhook import NO_SECRET, PATH, make_app

MOST_AT_ONCE = 64
"""Requests under way, so that strangers cannot fill the memory: each may hold a body."""


@click.command("web")
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option("--port", type=click.IntRange(0, 65535), default=8080, show_default=True, help="The port; 0 is any.")
def command(host: str, port: int) -> None:
    """Merges close their issues at once: serves GitHub's webhook, until Ctrl-C.

    \b
    Example:  orch web
    Point a webhook of your repo to https://YOUR-HOST/webhooks/github with
      content type  application/json
      secret        the value of ORCH_GITHUB_WEBHOOK_SECRET
      events        only "Pull requests"
    GitHub speaks HTTPS and comes from outside: put your reverse proxy in front.
    `curl http://127.0.0.1:8080/healthz` says whether this one is up.

    Without it merges are seen all the same, by the next poll.
    """
    from orchestrator.celery import wake  # here, because Celery is slow to load, and a wrong port is told at once

    here = wiring.here()
    listener = listen(host, port)
    app = make_app(
        secret=here.settings.github_webhook_secret,
        # In this thread: a Redis of our own ends with the thread that started it.
        taken=RedisWebhooks(here.client, here.keys),
        hint=functools.partial(wake, "merge_close"),
    )
    server = uvicorn.Server(
        uvicorn.Config(app, log_config=None, access_log=False, server_header=False, limit_concurrency=MOST_AT_ONCE)
    )
    if not here.settings.github_webhook_secret:
        click.echo(f"! {NO_SECRET}", err=True)
    click.echo(f"listening on http://{_address(listener)}{PATH}")
    with contextlib.suppress(KeyboardInterrupt):  # how uvicorn hands on a Ctrl-C that it has obeyed
        server.run(sockets=[listener])


def listen(host: str, port: int) -> socket.socket:
    """A socket to serve on. OrchestratorError when the address cannot be had."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listener = socket.create_server((host, port), family=family)
    except OSError as error:
        why = str(error.strerror).partition(" (")[0]  # create_server says the address once more
        raise OrchestratorError(f"cannot listen on {host}:{port}: {why}; give another --host or --port") from error
    # asyncio does so for sockets that it makes itself; without it an answer takes 40 ms.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


def _address(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
