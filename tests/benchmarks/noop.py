"""The product's Celery app and its own tasks; only the steps of a session do nothing, so what is left is the engine.

celery -A tests.benchmarks.noop worker -Q sessions -c 4
"""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import Any

from orchestrator import wiring as wiring
from orchestrator.agent_roles import RoleSteps
from orchestrator.celery import app
from orchestrator.models import (
    ImplementerResult,
    Lease,
    Progress,
    Report,
    ReviewResult,
    Step,
    VerificationEvidence,
    utc_now,
)
from orchestrator.session.keeper import LeaseKeeper
from orchestrator.session.run import Sessions
from orchestrator.session_loop import Doer
from orchestrator.settings import from_environment
from tests.benchmarks import plain

COMMANDS = "commands.json"
"""The file, in the project's state folder, with what `plain` sends for a session."""


def no_op_steps(_lease: Lease, keeper: LeaseKeeper) -> Doer:
    """Roles that answer at once, and the check that is made before each step."""

    def implement(_prompt: str, _fix_list: object) -> ImplementerResult:
        now = utc_now()
        evidence = VerificationEvidence("make test", "3 passed in 0.12 s", 0, now)
        return ImplementerResult(evidence, now, "Added the check and a test for it.", commit="c0ffee" * 6)

    def review(_prompt: str, _result: ImplementerResult, _attempt: int) -> ReviewResult:
        return ReviewResult(True, [], [], "Every item of the checklist holds.")

    roles = RoleSteps("", implementer=implement, spec_reviewer=review, quality_reviewer=review, now=utc_now)

    def do(step: Step, progress: Progress) -> Report:
        keeper.check()
        return roles(step, progress)

    return do


class NoOpWiring(wiring.Wiring):
    """The product's wiring but for the steps."""

    def sessions(self, **how: Any) -> Sessions:
        """What runs sessions, with steps that do nothing."""
        return replace(super().sessions(**how), doer=no_op_steps)


# In this worker's processes only: the tasks below are the product's own, and ask for the wiring when they run.
wiring.here = functools.cache(lambda: NoOpWiring(from_environment()))


@app.task
def plain_session(issue_id: str) -> None:
    """The same Redis commands, without the engine."""
    here = wiring.here()
    plain.run(plain.connected(here.redis_url), plain.load(here.state(COMMANDS)), issue_id)
