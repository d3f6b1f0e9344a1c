"""The command line as a whole: what it loads, what it lists, how it says no."""

from __future__ import annotations

import importlib
import json
import pkgutil
import subprocess
import sys

import click
import pytest
from click.testing import CliRunner
from redis.exceptions import ConnectionError as RedisConnectionError

from orchestrator import cli
from orchestrator.cli.terminal import line, plain
from orchestrator.errors import TrackerUnavailable
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


@pytest.mark.parametrize(
    ("words", "said"),
    [
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
