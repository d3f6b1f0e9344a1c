"""The poll task."""

from __future__ import annotations

from orchestrator import wiring
from orchestrator.celery import app, nudge
from tasks.session import run_issue_session, sessions


# No events: ticks would crowd the sessions out of Flower.
@app.task(send_events=False)
def poll() -> None:
    """Claim what is ready and start a session for each. Running it again is harmless: a claim has one winner."""
    wiring.here().poll(start=_start, sessions=sessions("poll"))()


def _start(issue_id: str, token: int) -> None:
    # The id is what Flower shows; a lost message is found again when the claim expires.
    nudge(run_issue_session, issue_id, task_id=f"{issue_id}.{token}")
