"""`orch install-service`: run this repo's processes as services of systemd."""

from __future__ import annotations

import os
import pwd
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import click

from orchestrator.errors import SettingsError
from orchestrator.local.units import Units, environment_line, escaped, quoted
from orchestrator.settings import IN_FILE, SECRETS, Settings, checkout_name, from_environment, load

BOOTED = Path("/run/systemd/system")
"""Exists only where systemd runs: sd_booted(3)."""


@click.command("install-service")
@click.option("--user", "scope", flag_value="user", default="user", help="Services of yours; needs no root (default).")
@click.option("--system", "scope", flag_value="system", help="Services of this machine, run as the repo's owner.")
@click.option("--dry-run", is_flag=True, help="Print the files instead of writing them.")
@click.option("--remove", is_flag=True, help="Stop the services and remove their files.")
def command(scope: str, *, dry_run: bool, remove: bool) -> None:
    """Let systemd run all processes of this repo: without a login, and after a restart of the machine, too.

    \b
    Example:  orch install-service
    Writes a unit for each process, a target for all of them, a file with their environment, such as PATH, and one for
    each secret that is set here, such as ORCH_GITHUB_TOKEN: what stands in an environment, agents could read. Those
    are yours: once they exist they are neither changed nor removed. Prints how to start, watch and stop
    the services. Running it again brings the units up to date.
    """
    place = Place.of(from_environment(), system=scope == "system")
    if remove:
        _remove(place)
        return
    files = {place.units / name: text for name, text in place.described().files()}
    if dry_run:
        if not place.environment.exists():
            files[place.environment] = _environment(place, os.environ, shown=True)
        for path, text in files.items():
            click.echo(f"# {path}\n{text}")
        return
    for path, text in files.items():
        if not path.exists() or path.read_text("utf-8") != text:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, "utf-8")
            click.echo(f"wrote {path}")
    if place.environment.exists():
        click.echo(f"kept {place.environment}")
    else:
        for name in place.given(os.environ):
            _write_secret(place, name, os.environ[name])
        # Last, as it names them: cut off before it, all of it is done again.
        _created(place.environment, _environment(place, os.environ))
        click.echo(f"wrote {place.environment}")
    click.echo(_next_steps(place))
    if not BOOTED.is_dir():
        click.echo("! systemd does not run here, so nothing will start them; on WSL, see its runbook", err=True)


@dataclass(frozen=True)
class Place:
    """The places of a checkout's unit and environment files, and the user that its services run as."""

    settings: Settings
    instance: str
    units: Path
    environment: Path
    user: str | None

    @classmethod
    def of(cls, settings: Settings, *, system: bool) -> Place:
        """The place for a checkout with these settings."""
        config, user = _config_home(os.environ), None
        if system:
            config, user = Path("/etc"), _owner(settings.root)
            # The installer is root, but the state belongs into the home of the user.
            home = {"HOME": pwd.getpwnam(user).pw_dir, "XDG_STATE_HOME": ""}
            settings = load(settings.root, os.environ | home)
        instance = checkout_name(settings.project, settings.root)
        return cls(
            settings,
            instance,
            units=config / "systemd" / ("system" if system else "user"),
            environment=config / "sudocode-orchestrator" / f"{instance}.env",
            user=user,
        )

    def described(self) -> Units:
        """The unit files to write."""
        return Units(self.instance, quoted(sys.executable), escaped(str(self.environment)), self.user)

    def given(self, environ: Mapping[str, str]) -> list[str]:
        """The secrets that stand in this environment themselves."""
        return [name for name in SECRETS if environ.get(name) and not environ.get(name + IN_FILE)]

    def secret(self, name: str) -> Path:
        """The file of a secret of the services."""
        return self.environment.with_suffix("") / name

    @property
    def systemctl(self) -> str:
        """The command line of systemctl for a person."""
        return "sudo systemctl" if self.user else "systemctl --user"


