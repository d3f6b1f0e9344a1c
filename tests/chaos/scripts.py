"""The issues of a run: what their agents do, and how their sessions must end, whatever happens meanwhile.

A step may be done again, so agents go by what is in the tree and never by how often they were asked: an implementer
adds the next file that is missing, a reviewer wants a file to be there.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

from orchestrator.models import Verdict
from tests.acceptance.project import Project

ADD_NEXT = 'for name; do test -e "$name" || { echo "$name" >"$name"; exit; }; done'


@dataclass(frozen=True)
class Script:
    """One kind of issue. The implementer adds `files` one by one; each reviewer wants one; work.txt is verified."""

    name: str
    verdict: Verdict
    files: tuple[str, ...]
    spec: str
    quality: str


SCRIPTS = (
    Script("clean", Verdict.DONE, ("work.txt",), "work.txt", "work.txt"),
    Script("spec fix", Verdict.DONE, ("work.txt", "spec.txt"), "spec.txt", "work.txt"),
    Script("spec overflow", Verdict.OVERFLOW, ("work.txt", "one.txt", "two.txt"), "never.txt", "work.txt"),
    Script("quality fix", Verdict.DONE, ("work.txt", "quality.txt"), "work.txt", "quality.txt"),
    Script("unverified", Verdict.VERIFY_FAILED, ("other.txt",), "other.txt", "other.txt"),
    Script("both fixes", Verdict.DONE, ("work.txt", "spec.txt", "quality.txt"), "spec.txt", "quality.txt"),
    Script("quality overflow", Verdict.OVERFLOW, ("work.txt", "one.txt"), "work.txt", "never.txt"),
)
FIX = Script("fix of an overflow", Verdict.DONE, ("work.txt", "fixed.txt"), "work.txt", "work.txt")

STATUS = {Verdict.DONE: "needs_review", Verdict.OVERFLOW: "needs_review", Verdict.VERIFY_FAILED: "in_progress"}
"""What the tracker says of an issue whose last session ended so."""


def file_issues(project: Project, count: int, *, rng: random.Random) -> dict[str, Script]:
    """File so many issues, of all kinds in turn; what each id's script is."""
    project.play("fix", **_roles(FIX, rng))
    scripts = [SCRIPTS[number % len(SCRIPTS)] for number in range(count)]
    return {
        project.file(f"Issue {number}, {script.name}", **_roles(script, rng)): script
        for number, script in enumerate(scripts)
    }


def _roles(script: Script, rng: random.Random) -> dict[str, Any]:
    def seconds() -> float:
        return round(rng.uniform(0.2, 1.6), 2)

    def wants(name: str) -> object:
        check = {"item": f"{name} is there", "run": ["test", "-e", name], "fix": f"add {name}"}
        return [{"seconds": seconds(), "checks": [check]}]

    add = ["sh", "-c", ADD_NEXT, "add", *script.files]
    return {
        "implementer": [{"seconds": seconds(), "run": [add], "notes": "added the next file"}],
        "spec_reviewer": wants(script.spec),
        "quality_reviewer": wants(script.quality),
    }
