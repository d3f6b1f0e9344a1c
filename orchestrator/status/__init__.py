"""What is going on and why: one issue, all of them, a night."""

from orchestrator.status.board import (
    EngineStatus,
    IssueStatus,
    Seen,
    ask_redis,
    ask_tracker,
    collect,
    leases_if_up,
    put_together,
    snapshots_of,
)
from orchestrator.status.explanation import Explanation

__all__ = [
    "EngineStatus",
    "Explanation",
    "IssueStatus",
    "Seen",
    "ask_redis",
    "ask_tracker",
    "collect",
    "leases_if_up",
    "put_together",
    "snapshots_of",
]
