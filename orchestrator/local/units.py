"""The services of a repo, as systemd's unit files; `python -m orchestrator.local.units FOLDER` writes templates."""

from __future__ import annotations

import string
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from orchestrator.local.programs import PROGRAMS, Program
from orchestrator.wiring import STOP_GRACE_S

AGENTS_ARE_CHILDREN = "worker"
STOP_S = STOP_GRACE_S + 20.0
"""Longer than a worker takes to hand its sessions over; after that systemd kills it."""


EXTRA = {
    "redis": (
        "Type=notify",
        "# Not where another Redis is named.",
        "ExecCondition=test -z ${ORCH_REDIS_URL}${ORCH_REDIS_URL_FILE}",
    ),
    "worker": (
        "Type=exec",
        "# What one agent's tests do to the memory must not end the sessions of the others.",
        "OOMPolicy=continue",
        "MemoryHigh=80%",
        "TasksMax=8192",
    ),
}
"""What only this program's unit says."""


@dataclass(frozen=True)
class Units:
    """The unit files of one repo. `user` runs the services of the system manager; None for units of the user manager.

    All values are as systemd reads them: use `quoted` for paths.
    """

    instance: str
    python: str
    environment_file: str
    user: str | None = None

    @property
    def target(self) -> str:
        """The target that starts and stops all of them."""
        return f"sudocode-orchestrator@{self.instance}.target"

    def name(self, program: str) -> str:
        """The name of a program's unit."""
        return f"sudocode-{program}@{self.instance}.service"

    def files(self) -> Iterator[tuple[str, str]]:
        """Each file's name and text."""
        yield self.target, self._target()
        for program in PROGRAMS:
            yield self.name(program.name), self._service(program)

    def _target(self) -> str:
        return _filled(
            "target",
            instance=self.instance,
            units=" ".join(self.name(program.name) for program in PROGRAMS),
            wanted_by="multi-user" if self.user else "default",
        )

    def _service(self, program: Program) -> str:
        whose = "agents" if program.name == AGENTS_ARE_CHILDREN else "ours"
        return _filled(
            "service",
            instance=self.instance,
            about=program.about,
            target=self.target,
            after="".join(f"{line}\n" for line in self._after(program)),
            user=f"User={self.user}\n" if self.user else "",
            environment=self.environment_file,
            command=f"{self.python} -P {escaped(' '.join(program.command()))}",
            unset=f"UnsetEnvironment={' '.join(program.hidden_secrets)}\n" if program.hidden else "",
            extra="".join(f"{line}\n" for line in EXTRA.get(program.name, ("Type=exec",))),
            stop_s=f"{STOP_S:g}",
            sandbox=_text(f"sandbox-{whose}") + (self._system(whose) if self.user else ""),
        )

    def _after(self, program: Program) -> Iterator[str]:
        if program.name != "redis":
            yield f"After={self.name('redis')}"
        if self.user:
            yield "After=network-online.target\nWants=network-online.target"

    def _system(self, whose: str) -> str:
        return _text("sandbox-system") + (_text("sandbox-system-ours") if whose == "ours" else "")


def _filled(name: str, **values: str) -> str:
    return string.Template(_text(name)).substitute(values)


def _text(name: str) -> str:
    return resources.files("orchestrator.local").joinpath("systemd", f"{name}.in").read_text("utf-8")


def quoted(text: str) -> str:
    """One word of a command line as systemd reads it."""
    return '"' + escaped(text).replace("\\", "\\\\").replace('"', '\\"') + '"'


def environment_line(name: str, value: str) -> str:
    """A line of an environment file; the value may have any characters."""
    for character in '\\"$`':
        value = value.replace(character, f"\\{character}")
    return f'{name}="{value}"'


def escaped(text: str) -> str:
    """Text with its % doubled, so that systemd sees no specifier."""
    return text.replace("%", "%%")


TEMPLATES = Units(
    instance="%i",
    python="%h/.local/share/sudocode-orchestrator/bin/python",
    environment_file="%h/.config/sudocode-orchestrator/%i.env",
)
"""Templates to copy by hand, for any number of repos, each with an environment file of its own."""


def main() -> None:
    """Write the templates into a folder."""
    for name, text in TEMPLATES.files():
        Path(sys.argv[1], name.replace(TEMPLATES.instance, "")).write_text(text, "utf-8")


if __name__ == "__main__":
    main()
