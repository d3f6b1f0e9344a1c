"""The queues: the tasks that each carries, and the worker that serves it.

    worker     serves                        how many
    sessions   sessions                      any number, on any host
    control    poll, publish, merge_close    on one host, the tracker's

A plain `celery -A orchestrator worker` serves all of them.
"""

from __future__ import annotations

SESSIONS = "sessions"
CONTROL = ("poll", "publish", "merge_close")
QUEUES = (SESSIONS, *CONTROL)

TASKS = {
    SESSIONS: "tasks.session",
    "poll": "tasks.poll",
    "publish": "tasks.publish",
    "merge_close": "tasks.merge_close",
}
"""The module with a queue's tasks."""
