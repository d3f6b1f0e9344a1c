"""`orch doctor`: what is there, what is missing, what to do."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.adapters.git import name_installation
from orchestrator.adapters.redis import Keys, connect
from orchestrator.adapters.redis import server as redis_server
from orchestrator.adapters.redis.leases import RedisLeases
from tests.orch import Orch, OrchHere

BOXES = "#!/bin/sh\n"
"""A bubblewrap that works, as far as doctor can see."""


@pytest.fixture
def orch(tmp_path: Path) -> Orch:
    return OrchHere(tmp_path)


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[redis_server.RedisServer]:
    server = redis_server.ensure(tmp_path / "state")
    yield server
    server.stop()


def set_up(orch: Orch) -> None:
    """Everything that a session needs."""
    orch.install("claude")
    orch.install("make")
    orch.says("init")


def findings(orch: Orch, **env: str) -> dict[str, list[tuple[str, str, str]]]:
    """(level, says, fix) under the name of each check; the exit code must fit them."""
    done = orch("doctor", "--json", cwd=None, **env)
    found: dict[str, list[tuple[str, str, str]]] = {}
    answer = json.loads(done.stdout)
    for row in answer["findings"]:
        found.setdefault(row["check"], []).append((row["level"], row["says"], row["fix"]))
    fails = any(level == "fail" for rows in found.values() for level, _, _ in rows)
    assert (fails, not fails) == (done.returncode == 1, answer["ok"])
    return found


def test_all_is_well_where_all_is_there(tmp_path: Path) -> None:
    """Exit 0, a line for each thing, with the agent's version; and nothing was started that stays."""
    orch = Orch(tmp_path)
    set_up(orch)
    orch.install("bwrap", BOXES)

    lines = orch.says("doctor").splitlines()

    assert "All that is needed is there." == lines[-1]
    rows = [line.split(None, 2) for line in lines[:-2]]
    assert {"ok"} == {level for level, _, _ in rows}
    names = [name for _, name, _ in rows]
    assert ["agents", "agents", "sandbox", "verify"] == names[7:11]
    assert ["python", "git", "orch.toml", "repo", "state", "redis", "tracker"] == names[:7]
    assert f"implementer: {orch.bin / 'claude'} 1.2.3" in [says for _, name, says in rows if name == "agents"]
    assert redis_server.find(orch.state) is None


def test_doctor_says_what_is_missing_and_what_to_do(orch: Orch) -> None:
    """No tracker, no agent, no program for the tests: exit 1, each with its remedy. No orch.toml is only a warning."""
    found = findings(orch)

    assert [("warn", f"there is no {orch.repo / 'orch.toml'}: all is as by default", "orch init")] == found["orch.toml"]
    assert [("fail", f"there is no tracker in {orch.repo}: run `orch init` there", "")] == found["tracker"]
    [(level, says, fix)] = found["agents"]
    assert ("fail", "implementer, spec_reviewer, quality_reviewer: no agent") == (level, says)
    assert "orch init" in fix
    [(level, says, fix)] = found["verify"]
    assert ("fail", 'set [verify] default = ["make", "test"]') == (level, fix)


def test_a_repo_whose_lock_file_is_not_heeded(orch: Orch) -> None:
    """Nothing would be installed in a fresh checkout: a warning, with what to write."""
    set_up(orch)
    (orch.repo / "uv.lock").write_text("")

    assert [("warn", 'set [workspace] setup = ["uv", "sync", "--locked"]')] == [
        (level, fix) for level, _, fix in findings(orch)["set-up"]
    ]


