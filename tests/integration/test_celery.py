"""What Celery is told, and why; and that nothing is asked of it that it does not keep."""

from __future__ import annotations

import ast
import json
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, MutableMapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import redis
import structlog
from celery import Celery, signals
from kombu.transport.redis import MultiChannelPoller
from structlog.testing import capture_logs

from orchestrator import celery, wiring
from orchestrator.adapters.git import create_project
from orchestrator.errors import ALREADY_TOLD, TrackerUnavailable
from tests.support import ROOT

Make = Callable[..., Celery]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, redis_url: str) -> Iterator[Make]:
    """Makes an app as `celery -A orchestrator` has it in a repo of that name."""

    def make(name: str = "acme", toml: str = "poll_interval = 4\nconcurrency = 3\n") -> Celery:
        create_project(tmp_path / name, {"orch.toml": f'project = "{name}"\n{toml}'})
        monkeypatch.setenv("ORCH_PROJECT_ROOT", str(tmp_path / name))
        monkeypatch.setenv("ORCH_STATE_DIR", str(tmp_path / f"{name}-state"))
        monkeypatch.setenv("ORCH_REDIS_URL", redis_url)
        wiring.here.cache_clear()
        app = Celery(name, set_as_current=False)
        app.conf.update(celery.configuration())
        return app

    yield make
    wiring.here.cache_clear()


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        # A late ack is one unacked message per session, and a worker that holds one dies when Redis restarts.
        ("task_acks_late", False),
        # A message in a busy worker's memory is one that no free worker can take.
        ("worker_disable_prefetch", True),
        ("worker_prefetch_multiplier", 1),
        # Pickle would let anybody who can write to Redis run code here.
        ("accept_content", ["json"]),
        ("task_serializer", "json"),
        # Nobody may come to wait for a result.
        ("result_backend", None),
        ("task_ignore_result", True),
        # Redis may be away at any time, for any time.
        ("broker_connection_retry_on_startup", True),
        ("broker_connection_max_retries", None),
        # A misspelt queue is an error, not a queue that nobody reads.
        ("task_create_missing_queues", False),
        # Flower shows what events tell.
        ("worker_send_task_events", True),
        # One process stays free for polls where a worker serves all queues.
        ("worker_concurrency", 4),
    ],
)
def test_configuration(project: Make, setting: str, expected: object) -> None:
    """What the design stands on is set."""
    assert expected == project().conf[setting]


def test_a_silent_redis_is_noticed(project: Make) -> None:
    """Each wait for the broker is bounded, and a message under work is not delivered to another worker."""
    options = project().conf.broker_transport_options

    assert 10 >= options["socket_timeout"] >= options["socket_connect_timeout"] > 0
    assert 0 < options["health_check_interval"] <= 10
    assert 24 * 3600 == options["visibility_timeout"]


def test_ticks(project: Make) -> None:
    """Beat's schedule is ours alone, without a file, and a tick that nobody took in time expires."""
    app = project()
    scheduler = celery.OneLineScheduler(app)

    assert {"poll": 4, "publish": 4, "merge_close": 4, "sweep": 60} == {
        name: entry.schedule.run_every.total_seconds() for name, entry in scheduler.schedule.items()
    }
    assert app.conf.beat_scheduler == f"{celery.__name__}:{celery.OneLineScheduler.__name__}"
    for entry in scheduler.schedule.values():
        assert {"expires": 2 * entry.schedule.run_every.total_seconds()} == entry.options
        assert () == tuple(entry.args)


QUEUES = {
    "tasks.merge_close.merge_close": "merge_close",
    "tasks.poll.poll": "poll",
    "tasks.poll.sweep": "poll",
    "tasks.publish.publish": "publish",
    "tasks.session.rescue": "sessions",
    "tasks.session.run_issue_session": "sessions",
}


def test_every_task_has_its_queue(project: Make) -> None:
    """Sessions and control are kept apart, and a worker that is given no queues serves all of them."""
    app = project()

    assert QUEUES == {name: app.amqp.router.route({}, name)["queue"].name for name in tasks_of_the_app()}
    assert {*QUEUES.values(), "merge_close"} == app.amqp.queues.keys()


def tasks_of_the_app() -> list[str]:
    """Our tasks, as a worker finds them."""
    listing = "from orchestrator.celery import app; app.loader.import_default_modules(); print(*app.tasks)"
    done = subprocess.run(
        [sys.executable, "-c", listing],
        env=dict(os.environ) | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    return [name for name in done.stdout.split() if not name.startswith("celery.")]


def test_importing_touches_nothing(tmp_path: Path) -> None:
    """The app can be imported anywhere: nothing is read, connected to or written before it is used."""
    environ = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "HOME": str(tmp_path), "ORCH_REDIS_URL": "nonsense"}
    listing = "import json, orchestrator.celery, tasks.poll, tasks.publish, tasks.session; print(json.dumps('fine'))"
    done = subprocess.run(
        [sys.executable, "-c", listing], cwd=tmp_path, env=environ, capture_output=True, text=True, check=True
    )

    assert "fine" == json.loads(done.stdout)
    assert [] == list(tmp_path.iterdir())


