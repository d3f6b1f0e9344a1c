"""Every process of a running orchestrator, once: what it is for, which queues it serves, and how it is started.

`orch up`, the systemd units, the advice of `/readyz` and the table in docs/operations.md are made from this; a test
holds docker-compose.yml to it. Looking for merges has a worker of its own: it may wait for GitHub, and a poll may not.
"""

from __future__ import annotations

from dataclasses import dataclass

from beat import MERGE_CLOSE, POLL, PUBLISH, SESSIONS
from orchestrator.settings import IN_FILE, SECRETS

CELERY = ("-m", "celery", "--quiet", "-A", "orchestrator")
QUIET = ("--without-gossip", "--without-mingle", "--loglevel", "warning")


@dataclass(frozen=True)
class Program:
    """One process. `arguments` are Python's; a `${NAME}` in them is a variable of the environment.

    A worker serves `queues` as `node`, as many tasks at once as `slots`; None stands for `concurrency` of orch.toml.
    Variables that begin with one of `hidden` are kept from it.
    """

    name: str
    about: str
    queues: tuple[str, ...] = ()
    node: str = ""
    slots: int | None = 1
    arguments: tuple[str, ...] = ()
    hidden: tuple[str, ...] = ()

    def command(self, *, slots: int | None = None) -> tuple[str, ...]:
        """The arguments for Python. `slots` is what to take where the table leaves it to orch.toml."""
        return (*CELERY, *self._worker(slots), *QUIET) if self.queues else self.arguments

    @property
    def hidden_secrets(self) -> list[str]:
        """The variables with secrets, and with their files, that are kept from it."""
        hidden = (name for name in SECRETS if name.startswith(self.hidden))
        return [variable for name in hidden for variable in (name, name + IN_FILE)]

    def line(self, *, slots: int | None = None) -> str:
        """The command line for a person, if Celery runs it."""
        words = self._worker(slots) if self.queues else self.arguments[len(CELERY) : len(CELERY) + 1]
        return " ".join(("celery", "-A", "orchestrator", *words))

    def _worker(self, slots: int | None) -> tuple[str, ...]:
        at_once = self.slots or slots
        some = ("-c", str(at_once)) if at_once else ()
        return ("worker", "-Q", ",".join(self.queues), *some, "-n", f"{self.node}@%h")


GITHUB, FLOWER_LOGIN = "ORCH_GITHUB_", "FLOWER_"
"""What the variables begin with."""

PROGRAMS = (
    Program(
        "redis",
        "the private Redis, where no other is named",
        arguments=("-m", "orchestrator.redis_service"),
        hidden=(GITHUB, FLOWER_LOGIN),
    ),
    Program(
        "worker",
        "runs sessions; agents are its children",
        queues=(SESSIONS,),
        node="sessions",
        slots=None,
        hidden=(GITHUB, FLOWER_LOGIN),
    ),
    Program(
        "control", "claims issues, and tells the tracker", queues=(POLL, PUBLISH), node="control", hidden=(GITHUB,)
    ),
    Program("merges", "delivers finished work, and closes what is merged", queues=(MERGE_CLOSE,), node="merges"),
    Program("beat", "the clock", arguments=(*CELERY, "beat", "--loglevel", "warning", "--pidfile="), hidden=(GITHUB,)),
    Program(
        "web",
        "health, metrics and GitHub's webhook",
        arguments=("-m", "orchestrator.cli", "web", "--port", "${WEB_PORT}"),
    ),
    Program(
        "flower",
        "the dashboard",
        arguments=(*CELERY, "flower", "--port=${FLOWER_PORT}", "--logging=error"),
        hidden=(GITHUB,),
    ),
)
"""In the order in which they start."""


def program(name: str) -> Program:
    """The program of this name."""
    return next(program for program in PROGRAMS if program.name == name)


def start_commands(concurrency: int) -> dict[str, str]:
    """The command lines, for a person, of the programs that Celery runs."""
    return {
        it.name: it.line(slots=concurrency) for it in PROGRAMS if it.queues or it.arguments[: len(CELERY)] == CELERY
    }
