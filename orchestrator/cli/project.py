"""The project that a command is about: its wiring, and a word to its workers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.settings import FILE, Settings, from_environment
from orchestrator.wiring import Wiring, here, sandbox_report, start_anew_without, tracker_command

if TYPE_CHECKING:
    from orchestrator.wiring.merges import MergeWiring

__all__ = [
    "FILE",
    "Settings",
    "Wiring",
    "from_environment",
    "here",
    "merges",
    "merges_of",
    "poll_soon",
    "sandbox_report",
    "start_anew_without",
    "tracker_command",
]


def merges() -> MergeWiring:
    """The wiring of delivering and closing."""
    # Here, because few commands have to do with merges.
    from orchestrator.wiring.merges import here

    return here()


def merges_of(wiring: Wiring) -> MergeWiring:
    """The same for a project that is not, or not yet, the one of this process."""
    from orchestrator.wiring.merges import MergeWiring

    return MergeWiring(wiring)


def poll_soon() -> None:
    """Have the tracker looked at without waiting for the clock. Losing this costs one poll interval."""
    # Here, because Celery takes longer to load than most commands take.
    from orchestrator.celery import app, nudge

    nudge(app.signature("tasks.poll.poll"))
