"""What runs in the nodes of pytest-celery, whatever they are made of."""

from __future__ import annotations

from pytest_celery import DEFAULT_WORKER_NAME

REDIS_OPTIONS = ("--appendonly", "yes", "--save", "", "--protected-mode", "no", "--maxmemory-policy", "noeviction")


def worker_command() -> list[str]:
    """A worker that is a whole stack: it serves all queues, and keeps beat's time."""
    name = f"{DEFAULT_WORKER_NAME}@%h"
    options = ["-B", "-c", "3", "-n", name, "--loglevel", "info", "--without-gossip", "--without-mingle"]
    return ["python", "-P", "-m", "celery", "-A", "orchestrator", "worker", *options]
