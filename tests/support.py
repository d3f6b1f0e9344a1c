"""What several tests share: waiting without sleeping, and the smallest valid things to start from."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from orchestrator.gateway import SudocodeGateway
from orchestrator.memory import MemoryTracker
from orchestrator.models import ImplementerResult, IssueContext, ReviewResult, VerificationEvidence

ROOT = Path(__file__).resolve().parents[1]
NOON = datetime(2026, 1, 5, 12, 0, tzinfo=UTC)


def wait_until(predicate: Callable[[], object], what: str, timeout: float = 30.0) -> None:
    """Poll until `predicate` is true; fail, saying what should have happened, when it is not in time.

    Polls less often the longer it takes: what is waited for needs the CPU too.
    """
    deadline, pause_s = time.monotonic() + timeout, 0.01
    while not predicate():
        assert time.monotonic() < deadline, f"not within {timeout:g} s: {what}"
        time.sleep(pause_s)
        pause_s = min(0.1, pause_s * 1.1)


def noon() -> datetime:
    """A clock that stands still, so that equal stories are told in equal words."""
    return NOON


def an_issue(**changes: str) -> IssueContext:
    """An issue that says all there is to say."""
    issue = IssueContext(
        issue_id="i-a1b2",
        manifest_id="docs/roadmap.md",
        task_id="DEV-001",
        gate_id="G1",
        epic_id="EPIC-01",
        title="Parse empty input",
        depends_on="DEV-000",
        dod_checklist_full="- [ ] empty input is accepted\n- [ ] `make test` passes",
        verify_level="L1",
        approval="auto",
        source_doc="docs/roadmap.md",
    )
    return replace(issue, **changes)


def evidence(exit_code: int = 0, *, produced_at: datetime = NOON, output: str = "3 passed") -> VerificationEvidence:
    """One run of `make test`, with a commit and its whole output somewhere."""
    return VerificationEvidence("make test", output, exit_code, produced_at, "c0ffee", "runs/1.log")


def an_answer(prompt: str, fields: Mapping[str, object]) -> str:
    """What an agent prints that repeats its prompt's nonce."""
    return json.dumps({"nonce": re.findall(r'"nonce": "(\w+)"', prompt)[-1], **fields})


def gateway_to(
    tracker: MemoryTracker,
    *,
    sleep: Callable[[float], object] = lambda _seconds: None,
    redact: Callable[[str], str] = str,
) -> SudocodeGateway:
    """A gateway over the five callables, as the runbook wires it; it does not wait between its tries."""
    return SudocodeGateway(
        mcp_ready=tracker.ready,
        mcp_show_issue=tracker.show_issue,
        mcp_upsert_issue=tracker.upsert_issue,
        mcp_add_feedback=tracker.add_feedback,
        mcp_link=tracker.link,
        sleep=sleep,
        redact=redact,
    )


@dataclass
class Roles:
    """Three roles in a host's own process: each review says no as often as told, then yes.

    `asked` is who was asked, and for what: which fixes, or which attempt.
    """

    spec_noes: int = 0
    quality_noes: int = 0
    exit_code: int = 0
    asked: list[tuple[str, object]] = field(default_factory=list)

    def implementer(self, prompt: str, fix_list: Sequence[str]) -> ImplementerResult:
        """Changes the code at noon, and verifies it."""
        self.asked.append(("implementer", tuple(fix_list)))
        return ImplementerResult(evidence(self.exit_code), NOON, "done")

    def spec_reviewer(self, prompt: str, implementer_result: ImplementerResult, attempt: int) -> ReviewResult:
        """Says no `spec_noes` times."""
        self.asked.append(("spec_reviewer", attempt))
        return self._review("spec", attempt, self.spec_noes)

    def quality_reviewer(self, prompt: str, implementer_result: ImplementerResult, attempt: int) -> ReviewResult:
        """Says no `quality_noes` times."""
        self.asked.append(("quality_reviewer", attempt))
        return self._review("quality", attempt, self.quality_noes)

    @staticmethod
    def _review(kind: str, attempt: int, noes: int) -> ReviewResult:
        if attempt > noes:
            return ReviewResult(True, [], [], "good")
        return ReviewResult(False, [f"{kind} item {attempt}"], [f"{kind} fix {attempt}"], "bad")
