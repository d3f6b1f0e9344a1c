"""The checks of `orch doctor`. Each gives findings with what to do about them; none starts anything that stays."""

from __future__ import annotations

import os
import platform
import re
import shlex
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from redis import Redis
from redis.exceptions import RedisError

from orchestrator.adapters.git import base_branch, base_commit, git_version, installation_of, top_of
from orchestrator.adapters.mcp import probe
from orchestrator.adapters.process import foreign
from orchestrator.adapters.redis import RedisLeases, connect, why_no_writes
from orchestrator.adapters.redis import server as redis_server
from orchestrator.cli.project import (
    FILE,
    Settings,
    Wiring,
    from_environment,
    merges_of,
    sandbox_report,
    tracker_command,
)
from orchestrator.cli.recipes import recipe_for_tests
from orchestrator.cli.set_ups import recipe_for_set_up
from orchestrator.errors import OrchestratorError, RedisUnavailable, SettingsError
from orchestrator.models import Role, utc_now
from orchestrator.settings import client_url, toml

OLDEST_GIT = (2, 30)
OLDEST_REDIS = (6, 2)
VERSION_S = 5.0
REDIS_S = 2.0
GB = 1_000_000_000
LITTLE_SPACE = 2 * GB
NO_SPACE = GB // 10


class Level(StrEnum):
    """Severity: `fail` keeps sessions from running, `warn` may spoil a night."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True)
class Finding:
    """One result of a check; `fix` is what to do about it."""

    level: Level
    says: str
    fix: str = ""


Check = Callable[[Wiring], Iterator[Finding]]


def examine(looking_at: Callable[[str], object], **instead: Check) -> Iterator[tuple[str, Finding]]:
    """Run all checks; give each finding with its check's name. `looking_at` is called with the name of each check.

    Checks named in `instead` replace ours. Wrong settings end the examination: nothing else can be checked with them.
    """
    looking_at("git")
    yield "python", _ok(f"{platform.python_version()} ({sys.executable})")
    yield from (("git", finding) for finding in _guarded(_git()))
    try:
        settings = from_environment()
    except SettingsError as error:
        yield from ((FILE, _fail(problem)) for problem in str(error).splitlines())
        return
    wiring = Wiring(settings)
    for name, check in (CHECKS | instead).items():
        looking_at(name)
        yield from ((name, finding) for finding in _guarded(check(wiring)))


def _guarded(findings: Iterator[Finding]) -> Iterator[Finding]:
    """Turn the error of a check that cannot be carried out into a finding, so that the others still run."""
    try:
        yield from findings
    except (OrchestratorError, RedisError, OSError) as error:
        yield _fail(str(error))


def _git() -> Iterator[Finding]:
    said = git_version()
    if _numbers(said) < OLDEST_GIT:
        yield _fail(f"{said} is too old", f"install git {'.'.join(map(str, OLDEST_GIT))} or newer")
    else:
        yield _ok(said.removeprefix("git version "))


def _settings(wiring: Wiring) -> Iterator[Finding]:
    path = wiring.settings.root / FILE
    if path.exists():
        yield _ok(f"{path}, project {wiring.settings.project}")
    else:
        yield _warn(f"there is no {path}: all is as by default", "orch init")


def _repo(wiring: Wiring) -> Iterator[Finding]:
    settings = wiring.settings
    root = top_of(settings.root)
    if not root.samefile(settings.root):
        yield _fail(f"{settings.root} is only a part of the repo {root}", f"orch -C {shlex.quote(str(root))} init")
        return
    base = settings.base or base_branch(root)
    if base is None:
        yield _fail("no branch is checked out, so none to start from is known", "set base in orch.toml")
    elif commit := base_commit(root, base):
        yield _ok(f"{root}, sessions start from {base} ({commit})")
    else:
        yield _fail(f"there is no branch {base}, here or at origin", "correct base in orch.toml")


def _state(wiring: Wiring) -> Iterator[Finding]:
    folder = wiring.settings.state_dir
    try:
        wiring.state("")  # makes the folder
        with tempfile.TemporaryFile(dir=folder):
            free = shutil.disk_usage(folder).free
    except OSError as error:
        yield _fail(f"cannot write to {folder}: {error.strerror}", "set ORCH_STATE_DIR to a folder of yours")
        return
    says = f"{folder}, {free / GB:.1f} GB free"
    if free < LITTLE_SPACE:
        yield Finding(Level.FAIL if free < NO_SPACE else Level.WARN, says, "make room, or set ORCH_STATE_DIR")
    else:
        yield _ok(says)


def _redis(wiring: Wiring) -> Iterator[Finding]:
    address = _running_redis(wiring)
    if address is None:
        yield _ok(f"a private one, `orch up` starts {redis_server.find_server()}")
        return
    try:
        client = connect(address, patience_s=REDIS_S)
        info: Any = client.info()
        refuses = why_no_writes(client)
        remembers = _remembers(wiring, client)
    except (RedisError, RedisUnavailable) as error:
        yield _fail(
            str(error).partition(": Redis did not serve us")[0].rstrip("."),
            "start it or correct ORCH_REDIS_URL; without it a private one is used",
        )
        return
    version = str(info["redis_version"])
    yield _ok(f"{version}, {'by ORCH_REDIS_URL' if wiring.settings.redis_url else 'a private one, running'}")
    if _numbers(version) < OLDEST_REDIS:
        yield _fail(f"{version} is too old", f"install Redis {'.'.join(map(str, OLDEST_REDIS))} or newer")
    if refuses:
        yield _fail(f"takes no writes: {refuses}", "make room, or correct ORCH_REDIS_URL; sessions wait for it")
    if not remembers:
        yield _warn("was emptied or replaced since `orch up` was here last", "`orch up` finds what was in progress")
    policy = info.get("maxmemory_policy")
    if policy != "noeviction":
        fix = 'redis-cli -u "$ORCH_REDIS_URL" config set maxmemory-policy noeviction'
        yield _warn(f"may drop leases when memory is short ({policy})", fix)
    if not info.get("aof_enabled"):
        fix = 'redis-cli -u "$ORCH_REDIS_URL" config set appendonly yes'
        yield _warn("forgets what sessions did when it restarts (no AOF)", fix)


def _remembers(wiring: Wiring, client: Redis) -> bool:
    """True when Redis knows this installation, or there is none yet."""
    name = installation_of(wiring.settings.root)
    return name in (None, RedisLeases(client, wiring.keys, lease_s=wiring.settings.lease_seconds).met())


def _running_redis(wiring: Wiring) -> str | None:
    """The address of the Redis in the settings, else of the private one, else None."""
    given = wiring.settings.redis_url
    return client_url(given) if given else redis_server.find(wiring.settings.state_dir)


def _tracker(wiring: Wiring) -> Iterator[Finding]:
    command = shlex.join(tracker_command(wiring.settings))
    with wiring.tracker as tracker:
        problems = probe(tracker)
    if problems:
        yield from (_fail(problem) for problem in problems)
    else:
        yield _ok(f"answers ({command})")


def _agents(wiring: Wiring) -> Iterator[Finding]:
    settings = wiring.settings
    played: dict[tuple[str, ...] | None, list[str]] = {}
    for role in Role:
        agent = settings.agent(role)
        played.setdefault(agent.command if agent else None, []).append(role)
    env = foreign.clean_env(os.environ, allow=settings.agents.env)
    for command, roles in played.items():
        who = ", ".join(roles)
        if command is None:
            yield _fail(f"{who}: no agent", "install an agent CLI, then `orch init`; or name yours in [agents.default]")
        elif program := _program(settings, command):
            yield _agent(who, command, program, env, wiring.redact)
        else:
            yield _fail(f"{who}: there is no {command[0]}", f"install {command[0]}, or change [agents] in orch.toml")


def _agent(
    who: str, command: Sequence[str], program: Path, env: dict[str, str], redact: Callable[[str], str]
) -> Finding:
    """Report an installed agent, with its version. A script of the repo's own is not run: it may do anything."""
    if "/" in command[0]:
        return _ok(f"{who}: {program}")
    with tempfile.TemporaryDirectory() as folder:
        said = foreign.run(
            [str(program), "--version"],
            cwd=Path(folder),
            env=env,
            bounds=foreign.Bounds(wall_s=VERSION_S, output_bytes=10_000),
            stdout=Path(folder, "said"),
            stderr=None,
            redact=redact,
        )
        words = (foreign.tail(said.stdout, 10_000).strip().splitlines() or [""])[0][:60]
    if said.exit_code in (126, 127):
        return _fail(f"{who}: {program} cannot be run: {words}", f"{shlex.quote(str(program))} --version")
    version = f" {words}" if words and said.exit_code == 0 else ""
    return _ok(f"{who}: {program}{version}")


