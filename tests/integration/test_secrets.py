"""Secrets come from files, leave the environment, and stay in a folder that is its owner's alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from orchestrator.adapters.process.private import private
from orchestrator.adapters.process.sealed import handed_on
from orchestrator.errors import SettingsError
from orchestrator.settings import load, secret
from tests.support import ROOT

TOKEN = "a-token-of-ours"
ANEW = """\
import json, os, sys
from orchestrator.adapters.process.sealed import start_anew_without
start_anew_without()
from orchestrator.settings import load
from pathlib import Path
at_start = Path("/proc/self/environ").read_bytes().decode()
found = load(Path(sys.argv[1]), os.environ)
print(json.dumps([at_start, found.github_token, sorted(name for name in os.environ if name.startswith("ORCH_"))]))
"""


def test_a_secret_comes_from_a_file(tmp_path: Path) -> None:
    """The last line break is the editor's, not the secret's."""
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    found = load(tmp_path, {"HOME": "/home/me", "ORCH_GITHUB_TOKEN_FILE": str(tmp_path / "token")})

    assert TOKEN == found.github_token
    assert (TOKEN,) == found.secrets


def test_a_secret_is_a_credential_of_systemd(tmp_path: Path) -> None:
    """By the variable's name; a service without it has none."""
    environ = {"HOME": "/home/me", "CREDENTIALS_DIRECTORY": str(tmp_path)}

    assert load(tmp_path, environ).github_webhook_secret is None
    (tmp_path / "ORCH_GITHUB_WEBHOOK_SECRET").write_text("s3cret")

    assert "s3cret" == load(tmp_path, environ).github_webhook_secret


@pytest.mark.parametrize(
    ("content", "more", "problem"),
    [
        (None, {}, "cannot be read: No such file"),
        (b"\n", {}, "is empty"),
        (b"\xff", {}, "is not UTF-8"),
        (b"x", {"ORCH_GITHUB_TOKEN": "y"}, "are both set"),
    ],
)
def test_a_file_that_is_no_secret(tmp_path: Path, content: bytes | None, more: dict[str, str], problem: str) -> None:
    """One line says which, and what is wrong; a token that silently is none would be looked for all night."""
    if content is not None:
        (tmp_path / "token").write_bytes(content)
    with pytest.raises(SettingsError) as error:
        load(tmp_path, {"HOME": "/home/me", "ORCH_GITHUB_TOKEN_FILE": str(tmp_path / "token"), **more})

    assert problem in str(error.value)
    assert "ORCH_GITHUB_TOKEN_FILE" in str(error.value)
    assert 1 == len(str(error.value).splitlines())


def test_a_secret_that_is_given_twice() -> None:
    """Flower's too: one of the two would be used, and the other stay in the environment."""
    with pytest.raises(SettingsError, match="FLOWER_BASIC_AUTH and FLOWER_BASIC_AUTH_FILE are both set"):
        secret("FLOWER_BASIC_AUTH", {"FLOWER_BASIC_AUTH": "me:x", "FLOWER_BASIC_AUTH_FILE": "/run/flower"})


def test_the_password_of_redis_is_a_secret(tmp_path: Path) -> None:
    """As it is spelt in the address, and as it is."""
    found = load(tmp_path, {"HOME": "/home/me", "ORCH_REDIS_URL": "redis://me:p%40ss@box:6379/0"})

    assert ("p%40ss", "p@ss") == found.secrets


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux shows environments, and has files in memory")
def test_a_process_starts_anew_without_its_secrets(tmp_path: Path) -> None:
    """/proc shows what it was started with: not the secret, which it has all the same, and which is nowhere on disk."""
    program = tmp_path / "program.py"
    program.write_text(ANEW)
    environ = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "HOME": str(tmp_path), "ORCH_GITHUB_TOKEN": TOKEN}
    done = subprocess.run(
        [sys.executable, "-P", str(program), str(tmp_path)], env=environ, capture_output=True, text=True, check=True
    )
    at_start, token, variables = json.loads(done.stdout)

    assert TOKEN not in at_start
    assert (TOKEN, ["ORCH_GITHUB_TOKEN_FILE"]) == (token, variables)
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and TOKEN in path.read_text()]


def test_open_files_are_handed_on_by_the_variables_that_name_them() -> None:
    """A file on disk needs no handing on, and a variable that is kept from a process hands nothing to it."""
    environ = {"ORCH_GITHUB_TOKEN_FILE": "/proc/self/fd/7", "ORCH_REDIS_URL_FILE": "/run/secrets/redis", "X_FILE": "9"}

    assert (7,) == handed_on(environ)
    assert () == handed_on({})


def test_an_open_state_folder_is_closed(tmp_path: Path) -> None:
    """With the files in it, once, and one line says so; a repo's files keep the modes that git knows."""
    state = tmp_path / "state"
    for name in ("logs/i-a/1.stdout", "redis/appendonly.aof", "worktrees/i-a/run.sh"):
        (state / name).parent.mkdir(parents=True, exist_ok=True)
        (state / name).write_text("x")
        (state / name).chmod(0o755)
    (state / "link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere").write_text("x")
    (tmp_path / "elsewhere").chmod(0o644)
    state.chmod(0o755)
    with capture_logs() as said:
        assert state == private(state)
        private(state)

    assert [("state_folder_was_open", str(state))] == [(line["event"], line["folder"]) for line in said]
    modes = {str(path.relative_to(tmp_path)): path.stat().st_mode & 0o777 for path in tmp_path.rglob("*")}
    assert 0o700 == modes["state"] == modes["state/logs/i-a/1.stdout"] == modes["state/redis/appendonly.aof"]
    assert (0o755, 0o644) == (modes["state/worktrees/i-a/run.sh"], modes["elsewhere"])


def test_what_another_user_left_in_the_state_folder_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one does who ran a command with sudo once; the folder above it is closed all the same, and so is the rest."""
    (tmp_path / "theirs").touch(0o644)
    (tmp_path / "ours").touch(0o644)
    tmp_path.chmod(0o755)
    chmod = Path.chmod

    def refused(path: Path, mode: int) -> None:
        if path.name == "theirs":
            raise PermissionError(1, "Operation not permitted")
        chmod(path, mode)

    monkeypatch.setattr(Path, "chmod", refused)
    private(tmp_path)

    assert [0o700, 0o600] == [path.stat().st_mode & 0o777 for path in (tmp_path, tmp_path / "ours")]
