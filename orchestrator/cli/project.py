"""The project that a command is about: its wiring, and a word to its workers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.wiring import Wiring, here, tracker_command

if TYPE_CHECKING:
    from orchestrator.wiring.merges import MergeWiring

__all__ = ["Wiring", "here", "merges", "poll_soon", "tracker_command"]


def merges() -> MergeWiring:
    """The wiring of delivering and closing."""
    # Here, because few commands have to do with merges.
    from orchestrator.wiring.merges import here

    return here()


def poll_soon() -> None:
    """Have the tracker looked at without waiting for the clock. Losing this costs one poll interval."""
    # Here, because Celery takes longer to load than most commands take.
    from orchestrator.celery import app, nudge

    nudge(app.signature("tasks.poll.poll"))
