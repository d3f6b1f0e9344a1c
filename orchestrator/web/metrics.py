"""`/metrics`: what Prometheus is told. It is read when it is asked for, so no process has to count for itself."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import structlog
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Metric, generate_latest, registry
from prometheus_client.core import GaugeMetricFamily, InfoMetricFamily
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from orchestrator.adapters.redis_metrics import RedisMetrics
from orchestrator.errors import RedisUnavailable
from orchestrator.settings import Settings
from orchestrator.web.measures import MEASURES, View

log = structlog.get_logger(__name__)

PATH = "/metrics"


def route(collector: Collector) -> Route:
    """Answers Prometheus."""
    ours = CollectorRegistry()
    ours.register(collector)

    async def metrics(_request: Request) -> Response:
        return Response(await run_in_threadpool(generate_latest, ours), media_type=CONTENT_TYPE_LATEST)

    return Route(PATH, metrics)


class Collector(registry.Collector):
    """One project's metrics. Each time they cost two calls to Redis, however much there is."""

    def __init__(self, redis: RedisMetrics, settings: Settings) -> None:
        self._redis = redis
        self._settings = settings

    def describe(self) -> Iterator[Metric]:
        """Nothing, so that registering it does not ask Redis."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        """Every metric; while Redis is away only those that do without, after a second or two."""
        yield from self._here()
        try:
            view = View(self._redis.seen(), self._redis.memory())
        except RedisUnavailable as error:
            log.debug("redis_away", reason=str(error))
            view = None
        yield GaugeMetricFamily("orch_redis_up", "1 while Redis answers", value=view is not None)
        if view:
            yield from (measure.of(view) for measure in MEASURES)

    def _here(self) -> Iterator[Metric]:
        settings = self._settings
        yield InfoMetricFamily("orch", "What is watched", {"project": settings.project})
        yield GaugeMetricFamily("orch_poll_interval_seconds", "As it is set", value=settings.poll_interval)
        yield GaugeMetricFamily("orch_lease_duration_seconds", "As it is set", value=settings.lease_seconds)
        folder = settings.state_dir
        disk = shutil.disk_usage(next(there for there in (folder, *folder.parents) if there.exists()))
        yield GaugeMetricFamily("orch_disk_free_bytes", "Free on the disk of the worktrees", value=disk.free)
        yield GaugeMetricFamily("orch_disk_size_bytes", "How large that is", value=disk.total)
