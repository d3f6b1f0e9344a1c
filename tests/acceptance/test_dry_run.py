"""The runbook's quick health check, as an operator types it."""

from __future__ import annotations

import json
import os
import subprocess
import sys

from tests.support import ROOT


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """`python -m orchestrator.runner` in a fresh interpreter."""
    command = [sys.executable, "-m", "orchestrator.runner", *arguments]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)


def test_the_dry_run_prints_the_runbooks_json() -> None:
    """Exit 0, the JSON of the runbook with its keys sorted, and not a word on standard error."""
    done = run("--dry-run")

    assert (0, "") == (done.returncode, done.stderr)
    assert [
        ("last_event_type", "SESSION_DONE"),
        ("processed_issue", "i-dry1"),
        ("snapshot_count", 5),
        ("status_updates", [["i-dry1", "in_progress"], ["i-dry1", "in_progress"], ["i-dry1", "needs_review"]]),
    ] == list(json.loads(done.stdout).items())


def test_without_the_flag_it_says_how_to_use_it() -> None:
    """Exit 2, the usage with the missing flag on standard error, nothing on standard output."""
    done = run()

    assert (2, "") == (done.returncode, done.stdout)
    assert "usage: python -m orchestrator.runner" in done.stderr
    assert "--dry-run" in done.stderr
