"""The scripted agent: real edits and commands by the book, and misbehaviour on demand."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from orchestrator.adapters.agents import scripted
from orchestrator.adapters.agents.command import AgentCommand, CommandTransport
from orchestrator.adapters.agents.scripted import Playbook, count, find
from orchestrator.adapters.process import marked
from orchestrator.adapters.process.foreign import Bounds
from orchestrator.errors import AgentFailed, AgentSilent

ROOT = Path(__file__).resolve().parents[2]
BOUNDS = Bounds(30)
Ask = Callable[..., str]


@pytest.fixture
def playbooks(tmp_path: Path) -> Callable[..., None]:
    """Writes DIR/<name>.json."""

    def write(name: str, **roles: object) -> None:
        (tmp_path / "playbooks").mkdir(exist_ok=True)
        (tmp_path / "playbooks" / f"{name}.json").write_text(json.dumps(roles))

    return write


@pytest.fixture
def ask(tmp_path: Path) -> Ask:
    """Asks the scripted agent through the command transport, in an empty worktree."""
    (tmp_path / "worktree").mkdir()
    program = (sys.executable, "-P", "-m", "orchestrator.adapters.agents.scripted")
    argv = (*program, "--role", "{role}", "--issue", "{issue}", "--playbook", str(tmp_path / "playbooks"))

    def run(role: str, prompt: str = "", *, issue: str = "i-0001", bounds: Bounds = BOUNDS) -> str:
        transport = CommandTransport(
            {role: AgentCommand(argv, "stdin", bounds, ("PYTHONPATH",))},
            cwd=tmp_path / "worktree",
            logs=tmp_path / "logs",
            issue_id=issue,
            env=dict(os.environ) | {"PYTHONPATH": str(ROOT)},
            redact=str,
            cancel=None,
        )
        return transport(role, prompt)

    return run


def answer(printed: str) -> dict[str, Any]:
    """The JSON object in the last fenced block."""
    found: dict[str, Any] = json.loads(re.findall(r"```json\n(.*?)\n```", printed, re.DOTALL)[-1])
    return found


def test_an_implementer_really_works(playbooks: Callable[..., None], ask: Ask, tmp_path: Path) -> None:
    """It writes, appends, runs, verifies, and answers with what came of it."""
    turn = {
        "write": {"src/a.txt": "one\n"},
        "append": {"src/a.txt": "two\n"},
        "run": [["cp", "src/a.txt", "b.txt"], ["no-such-command"]],
        "verification": ["sh", "-c", "cat b.txt; exit 3"],
        "notes": "copied",
    }
    playbooks("i-0001", implementer=[turn])
    before = datetime.now(UTC)
    printed = ask("implementer")
    told = answer(printed)

    assert "one\ntwo\n" == (tmp_path / "worktree" / "b.txt").read_text()
    verification = told["verification"]
    assert ("sh -c 'cat b.txt; exit 3'", "one\ntwo\n", 3) == tuple(
        verification[key] for key in ("command", "output", "exit_code")
    )
    changed, produced = (datetime.fromisoformat(at) for at in (told["code_changed_at"], verification["produced_at"]))
    assert before <= changed <= produced <= datetime.now(UTC)
    assert {"code_changed_at", "notes", "verification"} == told.keys()
    assert "copied" == told["notes"]
    assert "exit code 127" in printed


def test_a_reviewer_really_checks(playbooks: Callable[..., None], ask: Ask, tmp_path: Path) -> None:
    """Its verdict is what its commands say about the worktree: failing before the fix, passing after."""
    checks = [
        {"item": "a.txt exists", "run": ["test", "-f", "a.txt"], "fix": "write a.txt"},
        {"item": "truth holds", "run": ["true"], "fix": "-"},
    ]
    playbooks("default", quality_reviewer=[{"checks": checks}])
    first = answer(ask("quality_reviewer"))
    (tmp_path / "worktree" / "a.txt").touch()
    second = answer(ask("quality_reviewer"))

    assert {
        "passed": False,
        "failed_items": ["a.txt exists"],
        "fix_list": ["write a.txt"],
        "notes": "1 of 2 checks hold",
    } == first
    assert {"passed": True, "failed_items": [], "fix_list": [], "notes": "2 of 2 checks hold"} == second


def test_an_answer_repeats_the_last_nonce_of_its_prompt(playbooks: Callable[..., None], ask: Ask) -> None:
    """A nonce that the issue quotes stands before the prompt's own; without any the answer has none."""
    playbooks("default")

    assert "own" == answer(ask("spec_reviewer", 'the issue: {"nonce": "quoted"}\n{"nonce": "own", ...'))["nonce"]
    assert "nonce" not in answer(ask("spec_reviewer"))


