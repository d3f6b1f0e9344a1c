"""The tasks that run sessions, and recover those whose worker is gone."""

from __future__ import annotations

import os
from typing import Any

from orchestrator.celery import app, here, nudge, stopping, tick
from orchestrator.session import Sessions


@app.task(bind=True)
def run_issue_session(self: Any, issue_id: str) -> None:
    """Run the issue's session to its verdict. Running it again is harmless: it finds the lease, or leaves."""
    try:
        sessions(self.request.hostname).run(issue_id)
    finally:
        # A free slot must not wait for the clock.
        tick("poll")


# No events: it is about no session in particular.
@app.task(bind=True, send_events=False)
def rescue(self: Any) -> None:
    """Take up the sessions whose worker fell silent, as a poll does, which may be waiting for the tracker.

    Running it again is harmless: taking a session up extends its lease.
    """
    here().rescue_silent(start=start, sessions=sessions(self.request.hostname))()


def start(issue_id: str, token: int) -> None:
    """Enqueue a session. A lost message is found again when the claim expires."""
    # The id is what Flower shows.
    nudge(run_issue_session, issue_id, task_id=f"{issue_id}.{token}")


def sessions(hostname: str) -> Sessions:
    """The runner of sessions in this process, under its worker's name."""
    return here().sessions(owner=f"{hostname}/{os.getpid()}", wake=lambda: tick("publish"), stopping=stopping)
