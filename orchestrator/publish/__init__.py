"""Entries for the tracker, and telling them. `entries` is a second door, for code that only makes entries."""

from orchestrator.publish.outbox import Outbox, publish

__all__ = ["Outbox", "publish"]
