"""The task that closes."""

from __future__ import annotations

from orchestrator import wiring
from orchestrator.celery import app, tick


# No events: ticks would crowd the sessions out of Flower.
@app.task(send_events=False)
def merge_close() -> None:
    """Hand over finished work and close what was merged. Running it again is harmless: all of it is set."""
    if wiring.here().look_for_merges():
        tick("poll")  # what waited for it need not wait for the clock
