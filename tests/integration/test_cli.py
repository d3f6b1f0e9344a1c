"""The command line as a whole: what it loads, what it lists, how it says no."""

from __future__ import annotations

import importlib
import json
import os
import pkgutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from redis.exceptions import ConnectionError as RedisConnectionError

from orchestrator import cli
from orchestrator.cli.terminal import known_issues
from orchestrator.errors import TrackerUnavailable
from orchestrator.text import line, plain
from tests.support import ROOT

HEAVY = ("celery", "redis", "mcp", "rich", "pydantic", "pydantic_core", "structlog")
OURS = {
    module.name.replace("_", "-"): command
    for module in pkgutil.iter_modules(cli.__path__)
    if not module.name.startswith("_")
    and (command := getattr(importlib.import_module(f"orchestrator.cli.{module.name}"), "command", None))
}


def test_help_loads_nothing_heavy() -> None:
    """A command line that answers at once is one that imports late."""
    code = (
        "import sys, json; from orchestrator.cli import main; main(['--help'], standalone_mode=False);"
        f"print(json.dumps(sorted(set(sys.modules) & set({HEAVY!r}))))"
    )

    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)

    *said, loaded = done.stdout.splitlines()
    assert any(text.startswith("Usage: ") for text in said)
    assert [] == json.loads(loaded)


def test_every_command_is_listed() -> None:
    """A module with a command in it can be called by its name, and every name has one."""
    assert set(OURS) == set(cli.COMMANDS)


@pytest.mark.parametrize("name", sorted(OURS))
def test_every_commands_help_has_an_example(name: str) -> None:
    """What one gets, and a line that can be typed."""
    done = CliRunner().invoke(cli.main, [name, "--help"], prog_name="orch")

    assert 0 == done.exit_code
    assert f"orch {name}" in done.output.split("Options:")[0].split("\n", 1)[1]


def walked(command: click.Command, name: str) -> Iterator[tuple[str, click.Command]]:
    """A command, or those of a group."""
    if isinstance(command, click.Group):
        for below, other in command.commands.items():
            yield from walked(other, f"{name} {below}")
    else:
        yield name, command


NOT_FOR_PROGRAMS = {
    "up": "runs until Ctrl-C",
    "web": "runs until Ctrl-C",
    "completion": "is read by a shell",
    "install-service": "writes files for systemd, and --dry-run prints them",
    "dry-run": "is JSON as it is",
    "merges repair": "says nothing that its exit code does not",
}


def test_what_is_printed_for_people_can_be_had_as_json() -> None:
    """Every command takes --json, but those for which it would mean nothing."""
    every = [found for name, command in OURS.items() for found in walked(command, name)]
    without = {name for name, command in every if not any("--json" in param.opts for param in command.params)}

    assert set(NOT_FOR_PROGRAMS) == without


def test_exit_codes_are_in_the_help() -> None:
    """One need not read the source to write a script."""
    said = " ".join(CliRunner().invoke(cli.main, ["--help"]).output.split())

    assert "Exit codes: 0 done; 1 could not, and a line on stderr says why and what to try; 2 misuse." in said


