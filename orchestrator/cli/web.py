"""`orch web`: health, metrics and GitHub's webhook over HTTP."""

from __future__ import annotations

import contextlib
import functools
import socket

import click

from orchestrator.adapters.redis import RedisMetrics, RedisWebhooks
from orchestrator.cli import project
from orchestrator.errors import OrchestratorError
from orchestrator.local.programs import start_commands
from orchestrator.web import NO_WEBHOOK, application, server


@click.command("web")
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option("--port", type=click.IntRange(0, 65535), default=8080, show_default=True, help="The port; 0 is any.")
def command(host: str, port: int) -> None:
    """Serve health, metrics and GitHub's webhook over HTTP, until Ctrl-C.

    \b
    Example:  orch web
      /healthz          this process runs
      /readyz           sessions can run: Redis, workers and beat are there; else 503, and what to do
      /metrics          for Prometheus; ops/prometheus has its alerts
      /webhooks/github  has merges looked for at once
    Point a webhook of your repo to https://YOUR-HOST/webhooks/github with
      content type  application/json
      secret        the value of ORCH_GITHUB_WEBHOOK_SECRET
      events        only "Pull requests"
    GitHub speaks HTTPS and comes from outside: put your reverse proxy in front, for that path alone.
    If it hands on the name YOUR-HOST, say so in orch.toml:  [web] hosts = ["YOUR-HOST"]
    `curl http://127.0.0.1:8080/readyz` says whether all is up.

    Without a webhook merges are seen all the same, by the next poll.
    """
    project.start_anew_without()
    from orchestrator.celery import wake

    here = project.here()
    listener = listen(host, port)
    # In this thread: a Redis of our own ends with the thread that started it.
    watched = RedisMetrics(here.hasty_client, here.keys, lease_s=here.settings.lease_seconds)
    app = application(
        here.settings,
        watched,
        RedisWebhooks(here.client, here.keys),
        start=start_commands(here.settings.concurrency),
        hint=functools.partial(wake, "merge_close"),
        names=(host, socket.gethostname()),
    )
    if not here.settings.github_webhook_secret:
        click.echo(f"! {NO_WEBHOOK}", err=True)
    click.echo(f"listening on http://{_address(listener)}")
    with contextlib.suppress(KeyboardInterrupt):  # how uvicorn hands on a Ctrl-C that it has obeyed
        server(app).run(sockets=[listener])


def listen(host: str, port: int) -> socket.socket:
    """A socket to serve on. OrchestratorError when the address cannot be used."""
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
