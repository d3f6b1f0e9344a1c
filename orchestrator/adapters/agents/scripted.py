"""An agent that follows a playbook: no model, but real edits, real commands, real failures.

    python -P -m orchestrator.adapters.agents.scripted --role ROLE --issue ISSUE --playbook DIR < prompt

It works in the current directory (`-P` keeps that off the import path), prints what it does, and ends with the answer
that its role owes, as JSON in a fenced block, with the last nonce in the prompt. `DIR/<issue>.json` says what to do;
without it `DIR/fix.json` when the prompt is about a "[FIX]" issue; else `DIR/default.json`. The n-th run of a role for
an issue follows the n-th entry, and the last one from then on; `DIR/state/<issue>.<role>` counts the runs.

    {
      "implementer": [{
        "write": {"path": "text"},          # files to write, below the current directory
        "append": {"path": "text"},         # files to append to
        "run": [["argv", "..."]],           # commands to run after that; a failing one is told and passed over
        "verification": ["argv", "..."],    # run last and reported; null (the default) claims nothing
        "already_done": false,              # whether it says that all of the work was there before
        "notes": "...",
        "seconds": 0.5,                     # how long to think before, with a line of output every second
        "misbehave": null                   # see below
      }],
      "spec_reviewer": [{
        "checks": [{"item": "what must hold", "run": ["argv", "..."], "fix": "what to do if it does not"}],
        "notes": "...", "seconds": 0.3, "misbehave": null
      }],
      "quality_reviewer": []                # as spec_reviewer; a role with no entry does nothing, or passes
    }

A reviewer runs its checks; those that exit with anything but 0 are its failed items. "misbehave" is how an agent goes
wrong once its work is done: "garbage" answers without JSON, "exit3" fails with exit code 3, "hang" never ends, "flood"
prints 50 MB before it answers, "fork" starts processes in sessions of their own without end (64 at a time).

Exit code 2 and one line on stderr when there is no playbook, or it is not valid.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import re
import shlex
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal, assert_never

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from orchestrator.models import Role

Argv = Annotated[list[str], Field(min_length=1)]
Misbehaviour = Literal["garbage", "hang", "exit3", "flood", "fork"]

_FIX_ISSUE = re.compile(r"^\W*([\w .-]+:\W*)?\[FIX\]", re.MULTILINE)
_NONCE = re.compile(r'"nonce": "(\w+)"')
_ISSUE_ID = re.compile(r"[A-Za-z0-9][\w.-]*", re.ASCII)


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Turn(_Strict):
    """The fields of every entry of a playbook."""

    notes: str = ""
    seconds: float = Field(default=0, ge=0)
    misbehave: Misbehaviour | None = None


class Implementation(Turn):
    """One run of the implementer."""

    write: dict[str, str] = {}
    append: dict[str, str] = {}
    run: list[Argv] = []
    verification: Argv | None = None
    already_done: bool = False


class ChecklistItem(_Strict):
    """One checklist item, and the command that tells whether it holds."""

    item: str
    run: Argv
    fix: str


class Review(Turn):
    """One run of a reviewer."""

    checks: list[ChecklistItem] = []


class Playbook(_Strict):
    """The turns of each role, run by run."""

    implementer: list[Implementation] = []
    spec_reviewer: list[Review] = []
    quality_reviewer: list[Review] = []

    def turn(self, role: str, number: int) -> Implementation | Review:
        """The entry for the number-th run of a role, counting from 1."""
        turns: Sequence[Implementation | Review] = getattr(self, role)
        if not turns:
            return Implementation() if role == Role.IMPLEMENTER else Review()
        return turns[min(number, len(turns)) - 1]


def main(arguments: Sequence[str] | None = None) -> int:
    """Play one turn and print its answer; the exit code."""
    parser = argparse.ArgumentParser(prog="scripted", description="An agent that follows a playbook.")
    parser.add_argument("--role", required=True, choices=[role.value for role in Role])
    parser.add_argument("--issue", required=True)
    parser.add_argument("--playbook", required=True, type=Path)
    options = parser.parse_args(arguments)
    if not _ISSUE_ID.fullmatch(options.issue):
        parser.error(f"{options.issue!r} is no issue id")
    prompt = sys.stdin.read()
    try:
        path = find(options.playbook, options.issue, prompt)
        playbook = Playbook.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        print(f"scripted: {options.issue}: no usable playbook: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    number = count(options.playbook / "state" / f"{options.issue}.{options.role}")
    _tell(f"{options.role} of {options.issue}, run {number}, by {path.name}")
    turn = playbook.turn(options.role, number)
    _think(turn.seconds)
    answer = _implement(turn) if isinstance(turn, Implementation) else _review(turn)
    if turn.misbehave:
        _misbehave(turn.misbehave)
    nonce = {"nonce": asked[-1]} if (asked := _NONCE.findall(prompt)) else {}
    _tell(f"```json\n{json.dumps(nonce | answer, indent=2)}\n```")
    return 0


def find(playbooks: Path, issue: str, prompt: str) -> Path:
    """The playbook of an issue; `default.json`, there or not, when no other applies."""
    names = [f"{issue}.json", "fix.json"] if _FIX_ISSUE.search(prompt) else [f"{issue}.json"]
    existing = (playbooks / name for name in names if (playbooks / name).is_file())
    return next(existing, playbooks / "default.json")


def count(state: Path) -> int:
    """One more than last time, starting at 1; no two processes get the same number."""
    state.parent.mkdir(parents=True, exist_ok=True)
    with state.open("a+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        number = int(file.read() or 0) + 1
        file.truncate(0)
        file.write(str(number))
    return number


def _implement(turn: Implementation) -> dict[str, object]:
    for mode, files in (("w", turn.write), ("a", turn.append)):
        for name, text in files.items():
            path = _below_here(name)
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open(mode, encoding="utf-8") as file:
                file.write(text)
            _tell(f"{'wrote' if mode == 'w' else 'appended to'} {name}")
    for argv in turn.run:
        _run(argv)
    changed_at = datetime.now(UTC)
    return {
        "code_changed_at": changed_at.isoformat(),
        "notes": turn.notes,
        "verification": _verify(turn.verification) if turn.verification else None,
        **({"already_done": True} if turn.already_done else {}),
    }


def _verify(argv: Sequence[str]) -> dict[str, object]:
    exit_code, output = _run(argv)
    return {
        "command": shlex.join(argv),
        "output": output[-4000:],
        "exit_code": exit_code,
        "produced_at": datetime.now(UTC).isoformat(),
    }


def _review(turn: Review) -> dict[str, object]:
    failed = [check for check in turn.checks if _run(check.run)[0] != 0]
    return {
        "passed": not failed,
        "failed_items": [check.item for check in failed],
        "fix_list": [check.fix for check in failed],
        "notes": turn.notes or f"{len(turn.checks) - len(failed)} of {len(turn.checks)} checks hold",
    }


def _run(argv: Sequence[str]) -> tuple[int, str]:
    """Exit code and output of a command, both also told; 127 when it cannot be started."""
    _tell(f"$ {shlex.join(argv)}")
    try:
        done = subprocess.run(
            argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
        )
        exit_code, output = done.returncode, done.stdout.decode("utf-8", errors="replace")
    except OSError as error:
        exit_code, output = 127, str(error)
    _tell(f"{output.rstrip()}\nexit code {exit_code}".lstrip())
    return exit_code, output


def _below_here(name: str) -> Path:
    path = Path(name).resolve()
    if not path.is_relative_to(Path.cwd().resolve()):
        raise SystemExit(f"scripted: {name} is outside of the worktree: correct the playbook")
    return path


def _think(seconds: float) -> None:
    """Take that long; a line at least every second shows that the agent is alive."""
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        _tell(f"thinking, {left:.1f} s to go")
        time.sleep(min(left, 1.0))


def _misbehave(how: Misbehaviour) -> None:
    """Return only when the answer comes after all."""
    match how:
        case "garbage":
            _tell("All done! I am confident that everything works.")
            raise SystemExit(0)
        case "exit3":
            print("scripted: the playbook says to fail here", file=sys.stderr)
            raise SystemExit(3)
        case "hang":
            while True:
                signal.pause()
        case "flood":
            line = "x" * 99 + "\n"
            for _ in range(500):
                sys.stdout.write(line * 1000)
        case "fork":
            running: deque[subprocess.Popen[bytes]] = deque()
            while True:
                running.append(subprocess.Popen(["sleep", "3600"], start_new_session=True))
                if len(running) >= 64:
                    oldest = running.popleft()
                    oldest.kill()
                    oldest.wait()
        case _ as never:
            assert_never(never)


def _tell(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