def test_what_sets_a_checkout_up_is_looked_for(orch: Orch) -> None:
    """A program on PATH has to be there; one in the checkout is what its set-up makes, or the commit has it."""
    (orch.repo / "uv.lock").write_text("")
    (orch.repo / "Makefile").unlink()
    (orch.repo / "conftest.py").write_text("")
    set_up(orch)
    missing = findings(orch)["set-up"]
    toml = (orch.repo / "orch.toml").read_text()
    (orch.repo / "orch.toml").write_text(
        toml.replace('["uv", "sync", "--locked"]', '["./set-up.sh"]').replace(
            '["uv", "run"', '[".venv/bin/python", "-m"'
        )
    )
    found = findings(orch)

    assert [("fail", "there is no uv")] == [(level, says) for level, says, _ in missing]
    assert [("ok", "./set-up.sh")] == [(level, says) for level, says, _ in found["set-up"]]
    assert [("ok", "default: .venv/bin/python -m pytest")] == [(level, says) for level, says, _ in found["verify"]]


def test_programs_that_are_not_there_are_named(orch: Orch) -> None:
    """An agent that was uninstalled, and a test command that this machine lacks."""
    orch.install("claude")
    orch.says("init")
    (orch.bin / "claude").unlink()

    found = findings(orch)

    assert ("fail", "implementer: there is no claude", "install claude, or change [agents] in orch.toml") == (
        found["agents"][0]
    )
    assert ("fail", "default: there is no make", "install it, or change [verify] default in orch.toml") == (
        found["verify"][0]
    )


@pytest.mark.parametrize(
    ("script", "level", "end"),
    [
        ("#!/bin/sh\nexit 3\n", "ok", "claude"),
        ("#!/bin/sh\nprintf '\\n\\033[1m2.0\\nmore\\n'\n", "ok", "2.0"),
        ("#!/no/such/interpreter\n", "fail", "cannot be run"),
    ],
)
def test_an_agent_is_asked_for_its_version(orch: Orch, script: str, level: str, end: str) -> None:
    """One that does not tell is taken as it is; one that cannot be started is a failure."""
    set_up(orch)
    orch.install("claude", script)

    said = findings(orch)["agents"][0]

    assert level == said[0]
    assert end in said[1]


def test_a_script_of_the_repos_own_is_not_run(orch: Orch) -> None:
    """It need not know `--version`, and might begin to work."""
    set_up(orch)
    agent = orch.repo / "agent.sh"
    agent.write_text("#!/bin/sh\ntouch ran\n")
    agent.chmod(0o755)
    (orch.repo / "orch.toml").write_text('[agents.default]\ncommand = ["./agent.sh"]\n')

    found = findings(orch)

    assert [("ok", f"implementer, spec_reviewer, quality_reviewer: {orch.repo / 'agent.sh'}", "")] == found["agents"]
    assert not (orch.repo / "ran").exists()


@pytest.mark.parametrize(
    ("script", "reason", "remedy"),
    [
        (None, "bubblewrap is not installed", "install bubblewrap 0.5 or newer (apt install bubblewrap)"),
        (
            "#!/bin/sh\necho 'bwrap: setting up uid map: Permission denied' >&2; exit 1\n",
            "bubblewrap does not work here (bwrap: setting up uid map: Permission denied)",
            "docs/threat-model.md",
        ),
    ],
)
def test_a_sandbox_that_does_not_work_is_named(orch: Orch, script: str | None, reason: str, remedy: str) -> None:
    """With why, and what to install: a warning, unless orch.toml wants no session without; off is as it was wanted."""
    set_up(orch)
    toml = (orch.repo / "orch.toml").read_text()
    if script:
        orch.install("bwrap", script)

    def found(how: str) -> tuple[str, str, str]:
        (orch.repo / "orch.toml").write_text(f'sandbox = "{how}"\n{toml}')
        return findings(orch)["sandbox"][0]

    level, says, fix = found("auto")
    assert ("warn", f"none: {reason}; agents reach all that you do") == (level, says)
    assert remedy in fix
    level, says, fix = found("bubblewrap")
    assert ("fail", True, True) == (level, reason in says, remedy in fix)
    assert "ok" == found("off")[0]


def test_no_stack_starts_without_the_sandbox_that_it_must_have(orch: Orch) -> None:
    """One line says why and what to do; a worker that is started by itself ends with that line, too."""
    set_up(orch)
    path = orch.repo / "orch.toml"
    path.write_text(f'sandbox = "bubblewrap"\n{path.read_text()}')

    done = orch("up", "--no-flower")

    assert 1 == done.returncode
    [line] = done.stderr.splitlines()
    assert 'sandbox = "bubblewrap", but bubblewrap is not installed: no session runs on this host; install' in line


