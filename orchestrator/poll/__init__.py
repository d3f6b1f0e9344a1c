"""Choose the next issue, claim it, and recover work whose worker is gone."""

from orchestrator.poll.candidates import Candidate, candidates, open_blockers, too_many_fixes
from orchestrator.poll.claim import RUNNING, RUNNING_ALREADY, Poll
from orchestrator.poll.rescue import Rescue, Sweep, unfinished

__all__ = [
    "RUNNING",
    "RUNNING_ALREADY",
    "Candidate",
    "Poll",
    "Rescue",
    "Sweep",
    "candidates",
    "open_blockers",
    "too_many_fixes",
    "unfinished",
]
