"""What keeps another program's log readable beside ours."""

from __future__ import annotations

import logging

import pytest

from orchestrator.logs import Once, OncePerMinute


def test_one_thing_is_said_once_a_minute_and_without_a_traceback(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Celery tries a Redis that refuses it five times a second, and says each time what it said before."""
    now = 100.0
    monkeypatch.setattr("orchestrator.logs.time.monotonic", lambda: now)
    logger = logging.getLogger("somebody else's")
    only = OncePerMinute()
    logger.addFilter(only)

    for attempt in range(3):
        logger.error("cannot connect, attempt %d", attempt, exc_info=ValueError("deep inside"))
    logger.error("something else")
    now += 61
    logger.error("cannot connect, attempt %d", 4)

    logger.removeFilter(only)
    assert ["cannot connect, attempt 0", "something else", "cannot connect, attempt 4"] == caplog.messages
    assert not any(record.exc_info for record in caplog.records)
    assert "deep inside" not in caplog.text


@pytest.fixture(autouse=True)
def all_levels(caplog: pytest.LogCaptureFixture) -> None:
    """Everything that a logger lets through is looked at."""
    caplog.set_level(logging.DEBUG)


def test_a_condition_is_new_once_per_subject_until_it_changes_or_is_over() -> None:
    """A poll every few seconds logs what is wrong with an issue once, and again when it comes back."""
    once = Once()

    assert [True, False] == [once.is_new("i-a1b2", "blocked"), once.is_new("i-a1b2", "blocked")]
    assert once.is_new("i-c3d4", "blocked")
    assert once.is_new("i-a1b2", "malformed")

    once.forget("i-a1b2")

    assert once.is_new("i-a1b2", "malformed")