def completed(words: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What bash is offered for the last of these words, in a repo with two issues."""
    (folder / ".sudocode").mkdir(exist_ok=True)
    rows = ({"id": "i-done", "title": "Old", "status": "closed"}, {"id": "i-a1b2", "title": "New", "status": "open"})
    (folder / ".sudocode" / "issues.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    monkeypatch.chdir(folder)
    asked = {"COMP_WORDS": words, "COMP_CWORD": str(words.count(" ")), "_ORCH_COMPLETE": "bash_complete"}
    done = CliRunner().invoke(cli.main, [], prog_name="orch", env=asked)
    return [text.partition(",")[2] for text in done.output.splitlines()]


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("orch his", ["history"]),
        ("orch logs i-", ["i-a1b2", "i-done"]),
        ("orch logs i-a", ["i-a1b2"]),
        ("orch enqueue i-done i-a", ["i-a1b2"]),
        ("orch issue show i-a", ["i-a1b2"]),
        ("orch logs i-a1b2 --fo", ["--follow"]),
    ],
)
def test_tab_completes(words: str, offered: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands, options, and the repo's issues, the closed ones last."""
    assert offered == completed(words, tmp_path, monkeypatch)


def test_tab_is_quiet_where_issues_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A shell that completes is no place for complaints."""
    (tmp_path / ".sudocode").mkdir()
    (tmp_path / ".sudocode" / "issues.jsonl").write_text("{")
    monkeypatch.chdir(tmp_path)

    assert [] == list(known_issues(None))


def test_tab_loads_nothing_heavy(tmp_path: Path) -> None:
    """Issues are completed while one types."""
    code = (
        "import sys, json; from orchestrator.cli import main; sys.argv[0] = 'orch';\n"
        "try: main()\n"
        f"except SystemExit: print(json.dumps(sorted(set(sys.modules) & set({HEAVY!r}))))"
    )
    asked = {"COMP_WORDS": "orch logs i-", "COMP_CWORD": "2", "_ORCH_COMPLETE": "bash_complete"}
    environ = os.environ | asked | {"PYTHONPATH": str(ROOT)}

    done = subprocess.run(
        [sys.executable, "-P", "-c", code], cwd=tmp_path, env=environ, capture_output=True, text=True, check=True
    )

    assert [] == json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_completion_script_says_how_to_use_it(shell: str) -> None:
    """Its first line is a comment to copy; the rest calls us."""
    first, *rest = CliRunner().invoke(cli.main, ["completion", shell], prog_name="orch").output.splitlines()

    assert f"orch completion {shell}" in first
    assert first.startswith("# ")
    assert any("_ORCH_COMPLETE" in text for text in rest)


def test_no_color_is_honoured(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a terminal too."""

    @click.command
    def colourful() -> None:
        click.echo(click.style("red", "red"))

    monkeypatch.setattr(importlib.import_module("orchestrator.cli.dry_run"), "command", colourful)

    assert "\x1b[31mred\x1b[0m\n" == CliRunner().invoke(cli.main, ["dry-run"], color=True).output
    assert "red\n" == CliRunner().invoke(cli.main, ["dry-run"], color=True, env={"NO_COLOR": "1"}).output


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("logs i-a1b2 --step 7th", "'7th' is neither a number of the list nor one of implement, spec_review"),
        ("logs i-a1b2 -f --json", "-f follows a whole session"),
        ("report --since tomorrow", "'tomorrow' is no time"),
        ("report --since 2999-01-01", "is still to come"),
        ("status --watch 0", "0.0 is not in the range"),
        ("issue add x --priority 7", "7 is not in the range 0<=x<=4"),
        ("issue add ''", "an issue needs a title"),
        ("issue add x --body a --body-file -", "give --body or --body-file, not both"),
        ("issue add x --blocked-by 7", "'7' is no issue's id"),
        ("issue show I-A1B2", "'I-A1B2' is no issue's id"),
        ("issue list --status done", "'done' is not one of"),
        ("enqueue i-a1b2 fix", "'fix' is no issue's id; ids look like i-a1b2"),
        ("enqueue i-a1b2 --wait -1", "-1.0 is not in the range x>=0"),
        ("-C /no/such/folder doctor", "Directory '/no/such/folder' does not exist"),
    ],
)
def test_misuse_is_told_apart(words: str, said: str) -> None:
    """Exit 2 with the usage, before anything is looked at."""
    done = CliRunner().invoke(cli.main, words, prog_name="orch")

    assert (2, "") == (done.exit_code, done.stdout)
    assert "Usage: orch" in done.stderr
    assert said in " ".join(done.stderr.split())


def test_a_misspelt_command_is_guessed() -> None:
    """Exit 2, and the command that was meant."""
    done = CliRunner().invoke(cli.main, ["enque"], prog_name="orch")

    assert 2 == done.exit_code
    assert "Error: No such command 'enque'. Did you mean 'enqueue'?\n" in done.stderr


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (TrackerUnavailable("i-a1b2: no answer; try later"), "Error: i-a1b2: no answer; try later\n"),
        (RedisConnectionError("Refused."), "Error: Redis: Refused; `orch doctor` says what is wrong\n"),
        (PermissionError(13, "Permission denied", "/x/orch.toml"), "Error: /x/orch.toml: Permission denied\n"),
    ],
)  # fmt: skip
def test_what_can_be_expected_to_go_wrong_is_one_line(
    error: Exception, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit 1, on stderr, without a traceback; whatever command it happened in."""

    @click.command
    def fails() -> None:
        raise error

    monkeypatch.setattr(importlib.import_module("orchestrator.cli.dry_run"), "command", fails)

    done = CliRunner().invoke(cli.main, ["dry-run"])

    assert (1, "", said) == (done.exit_code, done.stdout, done.stderr)


def test_a_bug_is_not_dressed_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """What nobody expected keeps its traceback."""

    @click.command
    def fails() -> None:
        raise KeyError("bug")

    monkeypatch.setattr(importlib.import_module("orchestrator.cli.dry_run"), "command", fails)

    done = CliRunner().invoke(cli.main, ["dry-run"])

    assert isinstance(done.exception, KeyError)


def test_text_from_strangers_is_made_harmless() -> None:
    """Lines and tabs stay, umlauts and emoji stay; what steers a terminal does not."""
    assert "a\tb\nGrüße 🎉 \ufffd[31m\ufffd\ufffd" == plain("a\tb\nGrüße 🎉 \x1b[31m\x9b\u202e")
    assert "a b" == line(" a\n\tb ")


def test_the_dry_run_is_the_runbooks_json() -> None:
    """The same as `python -m orchestrator.runner --dry-run`."""
    done = CliRunner().invoke(cli.main, ["dry-run"])

    assert 0 == done.exit_code
    assert ("SESSION_DONE", "i-dry1") == tuple(
        json.loads(done.stdout)[key] for key in ("last_event_type", "processed_issue")
    )
