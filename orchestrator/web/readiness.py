"""`/readyz`: 200 if a session could run now, else what is missing and the command to try."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from orchestrator.adapters.redis import RedisMetrics, Seen
from orchestrator.errors import RedisUnavailable
from orchestrator.settings import Settings

PATH = "/readyz"
SILENT_S = 60.0
SILENT_POLLS = 10
"""A process counts as gone after this many poll intervals without a tick, but not before SILENT_S; so do the alerts."""


@dataclass(frozen=True)
class Check:
    """One thing that has to be there: what was found, and where it is missing the command to try."""

    name: str
    ok: bool
    says: str
    next: str = ""


def route(redis: RedisMetrics, settings: Settings, start: Mapping[str, str]) -> Route:
    """Answers 200 when every check is well, else 503; either way each check, as JSON.

    `start` has the command that starts the `worker`, `control` and `beat`.
    """

    async def readyz(_request: Request) -> Response:
        found = await run_in_threadpool(lambda: list(checks(redis, settings, start)))
        ready = all(check.ok for check in found)
        answer = {"ready": ready, "checks": [asdict(check) for check in found]}
        return JSONResponse(answer, 200 if ready else 503)

    return Route(PATH, readyz)


def checks(redis: RedisMetrics, settings: Settings, start: Mapping[str, str]) -> Iterator[Check]:
    """Each check. Without Redis nothing is known of the rest, so there is but one."""
    try:
        if refuses := redis.memory().refuses:
            yield Check("redis", False, f"takes no writes: {refuses}", "orch doctor")
            return
        redis.try_write()
        seen = redis.seen()
    except RedisUnavailable as error:
        yield Check("redis", False, str(error), "orch doctor")
        return
    yield Check("redis", True, "answers and takes writes")
    slots = sum(seen.workers.values())
    yield Check(
        "session worker",
        slots > 0,
        f"{len(seen.workers)} with {slots} slots",
        "" if slots else start["worker"],
    )
    silent_s = max(SILENT_S, SILENT_POLLS * settings.poll_interval)
    yield _ticking("control worker", seen, "poll", silent_s=silent_s, fix=start["control"])
    yield _ticking("beat", seen, "beat", silent_s=silent_s, fix=start["beat"])


def _ticking(name: str, seen: Seen, tick: str, *, silent_s: float, fix: str) -> Check:
    age = seen.ticks.get(tick)
    well = age is not None and age <= silent_s
    return Check(name, well, "never ticked" if age is None else f"ticked {age:.0f} s ago", "" if well else fix)
