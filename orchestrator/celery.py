"""The Celery app: `celery -A orchestrator worker`, `beat` and `flower` need no further flags.

`orchestrator/local/programs.py` says which worker serves which queue, `beat/schedule.py` what is sent when. A message
is a wake-up, the lease in Redis is the truth. What Celery on Redis really does (measured on Celery 5.7,
kombu 5.7, Redis 7) decides every setting below; docs/adr/0002 has the measurements.
"""

from __future__ import annotations

import contextlib
import logging
import mmap
import os
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import structlog
from celery import Celery, Task, bootsteps, signals, states
from celery.beat import Scheduler, SchedulingError
from celery.exceptions import SecurityWarning
from kombu.entity import Exchange, Queue
from redis import RedisError

from beat import CONTROL, MERGE_CLOSE, POLL, QUEUES, SESSIONS, TASKS, TICKS, entries
from orchestrator import logs, wiring
from orchestrator.errors import ALREADY_TOLD, OrchestratorError, RedisUnavailable
from orchestrator.settings import celery_broker_url

log = structlog.get_logger(__name__)

ANNOUNCED_EVERY_S = 2.0
ANNOUNCED_FOR_S = 10.0


def configuration() -> dict[str, Any]:
    """All of Celery's settings, made when Celery first needs one: importing this module touches nothing."""
    project = here()
    return {
        "broker_url": celery_broker_url(project.redis_url),
        # JSON only: a program that can write to Redis must not be able to run code here.
        "task_serializer": "json",
        "accept_content": ["json"],
        "task_queues": [Queue(name, Exchange(name), routing_key=name) for name in QUEUES],
        "task_default_queue": POLL,
        "task_create_missing_queues": False,
        "task_routes": {f"{module}.*": {"queue": queue} for queue, module in TASKS.items()},
        # Early ack, nothing prefetched: a worker that holds an unacked message dies when Redis restarts, and late
        # acks start a running task twice after a lost connection. A worker's death is covered by its leases.
        "task_acks_late": False,
        "worker_disable_prefetch": True,
        "worker_prefetch_multiplier": 1,
        # Results are not waited for: what a session did is in its history. An expiry would have beat clean up after it.
        "task_ignore_result": True,
        "result_expires": None,
        # Flower needs events; they cost half again of a task's CPU time, which is nothing beside an agent.
        "worker_send_task_events": True,
        # Our lines go to stderr as they are.
        "worker_redirect_stdouts": False,
        # Redis may be away for any time, also at the start.
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,
        # Nor may a Redis that takes no writes (full, a replica) end a worker.
        "broker_channel_error_retry": True,
        # None of our tasks acknowledges late, so this changes nothing; without it Celery warns at each lost connection.
        "worker_cancel_long_running_tasks_on_connection_loss": True,
        "broker_transport_options": {
            # Two projects may share a Redis: neither may take the other's messages.
            "global_keyprefix": project.keys("celery:"),
            # Far beyond any session: a message must not be delivered again while it is worked on.
            "visibility_timeout": 86_400,
            # kombu sets no limit of its own, and a publish would hang on a silent Redis.
            "socket_timeout": 10,
            "socket_connect_timeout": 5,
            "socket_keepalive": True,
            "health_check_interval": 10,
        },
        "beat_schedule": entries(project.settings.poll_interval, project.settings.lease_seconds),
        # Ticks need no memory, and two beats on one host would share the file that the default scheduler keeps.
        "beat_scheduler": f"{__name__}:OneLineScheduler",
        # One more than sessions, so that on a worker that serves all queues polls and publishing never wait for one.
        "worker_concurrency": project.settings.concurrency + 1,
    }


