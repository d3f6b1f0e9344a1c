"""`python -m tests.benchmarks`: what the engine costs, as ratios to baselines measured in the same run."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

from tests.benchmarks import latency, startup, throughput
from tests.benchmarks.figures import machine, table


def main() -> None:
    """Measure everything, print one table. Figures that miss their aim fail nothing."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a first look, in less than 40 s")
    quick = parser.parse_args().quick
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="orch-bench-") as name:
        folders = {part: Path(name, part) for part in ("throughput", "latency")}
        for folder in folders.values():
            folder.mkdir()
        figures = []
        for part, measure in (
            ("startup", lambda: startup.measure(runs=7 if quick else 20)),
            ("latency", lambda: latency.measure(folders["latency"], samples=8 if quick else 50)),
            (
                "throughput",
                lambda: throughput.measure(
                    folders["throughput"], sessions=200 if quick else 400, rounds=3 if quick else 9
                ),
            ),
        ):
            print(f"{part} ...", file=sys.stderr)
            figures += measure()
    print(machine())
    print(f"{'a quick' if quick else 'a full'} run of {time.monotonic() - began:.0f} s", end="\n\n")
    print(table(figures))


if __name__ == "__main__":
    main()
