"""The verifier on real commands: what it measures is what happened."""

from __future__ import annotations

import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Event
from typing import Any

import pytest

from orchestrator.adapters.agents.verify import CommandVerifier
from orchestrator.adapters.process.foreign import Bounds
from orchestrator.errors import SessionStopped, WorkspaceError
from orchestrator.models import VerificationEvidence, Verifier, Worktree
from orchestrator.text import redactor

BOUNDS = Bounds(20)
Verify = Callable[..., VerificationEvidence]


@pytest.fixture
def verify(tmp_path: Path) -> Verify:
    """Verify commit c0ffee in a worktree; options go to the verifier."""
    path = tmp_path / "worktree"
    path.mkdir()
    worktree = Worktree("i-0001", path, "orch/i-0001", "ba5e")

    def run(*command: str, bounds: Bounds = BOUNDS, max_output_chars: int = 4000, cancel: Event | None = None) -> Any:
        verifier: Verifier = CommandVerifier(
            logs=tmp_path / "logs",
            bounds=bounds,
            env={"PATH": "/usr/bin:/bin", "ORCH_ISSUE": "i-0001"},
            redact=redactor({}, "of-the-user"),
            cancel=cancel,
            max_output_chars=max_output_chars,
        )
        return verifier(command, worktree, "c0ffee")

    return run


def test_evidence_of_a_run(verify: Verify, tmp_path: Path) -> None:
    """Evidence names command, exit code, output, time, duration, commit and where the whole output is."""
    before = datetime.now(UTC)
    evidence = verify("sh", "-c", 'pwd; echo "$ORCH_ISSUE" >&2; sleep 0.2; exit 3')

    assert f"{tmp_path}/worktree\ni-0001\n" == evidence.output == Path(evidence.output_ref).read_text()
    assert ("sh -c 'pwd; echo \"$ORCH_ISSUE\" >&2; sleep 0.2; exit 3'", 3) == (evidence.command, evidence.exit_code)
    assert "c0ffee" == evidence.commit
    assert 0.2 <= evidence.duration_s < 5
    assert before + timedelta(seconds=0.2) <= evidence.produced_at <= datetime.now(UTC)
    assert timedelta(0) == evidence.produced_at.utcoffset()


def test_output_is_bounded_and_kept(verify: Verify) -> None:
    """Evidence carries the end of a long output, and the log all of it; each run has a log of its own."""
    evidence = verify("seq", "100000", max_output_chars=14)
    again = verify("seq", "3")

    assert "\n99999\n100000\n" == evidence.output
    assert 588_895 == Path(evidence.output_ref).stat().st_size
    assert evidence.output_ref != again.output_ref


def test_bounds_count_characters(verify: Verify) -> None:
    """A bound of four characters gives four characters, however many bytes each has."""
    assert "😀é€\n" == verify("printf", "%s\\n", "xx😀é€", max_output_chars=4).output


def test_over_the_time_limit(verify: Verify) -> None:
    """A command over its time limit has exit code 124, and the end of the output says why."""
    evidence = verify("sh", "-c", "echo begun; sleep 60", bounds=Bounds(0.3))

    assert 124 == evidence.exit_code
    assert "begun\n\norch: ended after 0.3 s, the time limit of a verification\n" == evidence.output


@pytest.mark.parametrize(
    ("bounds", "reason"),
    [
        (Bounds(20, silence_s=0.3), "orch: ended after 0.3 s without output, the silence limit\n"),
        (Bounds(20, output_bytes=5), "orch: ended after 5 bytes of output, the limit of a verification\n"),
    ],
)
def test_over_another_limit(verify: Verify, bounds: Bounds, reason: str) -> None:
    """Silence and too much output end a verification like the time limit does, each with its reason."""
    evidence = verify("sh", "-c", "echo 123456; sleep 60", bounds=bounds)

    assert 124 == evidence.exit_code
    assert evidence.output.endswith(reason)


def test_a_command_that_is_not_there(verify: Verify) -> None:
    """A command that cannot be found has exit code 127, and the output says so and what to do."""
    evidence = verify("no-such-command", "--all")

    assert 127 == evidence.exit_code
    assert "orch: cannot run no-such-command: command not found\n" in evidence.output
    assert "install it, or correct orch.toml" in evidence.output


def test_cancelled(verify: Verify) -> None:
    """A verification that is cut off gives no evidence: the session stops."""
    cancel = Event()
    cancel.set()

    with pytest.raises(SessionStopped, match="i-0001"):
        verify(sys.executable, "-c", "import signal; signal.pause()", cancel=cancel)


def test_a_worktree_that_is_gone(verify: Verify, tmp_path: Path) -> None:
    """Without its worktree, nothing is run, and the error names the directory."""
    (tmp_path / "worktree").rmdir()

    with pytest.raises(WorkspaceError, match="worktree"):
        verify("true")


def test_evidence_holds_no_secret(verify: Verify) -> None:
    """Neither its command nor its output, which are recorded and published, nor its log."""
    secret = "ghp_0123456789abcdefghij01"
    evidence = verify("echo", secret)

    assert ("echo [redacted]", "[redacted]\n") == (evidence.command, evidence.output)
    assert "[redacted]\n" == Path(evidence.output_ref).read_text()
