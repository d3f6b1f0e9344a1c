"""The queues, and the tasks that each carries. `orchestrator/local/programs.py` says which process serves which."""

from __future__ import annotations

SESSIONS, POLL, PUBLISH, MERGE_CLOSE = "sessions", "poll", "publish", "merge_close"
CONTROL = (POLL, PUBLISH, MERGE_CLOSE)
QUEUES = (SESSIONS, *CONTROL)

TASKS = {
    SESSIONS: "tasks.session",
    POLL: "tasks.poll",
    PUBLISH: "tasks.publish",
    MERGE_CLOSE: "tasks.merge_close",
}
"""The module with a queue's tasks."""
