"""Settings: what is read, from where, and what is said when it is wrong."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from orchestrator import settings
from orchestrator.errors import SettingsError
from orchestrator.models import Role
from orchestrator.settings.loading import AGENT_MARKERS, find_root, settings_table
from orchestrator.settings.tables import TrackerCommand

REPO = Path(__file__).parents[2]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "My Repo"
    folder.mkdir()
    return folder


def load(root: Path, text: str = "", **environ: str) -> settings.Settings:
    """The settings of a repo with this orch.toml, on a machine with these variables."""
    (root / "orch.toml").write_text(text, "utf-8")
    return settings.load(root, {"HOME": "/home/me", **environ})


def said(root: Path, text: str = "", **environ: str) -> list[str]:
    """The problems, line by line."""
    with pytest.raises(SettingsError) as error:
        load(root, text, **environ)
    return str(error.value).splitlines()


def test_defaults_without_a_file(root: Path) -> None:
    """A repo without orch.toml has a name made from its folder, no Redis, and the documented numbers."""
    found = settings.load(root, {"HOME": "/home/me"})

    assert ("my-repo", None, 4, 5.0, "auto", None, 15.0) == (
        found.project,
        found.base,
        found.concurrency,
        found.poll_interval,
        found.tracker,
        found.prompt_template,
        found.lease_seconds,
    )
    assert (3, 2, 3600, 900, 1800, 1800, 100, 3, 3) == tuple(dict(found.limits).values())
    assert found.redis_url is None
    assert found.agent(Role.IMPLEMENTER) is None
    assert found.verify_command("L1") is None


def test_every_key_is_read(root: Path) -> None:
    """Each key of orch.toml lands where the program asks for it."""
    (root / "prompt.md").write_text("x")
    found = load(
        root,
        """
        project = "acme"
        base = "release/1.x"
        concurrency = 8
        poll_interval = 1
        tracker = {command = ["my-tracker", "--stdio"]}
        prompt_template = "prompt.md"
        lease_seconds = 30
        [limits]
        spec_attempts = 1
        rescues = 0
        [verify]
        default = "make 'all of it'"
        L2 = ["make", "e2e"]
        [agents]
        env = ["ANTHROPIC_API_KEY"]
        [agents.default]
        command = "claude -p"
        [agents.spec_reviewer]
        command = ["codex", "exec", ""]
        prompt = "argument"
        """,
    )

    assert ("acme", "release/1.x", 8, 1.0, 30.0) == (
        found.project,
        found.base,
        found.concurrency,
        found.poll_interval,
        found.lease_seconds,
    )
    assert TrackerCommand(command=("my-tracker", "--stdio")) == found.tracker
    assert Path("prompt.md") == found.prompt_template
    assert (1, 0) == (found.limits.spec_attempts, found.limits.rescues)
    assert ("ANTHROPIC_API_KEY",) == found.agents.env


def test_verification_falls_back_to_the_default(root: Path) -> None:
    """A level without a command of its own, or no level at all, is verified by the default one."""
    found = load(root, '[verify]\ndefault = "make \'all of it\'"\nL2 = ["make", "e2e"]')

    assert ("make", "e2e") == found.verify_command("L2")
    assert [("make", "all of it")] * 3 == [found.verify_command(level) for level in ("L0", "-", "default")]


@pytest.mark.parametrize(
    ("setup", "commands"),
    [
        ('"npm ci"', [("npm", "ci")]),
        ('["npm", "ci"]', [("npm", "ci")]),
        ('[["uv", "sync"], ["npm", "ci"]]', [("uv", "sync"), ("npm", "ci")]),
    ],
)
def test_a_set_up_is_one_command_or_several(root: Path, setup: str, commands: list[tuple[str, ...]]) -> None:
    """One as a verification is written, several as a list of such."""
    assert tuple(commands) == load(root, f"workspace.setup = {setup}").workspace.setup


@pytest.mark.parametrize("setup", ['["uv sync", "npm ci"]', "[[]]", "[]", '[["a"], "b"]', '["a", ["b"]]', '"a && b"'])
def test_a_set_up_that_could_be_meant_in_two_ways_is_refused(root: Path, setup: str) -> None:
    """One line says so, with an example."""
    (line,) = said(root, f"workspace.setup = {setup}")

    assert line.startswith("orch.toml: workspace.setup")
    assert 'write e.g. setup = ["npm", "ci"]' in line


def test_roles_fall_back_to_the_default_agent(root: Path) -> None:
    """A role without a table of its own is played by the default agent."""
    found = load(root, 'agents.default.command = "a b"\nagents.spec_reviewer = {command = ["c"], prompt = "argument"}')

    assert settings.AgentSettings(command=("a", "b"), prompt="stdin") == found.agent(Role.IMPLEMENTER)
    assert settings.AgentSettings(command=("a", "b"), prompt="stdin") == found.agent(Role.QUALITY_REVIEWER)
    assert settings.AgentSettings(command=("c",), prompt="argument") == found.agent(Role.SPEC_REVIEWER)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "limits.spec_attempts = 0",
            "limits.spec_attempts: must be at least 1 (is 0); write e.g. spec_attempts = 3",
        ),
        ("concurrency = 65", "concurrency: must be at most 64 (is 65); write e.g. concurrency = 4"),
        ("concurrency = 4.0", "concurrency: must be a whole number (is 4.0); write e.g. concurrency = 4"),
        ("concurrency = true", "concurrency: must be a whole number (is true); write e.g. concurrency = 4"),
        ('lease_seconds = "9"', 'lease_seconds: must be a number (is "9"); write e.g. lease_seconds = 15'),
        ("poll_interval = nan", "poll_interval: must be at most 3600 (is nan); write e.g. poll_interval = 5"),
        ("poll_interval = inf", "poll_interval: must be at most 3600 (is inf); write e.g. poll_interval = 5"),
        (
            "limits.agent_seconds = 0",
            "limits.agent_seconds: must be more than 0 (is 0); write e.g. agent_seconds = 3600",
        ),
        (
            'project = "My Repo"',
            'project: must be 1 to 40 of a-z, 0-9 and - (is "My Repo"); write e.g. project = "my-repo"',
        ),
        ('base = "--force"', 'base: must be the name of a branch (is "--force"); write e.g. base = "main"'),
        (
            'tracker = "jira"',
            "tracker: must be 'auto', 'sudocode' or 'bundled' (is \"jira\"); write e.g. tracker = \"auto\"",
        ),
        ("tracker = {}", 'tracker.command: is missing; write e.g. command = ["sudocode-mcp"]'),
        ("limits = 3", "limits: must be a table (is 3); write e.g. [limits] and below it spec_attempts = 3"),
        ("verify.L1 = 3", 'verify.L1: must be a list (is 3); write e.g. L1 = ["make", "test"]'),
        ("verify.L1 = [3]", 'verify.L1[0]: must be text in quotes (is 3); write e.g. L1 = ["make", "test"]'),
        ("verify.L1 = []", 'verify.L1: names no program; write e.g. L1 = ["make", "test"]'),
        ("verify.L1 = ' '", 'verify.L1: names no program; write e.g. L1 = ["make", "test"]'),
        (r'verify.L1 = "a\u0000"', 'verify.L1: has a NUL character in it; write e.g. L1 = ["make", "test"]'),
        ('verify.L1 = "make \'x"', 'verify.L1: No closing quotation; write e.g. L1 = ["make", "test"]'),
        (
            'agents.env = ["A-B"]',
            'agents.env[0]: must be the name of an environment variable (is "A-B"); '
            'write e.g. env = ["ANTHROPIC_API_KEY"]',
        ),
        (
            'agents.default = {prompt = "stdin"}',
            'agents.default.command: is missing; write e.g. command = ["claude", "-p"]',
        ),
        ("concurency = 4", None),
    ],
)
def test_wrong_values(root: Path, text: str, expected: str | None) -> None:
    """A wrong value is said in one line: file, key, rule, value, and what to write instead."""
    expected = (
        f"orch.toml: {expected}" if expected else "orch.toml: unknown key `concurency`; did you mean `concurrency`?"
    )

    assert [expected] == said(root, text)


@pytest.mark.parametrize("command", ["a && b", "a; b", "a | b", "a > b", "a &", "(a)", "X=1 make"])
def test_shell_syntax_is_refused(root: Path, command: str) -> None:
    """A command as text that would need a shell is refused, because it would run as something else."""
    assert ["has shell syntax in it"] == [
        re.findall("has shell syntax in it", line)[0] for line in said(root, f"verify.default = '{command}'")
    ]


@pytest.mark.parametrize("command", [["sh", "-c", "a && b"], ["find", ".", ";"], ["X=1"]])
def test_a_list_is_taken_as_it_is(root: Path, command: list[str]) -> None:
    """Words given one by one are passed on unchanged."""
    assert tuple(command) == load(root, f"verify.default = {command}").verify_command("-")


@pytest.mark.parametrize(
    ("key", "meant"),
    [
        ("limits.spec_atempts", "limits.spec_attempts"),
        ("spec_attempts", "limits.spec_attempts"),
        ("agents.implementor", "agents.implementer"),
        ("agents.default.cmd", "agents.default.command"),
        ("tracker.comand", "tracker.command"),
    ],
)
def test_unknown_keys(root: Path, key: str, meant: str) -> None:
    """An unknown key is named with the known key that looks most like it, in its own table first."""
    assert f"orch.toml: unknown key `{key}`; did you mean `{meant}`?" in said(root, f"{key} = 3")


def test_unknown_key_like_nothing(root: Path) -> None:
    """An unknown key that resembles none is answered with what its table knows."""
    known = "env, read, write, default, implementer, spec_reviewer, quality_reviewer"

    assert [f"orch.toml: unknown key `agents.bob`; known are {known}"] == said(root, "agents.bob = 1")


def test_everything_wrong_at_once(root: Path) -> None:
    """All problems of the file and of the environment are said together."""
    lines = said(root, "concurrency = 0\nzzz = 1", ORCH_LOG="loud", ORCH_REDIS_URL="http://x", ORCH_STATE_DIR="here")

    assert ["orch.toml: concurrency", "orch.toml: unknown", "environment: ORCH"] == list(
        dict.fromkeys(re.findall(r"^[\w.]+: [A-Za-z]+", line)[0] for line in lines)
    )
    assert 5 == len(lines)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"a = 1\nb = = 2\n", "orch.toml: line 2, column 5: Invalid value; correct the TOML there"),
        (b"a = [", "orch.toml: end of document: Invalid value; correct the TOML there"),
        (b"a = 1\na = 2", "orch.toml: end of document: Cannot overwrite a value; correct the TOML there"),
        (b"a = '\xff'", "orch.toml: byte 6 is not UTF-8; save the file as UTF-8"),
    ],
)
def test_not_toml(root: Path, content: bytes, expected: str) -> None:
    """A file that is not TOML is said with the place of the first mistake."""
    (root / "orch.toml").write_bytes(content)

    with pytest.raises(SettingsError, match=f"^{re.escape(expected)}$"):
        settings.load(root, {"HOME": "/h"})


def test_unreadable_file(root: Path) -> None:
    """A file that cannot be read is said with its path."""
    (root / "orch.toml").mkdir()

    with pytest.raises(SettingsError, match=r"orch\.toml: cannot be read: Is a directory \(.*My Repo/orch\.toml\)"):
        settings.load(root, {"HOME": "/h"})


def test_byte_order_mark(root: Path) -> None:
    """The byte order mark that some editors write is no mistake."""
    (root / "orch.toml").write_bytes(b"\xef\xbb\xbfconcurrency = 2")

    assert 2 == settings.load(root, {"HOME": "/h"}).concurrency


def test_missing_prompt_template(root: Path) -> None:
    """A prompt template that is not there is said before a session needs it."""
    assert [f"orch.toml: prompt_template: there is no file {root}/no.md; correct the path"] == said(
        root, 'prompt_template = "no.md"'
    )


def test_environment(root: Path) -> None:
    """The variables are read in any case of their words; an empty one counts as unset."""
    found = load(
        root,
        ORCH_REDIS_URL="redis://:secret@h/1",
        ORCH_STATE_DIR="/s",
        ORCH_LOG="DEBUG",
        ORCH_LOG_FORMAT="",
        PATH="/bin",
    )

    assert ("redis://:secret@h/1", Path("/s"), "debug", "auto") == (
        found.redis_url,
        found.state_dir,
        found.log,
        found.log_format,
    )
    assert (Path("/s/worktrees"), Path("/s/logs")) == (found.worktrees, found.logs)


def test_secrets_stay_out_of_sight(root: Path) -> None:
    """The Redis password is neither in the printed settings nor in what is said about a wrong address."""
    found = load(root, ORCH_REDIS_URL="redis://:pa55w0rd@h/1")

    assert "pa55w0rd" not in repr(found)
    assert "pa55w0rd" not in str(said(root, ORCH_REDIS_URL="redis://:pa55w0rd/@h/1"))


def test_unknown_variable(root: Path) -> None:
    """A misspelt ORCH_ variable is an error that names the one that was meant."""
    assert ["environment: unknown variable `ORCH_REDIS_ULR`; did you mean `ORCH_REDIS_URL`?"] == said(
        root, ORCH_REDIS_ULR="redis://h"
    )


def test_agent_markers_are_let_pass(root: Path) -> None:
    """The variables that mark an agent's processes are not settings, and no mistakes."""
    assert load(root, **dict.fromkeys(AGENT_MARKERS, "x")) == load(root)


