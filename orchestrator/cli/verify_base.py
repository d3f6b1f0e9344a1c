"""`orch doctor --verify`: the base branch, set up and verified in a clean checkout."""

from __future__ import annotations

import shlex
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from threading import Event

from orchestrator.adapters.git import brought_along
from orchestrator.cli.checks import Finding, Level
from orchestrator.cli.project import Wiring
from orchestrator.cli.terminal import span
from orchestrator.models import BASE, SetUp, VerificationEvidence, Worktree

LEVELS = ("default", "L0", "L1", "L2")
SHOWN = 5


def now(wiring: Wiring) -> Iterator[Finding]:
    """Set a clean checkout of the base up and run each verification in it; record how that of no level went."""
    check = wiring.base_check
    commit = check.tip()
    run = check.verification(Event())
    watched = _Watched(run.set_up)
    verify = replace(run, set_up=watched)
    done: dict[tuple[str, ...], str] = {}
    for level in LEVELS:
        command = getattr(wiring.settings.verify, level)
        if command is None:
            continue
        if command in done:
            yield Finding(Level.OK, f"{level}: as {done[command]}")
            continue
        done[command] = level
        ran = verify(command, BASE, commit)
        if level == "default" and wiring.is_up:
            wiring.controls.record_base(check.verified(ran))
        yield _finding(level, ran, watched, on=f"{check.branch} at {commit[:12]}")
        if ran.set_up:
            return
    if watched.left:
        names = ", ".join(watched.left[:SHOWN]) + (", ..." if len(watched.left) > SHOWN else "")
        yield Finding(
            Level.WARN,
            f"the set-up leaves what git does not ignore, so agents do not get it: {names}",
            "see .gitignore",
        )


@dataclass
class _Watched:
    """A set-up, with how long its last run took and what it left that git does not ignore."""

    set_up: SetUp
    seconds: float = 0.0
    left: list[str] = field(default_factory=list)

    def __call__(self, checkout: Worktree, commit: str) -> VerificationEvidence | None:
        """The same set-up."""
        started = time.monotonic()
        failed = self.set_up(checkout, commit)
        self.seconds = time.monotonic() - started
        # The first names of the paths: a folder has thousands of them.
        self.left = sorted({name.partition("/")[0] for name in brought_along(checkout.path, ["."])[1]})
        return failed


def _finding(level: str, ran: VerificationEvidence, watched: _Watched, *, on: str) -> Finding:
    set_up = f", after a set-up of {span(watched.seconds)}" if watched.seconds >= 1 and not ran.set_up else ""
    what = "the set-up " if ran.set_up else ""
    remarks = "".join(f"; {remark}" for remark in ran.remarks)
    says = (
        f"{level}: {what}`{ran.command}` exited with {ran.exit_code} on {on} in {ran.duration_s:.1f} s{set_up}{remarks}"
    )
    if ran.exit_code == 0:
        return Finding(Level.WARN if ran.red_before else Level.OK, says)
    # A red level keeps nothing from being claimed, and a set-up keeps all.
    red = Level.FAIL if level == "default" or ran.set_up else Level.WARN
    return Finding(red, says, f"less {shlex.quote(ran.output_ref)}")