def _environment(place: Place, environ: Mapping[str, str], *, shown: bool = False) -> str:
    """The text of the environment file, from this process's environment. `shown`: without what agents are given."""
    settings, given = place.settings, place.given(environ)
    files = {
        name + IN_FILE: str(place.secret(name)) if name in given else environ.get(name + IN_FILE, "")
        for name in SECRETS
    }
    # An empty API key would be taken for one.
    agents = {name: "***" if shown else environ[name] for name in settings.agents.env if environ.get(name)}
    plain = {
        "ORCH_PROJECT_ROOT": str(settings.root),
        "ORCH_STATE_DIR": str(settings.state_dir),
        "ORCH_LOG": settings.log,
        "ORCH_LOG_FORMAT": settings.log_format,
        "PATH": environ.get("PATH", os.defpath),
        "WEB_PORT": _port("WEB_PORT", 8080, place.environment.parent),
        "FLOWER_PORT": _port("FLOWER_PORT", 5555, place.environment.parent),
    }
    return (
        f"# What the services of {settings.root} find in their environment; keep it to yourself.\n"
        "# Restart them after a change. No shell reads it: no `export`, no ~, no $VARIABLE. What is empty is unset.\n"
        + "".join(f"{environment_line(name, value)}\n" for name, value in (plain | files | agents).items())
    )


def _write_secret(place: Place, name: str, value: str) -> None:
    """Write a secret into a file of its own, which the services' user may read, and nobody else."""
    path = place.secret(name)
    created = _created(path, f"{value}\n")
    if place.user:
        for owned in (path.parent, path):
            shutil.chown(owned, place.user)
    click.echo(f"{'wrote' if created else 'kept'} {path}")


def _port(name: str, wanted: int, folder: Path) -> str:
    """The first port, from the wanted one on, that no other checkout's services use."""
    taken = {line for path in folder.glob("*.env") for line in path.read_text("utf-8").splitlines()}
    return next(str(port) for port in count(wanted) if environment_line(name, str(port)) not in taken)


def _created(path: Path, text: str) -> bool:
    """Write a file that only its owner may read. False, and no change, if it exists."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return False
    with os.fdopen(file, "w", encoding="utf-8") as opened:
        opened.write(text)
    return True


def _next_steps(place: Place) -> str:
    target, journal = place.described().target, "sudo journalctl" if place.user else "journalctl --user"
    every = shlex.quote(f"sudocode-*@{place.instance}.*")
    steps = {
        "PATH and the like": f"{'sudo ' if place.user else ''}${{EDITOR:-nano}} {shlex.quote(str(place.environment))}",
        "start, now and always": f"{place.systemctl} daemon-reload && {place.systemctl} enable --now {target}",
        "also when logged out": "" if place.user else 'sudo loginctl enable-linger "$USER"',
        "see": f"{place.systemctl} status {every}",
        "watch": f"{journal} -f -u {every}",
        "stop, sessions hand over": f"{place.systemctl} disable --now {target}",
    }
    return "\n".join(f"  {what:<25} {step}" for what, step in steps.items() if step)


def _remove(place: Place) -> None:
    """Stop first: a unit whose file is gone runs on, and cannot be stopped by name."""
    paths = [path for name, _ in place.described().files() if (path := place.units / name).exists()]
    if not paths:
        click.echo(f"no services of {place.settings.root} in {place.units}")
        return
    systemctl = ["systemctl"] if place.user else ["systemctl", "--user"]
    if BOOTED.is_dir():
        _run([*systemctl, "disable", "--now", place.described().target])
    for path in paths:
        path.unlink()
        click.echo(f"removed {path}")
    if place.environment.exists():
        click.echo(f"kept {place.environment}: it is yours, and so are the secrets beside it")


def _run(argv: list[str]) -> None:
    if subprocess.run(argv, check=False).returncode != 0:
        raise SettingsError(f"`{shlex.join(argv)}` failed; mend what it says above, then try again")


def _owner(root: Path) -> str:
    try:
        return root.owner()
    except KeyError:
        raise SettingsError(
            f"{root} belongs to a user that this machine does not know; `chown` it to the user of the services"
        ) from None


def _config_home(environ: Mapping[str, str]) -> Path:
    named = Path(environ.get("XDG_CONFIG_HOME", ""))
    return named if named.is_absolute() else Path.home() / ".config"
