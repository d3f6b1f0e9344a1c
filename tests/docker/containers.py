"""pytest-celery's nodes in real containers: a Redis, and a worker from our image on the folder of the test."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

import docker
import pytest
from docker.errors import DockerException, ImageNotFound
from pytest_celery import CeleryWorkerContainer, RedisContainer

from tests.docker.nodes import REDIS_OPTIONS, worker_command
from tests.docker.processes import free_port
from tests.support import wait_until

IMAGE = "sudocode-orchestrator"
REDIS = "redis:7.4-bookworm"


class PublishedRedis(RedisContainer):
    """A Redis on a port of this machine that stays the same when it is restarted."""

    @property
    def port(self) -> int:
        return int(self.attrs["NetworkSettings"]["Ports"]["6379/tcp"][0]["HostPort"])


def reachable() -> bool:
    """Whether there is an engine to ask. Docker's client leaves a socket open each time that there is none."""
    if os.environ.get("DOCKER_HOST"):
        return True
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex("/var/run/docker.sock") == 0


def start(folder: Path, env: Mapping[str, str], cleanup: ExitStack) -> tuple[RedisContainer, CeleryWorkerContainer]:
    """A Redis, and a worker on it; `cleanup` removes them. Skips the test where there is no engine or no image."""
    if not reachable():
        pytest.skip("no Docker engine answers; `make docker-test` starts one")
    try:
        engine = docker.from_env()
        cleanup.callback(engine.close)
        engine.images.get(IMAGE)
    except ImageNotFound:
        pytest.skip(f"there is no image {IMAGE}; `make docker-test` builds it")
    except DockerException:
        pytest.skip("no Docker engine answers; `make docker-test` starts one")
    network = engine.networks.create(f"orch-{folder.name}")
    cleanup.callback(network.remove)

    def run(image: str, command: list[str], **options: object) -> object:
        container = engine.containers.run(image, command, detach=True, network=network.name, **options)
        cleanup.callback(container.remove, force=True, v=True)
        return container

    command = ["redis-server", *REDIS_OPTIONS]
    broker = PublishedRedis(run(REDIS, command, ports={"6379/tcp": ("127.0.0.1", free_port())}))
    wait_until(broker.ready, "Redis should be ready", 60)
    inside = {name: value for name, value in env.items() if name not in ("PATH", "PYTHONPATH")}
    worker = run(
        IMAGE,
        worker_command(),
        environment=inside | {"ORCH_REDIS_URL": broker.url},
        # At the same place: the tests look at the repo, and at what agents note down.
        volumes={str(folder): {"bind": str(folder)}},
        user=f"{os.getuid()}:{os.getgid()}",
    )
    return broker, CeleryWorkerContainer(worker)
