"""The table of processes: every queue has its worker, and what is written elsewhere agrees with it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from beat import QUEUES
from orchestrator.local.programs import PROGRAMS, program, start_commands
from tests.support import ROOT

PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


def test_every_queue_is_served_by_one_program() -> None:
    """None is forgotten, and none has two: a worker of one queue never waits for another."""
    served = [queue for it in PROGRAMS for queue in it.queues]

    assert sorted(QUEUES) == sorted(served)


def test_polls_and_merges_have_workers_of_their_own() -> None:
    """A look for merges may wait for GitHub; a poll does not wait for it."""
    assert program("control").queues != program("merges").queues
    assert "poll" in program("control").queues


def test_agents_see_no_secret() -> None:
    """The worker whose children are agents has none of them, and Celery's clock has none of GitHub's."""
    github = ["ORCH_GITHUB_TOKEN", "ORCH_GITHUB_WEBHOOK_SECRET"]
    hidden = {
        name: [it for it in program(name).hidden_secrets if not it.endswith("_FILE")] for name in ("worker", "beat")
    }

    assert {"worker": [*github, "FLOWER_BASIC_AUTH"], "beat": github} == hidden
    assert {f"{name}_FILE" for name in github} < set(program("beat").hidden_secrets)
    assert [] == program("merges").hidden_secrets


def test_how_many_sessions_at_once_is_left_to_orch_toml() -> None:
    """Where nothing is said the command has no number, so that the worker asks the settings."""
    assert "-c" not in program("worker").command()
    assert "celery -A orchestrator worker -Q sessions -c 4 -n sessions@%h" == start_commands(4)["worker"]
    assert "celery -A orchestrator beat" == start_commands(4)["beat"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_page_starts_the_workers_of_the_table(page: Path) -> None:
    """Which queues go together stands in one place; the pages follow."""
    named = re.findall(r"celery -A orchestrator worker -Q ([\w,]+)", page.read_text("utf-8"))

    assert set() == set(named) - {",".join(it.queues) for it in PROGRAMS}
