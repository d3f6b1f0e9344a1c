"""The runbook's serial poll loop, as printed but for the package's name, against the bundled tracker over MCP."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from orchestrator.adapters.mcp.tracker import McpTracker
from orchestrator.adapters.process.bound import bound_env
from orchestrator.issue import feedback_of
from orchestrator.tracker import init
from tests.support import ROOT
from tests.unit.test_runbook import ANSWERS, one_pass


def test_one_pass_takes_the_first_issue_to_its_review(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two issues the more urgent one runs, ends in needs_review, and bears its five snapshots; the other waits."""
    init(tmp_path)
    monkeypatch.chdir(ROOT)
    command = [sys.executable, "-P", "-m", "orchestrator.tracker", "-w", str(tmp_path)]
    with McpTracker(command, cwd=tmp_path, env=bound_env({})) as tracker:
        later = tracker.upsert_issue(title="Later", description="- [ ] b", priority=3)["id"]
        first = tracker.upsert_issue(title="First", description="- [ ] a", priority=0)["id"]
        one_pass(tracker, lambda role, _prompt: json.dumps(ANSWERS[role]))
        shown = tracker.show_issue(first)
        told = [json.loads(content)["event_type"] for content in feedback_of(shown)]

        assert ("needs_review", "open") == (shown["status"], tracker.show_issue(later)["status"])
        assert ["SESSION_DONE", "QUALITY_REVIEW_PASS", "SPEC_REVIEW_PASS", "IMPLEMENT_DONE", "SESSION_START"] == told
