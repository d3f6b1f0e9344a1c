"""How long `orch --help` takes: a person waits for it."""

from __future__ import annotations

import subprocess
import sys
import time

from tests.benchmarks.figures import Figure, interleaved
from tests.support import ROOT

UNDER_MS = 200


def measure(*, runs: int) -> list[Figure]:
    """The median wall time of a run, beside a Python that does nothing."""
    took: dict[str, list[float]] = {"orch": [], "python": []}
    for _ in range(runs):
        took["orch"].append(_ms("-m", "orchestrator.cli", "--help"))
        took["python"].append(_ms("-c", "pass"))
    return [interleaved("orch --help", "ms", took["orch"], took["python"], "python -c pass", under=UNDER_MS)]


def _ms(*arguments: str) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, *arguments], cwd=ROOT, stdout=subprocess.DEVNULL, check=True)
    return (time.perf_counter() - start) * 1000
