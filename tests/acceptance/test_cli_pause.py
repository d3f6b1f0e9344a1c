"""`orch pause` and `orch resume`: what they say, with and without a stack."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.orch import Orch


@pytest.fixture
def orch(tmp_path: Path) -> Orch:
    return Orch(tmp_path)


def test_a_pause_is_kept_until_resume(orch: Orch) -> None:
    """It says who paused and why, also to who pauses or asks for an issue later; each command is a process of its own,
    and so is each time the Redis that keeps it.
    """
    paused = orch.says("pause", "--reason", "disk full")
    again = json.loads(orch.says("pause", "--json"))
    wished = orch.says("enqueue", "i-a1b2")
    resumed = orch.says("resume")

    assert re.fullmatch(r"paused by \S+@\S+ \(disk full\); no new session starts until `orch resume`\n", paused)
    assert "disk full" == again["reason"]
    assert re.fullmatch(r"i-a1b2: queued; orch is paused by \S+ \(disk full\), it waits for `orch resume`\n", wished)
    assert re.fullmatch(r"resumed; it was paused by \S+ \(disk full\)\n", resumed)
    assert "orch was not paused\n" == orch.says("resume")
    assert {"ended": None} == json.loads(orch.says("resume", "--json"))