class OneLineTask(Task):  # type: ignore[misc] # Celery has no types
    """A task whose expected failures are one log line each, not a traceback."""

    throws = (OrchestratorError,)
    _said: tuple[object, ...] = ()

    def on_success(self, retval: object, task_id: str, args: Any, kwargs: Any) -> None:
        """Log the next failure again, whatever it is."""
        self._said = ()

    def on_failure(self, exc: BaseException, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
        """Log the failure, unless its session has done so or the task failed likewise the last time."""
        reason = str(exc) or type(exc).__name__
        before, self._said = self._said, (*args, reason)
        if self._said != before and ALREADY_TOLD not in getattr(exc, "__notes__", ()):
            log.error("task_failed", task=self.name, id=task_id, reason=reason)

    def after_return(self, status: str, retval: object, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
        """Note when a tick was last carried out, for the metrics."""
        tick = self.name.rpartition(".")[2]
        if tick in TICKS:
            here().counts.ticked(tick, ok=status == states.SUCCESS)


class OneLineScheduler(Scheduler):  # type: ignore[misc] # Celery has no types
    """Celery's scheduler, except that ticks that cannot be sent are one log line until one is sent again.

    The time of the file `beat.alive` says when the last one was sent, for what supervises beat.
    """

    _failing = False

    def apply_entry(self, entry: Any, producer: Any = None) -> None:
        """Send one tick. A lost one does no harm: the next does the same."""
        try:
            self.apply_async(entry, producer=producer, advance=False)
            self._failing = False
            here().counts.ticked("beat")
            with contextlib.suppress(OSError):  # a full disk must not end beat
                here().state("beat.alive").touch()
        except SchedulingError as error:
            if not self._failing:
                log.error("tick_not_sent", reason=" ".join(str(error).split()))
            self._failing = True


# Celery warns of root because pickle would let messages run code; JSON does not, and in a container root is usual.
warnings.filterwarnings("ignore", category=SecurityWarning)

# Flower looks for its options here, unless it is told otherwise; it asks before it asks the app for anything.
os.environ.setdefault("FLOWER_CONF", str(Path(__file__).with_name("local") / "flower_conf.py"))

app = Celery(
    "orchestrator",
    task_cls=OneLineTask,
    include=sorted(TASKS.values()),
)
app.add_defaults(configuration)


def here() -> wiring.Wiring:
    """The wiring of this worker's project."""
    return wiring.here()


def nudge(task: Task, *args: Any, **options: Any) -> None:
    """Enqueue a task. A dead broker is one log line, because the next tick does the same."""
    try:
        _enqueue(lambda: task.apply_async(args, **options))
    except RedisUnavailable as error:
        log.warning("not_enqueued", task=task.name, reason=str(error))


def tick(queue: str) -> None:
    """Have a control queue's task run soon. A dead broker is one log line, because the next tick does the same."""
    try:
        wake(queue)
    except RedisUnavailable as error:
        log.warning("not_enqueued", task=queue, reason=str(error))


def wake(queue: str, task: str = "") -> None:
    """Enqueue a task, by default the queue's own; raise RedisUnavailable when that fails.

    Nothing is enqueued while a message waits in the queue: it will see what this one would. Looking costs a tenth of
    enqueuing, and a worker that is down finds one message, not one for each session.
    """
    project = here()
    if project.client.llen(project.keys(f"celery:{queue}")) == 0:
        # By name: the caller need not have loaded the queue's tasks.
        _enqueue(lambda: app.send_task(task or f"{TASKS[queue]}.{queue}", queue=queue))


def _enqueue(send: Callable[[], object]) -> None:
    """Send a message. RedisUnavailable when it could not be sent, whatever kombu makes of that."""
    try:
        send()
    except Exception as error:
        # A Redis that takes no writes is a ResponseError; a connection that died under kombu 5.7 is an AttributeError,
        # and one again for each message until there is a new pool.
        app._after_fork()
        raise RedisUnavailable(f"nothing could be enqueued: {error}; `orch doctor` says more") from error


# One byte that a worker's children share with it from the fork on. Not a lock: a killed child could keep that.
_stop = mmap.mmap(-1, 1)


def stopping() -> bool:
    """True once this worker was told to stop."""
    return _stop[0] == 1


class Announcer(bootsteps.StartStopStep):  # type: ignore[misc] # Celery has no types
    """Announces every two seconds how many sessions this worker can run at once; a poll claims no more than that.

    It also looks for sessions without a live worker, so that they are taken up even while polls hang. A worker that
    serves the control queues too keeps one process free for them.
    """

    requires = {"celery.worker.components:Pool", "celery.worker.components:Timer"}  # noqa: RUF012 - Celery's own form

    def __init__(self, worker: Any, **kwargs: Any) -> None:
        super().__init__(worker, **kwargs)
        self._leases = here().heartbeat_leases
        self._tick: Any = None
        self._failing = False

    def start(self, worker: Any) -> None:
        """Announce now and from now on."""
        served = set(worker.app.amqp.queues.consume_from)
        default = worker.concurrency == worker.app.conf.worker_concurrency
        slots = worker.concurrency - (1 if default or served & set(CONTROL) else 0) or 1
        if SESSIONS in served:
            self._quietly(here().end_orphans)
            self._announce(worker.hostname, slots)
            self._tick = worker.timer.call_repeatedly(ANNOUNCED_EVERY_S, self._announce, (worker.hostname, slots))

    def close(self, worker: Any) -> None:
        """Take the slots back; if Redis is away they expire by themselves."""
        if self._tick is not None:
            self._tick.cancel()
            self._quietly(self._leases.withdraw, worker.hostname)

    def _announce(self, hostname: str, slots: int) -> None:
        self._quietly(self._announce_and_look, hostname, slots)

    def _announce_and_look(self, hostname: str, slots: int) -> None:
        # In one call: a Redis that takes no writes would answer the look, and each announcement would be logged anew.
        self._leases.announce(hostname, slots, for_s=ANNOUNCED_FOR_S)
        if self._leases.silent():
            wake(SESSIONS, "tasks.session.rescue")

    def _quietly(self, call: Any, *args: Any, **kwargs: Any) -> None:
        try:
            call(*args, **kwargs)
            self._failing = False
        except RedisUnavailable as error:
            if not self._failing:
                log.warning("redis_away", reason=str(error))
            self._failing = True


app.steps["worker"].add(Announcer)


@signals.celeryd_init.connect
@signals.beat_init.connect
def _without_secrets_in_the_environment(**_: Any) -> None:
    wiring.start_anew_without()


@signals.after_setup_task_logger.connect
@signals.after_setup_logger.connect
def _one_look(logger: logging.Logger, **_: Any) -> None:
    logs.adopt(logger, brief=RedisError)


@signals.after_setup_logger.connect
def _calm(**_: Any) -> None:
    # Both try a Redis that refuses us (it is full, or a replica) again and again, and say so each time.
    for name in ("celery.worker.consumer.consumer", "kombu.transport.redis"):
        logging.getLogger(name).addFilter(logs.OncePerMinute())


@signals.worker_init.connect
def _settle_sandbox(sender: Any, **_: Any) -> None:
    """Before the pool is forked, so that all of it has one answer, which no agent was there to change."""
    if SESSIONS not in sender.app.amqp.queues.consume_from:
        return
    try:
        log.info("sandbox", works=here().settle_sandbox())
    except OrchestratorError as error:
        log.error("no_sessions_here", reason=str(error))
        raise SystemExit(1) from None  # an error would be logged, and the worker would go on


@signals.worker_ready.connect
def _look_at_once(sender: Any, **_: Any) -> None:
    tick(POLL)
    if POLL in sender.app.amqp.queues.consume_from:
        nudge(app.tasks["tasks.poll.sweep"])
    tick(MERGE_CLOSE)


# Celery sends this in its handler of SIGTERM, under a lock. The kernel sends several SIGTERMs when a parent dies that
# had threads, and with a plain lock the second one would wait for the first, for ever.
signals.worker_shutting_down.lock = threading.RLock()


@signals.worker_shutting_down.connect
def _stop_sessions(**_: Any) -> None:
    _stop[0] = 1