def test_state_dir_is_one_per_checkout(root: Path) -> None:
    """Without ORCH_STATE_DIR the state lies under XDG_STATE_HOME, or ~/.local/state, by project and checkout."""
    digest = hashlib.sha256(os.fsencode(root)).hexdigest()[:8]
    name = f"sudocode-orchestrator/my-repo-{digest}"

    assert Path(f"/home/me/.local/state/{name}") == load(root).state_dir
    assert Path(f"/x/{name}") == load(root, XDG_STATE_HOME="/x").state_dir
    assert Path(f"/home/me/.local/state/{name}") == load(root, XDG_STATE_HOME="relative").state_dir


def test_no_place_for_state(root: Path) -> None:
    """Without a home the answer is to set ORCH_STATE_DIR."""
    with pytest.raises(SettingsError, match=r"HOME is not set.*set ORCH_STATE_DIR"):
        settings.load(root, {})


def test_settings_cannot_be_changed(root: Path) -> None:
    """Settings are frozen: a session keeps what it began with."""
    found = load(root)

    with pytest.raises(ValidationError):
        found.concurrency = 9


def test_root_is_found(tmp_path: Path) -> None:
    """The repo is the one named, else the nearest folder up with orch.toml, else the nearest with a git repo."""
    inner = tmp_path / "repo" / "src" / "deep"
    inner.mkdir(parents=True)
    (tmp_path / "repo" / ".git").write_text("gitdir: elsewhere")
    (tmp_path / "repo" / "src" / ".git").mkdir()

    assert tmp_path / "repo" / "src" == find_root({}, inner)

    (tmp_path / "repo" / "orch.toml").touch()

    assert tmp_path / "repo" == find_root({}, inner)
    assert tmp_path == find_root({"ORCH_PROJECT_ROOT": str(tmp_path)}, inner)
    assert tmp_path == find_root({"ORCH_PROJECT_ROOT": "../../.."}, inner).resolve()


