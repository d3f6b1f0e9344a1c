"""The schedule. A tick carries no data: it says that it is time to look."""

from __future__ import annotations

from typing import Any

from beat.queues import CONTROL, TASKS

TICKS = (*CONTROL, "sweep")

SWEEPS_APART = 4
"""Leases between two sweeps: a minute, unless set otherwise. More than one, because a sweep that finds Redis emptied
leaves it to the next one to start anything: by then the workers that ran sessions before have noticed, too."""


def entries(poll_interval: float, lease_s: float) -> dict[str, dict[str, Any]]:
    """Celery's `beat_schedule`: a poll, a publish and a look for merges per `poll_interval` seconds, a sweep every
    four leases.

    A tick that no worker took in time expires, so ticks never pile up behind a slow tracker; two beats are harmless
    because a claim is atomic and telling is locked.
    """
    return {
        **{queue: _tick(f"{TASKS[queue]}.{queue}", poll_interval) for queue in CONTROL},
        "sweep": _tick("tasks.poll.sweep", SWEEPS_APART * lease_s),
    }


def _tick(task: str, every_s: float) -> dict[str, Any]:
    return {"task": task, "schedule": every_s, "options": {"expires": 2 * every_s}}
