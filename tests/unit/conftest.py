"""The unit ring: in memory, the same examples on every run, all of it in under three seconds.

`make test ARGS="tests/unit --hypothesis-profile=thorough"` looks for examples nobody has seen yet.
"""

from __future__ import annotations

import pytest
from hypothesis import settings

settings.register_profile("unit", max_examples=20, deadline=None, database=None, derandomize=True)
settings.register_profile("thorough", max_examples=2000, deadline=None, database=None)
settings.load_profile("unit")


@pytest.fixture(autouse=True)
def home() -> None:
    """None of its own: what is in memory leaves nothing behind, and all their folders would take half a second."""
