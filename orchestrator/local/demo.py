"""The demo's project: a small repo, and issues that show every way a session can go.

Only the agents are not real: they follow playbooks, the files in demo_project. The first try of a playbook really lacks
what its reviewer's commands look for.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from orchestrator.adapters.agents.scripted import Playbook
from orchestrator.adapters.git import create_project
from orchestrator.adapters.mcp import McpTracker
from orchestrator.errors import OrchestratorError
from orchestrator.local.up import Stack
from orchestrator.models import Holding, IssueStatus, Verdict, branch_of
from orchestrator.settings import FILE, Settings, load, toml
from orchestrator.status import EngineStatus, IssueRow, collect
from orchestrator.tracker import init
from orchestrator.wiring import Wiring

SLOTS = 4
LOOK_EVERY_S = 0.5
PATIENCE_S = 180.0

_FILES = resources.files("orchestrator") / "demo_project"

# PYTHONPATH is how agents find this package where it is not installed. One error holds an issue back, or the demo
# would wait for its retry.
_ORCH_TOML = """\
# The demo's settings. In a repo of yours, `orch init` writes this file.

project = "demo"
tracker = "bundled"
concurrency = {slots}
poll_interval = 1.0

[limits]
errors_in_a_row = 1

[verify]
L0 = [{python}, "-m", "compileall", "-q", "textkit"]
L1 = [{python}, "-m", "unittest"]
L2 = [{python}, "-W", "error", "-m", "unittest"]

[agents]
env = ["PYTHONPATH"]
write = [{playbooks}]

[agents.default]
command = [
  {python}, "-P", "-m", "orchestrator.adapters.agents.scripted",
  "--role", "{{role}}", "--issue", "{{issue}}", "--playbook", {playbooks},
]
"""


class Script(BaseModel):
    """The script of an issue's agents, and the end that its session should have: verdict and number of reviews."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    verdict: Verdict | None = None
    spec: int = 0
    quality: int = 0
    playbook: Playbook


class Scenario(Script):
    """An issue to file; `fix` is the script of the [FIX] issue that it gets."""

    title: str
    priority: int
    content: str
    waits_for: tuple[str, ...] = ()
    fix: Script | None = None


@dataclass(frozen=True)
class Demo:
    """A demo that is ready to run. `tasks` maps issue ids to task ids."""

    settings: Settings
    environ: Mapping[str, str]
    scenarios: Mapping[str, Scenario]
    tasks: Mapping[str, str]

    @property
    def project(self) -> Path:
        """The repo."""
        return self.settings.root

    def name(self, issue_id: str, found: EngineStatus) -> str:
        """The task id, and of a [FIX] issue its original's."""
        for issue in found.issues:
            if issue.fix_issue_id == issue_id:
                return f"{self.tasks[issue.id]} [FIX]"
        return self.tasks.get(issue_id, "[FIX]")

    def scripts(self, found: EngineStatus) -> dict[str, Script]:
        """The script of each issue, those of [FIX] issues included."""
        scripts: dict[str, Script] = {}
        for issue in found.issues:
            if (task := self.tasks.get(issue.id)) is None:
                continue
            scripts[issue.id] = scenario = self.scenarios[task]
            if scenario.fix:
                scripts[issue.fix_issue_id or f"the [FIX] issue of {task}"] = scenario.fix
        return scripts


@dataclass(frozen=True)
class Outcome:
    """The result of a demo. `example` is a DONE issue, `tests` what the tests on its branch said in a fresh clone.

    `surprises` is what is not as the scripts intend, a line each.
    """

    found: EngineStatus
    at_once: int
    elapsed_s: float
    example: str
    branch: str
    tests: str
    surprises: tuple[str, ...]


def build(folder: Path, environ: Mapping[str, str], *, project: Path | None = None) -> Demo:
    """Make a project with its issues and playbooks in a new folder; ORCH_* variables are ignored.

    The repo is in that folder too, unless `project` names an empty folder for it.
    """
    folder = folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        raise OrchestratorError(f"{folder} is not empty; name a new folder")
    project, playbooks = project or folder / "project", folder / "playbooks"
    init(project)
    create_project(project, _read(_FILES / "project.toml") | {FILE: _orch_toml(playbooks)})
    own = {name: value for name, value in environ.items() if not name.startswith(("ORCH_", "GIT_"))}
    own |= {"ORCH_PROJECT_ROOT": str(project), "ORCH_STATE_DIR": str(folder / ".state")}
    settings = load(project, own)
    scenarios = dict(_scenarios())
    with Wiring(settings).tracker as tracker:
        tasks = _file(tracker, scenarios)
    for issue_id, task in tasks.items():
        scenario = scenarios[task]
        _write(playbooks / f"{issue_id}.json", scenario.playbook)
        if scenario.fix:
            _write(playbooks / "fix.json", scenario.fix.playbook)
    return Demo(settings, own, scenarios, tasks)


def follow(stack: Stack, show: Callable[[EngineStatus], None], *, without: Container[str] = ()) -> EngineStatus:
    """Look, and show what is seen, until all has settled and the issues `without` are closed; the last look."""
    sources = stack.wiring.sources()
    deadline = time.monotonic() + PATIENCE_S
    while True:
        stack.check()
        found = collect(sources)
        show(found)
        if found.settled and not any(issue.id in without for issue in found.issues):
            return found
        if time.monotonic() > deadline:
            raise OrchestratorError(f"the demo did not settle within {PATIENCE_S:g} s; see {stack.settings.logs}")
        time.sleep(LOOK_EVERY_S)


