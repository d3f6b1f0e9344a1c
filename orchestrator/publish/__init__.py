"""What the tracker is told, and telling it. `entries` is a door of its own, for what only makes entries."""

from orchestrator.publish.outbox import Outbox, publish

__all__ = ["Outbox", "publish"]