def test_two_projects_on_one_redis(project: Make, redis_url: str) -> None:
    """Neither project takes the other's messages, and all that Celery writes bears the project's name."""
    acme, other = project("acme"), project("other")
    with acme.connection_for_write() as connection:
        acme.send_task("tasks.poll.poll", connection=connection)
    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        names = list(client.scan_iter())
        taken = [message(app) for app in (other, acme)]
        client.flushdb()

    assert names
    assert [] == [name for name in names if not name.startswith("orch:{acme}:celery:")]
    assert [None, "tasks.poll.poll"] == taken


def message(app: Celery) -> str | None:
    """The task that waits for this app's polling worker."""
    with app.connection_for_read() as connection:
        found = app.amqp.queues["poll"](connection.default_channel).get(no_ack=True)
        return found and str(found.headers["task"])


def test_a_second_sigterm_does_not_wait_for_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """Celery sends its signal in the handler, and under a lock: one that interrupts it there sends it as well."""
    told = signals.worker_shutting_down
    under_the_lock = told._clear_dead_receivers
    interruptions = iter([partial(told.send, sender="worker@test")])

    def interrupted() -> None:
        next(interruptions, list)()
        under_the_lock()

    monkeypatch.setattr(told, "_clear_dead_receivers", interrupted)
    monkeypatch.setattr(celery, "_stop", bytearray(1))
    first = threading.Thread(target=told.send, kwargs={"sender": "worker@test"}, daemon=True)
    first.start()
    first.join(10)

    assert not first.is_alive()
    assert celery.stopping()


@pytest.mark.parametrize("folder", ["tasks", "beat", "orchestrator"])
def test_no_waiting_in_the_broker(folder: str) -> None:
    """Nothing asks Celery to hold a message back or to try again: that is one unacked message, and Redis forgets it."""
    found = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in (ROOT / folder).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Call) and waits(node)
    ]

    assert [] == found


def waits(call: ast.Call) -> bool:
    """Whether a call has a countdown or an ETA, or is a retry."""
    named = {keyword.arg for keyword in call.keywords} & {"countdown", "eta", "autoretry_for", "retry_backoff"}
    return bool(named) or (isinstance(call.func, ast.Attribute) and call.func.attr == "retry")


@contextmanager
def logged() -> Iterator[list[MutableMapping[str, Any]]]:
    """What the module logs meanwhile, by a fresh logger: one that was used keeps the configuration of that time."""
    with pytest.MonkeyPatch.context() as fresh, capture_logs() as lines:
        fresh.setattr(celery, "log", structlog.get_logger())
        yield lines


def test_a_failing_tick_is_said_once() -> None:
    """A tick that fails as the one before it is not said again, until all was well in between."""
    task: Any = celery.OneLineTask()
    away = TrackerUnavailable("the tracker is away")
    with logged() as lines:
        for _ in range(3):
            task.on_failure(away, "an id", (), {}, None)
        task.on_success(None, "an id", (), {})
        task.on_failure(away, "an id", (), {}, None)

    assert ["the tracker is away"] * 2 == [line["reason"] for line in lines]


def test_a_redis_that_refuses_the_broker_is_one_line(caplog: pytest.LogCaptureFixture) -> None:
    """kombu prolongs its queues from time to time, and prints a page each time a replica takes no writes."""

    class Refused:
        connection_errors, ResponseError = redis.ConnectionError, redis.ResponseError

        def maybe_refresh_binding_expiry(self) -> None:
            raise redis.ReadOnlyError("You can't write against a read only replica.")

    signals.after_setup_logger.send(None, logger=logging.getLogger("nobody's"))
    poller: Any = MultiChannelPoller()  # type: ignore[no-untyped-call] # as all of kombu
    poller._channels = [Refused()]  # it asks each
    for _ in range(3):
        poller.maybe_refresh_binding_expiry()

    (line,) = caplog.records
    assert ("kombu.transport.redis", None) == (line.name, line.exc_info)


def test_what_a_session_has_said_is_not_said_again() -> None:
    """An error that ended a session was told by the session."""
    task: Any = celery.OneLineTask()
    error = TrackerUnavailable("i-a1b2: some error")
    error.add_note(ALREADY_TOLD)
    with logged() as lines:
        task.on_failure(error, "an id", ("i-a1b2",), {}, None)

    assert [] == lines


def test_a_tick_that_cannot_be_sent_is_said_once(project: Make, redis_url: str, tmp_path: Path) -> None:
    """Beat says in one line that it cannot send, and not again at every tick; once one was sent, the next is news."""
    app = project()
    app.conf.task_publish_retry = False
    scheduler = celery.OneLineScheduler(app)
    said = []
    for broker in (nobody := f"redis+socket://{tmp_path}/nobody.sock", app.conf.broker_url, nobody):
        with app.connection_for_write(broker) as connection, logged() as lines:
            for entry in list(scheduler.schedule.values())[:2]:  # each costs kombu six seconds
                scheduler.apply_entry(entry, producer=app.amqp.Producer(connection))
        said.append([line["event"] for line in lines])
    redis.Redis.from_url(redis_url).flushdb()

    assert [["tick_not_sent"], [], ["tick_not_sent"]] == said


def test_a_dead_broker_is_one_line(project: Make, tmp_path: Path) -> None:
    """What is enqueued as a hint may be lost: a broker that is away is a log line, and nobody is stopped by it."""
    app = project()
    app.conf.broker_url = f"redis+socket://{tmp_path}/nobody.sock"

    @app.task(name="tasks.poll.poll")
    def task() -> None:
        """Never run."""

    with logged() as lines:
        celery.nudge(task)

    assert ["not_enqueued"] == [line["event"] for line in lines]