def test_no_root() -> None:
    """Outside of any repo the answer is `orch init`; a named folder that is not there is said."""
    with pytest.raises(SettingsError, match="run `orch init`"):
        settings.load(None, {"HOME": "/h"}, cwd=Path("/"))
    with pytest.raises(SettingsError, match="ORCH_PROJECT_ROOT: there is no folder /no/where"):
        settings.load(None, {"HOME": "/h", "ORCH_PROJECT_ROOT": "/no/where"}, cwd=Path("/"))
    with pytest.raises(SettingsError, match="there is no folder /no/where"):
        settings.load(Path("/no/where"), {"HOME": "/h"})


@given(st.text())
def test_project_names_are_always_valid(name: str) -> None:
    """Whatever the folder is called, the name made from it is one that orch.toml would accept."""
    made = settings.project_name(Path("/r") / name.replace("/", "").replace("\0", ""))

    assert re.fullmatch(r"[a-z0-9-]{1,40}", made)


@pytest.mark.parametrize(("folder", "name"), [("Café_2.0", "cafe-2-0"), ("日本", "project"), ("a" * 50, "a" * 40)])
def test_project_names(folder: str, name: str) -> None:
    """A folder's name keeps what it can of itself."""
    assert name == settings.project_name(Path("/r") / folder)


def test_table_names_every_key() -> None:
    """The table for the docs has one row for every key and variable, with its default and its unit."""
    rows = settings_table().splitlines()

    assert "| key | default | unit | meaning |" == rows[0]
    assert "| `limits.agent_seconds` | `3600` | seconds | Wall clock of one agent run |" in rows
    assert "| `ORCH_LOG` | `info` |  | How much is logged |" in rows
    assert all(4 == row.replace("\\|", "").count(" | ") + 1 for row in rows)
    names = [row.split("`")[1] for row in rows[2:]]
    assert sorted(set(names)) == sorted(names)
    assert {"project", "tracker", "tracker.command", "verify.L0", "agents.env", "agents.default.prompt"} <= set(names)
