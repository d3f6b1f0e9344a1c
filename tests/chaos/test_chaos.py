"""Half a minute of what `make chaos` does."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos.run import Run
from tests.chaos.table import duplicated, lost, table


@pytest.mark.timeout(300)
def test_nothing_is_lost_or_doubled(tmp_path: Path) -> None:
    """While parts of a stack are killed, frozen and cut off every few seconds, each issue ends as its script implies.

    Each step is recorded once, each snapshot told once and in order, no commit is lost, and nothing is left over.
    """
    outcome = Run(1, tmp_path, say=print)(issues=12, minutes=0.5)
    print(table([outcome]))

    assert [] == outcome.violations
    assert (0, 0) == (sum(map(lost, outcome.issues)), duplicated(outcome.issues))
    assert outcome.hits
