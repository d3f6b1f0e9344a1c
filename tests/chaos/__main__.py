"""`make chaos`: break a running stack every few seconds, from fixed seeds, and see that nothing is lost or doubled."""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

from tests.chaos.run import Outcome, Run
from tests.chaos.table import table

ISSUES_PER_MINUTE = 15
"""So many keep both workers busy while faults come."""


def main() -> int:
    """Run each seed, then print one table; 1 if anything was lost, doubled or otherwise not as promised."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("seeds", nargs="*", type=int, default=[1, 2, 3], help="what is broken, and in which order")
    parser.add_argument("--minutes", type=float, default=2.0, help="for how long things are broken, for each seed")
    options = parser.parse_args()
    outcomes = [_run(seed, options.minutes) for seed in options.seeds]
    print(f"\n{table(outcomes)}")
    return 1 if any(outcome.violations for outcome in outcomes) else 0


def _run(seed: int, minutes: float) -> Outcome:
    folder = Path(tempfile.mkdtemp(prefix=f"orch-chaos-{seed}-"))
    issues = round(ISSUES_PER_MINUTE * minutes)
    outcome = Run(seed, folder, say=lambda line: print(line, flush=True))(issues=issues, minutes=minutes)
    for violation in outcome.violations:
        print(f"seed {seed}  VIOLATED  {violation}")
    if outcome.violations:
        print(f"seed {seed}  all logs, the repo and the data are kept in {folder}")
    else:
        shutil.rmtree(folder)
    return outcome


if __name__ == "__main__":
    sys.exit(main())
