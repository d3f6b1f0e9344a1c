"""The application that `orch web` serves: health, metrics, and GitHub's webhook."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from starlette.applications import Starlette

from orchestrator.adapters.redis import RedisMetrics, RedisWebhooks
from orchestrator.settings import Settings
from orchestrator.web import metrics, readiness, webhook
from orchestrator.web.app import make_app
from orchestrator.web.serving import server

__all__ = ["NO_WEBHOOK", "application", "server"]

NO_WEBHOOK = f"{webhook.PATH}: {webhook.NO_SECRET}"
"""What is said where no secret is set."""


def application(
    settings: Settings,
    watched: RedisMetrics,
    taken: RedisWebhooks,
    *,
    start: Mapping[str, str],
    hint: Callable[[], None],
    names: Iterable[str],
) -> Starlette:
    """All of it. `start` has the command that starts each program, `hint` has merges looked for.

    `names` are this machine's, by which it may be asked as by those of the settings.
    """
    return make_app(
        readiness.route(watched, settings, start),
        metrics.route(metrics.Collector(watched, settings)),
        webhook.route(secret=settings.github_webhook_secret, taken=taken, hint=hint),
        names=(*names, *settings.web.hosts),
    )
