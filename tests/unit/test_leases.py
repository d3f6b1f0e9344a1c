"""The wait after an error."""

from __future__ import annotations

import math

import pytest

from orchestrator.models import wait_after_error


@pytest.mark.parametrize(
    ("limit", "waits"),
    [(1, [math.inf]), (3, [30, 60, math.inf, math.inf]), (100, [30, 60, 120, 240, 480, 960, 1920, 3600, 3600])],
)
def test_each_error_doubles_the_wait_up_to_an_hour_and_the_limit_holds_the_issue(
    limit: int, waits: list[float]
) -> None:
    """After as many errors in a row as the limit, only a person starts the issue again."""
    assert waits == [wait_after_error(errors, limit=limit) for errors in range(1, len(waits) + 1)]


def test_no_number_of_errors_is_too_large() -> None:
    """The doubling ends long before a float does."""
    assert 3600 == wait_after_error(99, limit=100)
