"""`python -m tests.benchmarks`: what the engine costs, as ratios to baselines measured in the same run."""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path

from tests.benchmarks import latency, merges, startup, throughput
from tests.benchmarks.figures import machine, table


def main() -> None:
    """Measure everything, print one table. Figures that miss their aim fail nothing."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a first look, in half a minute")
    quick = parser.parse_args().quick
    os.environ.pop("ORCH_REDIS_URL", None)  # each part brings its own server, and leaves yours alone
    began = time.monotonic()
    print(machine())
    with tempfile.TemporaryDirectory(prefix="orch-bench-") as name:
        figures = [
            *startup.measure(runs=5 if quick else 20),
            *latency.measure(_folder(name, "latency"), samples=5 if quick else 50),
            *merges.measure(_folder(name, "merges"), samples=5 if quick else 50),
            *throughput.measure(_folder(name, "throughput"), sessions=120 if quick else 300, rounds=2 if quick else 7),
        ]
    print(f"{'a quick' if quick else 'a full'} run of {time.monotonic() - began:.0f} s", end="\n\n")
    print(table(figures))


def _folder(parent: str, name: str) -> Path:
    folder = Path(parent, name)
    folder.mkdir()
    return folder


if __name__ == "__main__":
    main()