def merge(demo: Demo, found: EngineStatus) -> dict[str, str]:
    """Merge, as a person would, each branch that an issue waits for; the branches by their issues."""
    waited_for = sorted({blocker for issue in found.issues for blocker in issue.blockers})
    branches = {issue_id: branch_of(issue_id) for issue_id in waited_for}
    for branch in branches.values():
        done = _run(["git", "merge", "--ff-only", branch], demo.environ, demo.project)
        if done.returncode:
            raise OrchestratorError(f"{branch} could not be merged: {done.stderr.strip()}")
    return branches


def with_closed(found: EngineStatus, before: EngineStatus, tracker: McpTracker) -> EngineStatus:
    """The last look, and the issues that it has no more because they are closed."""
    listed = {issue.id for issue in found.issues}
    gone = [issue for issue in before.issues if issue.id not in listed]
    closed = [replace(issue, status=str(tracker.show_issue(issue.id)["status"])) for issue in gone]
    return replace(found, issues=(*found.issues, *closed))


def most_at_once(holdings: Iterable[Holding]) -> int:
    """The most sessions that ran at the same moment, by the times of their starts and ends."""
    spans = [(h.started_at_ms, h.ended_at_ms or sys.maxsize) for h in holdings if h.started_at_ms]
    return max((sum(start <= moment < end for start, end in spans) for moment, _ in spans), default=0)


def outcome(demo: Demo, found: EngineStatus, *, at_once: int, elapsed_s: float) -> Outcome:
    """The result; runs the tests on the branch of the DONE issue that took the most reviews."""
    done = sorted((issue.spec, issue.id) for issue in found.issues if issue.verdict is Verdict.DONE)
    if not done:
        return Outcome(found, at_once, elapsed_s, "", "", "no session was DONE", surprises=("no session was DONE",))
    example = done[-1][1]
    branch = branch_of(example)
    passed, said = run_tests(demo, branch)
    wrong = _surprises(demo, found) + ([] if passed else [f"the tests of {branch} fail: {said}"])
    if at_once != SLOTS:
        wrong.append(f"{at_once} sessions ran at once, not {SLOTS}")
    return Outcome(found, at_once, elapsed_s, example, branch, said, tuple(wrong))


def _surprises(demo: Demo, found: EngineStatus) -> list[str]:
    issues = {issue.id: issue for issue in found.issues}
    lines = []
    for issue_id, script in demo.scripts(found).items():
        issue = issues.get(issue_id)
        expected = (script.verdict, script.spec, script.quality)
        if issue is None:
            lines.append(f"{issue_id} is not there")
        elif expected != (got := (issue.verdict, issue.spec, issue.quality)):
            lines.append(f"{issue_id}: {_shown(*got)} instead of {_shown(*expected)}")
    return lines


def story(issue: IssueRow) -> str:
    """The story of an issue in one line."""
    if issue.verdict is not Verdict.DONE:
        return issue.reason
    reviews = (("spec", issue.spec), ("quality", issue.quality))
    noes = [f"the {kind} review {count - 1} times" for kind, count in reviews if count > 1]
    said = f"failed {' and '.join(noes)}, was fixed, and verified" if noes else "passed both reviews, verified"
    return f"{said}, merged, closed" if issue.status is IssueStatus.CLOSED else said


def run_tests(demo: Demo, branch: str) -> tuple[bool, str]:
    """Run the project's tests on a branch, in a clone that is thrown away: whether they pass, and their last words."""
    with tempfile.TemporaryDirectory() as copy:
        _run(["git", "clone", "--quiet", "--branch", branch, str(demo.project), copy], demo.environ, demo.project)
        tests = _run([sys.executable, "-m", "unittest"], demo.environ, Path(copy))
    said = [line for line in tests.stderr.splitlines() if line.startswith(("Ran ", "OK", "FAILED"))]
    return tests.returncode == 0, ": ".join(said)


def _run(argv: list[str], environ: Mapping[str, str], folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(argv, cwd=folder, env=environ, check=False, capture_output=True, text=True, timeout=60)


def _shown(verdict: Verdict | None, spec: int, quality: int) -> str:
    return f"{verdict or 'no verdict'} after {spec} spec and {quality} quality reviews"


def _orch_toml(playbooks: Path) -> str:
    # An agent's command line has placeholders, so a literal brace is doubled.
    folder = str(playbooks).replace("{", "{{").replace("}", "}}")
    return _ORCH_TOML.format(slots=SLOTS, python=toml(sys.executable), playbooks=toml(folder))


def _scenarios() -> Iterator[tuple[str, Scenario]]:
    for file in sorted((_FILES / "issues").iterdir(), key=lambda file: file.name):
        yield file.name.removesuffix(".toml"), Scenario.model_validate(_with_python(_read(file)))


def _read(file: Traversable) -> dict[str, Any]:
    return tomllib.loads(file.read_text(encoding="utf-8"))


def _with_python(value: object) -> object:
    """Replace `python` at the start of commands by the Python that runs us: there may be no other."""
    match value:
        case ["python", *words]:
            return [sys.executable, *words]
        case list():
            return [_with_python(part) for part in value]
        case dict():
            return {name: _with_python(part) for name, part in value.items()}
        case _:
            return value


def _file(tracker: McpTracker, scenarios: Mapping[str, Scenario]) -> dict[str, str]:
    """File the issues and link those that wait for others; return task ids by issue id."""
    ids: dict[str, str] = {}
    for task, scenario in scenarios.items():
        made = tracker.upsert_issue(
            title=scenario.title, description=scenario.content, priority=scenario.priority, tags=["demo"]
        )
        ids[task] = made["id"]
    for task, scenario in scenarios.items():
        for blocker in scenario.waits_for:
            tracker.link(from_id=ids[blocker], to_id=ids[task], type="blocks")
    return {issue_id: task for task, issue_id in ids.items()}


def _write(path: Path, playbook: Playbook) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(playbook.model_dump_json(indent=2), encoding="utf-8")
