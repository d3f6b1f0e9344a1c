"""`orch init`: prepare a repo for orch."""

from __future__ import annotations

import os
import shlex
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

import click

from orchestrator import settings, tracker
from orchestrator.adapters.git import base_branch, top_of
from orchestrator.cli import discover
from orchestrator.cli.recipes import recipe_for_tests
from orchestrator.cli.set_ups import SetUp, recipe_for_set_up
from orchestrator.cli.terminal import json_option, print_json
from orchestrator.errors import WorkspaceError


@dataclass(frozen=True)
class Found:
    """Findings about a repo and this machine."""

    base: str | None
    verify: tuple[str, ...] | None
    set_up: SetUp | None
    agents: list[str]
    tracker: str


@dataclass(frozen=True)
class Made:
    """The files that `orch init` wrote; False for those that it left as they were."""

    orch_toml: bool
    sudocode: bool


@click.command
@click.option("--force", is_flag=True, help="Rewrite an orch.toml that is there.")
@json_option
def command(force: bool, as_json: bool) -> None:
    """Look at this git repo and write orch.toml: set-up, test command, agents, tracker.

    Makes `.sudocode`, the place for issues, when there is none. Nothing else is changed; an orch.toml that is there
    stays as it is. Doing it again is harmless.

    \b
      cd my-repo
      orch init
    """
    root = _repo()
    found = look_at(root)
    made = set_up(root, found, force=force)
    if as_json:
        print_json({"root": str(root), "found": asdict(found), "made": asdict(made)})
    else:
        click.echo(_story(root, found, made))


def look_at(root: Path) -> Found:
    """Find out how to test, which agents there are, and so on, without running code of the repo."""
    return Found(
        base=base_branch(root),
        verify=recipe_for_tests(root),
        set_up=recipe_for_set_up(root),
        agents=[cli.name for cli in discover.agent_clis(shutil.which)],
        tracker=discover.tracker(shutil.which, root),
    )


def set_up(root: Path, found: Found, *, force: bool) -> Made:
    """Write orch.toml and `.sudocode` where they are missing. SettingsError when an orch.toml that stays is wrong."""
    path = root / settings.FILE
    write = force or not path.exists()
    if write:
        path.write_text(
            discover.render_orch_toml(
                project=settings.project_name(root),
                base=found.base,
                tracker=found.tracker,
                verify=found.verify,
                set_up=found.set_up,
                agent=next(iter(discover.agent_clis(shutil.which)), None),
            ),
            encoding="utf-8",
        )
    says = settings.from_environment(root)
    # A tracker of the user's own keeps its issues wherever it likes.
    missing = isinstance(says.tracker, str) and not (root / ".sudocode").exists()
    if missing:
        tracker.init(root)
    return Made(orch_toml=write, sudocode=missing)


def _repo() -> Path:
    """The top folder of the repo. WorkspaceError when a folder below it was named: sessions get the whole repo."""
    named = os.environ.get("ORCH_PROJECT_ROOT")
    folder = Path(named or ".").resolve()
    root = top_of(folder)
    if named and not root.samefile(folder):
        raise WorkspaceError(f"{folder} is a part of the repo {root}; run `orch -C {shlex.quote(str(root))} init`")
    return root


def _story(root: Path, found: Found, made: Made) -> str:
    verify = shlex.join(found.verify) if found.verify else "no command found: set [verify] default in orch.toml"
    unused = "install one, or name yours in orch.toml" if made.orch_toml else "as orch.toml says"
    set_up = "; ".join(map(shlex.join, found.set_up.commands)) if found.set_up else "nothing to install"
    used, *others = found.agents or [f"none of those we know is on PATH: {unused}"]
    agents = used + (f" (also here: {', '.join(others)})" if others else "")
    toml = (
        "written: read it over, then commit it"
        if made.orch_toml
        else "there already, stays as it is (--force rewrites)"
    )
    issues = f"{found.tracker} tracker, in .sudocode" + (" (made: commit it too)" if made.sudocode else "")
    rows = {
        "repo": str(root),
        "base branch": found.base or "none checked out: set base in orch.toml",
        "set-up": set_up,
        "tests": verify,
        "agents": agents,
        "issues": issues,
        "orch.toml": toml,
    }
    return "\n".join(
        [
            *(f"{name:<13}{value}" for name, value in rows.items()),
            "",
            "Next:",
            "  orch doctor --verify            check that all is there, and that the tests pass",
            '  orch issue add "What to do"     file an issue',
            "  orch up                         work on what is ready",
        ]
    )