def test_a_wrong_orch_toml_is_all_that_is_said(orch: Orch) -> None:
    """Each mistake on its line; what depends on the settings is not looked at."""
    (orch.repo / "orch.toml").write_text("concurency = 4\n")

    found = findings(orch)

    assert ["python", "git", "orch.toml"] == list(found)
    assert [("fail", "orch.toml: unknown key `concurency`; did you mean `concurrency`?", "")] == found["orch.toml"]


def test_a_base_that_is_not_there_is_named(orch: Orch) -> None:
    """Sessions could not start."""
    (orch.repo / "orch.toml").write_text('base = "trunk"\n')

    found = findings(orch)

    assert [("fail", "there is no branch trunk, here or at origin", "correct base in orch.toml")] == found["repo"]


def test_a_redis_out_of_reach_is_named_without_its_password(orch: Orch) -> None:
    """One failure, not one for each thing that would ask it; the rest is looked at all the same."""
    set_up(orch)

    done = orch("doctor", ORCH_REDIS_URL="redis://:s3cret@127.0.0.1:1/0")

    assert 1 == done.returncode
    [failure] = [line for line in done.stdout.splitlines() if line.startswith("fail")]
    assert failure.startswith("fail redis     Error 111 connecting to 127.0.0.1:1")
    assert "1 to mend" in done.stdout
    assert "s3cret" not in done.stdout + done.stderr


def test_a_redis_that_may_lose_sessions_is_warned_about(orch: Orch, redis: redis_server.RedisServer) -> None:
    """One that drops keys, and one that keeps nothing over a restart; with what mends it."""
    client = connect(redis.url)
    client.config_set("maxmemory-policy", "allkeys-lru")
    client.config_set("appendonly", "no")

    found = findings(orch, ORCH_REDIS_URL=redis.url)["redis"]

    assert ["ok", "warn", "warn"] == [level for level, _, _ in found]
    assert "config set maxmemory-policy noeviction" in found[1][2]
    assert "config set appendonly yes" in found[2][2]


def test_a_redis_that_forgot_is_told_from_a_new_one(orch: Orch, redis: redis_server.RedisServer) -> None:
    """An installation that no Redis has served yet misses nothing; one that Redis does not know any more is warned."""
    leases = RedisLeases(connect(redis.url), Keys("repo"), lease_s=15)

    assert ["ok"] == [level for level, _, _ in findings(orch)["redis"]]

    leases.meet(name_installation(orch.repo))

    assert ["ok"] == [level for level, _, _ in findings(orch)["redis"]]

    connect(redis.url).flushall()

    (_, (level, says, fix)) = findings(orch)["redis"]
    assert ("warn", "was emptied or replaced since `orch up` was here last") == (level, says)
    assert "`orch up` finds what was in progress" == fix


def test_a_running_stack_is_seen(orch: Orch, redis: redis_server.RedisServer) -> None:
    """Its private Redis, and the slots of its living workers; a dead worker's are gone."""
    leases = RedisLeases(connect(redis.url), Keys("repo"), lease_s=15)
    leases.announce("sessions@here", 4, for_s=60)
    leases.announce("sessions@gone", 4, for_s=0)

    found = findings(orch)

    assert [("ok", "sessions@here: 4 slots, 4 free", "")] == found["workers"]
    assert found["redis"][0][1].endswith("a private one, running")


def test_a_state_folder_that_cannot_be_written_is_named(orch: Orch, tmp_path: Path) -> None:
    """With the variable that moves it."""
    (tmp_path / "file").write_text("")

    found = findings(orch, ORCH_STATE_DIR=str(tmp_path / "file" / "state"))

    [(level, says, fix)] = found["state"]
    assert "fail" == level
    assert says.startswith(f"cannot write to {tmp_path / 'file' / 'state'}: ")
    assert "set ORCH_STATE_DIR to a folder of yours" == fix


