"""The runbook's "Minimal Serial Poll Loop" runs as printed, with only the package's name changed."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest

from orchestrator.issue import feedback_of
from orchestrator.memory import MemoryTracker
from tests.support import ROOT

AS_PRINTED = """
from __future__ import annotations

import time
from pathlib import Path

from orchestrator.agent_roles import RoleAgentAdapter
from orchestrator.gateway import SudocodeGateway
from orchestrator.runner import IssueSessionRunner
from orchestrator.session_loop import SingleSessionOrchestrator


def build_gateway(mcp_client) -> SudocodeGateway:
    return SudocodeGateway(
        mcp_ready=mcp_client.ready,
        mcp_show_issue=mcp_client.show_issue,
        mcp_upsert_issue=mcp_client.upsert_issue,
        mcp_add_feedback=mcp_client.add_feedback,
        mcp_link=mcp_client.link,
    )


def main(mcp_client, role_transport) -> None:
    template = Path("docs/prompts/prompt_template.md").read_text(encoding="utf-8")
    gateway = build_gateway(mcp_client)
    role_adapter = RoleAgentAdapter(transport=role_transport)
    orchestrator = SingleSessionOrchestrator(gateway=gateway)

    runner = IssueSessionRunner(
        gateway=gateway,
        orchestrator=orchestrator,
        orchestrator_id="orch-main",
        prompt_template=template,
        implementer=role_adapter.implementer,
        spec_reviewer=role_adapter.spec_reviewer,
        quality_reviewer=role_adapter.quality_reviewer,
    )

    while True:
        runner.poll_ready_and_run_once()
        time.sleep(5)
"""

ANSWERS: dict[str, dict[str, object]] = {
    "implementer": {
        "code_changed_at": "2026-01-05T12:00:00Z",
        "notes": "done",
        "verification": {"command": "make test", "output": "ok", "exit_code": 0, "produced_at": "2026-01-05T12:00:01Z"},
    },
    "spec_reviewer": {"passed": True, "failed_items": [], "fix_list": [], "notes": ""},
    "quality_reviewer": {"passed": True, "failed_items": [], "fix_list": [], "notes": ""},
}


class Slept(Exception):
    """The loop came to its sleep."""


def one_pass(tracker: Any, transport: Any) -> None:
    """Run the printed loop until it would sleep for the first time."""

    def sleep(seconds: float) -> None:
        assert 5 == seconds
        raise Slept

    runbook: dict[str, Any] = {}
    exec(compile(AS_PRINTED, "runbook", "exec"), runbook)
    runbook["time"] = SimpleNamespace(sleep=sleep)
    with pytest.raises(Slept):
        runbook["main"](tracker, transport)


@pytest.fixture(autouse=True)
def _in_the_repository(monkeypatch: pytest.MonkeyPatch) -> None:
    """The loop reads its template relative to the working directory."""
    monkeypatch.chdir(ROOT)


def test_one_pass_of_the_loop_runs_one_issue_to_its_review() -> None:
    """A ready issue goes through all roles, with its text in every prompt, and ends in needs_review."""
    tracker = MemoryTracker()
    issue_id = tracker.file("DEV-001: Parse empty input", content="Gate: G1\n\n- [ ] empty input is accepted")
    asked: list[str] = []

    def transport(role: str, prompt: str) -> str:
        asked.append(role)
        assert "- [ ] empty input is accepted" in prompt
        return f"I am done.\n```json\n{json.dumps(ANSWERS[role], indent=1)}\n```\n"

    one_pass(tracker, transport)
    told = [json.loads(content)["event_type"] for content in feedback_of(tracker.show_issue(issue_id))]

    assert ["implementer", "spec_reviewer", "quality_reviewer"] == list(dict.fromkeys(asked))
    assert 6 == len(asked), "the runbook's transport repeats no nonce, so each role is asked once more"
    assert ["SESSION_START", "IMPLEMENT_DONE", "SPEC_REVIEW_PASS", "QUALITY_REVIEW_PASS", "SESSION_DONE"] == told[::-1]
    assert [(issue_id, "in_progress"), (issue_id, "in_progress"), (issue_id, "needs_review")] == tracker.status_updates


def test_a_pass_with_nothing_to_do_sleeps() -> None:
    """With no issue ready, nobody is asked and nothing is told."""
    tracker = MemoryTracker()

    def transport(role: str, _prompt: str) -> str:
        raise AssertionError(f"{role} was asked")

    one_pass(tracker, transport)

    assert [] == tracker.status_updates
