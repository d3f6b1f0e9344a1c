"""Merges to try the rules on: issues whose sessions ended in every way, and pull requests that deliver them."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from orchestrator.issue import feedback_of
from orchestrator.memory import MemoryTracker
from orchestrator.merge_close.events import MergeClosePayload, PullRequest
from orchestrator.merge_close.record import Marker
from orchestrator.merge_close.rules import Trust
from orchestrator.models import Progress, Report, Stage, Verdict
from orchestrator.publish.entries import About, error_entries, opening_entries, step_entries, tell, verdict_entries
from tests.support import NOON, an_issue, evidence, gateway_to

LATER = NOON + timedelta(hours=1)
SHA = "a" * 40
TRUST = Trust("acme/shop", "main", frozenset({"Lead"}))


def pull(issue_id: str = "i-a1b2", number: int = 12, **changes: Any) -> PullRequest:
    """The merged pull request that delivered an issue."""
    merged = PullRequest(
        repo="acme/shop",
        number=number,
        url=f"https://github.com/acme/shop/pull/{number}",
        body=f"Parse empty input.\n\nSudocode-Issue: {issue_id}\n",
        author="somebody",
        head_repo="acme/shop",
        branch=f"orch/{issue_id}",
        base="main",
        merge_sha=SHA,
        merged_at=NOON,
        closed_at=NOON,
        updated_at=NOON,
    )
    return replace(merged, **changes)


def payload(issue_id: str = "i-a1b2", **changes: Any) -> MergeClosePayload:
    """The merge of that pull request."""
    merge = MergeClosePayload(issue_id, "https://github.com/acme/shop/pull/12", SHA, NOON, True, "daemon")
    return replace(merge, **changes)


class Tracked(MemoryTracker):
    """A tracker in which sessions can be played to their end."""

    def session(self, verdict: Verdict | None, issue_id: str = "i-a1b2", *, at: datetime = NOON) -> str:
        """One session of an issue, filed if it is new, as the tracker is told of it; without a verdict it goes on."""
        if issue_id not in self.issues:
            self.file("Parse empty input", issue_id=issue_id)
        about = About(an_issue(issue_id=issue_id), "session-1", "orch-test")
        passed = verdict is not Verdict.OVERFLOW
        review = Report(Stage.SPEC_REVIEW, 3, at, passed=passed, failed_items=() if passed else ("no test",))
        progress = Progress(evidence=evidence()).after(review)
        entries = [*opening_entries(about, at=at), *step_entries(about, progress, review)]
        if verdict is Verdict.ERROR:
            entries += error_entries(about, progress, ValueError("disk full"), at=at)
        elif verdict:
            entries += verdict_entries(about, progress, verdict, at=at)
        made = [tell(entry, gateway_to(self)) for entry in entries]
        return next((fix_id for fix_id in made if fix_id), "")

    def status(self, issue_id: str = "i-a1b2") -> str:
        return str(self.issues[issue_id]["status"])

    def markers(self, issue_id: str = "i-a1b2") -> list[str]:
        """What the issue's feedback says of merges, oldest first."""
        told = reversed(list(feedback_of(self.show_issue(issue_id))))
        return [marker for content in told for marker in Marker if f'"marker": "{marker}"' in content]

    def everything(self) -> str:
        """All there is, to see whether anything changed."""
        return repr((self.issues, self.links))
