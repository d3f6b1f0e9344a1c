"""What `orch stop` says of an issue, by what Redis knows of it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from orchestrator.cli.stop import answer
from orchestrator.models import Holding, SessionState, Stop

WORDS = "stopped by anna@here"
RUNNING = Holding(
    issue_id="i-a1b2",
    state=SessionState.RUNNING,
    record=None,
    owner="sessions@two/7",
    stage="",
    attempt=0,
    verdict="",
    reason="",
    claimed_at_ms=2,
    started_at_ms=2,
    ended_at_ms=0,
    deadline_ms=None,
    held_until_ms=None,
    fix_issue_id=None,
    stop=WORDS,
)
ENDED = replace(
    RUNNING, state=SessionState.ENDED, ended_at_ms=3, verdict="ERROR", reason=f"{WORDS}; no work is unfinished"
)


@pytest.mark.parametrize(
    ("met", "holding", "stopped", "says"),
    [
        (Stop.ASKED, ENDED, True, f"{WORDS}; no work is unfinished"),
        (Stop.ASKED, RUNNING, False, "sessions@two/7 has not confirmed yet; it ends when "),
        (Stop.ASKED, replace(ENDED, ended_at_ms=1), True, f"{WORDS}, before its session began"),
        (Stop.ASKED, replace(ENDED, verdict="DONE"), True, "it had ended by itself: DONE"),
        (Stop.ASKED, replace(RUNNING, stop=""), True, "stopped, and started again since"),
        (Stop.HELD, None, True, "nothing runs it; it waits for `orch enqueue i-a1b2`"),
        (Stop.IDLE, None, False, "nothing runs it; "),
    ],
)
def test_it_says_what_is_so(met: Stop, holding: Holding | None, stopped: bool, says: str) -> None:
    """One line for each thing that can have become of an issue."""
    said = answer("i-a1b2", met, holding)

    assert stopped == said.stopped
    assert said.says.startswith(says)
