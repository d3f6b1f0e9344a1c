"""One run: a stack on a throw-away repo, issues, faults for some minutes, and then everything that can be checked."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from orchestrator.models import Verdict
from tests.acceptance.project import Project
from tests.chaos import checks, facts, faults, scripts
from tests.chaos.facts import Issue
from tests.chaos.faults import Fault, Faults, Hit
from tests.chaos.parts import LEASE_S, POLL_S
from tests.chaos.stack import Stack

ENDS_IN_S = 150.0
"""How long after the last fault everything may take to end: an issue whose agent was killed waits for 30 s of it."""
TARGET_IN_S = 10.0
"""How long a fault waits for something that it could hit."""
LIMITS = "rescues = 100\nerrors_in_a_row = 100"
"""Faults may hit one step again and again: that must end no session otherwise than its script does."""


@dataclass
class Outcome:
    """What a run found."""

    seed: int
    hits: list[Hit] = field(default_factory=list)
    issues: list[Issue] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)


class Run:
    """File issues, break things, wait for the end, stop everything, check everything."""

    def __init__(self, seed: int, folder: Path, *, say: Callable[[str], None]) -> None:
        self._rng = random.Random(seed)
        self._project = Project(folder, limits=LIMITS, lease_s=LEASE_S, poll_s=POLL_S)
        self._stack = Stack(self._project)
        self._say = say
        self._began = time.monotonic()
        self.outcome = Outcome(seed)

    def __call__(self, *, issues: int, minutes: float) -> Outcome:
        """What was found; `folder` keeps all logs."""
        outcome = self.outcome
        with self._project, self._stack:
            filed = scripts.file_issues(self._project, issues, rng=self._rng)
            self._break_things(self._began + 60 * minutes)
            outcome.violations += self._ends()
            outcome.violations += self._stop()
            outcome.issues = facts.read(self._project, self._project.folder.glob("*.log"))
            known = {issue.id: filed.get(issue.id, scripts.FIX) for issue in outcome.issues}
            outcome.violations += self._check(known)
        return outcome

    def _break_things(self, until: float) -> None:
        breaking = Faults(self._project, self._stack)
        for fault in faults.plan(self._rng):
            self._stack.live(fault.pause_s)
            if time.monotonic() > until:
                return
            if (hit := self._struck(breaking, fault)) is not None:
                self.outcome.hits.append(hit)
                if hit.struck.wrong:
                    self.outcome.violations.append(hit.struck.wrong)
                self._progress(f"{len(self.outcome.hits):2}  {hit}")

    def _struck(self, breaking: Faults, fault: Fault) -> Hit | None:
        deadline = time.monotonic() + TARGET_IN_S
        while (hit := breaking.strike(fault)) is None and time.monotonic() < deadline:
            self._stack.live(0.2)
        return hit

    def _ends(self) -> list[str]:
        deadline = time.monotonic() + ENDS_IN_S
        while under_way := self._under_way():
            if time.monotonic() > deadline:
                return [f"{what}: {why}, {ENDS_IN_S:g} s after the last fault" for what, why in under_way.items()]
            self._progress(f"{len(under_way)} to go")
            self._stack.live(3)
        return []

    def _under_way(self) -> dict[str, str]:
        """What is not over yet, by issue; or else what is not told, not taken from its queue, or not up again."""
        rows = {str(row["id"]): str(row["status"]) for row in self._project.tracker.list_issues()}
        held = {holding.issue_id: holding for holding in self._project.leases.holdings()}
        over = {issue_id for issue_id, it in held.items() if it.state == "ended" and it.verdict != Verdict.ERROR}
        if rows.keys() - over:
            return {issue_id: f"{rows[issue_id]}, {held.get(issue_id)}" for issue_id in rows.keys() - over}
        waiting = self._project.outbox.waiting()
        messages = self._project.redis.llen(self._project.keys("celery:sessions"))
        if waiting or messages:
            return {"queues": f"{waiting} entries of the outbox and {messages} messages wait"}
        return {name: "is not up again" for name, part in self._stack.parts.items() if not part.hears}

    def _stop(self) -> Iterator[str]:
        for name, code in self._stack.stop().items():
            if code != 0:
                yield f"{name}: ended with code {code} after SIGTERM"

    def _check(self, known: Mapping[str, scripts.Script]) -> Iterator[str]:
        issues, hits = self.outcome.issues, self.outcome.hits
        spoilt = Counter(issue_id for hit in hits if hit.struck.spoils for issue_id in hit.struck.sessions)
        yield from checks.ends(issues, known, spoilt)
        yield from checks.histories(issues)
        yield from checks.repetitions(issues, hits)
        yield from checks.telling(issues)
        yield from checks.fix_issues(issues)
        yield from checks.branches(issues)
        self._project.tracker.close()
        yield from checks.leftovers(self._project, {self._stack.redis.pid})

    def _progress(self, what: str) -> None:
        minutes, seconds = divmod(int(time.monotonic() - self._began), 60)
        self._say(f"seed {self.outcome.seed}  {minutes}:{seconds:02}  {what}")
