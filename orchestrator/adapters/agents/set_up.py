"""Set-up: what a fresh checkout lacks is copied from the main one, then commands of the user's are run in it."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import structlog

from orchestrator.adapters.agents.verify import CommandVerifier
from orchestrator.adapters.git import brought_along
from orchestrator.models import VerificationEvidence, Worktree

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class CheckoutSetUp:
    """Copies what matches `copy` from the checkout `main`, then runs the commands in order, each within its bounds.

    Only files that git ignores are copied, and none that is there already: neither is one of the commit's.
    """

    main: Path
    copy: Sequence[str]
    commands: Sequence[Sequence[str]]
    run: CommandVerifier

    def __call__(self, checkout: Worktree, commit: str) -> VerificationEvidence | None:
        """Evidence of the command that failed; None when all is well. Raises as `CommandVerifier` does."""
        if self.copy:
            copied(self.main, self.copy, checkout.path)
        for command in self.commands:
            ran = self.run(command, checkout, commit)
            if ran.exit_code:
                return replace(ran, set_up=True)
        return None


def copied(main: Path, patterns: Sequence[str], target: Path) -> list[str]:
    """Copy the ignored files that match; the paths that were copied. What is left out is said in the log."""
    ignored, others = brought_along(main, patterns)
    if others:
        log.warning("not_copied", files=others[:10], count=len(others), hint="git does not ignore them: see .gitignore")
    return list(_copy(main, ignored, target))


def _copy(main: Path, names: Iterable[str], target: Path) -> Iterator[str]:
    inside = target.resolve()
    for name in names:
        goal = target / name
        # A folder of the commit's may be a link that leads out of the checkout.
        if goal.exists() or goal.is_symlink() or not goal.parent.resolve().is_relative_to(inside):
            continue
        goal.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(main / name, goal, follow_symlinks=False)
        yield name
