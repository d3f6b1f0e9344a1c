"""Choose the next issue, claim it, and recover work whose worker is gone.

`candidates` is a second door, for code that only wants to know which issues could run.
"""

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
