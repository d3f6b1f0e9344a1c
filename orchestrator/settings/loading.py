"""Load the settings: `orch.toml` is about a repo, the environment about this machine.

    settings = settings.from_environment()

Only `from_environment` reads the real environment; everything else takes arguments.
"""

from __future__ import annotations

import hashlib
import os
import re
import tomllib
import unicodedata
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

from pydantic import (
    BaseModel,
    ValidationError,
)

from orchestrator.errors import SettingsError
from orchestrator.settings.keys import key_table, keys, problem
from orchestrator.settings.tables import IN_FILE, SECRETS, Environment, RepoSettings, Settings

FILE = "orch.toml"
ENVIRONMENT = "environment"
AGENT_MARKERS = (
    "ORCH_ISSUE",
    "ORCH_SESSION",
    "ORCH_STATE",
    "ORCH_LEASE",
    "ORCH_STAGE",
    "ORCH_STEP",
    "ORCH_ATTEMPT",
    "ORCH_ROLE",
    "ORCH_RUN",
)
"""Markers for child processes, set by us; ignored as settings."""


def from_environment(root: Path | None = None) -> Settings:
    """The settings of this process: the one place that reads the real environment and the current folder."""
    return load(root, os.environ, cwd=Path.cwd())


def load(root: Path | None, environ: Mapping[str, str], *, cwd: Path = Path()) -> Settings:
    """The settings of the repo at `root`; without it, of the one that `find_root` finds.

    Raises `SettingsError` with everything that is wrong, one line each. A repo without orch.toml has the defaults.
    """
    top = (root or find_root(environ, cwd)).resolve()
    if not top.is_dir():
        raise SettingsError(f"there is no folder {top}; correct the path")
    wrong: list[str] = []
    repo = _parse(RepoSettings, FILE, _document(top, wrong), wrong)
    machine = _parse(Environment, ENVIRONMENT, _variables(environ, wrong), wrong)
    if repo and repo.prompt_template and not (top / repo.prompt_template).is_file():
        wrong.append(f"{FILE}: prompt_template: there is no file {top / repo.prompt_template}; correct the path")
    if repo is None or machine is None or wrong:
        raise SettingsError("\n".join(wrong))
    project = repo.project or project_name(top)
    return Settings.model_validate(
        dict(repo)
        | {
            "project": project,
            "root": top,
            "state_dir": machine.state_dir or _state_dir(environ, project, top),
            "redis_url": machine.redis_url,
            "github_token": machine.github_token,
            "github_webhook_secret": machine.github_webhook_secret,
            "log": machine.log,
            "log_format": machine.log_format,
        }
    )


def find_root(environ: Mapping[str, str], cwd: Path) -> Path:
    """ORCH_PROJECT_ROOT, else the nearest folder from `cwd` up with an orch.toml, else the nearest with a git repo."""
    if named := environ.get("ORCH_PROJECT_ROOT"):
        if not (cwd / named).is_dir():
            raise SettingsError(f"{ENVIRONMENT}: ORCH_PROJECT_ROOT: there is no folder {named}; correct the path")
        return cwd / named
    here = cwd.resolve()
    for mark in (FILE, ".git"):
        for folder in (here, *here.parents):
            if (folder / mark).exists():
                return folder
    raise SettingsError(f"neither {FILE} nor a git repo in {here} or above it; run `orch init` in your repo")


def project_name(root: Path) -> str:
    """The project's name when orch.toml gives none: the folder's, in the letters that a name may have."""
    plain = unicodedata.normalize("NFKD", root.name).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "-", plain)[:40].strip("-") or "project"


def checkout_name(project: str, root: Path) -> str:
    """A name that no other checkout on this machine has, in the letters of a project's name."""
    return f"{project}-{hashlib.sha256(os.fsencode(root)).hexdigest()[:8]}"


def settings_table() -> str:
    """Every key of orch.toml and every variable, as a Markdown table for the docs."""
    return key_table([*keys(RepoSettings), *keys(Environment)])


Model = TypeVar("Model", bound=BaseModel)


def _parse(model: type[Model], source: str, found: Mapping[str, object], wrong: list[str]) -> Model | None:
    try:
        return model.model_validate(found)
    except ValidationError as error:
        known = list(keys(model))
        wrong += [problem(source, detail, known) for detail in error.errors()]
        return None


def _document(root: Path, wrong: list[str]) -> Mapping[str, object]:
    path = root / FILE
    try:
        # utf-8-sig: some editors put a byte order mark in front.
        return tomllib.loads(path.read_text("utf-8-sig"))
    except FileNotFoundError:
        return {}
    except tomllib.TOMLDecodeError as error:
        what, _, where = str(error).removesuffix(")").rpartition(" (at ")
        wrong.append(f"{FILE}: {where}: {what}; correct the TOML there")
    except UnicodeDecodeError as error:
        wrong.append(f"{FILE}: byte {error.start + 1} is not UTF-8; save the file as UTF-8")
    except OSError as error:
        wrong.append(f"{FILE}: cannot be read: {error.strerror} ({path})")
    return {}


def secret(name: str, environ: Mapping[str, str]) -> str:
    """The secret of this name; empty where there is none.

    It stands in the variable itself, in the file that NAME_FILE names, or is one of systemd's credentials.
    SettingsError when its file cannot be read, or both variables are set.
    """
    value, named = environ.get(name), environ.get(name + IN_FILE)
    if value and named:
        raise SettingsError(f"{ENVIRONMENT}: {name} and {name + IN_FILE} are both set; take one of them out")
    if value:
        return value
    credential = Path(environ.get("CREDENTIALS_DIRECTORY", "/"), name)
    if not named and not ("CREDENTIALS_DIRECTORY" in environ and credential.exists()):
        return ""
    said, path = (name + IN_FILE, Path(named)) if named else (f"credential {name}", credential)
    try:
        value = path.read_text("utf-8").strip()
    except UnicodeDecodeError as error:
        raise SettingsError(f"{ENVIRONMENT}: {said}: {path} is not UTF-8; give a text file") from error
    except OSError as error:
        raise SettingsError(f"{ENVIRONMENT}: {said}: {path} cannot be read: {error.strerror}; correct it") from error
    if not value:
        raise SettingsError(f"{ENVIRONMENT}: {said}: {path} is empty; write the secret into it")
    return value


def _variables(environ: Mapping[str, str], wrong: list[str]) -> dict[str, str]:
    found = {name: value for name, value in environ.items() if name.startswith("ORCH_") and value}
    for name in AGENT_MARKERS:
        found.pop(name, None)
    for name in (name for name in SECRETS if name.startswith("ORCH_")):
        found.pop(name + IN_FILE, None)
        try:
            if value := secret(name, environ):
                found[name] = value
        except SettingsError as error:
            wrong.append(str(error))
    return found


def _state_dir(environ: Mapping[str, str], project: str, root: Path) -> Path:
    """A folder of its own for each checkout: two clones of a repo share neither worktrees nor a private Redis."""
    base = Path(environ.get("XDG_STATE_HOME", ""))
    if not base.is_absolute():  # so says the XDG standard
        base = Path(environ.get("HOME", "")) / ".local" / "state"
    if not base.is_absolute():
        raise SettingsError(f"{ENVIRONMENT}: HOME is not set, so there is no place for state; set ORCH_STATE_DIR")
    return base / "sudocode-orchestrator" / checkout_name(project, root)
