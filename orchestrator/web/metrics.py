"""`/metrics` for Prometheus. Values are read at each request, so no process has to count for itself."""

from __future__ import annotations

from collections.abc import Iterator

import structlog
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Metric, generate_latest, registry
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from orchestrator.adapters.redis import RedisMetrics
from orchestrator.errors import RedisUnavailable
from orchestrator.settings import Settings
from orchestrator.web.measures import HERE, MEASURES, UP, View

log = structlog.get_logger(__name__)

PATH = "/metrics"


def route(collector: Collector) -> Route:
    """The route for Prometheus."""
    ours = CollectorRegistry()
    ours.register(collector)

    async def metrics(_request: Request) -> Response:
        return Response(await run_in_threadpool(generate_latest, ours), media_type=CONTENT_TYPE_LATEST)

    return Route(PATH, metrics)


class Collector(registry.Collector):
    """The metrics of one project. A scrape costs two calls to Redis, however much there is."""

    def __init__(self, redis: RedisMetrics, settings: Settings) -> None:
        self._redis = redis
        self._settings = settings

    def collect(self) -> Iterator[Metric]:
        """Every metric; while Redis is away only those that do not need it, after a second or two."""
        yield from (measure.of(self._settings) for measure in HERE)
        try:
            view = View(self._redis.seen(), self._redis.memory())
        except RedisUnavailable as error:
            log.debug("redis_away", reason=str(error))
            view = None
        yield UP.of(view)
        if view:
            yield from (measure.of(view) for measure in MEASURES)
