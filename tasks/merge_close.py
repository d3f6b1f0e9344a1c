"""The merge_close task: finished work is delivered, and what was merged is closed."""

from __future__ import annotations

from orchestrator.celery import app, tick
from orchestrator.wiring import merges as merge_wiring


# No events: ticks would crowd the sessions out of Flower.
@app.task(send_events=False)
def merge_close() -> None:
    """Deliver finished work and close what was merged. Running it again is harmless: all of it is set."""
    if merge_wiring.here().look():
        tick("poll")  # what waited for it need not wait for the clock
