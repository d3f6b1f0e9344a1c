"""pytest-celery's set-up, of containers or of processes: one broker, and one worker that is a whole stack.

Its fixtures are imported, because the plugin itself would be loaded for all tests, and with it Docker's library.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from pytest_celery import (  # noqa: F401
    CeleryBrokerCluster,
    CeleryTestSetup,
    CeleryTestWorker,
    CeleryWorkerCluster,
    RedisTestBroker,
    celery_broker_cluster_config,
    celery_setup,
    celery_setup_app,
    celery_setup_cls,
    celery_setup_name,
    celery_worker_cluster_config,
)

from orchestrator.adapters.redis import connect
from tests.acceptance.project import Project
from tests.docker import containers, processes

BACK_ENDS = [
    pytest.param(processes.start, id="processes"),
    pytest.param(containers.start, id="containers", marks=pytest.mark.docker),
]


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    """A project whose agents are run by whatever `python` is where the worker is."""
    with Project(tmp_path) as project:
        project.toml.write_text(project.toml.read_text().replace(sys.executable, "python"))
        project.env["PATH"] = f"{Path(sys.executable).parent}:{project.env['PATH']}"
        yield project


@pytest.fixture(params=BACK_ENDS)
def nodes(request: pytest.FixtureRequest, project: Project) -> Iterator[tuple[Any, Any]]:
    """The broker's container and the worker's."""
    with ExitStack() as cleanup:
        broker, worker = request.param(project.folder, project.env, cleanup)
        project.redis = connect(broker.host_url)
        yield broker, worker


@pytest.fixture
def celery_broker_cluster(nodes: tuple[Any, Any]) -> CeleryBrokerCluster:
    return CeleryBrokerCluster(RedisTestBroker(nodes[0]))


@pytest.fixture
def celery_worker_cluster(nodes: tuple[Any, Any]) -> CeleryWorkerCluster:
    return CeleryWorkerCluster(CeleryTestWorker(nodes[1], app=None))


@pytest.fixture
def celery_backend_cluster() -> None:
    """Nobody waits for results."""


@pytest.fixture
def celery_backend_cluster_config() -> None:
    """So there is nothing to be told of them."""


@pytest.fixture
def celery_setup_config(celery_worker_cluster_config: dict[str, Any], project: Project) -> dict[str, Any]:  # noqa: F811
    """What the test's own Celery is told: the same Redis, and the project's names in it."""
    options = {"global_keyprefix": project.keys("celery:")}
    return CeleryTestSetup.config(celery_worker_cluster_config) | {"broker_transport_options": options}
