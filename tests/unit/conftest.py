"""The unit ring: the same examples on every run, and no file left behind."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("unit", max_examples=50, deadline=None, database=None, derandomize=True)
settings.load_profile("unit")
