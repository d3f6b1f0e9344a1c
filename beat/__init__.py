"""The clock and the queues: what is sent, when, and where to."""

from beat.queues import CONTROL, MERGE_CLOSE, POLL, PUBLISH, QUEUES, SESSIONS, TASKS
from beat.schedule import TICKS, entries

__all__ = ["CONTROL", "MERGE_CLOSE", "POLL", "PUBLISH", "QUEUES", "SESSIONS", "TASKS", "TICKS", "entries"]