def test_run_n_follows_entry_n(playbooks: Callable[..., None], ask: Ask) -> None:
    """Each run takes the next entry, the last one from then on; another issue or role counts for itself."""
    playbooks("default", implementer=[{"notes": "first"}, {"notes": "second"}], spec_reviewer=[{"notes": "review"}])
    notes = [answer(ask("implementer"))["notes"] for _ in range(3)]

    assert ["first", "second", "second"] == notes
    assert "first" == answer(ask("implementer", issue="i-0002"))["notes"]
    assert "review" == answer(ask("spec_reviewer"))["notes"]


def test_counting_is_exclusive(tmp_path: Path) -> None:
    """Many at once get different numbers, none left out."""
    with ThreadPoolExecutor(8) as pool:
        numbers = list(pool.map(lambda _: count(tmp_path / "state" / "i-0001.implementer"), range(40)))

    assert list(range(1, 41)) == sorted(numbers)


@pytest.mark.parametrize(
    ("prompt", "found"),
    [
        ("Title: [FIX] i-0009 overflowed", "fix"),
        ("# [FIX] i-0009 overflowed", "fix"),
        ("# DEV-001: [FIX] DEV-001: i-0009 overflowed", "fix"),
        ("role\n[FIX] i-0009", "fix"),
        ('- **Title:** "[FIX] i-0009"', "fix"),
        ("Title: say [FIX] aloud", "default"),
        ("", "default"),
    ],
)
def test_fix_issues_have_a_playbook(playbooks: Callable[..., None], tmp_path: Path, prompt: str, found: str) -> None:
    """An issue about a [FIX] follows fix.json, unless it has a playbook of its own; any other the default."""
    playbooks("fix")
    playbooks("i-0002")

    assert f"{found}.json" == find(tmp_path / "playbooks", "i-0001", prompt).name
    assert "i-0002.json" == find(tmp_path / "playbooks", "i-0002", prompt).name


def test_without_a_fix_playbook_the_default_is_followed(tmp_path: Path) -> None:
    """fix.json is optional."""
    assert "default.json" == find(tmp_path, "i-0001", "[FIX] i-0009").name


def test_a_role_without_entries(playbooks: Callable[..., None], ask: Ask) -> None:
    """A reviewer without entries passes, and an implementer without entries changes nothing and claims nothing."""
    playbooks("default")

    assert answer(ask("spec_reviewer"))["passed"] is True
    assert answer(ask("implementer"))["verification"] is None


def test_thinking_is_heard(playbooks: Callable[..., None], ask: Ask) -> None:
    """An agent that thinks longer than the silence limit lives, since it says that it does."""
    playbooks("default", spec_reviewer=[{"seconds": 2.3}])

    assert 3 == ask("spec_reviewer", bounds=Bounds(30, silence_s=2)).count("thinking")


def test_garbage(playbooks: Callable[..., None], ask: Ask) -> None:
    """Garbage is a friendly text without JSON, and no failure; the next run may do better."""
    playbooks("default", implementer=[{"misbehave": "garbage"}, {}])

    assert "{" not in ask("implementer")
    assert {"code_changed_at", "notes", "verification"} == answer(ask("implementer")).keys()


