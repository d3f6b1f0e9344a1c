"""Which issue is next, claiming it, and finding the ones whose worker is gone."""

from orchestrator.poll.claim import RUNNING, RUNNING_ALREADY, Poll
from orchestrator.poll.rescue import Rescue, Sweep, unfinished

__all__ = [
    "RUNNING",
    "RUNNING_ALREADY",
    "Poll",
    "Rescue",
    "Sweep",
    "unfinished",
]
