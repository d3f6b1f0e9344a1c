"""The session task."""

from __future__ import annotations

import os
from typing import Any

from orchestrator import wiring
from orchestrator.celery import app, stopping, tick
from orchestrator.sessions import Sessions


@app.task(bind=True)
def run_issue_session(self: Any, issue_id: str) -> None:
    """Run the issue's session to its verdict. Running it again is harmless: it finds the lease, or leaves."""
    try:
        sessions(self.request.hostname).run(issue_id)
    finally:
        # A free slot must not wait for the clock.
        tick("poll")


def sessions(hostname: str) -> Sessions:
    """What runs sessions in this process, under its worker's name."""
    return wiring.here().sessions(owner=f"{hostname}/{os.getpid()}", wake=lambda: tick("publish"), stopping=stopping)
