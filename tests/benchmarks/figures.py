"""What a benchmark found: a value beside a baseline from the same run, and whether the aim was met.

Machines differ and are shared, so only ratios of one run travel; nothing here fails because something was slow.
"""

from __future__ import annotations

import os
import platform
import re
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from orchestrator.adapters.redis import server as redis_server


@dataclass(frozen=True)
class Figure:
    """One line of the report. The aim is a least ratio to the baseline, or a value to stay under."""

    what: str
    unit: str
    value: float
    baseline: float
    baseline_is: str
    ratio: float
    least_ratio: float | None = None
    under: float | None = None

    @property
    def aim(self) -> str:
        """The aim in words; `-` where there is none and the figure is only for information."""
        if self.least_ratio is not None:
            return f"ratio >= {self.least_ratio:g}"
        return "-" if self.under is None else f"< {self.under:g} {self.unit}"

    @property
    def met(self) -> str:
        """yes or no, or `-` without an aim."""
        if self.least_ratio is not None:
            return "yes" if self.ratio >= self.least_ratio else "no"
        return "-" if self.under is None else ("yes" if self.value < self.under else "no")


def interleaved(
    what: str,
    unit: str,
    values: Sequence[float],
    baselines: Sequence[float],
    baseline_is: str,
    *,
    least_ratio: float | None = None,
    under: float | None = None,
) -> Figure:
    """The medians of rounds that took turns; the ratio is the median of the rounds' own, as load drifts over a run."""
    ratio = median(value / baseline for value, baseline in zip(values, baselines, strict=True))
    return Figure(what, unit, median(values), median(baselines), baseline_is, ratio, least_ratio, under)


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest value that so many percent of the values do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]


def table(figures: Iterable[Figure]) -> str:
    """The report as a Markdown table."""
    head = ("what", "value", "baseline", "ratio", "aim", "met")
    rows = [
        (
            figure.what,
            f"{figure.value:,.0f} {figure.unit}",
            f"{figure.baseline:,.0f} {figure.unit}: {figure.baseline_is}",
            f"{figure.ratio:.2f}",
            figure.aim,
            figure.met,
        )
        for figure in figures
    ]
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]
    lines = (head, tuple("-" * width for width in widths), *rows)
    return "\n".join(
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |" for line in lines
    )


def machine() -> str:
    """What all this runs on, in one line."""
    cpus = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    memory_kb = int(Path("/proc/meminfo").read_text().split()[1])
    server = subprocess.run([redis_server.find_server(), "--version"], capture_output=True, text=True, check=True)
    version = re.search(r"^(\w+) server v=(\S+)", server.stdout)
    return (
        f"{len(cpus)} x {cpus[0].partition(': ')[2]}, {memory_kb / 1e6:.0f} GB, {platform.system()}, "
        f"Python {platform.python_version()}, {' '.join(version.groups()) if version else 'an unknown server'}, "
        f"load {os.getloadavg()[0]:.1f} from others"
    )
