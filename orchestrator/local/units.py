"""The services of a repo, as systemd's unit files; `python -m orchestrator.local.units FOLDER` writes templates."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from orchestrator.wiring import STOP_GRACE_S

STOP_S = STOP_GRACE_S + 20.0
"""More than a worker takes to hand its sessions over; then what is left is killed."""


@dataclass(frozen=True)
class Program:
    """One process: what it is for, the arguments for Python, and what its unit says besides."""

    about: str
    arguments: str
    extra: tuple[str, ...] = ()
    type: str = "exec"


_CELERY = "-P -m celery --quiet -A orchestrator"
_WORKER = "worker --without-gossip --without-mingle --loglevel warning"
_GITHUB = "ORCH_GITHUB_TOKEN ORCH_GITHUB_WEBHOOK_SECRET"

PROGRAMS = {
    "redis": Program(
        "the private Redis",
        "-P -m orchestrator.redis_service",
        ("# Not where another Redis is named.", "ExecCondition=test -z ${ORCH_REDIS_URL}"),
        type="notify",
    ),
    "worker": Program(
        "run sessions",
        # As many at once as orch.toml says.
        f"{_CELERY} {_WORKER} -Q sessions -n sessions@%%h",
        (
            "# Agents read what strangers write.",
            f"UnsetEnvironment={_GITHUB} FLOWER_BASIC_AUTH",
            "# What one agent's tests do to the memory must not end the sessions of the others.",
            "OOMPolicy=continue",
            "MemoryHigh=80%",
            "TasksMax=8192",
        ),
    ),
    "control": Program(
        "claim issues, tell the tracker, close what is merged",
        f"{_CELERY} {_WORKER} -Q poll,publish,merge_close -c 2 -n control@%%h",
    ),
    "beat": Program("the clock", f"{_CELERY} beat --loglevel warning --pidfile=", (f"UnsetEnvironment={_GITHUB}",)),
    "web": Program("health, metrics and GitHub's webhook", "-P -m orchestrator.cli web --port ${WEB_PORT}"),
    "flower": Program(
        "Flower", f"{_CELERY} flower --port=${{FLOWER_PORT}} --logging=error", (f"UnsetEnvironment={_GITHUB}",)
    ),
}
"""By their names, in the order in which they start."""

_EVERYWHERE = """\
# What an unprivileged user's service manager can take away, too.
NoNewPrivileges=yes
LockPersonality=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK
SystemCallArchitectures=native
SystemCallErrorNumber=EPERM
"""
_OURS = """\
SystemCallFilter=@system-service
RestrictNamespaces=yes
"""
_AGENTS = """\
# Agents have sandboxes of their own, and tests trace and mount: that stays allowed.
SystemCallFilter=~@clock @module @reboot @swap @raw-io @cpu-emulation @obsolete
"""
_SYSTEM = """\
# The home stays open, and /tmp shared: the repo, credentials and a Redis' socket may be there.
CapabilityBoundingSet=
ProtectSystem=full
ProtectClock=yes
ProtectControlGroups=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
"""
_SYSTEM_OURS = """\
PrivateDevices=yes
ProtectProc=invisible
"""


@dataclass(frozen=True)
class Units:
    """The unit files of one repo. `user` is who runs a system's; None for units of a user's own service manager.

    All is as systemd reads it: use `quoted` for paths.
    """

    instance: str
    python: str
    environment_file: str
    user: str | None = None

    @property
    def target(self) -> str:
        """What starts and stops all of them."""
        return f"sudocode-orchestrator@{self.instance}.target"

    def name(self, program: str) -> str:
        """The name of a program's unit."""
        return f"sudocode-{program}@{self.instance}.service"

    def files(self) -> Iterator[tuple[str, str]]:
        """Each file's name and text."""
        yield self.target, self._target()
        for program in PROGRAMS:
            yield self.name(program), self._service(program)

    def _target(self) -> str:
        return f"""\
[Unit]
Description=sudocode-orchestrator of {self.instance}
Wants={" ".join(map(self.name, PROGRAMS))}

[Install]
WantedBy={"multi-user" if self.user else "default"}.target
"""

    def _service(self, name: str) -> str:
        program = PROGRAMS[name]
        return f"""\
[Unit]
Description=sudocode-orchestrator of {self.instance}: {program.about}
PartOf={self.target}
{self._after(name)}
[Service]
Type={program.type}
{self._who()}EnvironmentFile={self.environment_file}
ExecStart={self.python} {program.arguments}
# Not the repo: Celery would import from there.
WorkingDirectory=/
{_lines(program.extra)}\
KillMode=mixed
TimeoutStopSec={STOP_S:g}
# A night must not end because a disk was full for an hour.
Restart=always
RestartSec=5

{_EVERYWHERE}{_AGENTS if name == "worker" else _OURS}{self._system(name)}"""

    def _after(self, name: str) -> str:
        order = f"After={self.name('redis')}\n" if name != "redis" else ""
        if self.user:
            order += "After=network-online.target\nWants=network-online.target\n"
        # Without a limit to how often it is started: Redis or the disk may be away for any time.
        return f"{order}StartLimitIntervalSec=0\n"

    def _who(self) -> str:
        return f"User={self.user}\n" if self.user else ""

    def _system(self, name: str) -> str:
        if not self.user:
            return ""
        return _SYSTEM + (_SYSTEM_OURS if name != "worker" else "")


def quoted(text: str) -> str:
    """One word of a command line as systemd reads it."""
    return '"' + escaped(text).replace("\\", "\\\\").replace('"', '\\"') + '"'


def environment_line(name: str, value: str) -> str:
    """A variable of an environment file, whatever is in its value."""
    for character in '\\"$`':
        value = value.replace(character, f"\\{character}")
    return f'{name}="{value}"'


def escaped(text: str) -> str:
    """Text in which systemd sees no specifier."""
    return text.replace("%", "%%")


def _lines(lines: tuple[str, ...]) -> str:
    return "".join(f"{line}\n" for line in lines)


TEMPLATES = Units(
    instance="%i",
    python="%h/.local/share/sudocode-orchestrator/bin/python",
    environment_file="%h/.config/sudocode-orchestrator/%i.env",
)
"""For a user who copies them: any number of repos, each with an environment file of its own."""


def main() -> None:
    """Write the templates into a folder."""
    for name, text in TEMPLATES.files():
        Path(sys.argv[1], name.replace(TEMPLATES.instance, "")).write_text(text, "utf-8")


if __name__ == "__main__":
    main()