# The base


def verifies(orch: Orch, command: str, more: str = "") -> None:
    """Have the base verified by this command, in a commit that has all it needs."""
    (orch.repo / ".gitignore").write_text("*.pyc\n")
    toml = f"[verify]\ndefault = {command}\n{more}"
    (orch.repo / "orch.toml").write_text(f'[agents.default]\ncommand = ["true"]\n{toml}')
    orch.git("add", "--all")
    orch.git("-c", "user.name=x", "-c", "user.email=x@example.org", "commit", "--message=Say how it is verified")


def test_the_base_is_verified_when_it_is_asked_for(orch: Orch, redis: redis_server.RedisServer) -> None:
    """In a clean checkout, after its set-up, by each command once; and what came of it is known afterwards."""
    set_up(orch)
    here = '["/bin/sh", "-c", "test -e made && test -e Makefile && ! test -e junk.pyc"]'
    verifies(
        orch, here, f'L1 = {here}\nL2 = ["/bin/false"]\nretries = 0\n[workspace]\nsetup = ["/bin/touch", "made"]\n'
    )
    (orch.repo / "junk.pyc").touch()
    before = findings(orch)["base"]
    (default, one, two, left) = json_findings(orch, "--verify")["base"]
    after = findings(orch)["base"]

    assert [("ok", "never verified; `orch doctor --verify` does it now, `orch up` when it starts", "")] == before
    assert "ok" == default[0]
    assert re.match(r"default: `/bin/sh -c .*` exited with 0 on main at [0-9a-f]{12} in \d+\.\d s", default[1])
    assert ("ok", "L1: as default", "") == one
    assert "warn" == two[0]  # it keeps nothing from being claimed
    assert two[1].startswith("L2: `/bin/false` exited with 1 on main at ")
    assert ("warn", "see .gitignore") == (left[0], left[2])
    assert left[1].endswith("so agents do not get it: made")
    assert "ok" == after[0][0]
    assert after[0][1].startswith("last verified: `/bin/sh -c ")


def test_a_base_whose_set_up_fails_is_not_verified(orch: Orch) -> None:
    """The set-up is named, with its log; nothing that follows is run."""
    set_up(orch)
    verifies(
        orch, '["/bin/touch", "/nowhere/at/all"]', '[workspace]\nsetup = ["/bin/sh", "-c", "echo no network; exit 5"]\n'
    )
    ((level, says, fix),) = json_findings(orch, "--verify")["base"]

    assert "fail" == level
    assert says.startswith("default: the set-up `/bin/sh -c 'echo no network; exit 5'` exited with 5 on main at ")
    assert "no network\n" == Path(fix.removeprefix("less ")).read_text()


def test_a_red_base_is_let_pass_by_resume(orch: Orch, redis: redis_server.RedisServer) -> None:
    """Doctor says that it is red, and how to go on; a resume says what it lets pass, once; doctor remembers who did."""
    set_up(orch)
    verifies(orch, '["/bin/sh", "-c", "echo 2 tests failed; exit 3"]')
    json_findings(orch, "--verify")
    ((level, says, fix),) = findings(orch)["base"]
    resumed = orch.says("resume")
    ((after, remembered, _),) = findings(orch)["base"]

    assert "fail" == level
    assert says.startswith("the base is red: `/bin/sh -c 'echo 2 tests failed; exit 3'` exited with 3 on main at ")
    assert "`orch resume`" in fix
    assert resumed.startswith("sessions start though the base is red: `/bin/sh -c ")
    assert "orch was not paused\n" == orch.says("resume")
    assert "warn" == after
    assert "; sessions start all the same, by " in remembered


def json_findings(orch: Orch, *options: str) -> dict[str, list[tuple[str, str, str]]]:
    """(level, says, fix) under the name of each check, with these options."""
    found: dict[str, list[tuple[str, str, str]]] = {}
    for row in json.loads(orch("doctor", "--json", *options).stdout)["findings"]:
        found.setdefault(row["check"], []).append((row["level"], row["says"], row["fix"]))
    return found
