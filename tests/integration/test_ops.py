"""What operators are given: units for systemd, and runbooks."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from orchestrator.local import units
from orchestrator.merge_close.record import Marker
from orchestrator.settings.keys import keys
from orchestrator.settings.tables import IN_FILE, SECRETS, Environment
from tests.support import ROOT

UNITS = sorted((ROOT / "ops/systemd").glob("*.service"))
EXAMPLES = sorted((ROOT / "ops/systemd").glob("*.env.example"))
RUNBOOKS = sorted((ROOT / "docs/runbooks").glob("*.md"))
CHECKLIST = "oncall-checklist"

AGENTS = {"ANTHROPIC_API_KEY"}
"""What an example has for agents, and no setting of ours is."""

needs_systemd = pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd is not installed")


def verify(unit: Path, home: Path) -> tuple[int, str]:
    """What systemd has to say against a unit, in a home where its program is."""
    for name in (".local/bin/orch", ".local/share/sudocode-orchestrator/bin/python"):
        program = home / name
        program.parent.mkdir(parents=True)
        program.write_text("#!/bin/sh\n")
        program.chmod(0o755)
    done = subprocess.run(
        ["systemd-analyze", "--user", "verify", unit],
        env=os.environ | {"HOME": str(home), "XDG_RUNTIME_DIR": str(home)},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stderr


@needs_systemd
@pytest.mark.parametrize("unit", UNITS, ids=lambda path: path.stem)
def test_systemd_takes_the_unit(unit: Path, home: Path) -> None:
    """As a user's, without a warning: no misspelt option, and its program can be run."""
    assert (0, "") == verify(unit, home)


@needs_systemd
def test_systemd_would_see_a_misspelt_option(tmp_path: Path, home: Path) -> None:
    """It says so without failing, so its words are what counts."""
    wrong = tmp_path / "wrong.service"
    wrong.write_text(UNITS[0].read_text("utf-8").replace("NoNewPrivileges", "NoNewPrivilges"))

    assert "Unknown key 'NoNewPrivilges'" in verify(wrong, home)[1]


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)
def test_every_variable_of_an_example_is_a_setting(example: Path) -> None:
    """Whoever copies it gets no error for what stands in it."""
    lines = [line for line in example.read_text("utf-8").splitlines() if line and not line.startswith("# ")]
    names = {line.lstrip("#").partition("=")[0] for line in lines}

    assert names
    settings = {key.name for key in keys(Environment)} | {name + IN_FILE for name in SECRETS}

    assert set() == names - settings - {"PATH", "WEB_PORT", "FLOWER_PORT"} - AGENTS


def test_no_secret_stands_in_a_unit() -> None:
    """What a unit's program finds in its environment is in a file in the home of whoever runs it."""
    files = [re.findall(r"^EnvironmentFile=(.*)", unit.read_text("utf-8"), re.MULTILINE) for unit in UNITS]

    assert {"%h/.config/sudocode-orchestrator/%i.env", "%h/.config/sudocode-orchestrator/merge-close.env"} == {
        name for (name,) in files
    }
    assert [] == [unit for unit in UNITS if re.search(r"^(Set)?Environment=", unit.read_text("utf-8"), re.MULTILINE)]


def test_the_templates_are_what_install_service_writes() -> None:
    """`python -m orchestrator.local.units ops/systemd` would change nothing."""
    fresh = {name.replace("%i", ""): text for name, text in units.TEMPLATES.files()}

    assert fresh == {path.name: path.read_text("utf-8") for path in (ROOT / "ops/systemd").glob("*@.*")}


@pytest.mark.parametrize("runbook", [path for path in RUNBOOKS if path.stem != CHECKLIST], ids=lambda path: path.stem)
def test_a_runbook_starts_with_a_command(runbook: Path) -> None:
    """Somebody reads it at three in the morning."""
    title, gap, fence, command, *_ = runbook.read_text("utf-8").splitlines()

    assert title.startswith("# ")
    assert ("", "```sh") == (gap, fence)
    assert command.startswith("orch ")


@pytest.mark.parametrize("runbook", RUNBOOKS, ids=lambda path: path.stem)
def test_the_markers_of_a_runbook_are_written(runbook: Path) -> None:
    """Whoever looks for one can find it."""
    named = re.findall(r"`((?:MERGE|PULL_REQUEST|OVERFLOW)_[A-Z_]+)`", runbook.read_text("utf-8"))

    assert set() == set(named) - set(Marker)
