"""Projects for single tests; a module that shares one among its tests makes it itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.acceptance.project import Project


@pytest.fixture
def make_project(tmp_path: Path) -> Iterator[Callable[..., Project]]:
    """Makes a project, with the options that Project takes; it leaves nothing behind."""
    with ExitStack() as projects:
        yield lambda **options: projects.enter_context(Project(tmp_path, **options))


@pytest.fixture
def project(make_project: Callable[..., Project]) -> Project:
    """A project with nothing special about it."""
    return make_project()
