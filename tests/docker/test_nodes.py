"""A broker and a worker that live and die, by pytest-celery: as containers of our image, and as processes."""

from __future__ import annotations

import pytest
from pytest_celery import CeleryTestSetup

from tests.acceptance.project import CLEAN, Project
from tests.support import wait_until

pytestmark = pytest.mark.timeout(240)


def under_review(project: Project) -> str:
    """An issue whose implementer is done, and whose first review takes a while."""
    issue = project.file("Interrupted", spec_reviewer=[{"seconds": 3}, {}])
    wait_until(lambda: project.asked(issue, "spec_reviewer"), "the review should begin", 60)
    return issue


def ends_clean(project: Project, issue: str) -> None:
    """Wait for the session's end, of which nothing is told twice and nothing is missing."""
    wait_until(lambda: project.over(issue), "the session should end, and be told", 90)
    assert CLEAN == project.events(issue)
    assert "needs_review" == project.status(issue)
    assert 1 == project.asked(issue)


def test_a_session_goes_through(celery_setup: CeleryTestSetup, project: Project) -> None:
    """The worker is there, answers, and takes an issue all the way."""
    assert celery_setup.ready(control=True)
    assert [{celery_setup.worker.hostname(): {"ok": "pong"}}] == celery_setup.app.control.ping(timeout=10, limit=1)
    issue = project.file("Say hello")

    ends_clean(project, issue)


def test_a_killed_worker_is_replaced(celery_setup: CeleryTestSetup, project: Project) -> None:
    """Its session goes on from the last finished step: only what was cut off is done again."""
    assert celery_setup.ready()
    issue = under_review(project)
    celery_setup.worker.kill()
    assert "exited" == celery_setup.worker.container.status
    celery_setup.worker.restart()

    ends_clean(project, issue)
    assert 2 == project.asked(issue, "spec_reviewer")


def test_redis_is_restarted(celery_setup: CeleryTestSetup, project: Project) -> None:
    """The session does not notice, nor does the worker end."""
    assert celery_setup.ready()
    issue = under_review(project)
    celery_setup.broker.restart()

    ends_clean(project, issue)
    assert 1 == project.asked(issue, "spec_reviewer")
    assert "running" == celery_setup.worker.container.status
