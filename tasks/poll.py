"""The tasks that claim: poll, and the sweep before it."""

from __future__ import annotations

import socket

from orchestrator.celery import app, here
from tasks.session import sessions, start


# No events: ticks would crowd the sessions out of Flower.
@app.task(send_events=False)
def poll() -> None:
    """Claim what is ready and start a session for each. Running it again is harmless: a claim has one winner."""
    here().poll(start=start, sessions=sessions(f"control@{socket.gethostname()}"))()


# No events, as above.
@app.task(send_events=False)
def sweep() -> None:
    """Have work without an owner claimed again, then poll: `tick` takes any task in this queue for a poll.

    Running it again is harmless: a claim has one winner.
    """
    here().sweep()()
    poll()