def _sandbox(wiring: Wiring) -> Iterator[Finding]:
    says, fix = sandbox_report(wiring.settings)
    if not fix:
        yield _ok(says)
    elif wiring.settings.sandbox == "bubblewrap":
        yield _fail(f'{says}; sandbox = "bubblewrap", so no session runs on this host', fix)
    elif wiring.settings.sandbox == "off":
        yield _ok(says)
    else:
        yield _warn(says, fix)


def _verification(wiring: Wiring) -> Iterator[Finding]:
    settings = wiring.settings
    commands = {
        level: command
        for level in ("default", "L0", "L1", "L2")
        if (command := getattr(settings.verify, level)) is not None
    }
    for level, command in commands.items():
        # A program of the checkout's own may be what its set-up makes.
        if _program(settings, command) or ("/" in command[0] and settings.workspace.setup):
            yield _ok(f"{level}: {shlex.join(command)}")
        else:
            yield _fail(f"{level}: there is no {command[0]}", f"install it, or change [verify] {level} in orch.toml")
    if not commands:
        fix = f"set [verify] default = {toml(recipe_for_tests(settings.root) or ('make', 'test'))}"
        if settings.verify.trust_agent:
            yield _warn("no command: sessions run whatever their implementer names, and say so", fix)
        else:
            yield _fail("no command: every session would end VERIFY_FAILED", fix)