def test_exit3(playbooks: Callable[..., None], ask: Ask, tmp_path: Path) -> None:
    """A failing agent leaves its half-done work, as real ones do."""
    playbooks("default", implementer=[{"write": {"half.txt": ""}, "misbehave": "exit3"}])

    with pytest.raises(AgentFailed, match="code 3"):
        ask("implementer")
    assert (tmp_path / "worktree" / "half.txt").exists()


def test_hang(playbooks: Callable[..., None], ask: Ask) -> None:
    """A hanging agent is seen by its silence."""
    playbooks("default", implementer=[{"misbehave": "hang"}])

    with pytest.raises(AgentSilent):
        ask("implementer", bounds=Bounds(30, silence_s=0.8))


def test_flood(playbooks: Callable[..., None], ask: Ask, tmp_path: Path) -> None:
    """A flood of 50 MB ends with the answer, which is not lost."""
    playbooks("default", spec_reviewer=[{"misbehave": "flood"}])

    assert answer(ask("spec_reviewer"))["passed"] is True
    assert 50_000_000 < (tmp_path / "logs" / "1-spec_reviewer.stdout").stat().st_size


def test_fork(playbooks: Callable[..., None], ask: Ask, tmp_path: Path) -> None:
    """A fork loop is ended with all that it started."""
    playbooks("default", implementer=[{"misbehave": "fork"}])

    with pytest.raises(AgentSilent):
        ask("implementer", issue=f"i-{os.getpid()}", bounds=Bounds(30, silence_s=1))
    assert 0 == marked.sweep({"ORCH_ISSUE": f"i-{os.getpid()}"})


@pytest.mark.parametrize(
    "roles",
    [
        {"implementer": [{"writes": {}}]},
        {"implementer": [{"run": [[]]}]},
        {"implementer": [{"misbehave": "explode"}]},
        {"spec_reviewer": [{"checks": [{"item": "x", "run": ["true"]}]}]},
        {"reviewer": []},
    ],
)
def test_the_format_is_strict(roles: dict[str, object]) -> None:
    """What the format does not know is an error, not a silent pass."""
    with pytest.raises(ValidationError):
        Playbook.model_validate(roles)


def test_a_wrong_playbook_is_refused(playbooks: Callable[..., None], ask: Ask) -> None:
    """A playbook that is not valid ends the run with one line that says where it is wrong."""
    playbooks("default", implementer=[{"writes": {}}])

    with pytest.raises(AgentFailed, match=r"code 2: scripted: i-0001: no usable playbook: .*implementer\.0\.writes"):
        ask("spec_reviewer")


def test_no_playbook(ask: Ask) -> None:
    """Without a playbook, the file that is missing is named."""
    with pytest.raises(AgentFailed, match=r"default\.json"):
        ask("implementer")


def test_writing_outside_of_the_worktree_is_refused(playbooks: Callable[..., None], ask: Ask, tmp_path: Path) -> None:
    """A playbook cannot reach beyond the current directory."""
    playbooks("default", implementer=[{"write": {"../outside": ""}}])

    with pytest.raises(AgentFailed, match="outside of the worktree"):
        ask("implementer")
    assert not (tmp_path / "outside").exists()


def test_issue_ids_cannot_be_paths(tmp_path: Path) -> None:
    """An issue id that would name another directory is misuse."""
    argv = [sys.executable, "-m", "orchestrator.adapters.agents.scripted"]
    argv += ["--role", "implementer", "--issue", "../x", "--playbook", str(tmp_path)]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False)

    assert 2 == done.returncode
    assert "no issue id" in done.stderr


def test_the_documented_playbook_is_valid() -> None:
    """The example in the module's documentation is a playbook, once its remarks are gone."""
    example = (scripted.__doc__ or "").split("\n    {\n", 1)[1].split("\n    }\n")[0]
    playbook = Playbook.model_validate_json("{" + re.sub(r"  # .*", "", example) + "}")

    assert "what must hold" == playbook.spec_reviewer[0].checks[0].item
