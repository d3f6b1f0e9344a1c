"""The schedule. A tick carries no data; it only says that it is time to look."""

from __future__ import annotations

from typing import Any


def entries(poll_interval: float) -> dict[str, dict[str, Any]]:
    """Celery's `beat_schedule`, one tick of each kind per `poll_interval` seconds.

    A tick that nobody took in time expires, so ticks never pile up behind a slow tracker; two beats are harmless
    because a claim is atomic and telling is locked.
    """
    options = {"expires": 2 * poll_interval}
    return {
        "poll": {"task": "tasks.poll.poll", "schedule": poll_interval, "options": options},
        "publish": {"task": "tasks.publish.publish", "schedule": poll_interval, "options": options},
    }