def _set_up(wiring: Wiring) -> Iterator[Finding]:
    settings = wiring.settings
    commands, found = settings.workspace.setup or (), recipe_for_set_up(settings.root)
    for command in commands:
        if _program(settings, command) or "/" in command[0]:
            yield _ok(shlex.join(command))
        else:
            yield _fail(f"there is no {command[0]}", "install it, or change [workspace] setup in orch.toml")
    if not commands and found:
        fix = f"set [workspace] setup = {toml(found.commands if len(found.commands) > 1 else found.commands[0])}"
        yield _warn(f"nothing is installed in a fresh checkout, though there is {' and '.join(found.said_by)}", fix)


def _delivery(wiring: Wiring) -> Iterator[Finding]:
    merging = merges_of(wiring)
    delivery = merging.delivery
    if delivery.push is None:
        yield _ok("finished work stays in the local branch")
    else:
        how = "and a pull request is opened" if delivery.open_pull else "and no more"
        yield _ok(f"the branch of finished work is pushed to {wiring.settings.remote}, {how}")
    if merging.github is not None:
        merging.github.closed_since(utc_now())  # raises, saying why
        yield _ok(f"merges are looked for here and at {merging.github_repo}")
    elif merging.github_repo:
        yield _warn(f"merges at {merging.github_repo} are not seen: there is no token", "set ORCH_GITHUB_TOKEN")


def _workers(wiring: Wiring) -> Iterator[Finding]:
    address = _running_redis(wiring)
    if address is None:
        yield _ok("none; `orch up` starts them")
        return
    try:
        leases = RedisLeases(connect(address, patience_s=REDIS_S), wiring.keys, lease_s=wiring.settings.lease_seconds)
        free = leases.free()
        workers = leases.workers()
    except (RedisError, RedisUnavailable):
        return  # the Redis check has said why
    if workers:
        yield _ok(f"{', '.join(sorted(workers))}: {sum(workers.values())} slots, {max(0, free)} free")
    else:
        yield _ok("none; `orch up` starts them")


def _base(wiring: Wiring) -> Iterator[Finding]:
    """How the base was verified last, as Redis knows it."""
    if not wiring.settings.verify.default:
        return
    try:
        known = wiring.controls.base() if wiring.is_up else None
        trouble = wiring.base_check.trouble() if wiring.is_up else None
    except (RedisError, RedisUnavailable):
        return  # the Redis check has said why
    if trouble:
        fix = "mend it, commit, `orch doctor --verify`; or `orch resume`: sessions start all the same"
        yield _fail(trouble.says, fix) if trouble.red else _ok(trouble.says)
    elif known is None:
        yield _ok("never verified; `orch doctor --verify` does it now, `orch up` when it starts")
    else:
        waived = f"; sessions start all the same, by {known.waived_by}" if known.waived_by else ""
        yield Finding(Level.WARN if known.failed else Level.OK, f"last verified: {known.says}{waived}")


def _program(settings: Settings, command: Sequence[str]) -> Path | None:
    """The program of a command: found on PATH, or in the repo if its name has a slash."""
    name = command[0]
    found = shutil.which(str(settings.root / name) if "/" in name else name)
    return Path(found) if found else None


def _numbers(text: str) -> tuple[int, ...]:
    """The first two numbers of a version."""
    return tuple(map(int, re.findall(r"\d+", text)[:2]))


def _ok(says: str) -> Finding:
    return Finding(Level.OK, says)


def _warn(says: str, fix: str) -> Finding:
    return Finding(Level.WARN, says, fix)


def _fail(says: str, fix: str = "") -> Finding:
    return Finding(Level.FAIL, says, fix)


CHECKS: dict[str, Check] = {
    FILE: _settings,
    "repo": _repo,
    "state": _state,
    "redis": _redis,
    "tracker": _tracker,
    "agents": _agents,
    "set-up": _set_up,
    "sandbox": _sandbox,
    "verify": _verification,
    "delivery": _delivery,
    "workers": _workers,
    "base": _base,
}
"""In order: what the next one needs comes first."""
