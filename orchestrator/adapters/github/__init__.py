"""GitHub's API: pull requests, opened and seen."""

from orchestrator.adapters.github.pulls import GitHub, PullRequestEvent

__all__ = [
    "GitHub",
    "PullRequestEvent",
]
