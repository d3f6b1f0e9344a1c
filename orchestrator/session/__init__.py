"""Running one session: its lease, its steps, its end."""

from orchestrator.session.keeper import LeaseKeeper
from orchestrator.session.orphans import end_orphans
from orchestrator.session.run import Sessions
from orchestrator.session.steps import SessionTools, WorktreeSteps, put_aside
from orchestrator.session.verification import BaseCheck, BaseWatch, Verification

__all__ = [
    "BaseCheck",
    "BaseWatch",
    "LeaseKeeper",
    "SessionTools",
    "Sessions",
    "Verification",
    "WorktreeSteps",
    "end_orphans",
    "put_aside",
]
