"""`orch`: the list of commands, and the one place where an expected error becomes a line for a person.

A command's module is imported when the command is called, so `orch --help` stays fast.
"""

from __future__ import annotations

import importlib
import os
import sys
from importlib import metadata

import click

from orchestrator.cli import completion
from orchestrator.errors import OrchestratorError

COMMANDS = {
    "demo": "See it work on a made-up project; nothing to set up.",
    "init": "Look at this repo and write its orch.toml.",
    "doctor": "Check everything that orch needs here.",
    "issue": "File, list and read issues.",
    "up": "Work on ready issues until Ctrl-C.",
    "install-service": "Have systemd run it all, day and night.",
    "enqueue": "Run an issue next.",
    "pause": "Let no new session start.",
    "resume": "Let new sessions start again.",
    "stop": "End sessions now, and keep their work.",
    "status": "What runs, what waits, and why.",
    "explain": "Why an issue is, or is not, running.",
    "history": "What happened to an issue, step by step.",
    "logs": "What its agents and its verification printed.",
    "report": "The night in a minute: merged, ready, needs you.",
    "escalate": "All that is known of an issue, in one file to send.",
    "merges": "Close what was merged, and see that it is.",
    "gc": "Remove what closed issues left in git.",
    "web": "Serve health, metrics and GitHub's webhook.",
    "dry-run": "Run one made-up session in memory.",
    "completion": "Have the Tab key complete commands and issues.",
}
"""Each command, as help lists it. `dry-run` is `command` in `orchestrator/cli/dry_run.py`, and so on."""

TAKE_ISSUES = {"enqueue", "history", "logs", "explain", "escalate", "stop"}
"""Commands whose arguments are issues. They are completed without loading the command, because that is slow."""

EXIT_CODES = """\
Exit codes: 0 done; 1 could not, and a line on stderr says why and what to try; 2 misuse.
`orch merges health` has its own. NO_COLOR is honoured; --json prints for programs.
"""


class Failure(click.ClickException):
    """An expected failure of a command: one line, no traceback, exit code 1."""


class Orch(click.Group):
    """The commands of COMMANDS, each imported when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names, in the order in which a newcomer needs them."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the command from its module."""
        if cmd_name not in COMMANDS:
            return None
        if ctx.resilient_parsing and cmd_name in TAKE_ISSUES and not _completes_an_option():
            return completion.takes_issues(cmd_name)
        command: click.Command = importlib.import_module(f"{__name__}.{cmd_name.replace('-', '_')}").command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Resolve as click does, and suggest similar names for an unknown one."""
        try:
            return super().resolve_command(ctx, args)
        except click.NoSuchCommand as unknown:
            raise click.NoSuchCommand(unknown.command_name, possibilities=COMMANDS, ctx=ctx) from None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def invoke(self, ctx: click.Context) -> object:
        """Run the command. An expected error ends as a line on stderr; any other is a bug of ours."""
        try:
            result: object = super().invoke(ctx)
        except OrchestratorError as error:
            raise Failure(str(error)) from error
        except _redis_errors() as error:
            said = str(error).rstrip(".") or type(error).__name__
            raise Failure(f"Redis: {said}; `orch doctor` says what is wrong") from error
        except BrokenPipeError:
            raise  # the reader is gone (`| head`): click ends quietly
        except OSError as error:
            raise Failure(f"{error.filename or 'the system'}: {error.strerror or error}") from error
        return result


def _completes_an_option() -> bool:
    """True when the shell completes an option or an option's value."""
    words = os.environ.get("COMP_WORDS", "").split()
    return any(word.startswith("-") for word in words[-2:])


def _redis_errors() -> tuple[type[Exception], ...]:
    """The errors of redis-py, if it is loaded: otherwise nothing can have raised them, and loading it is slow."""
    redis = sys.modules.get("redis.exceptions")
    return (redis.RedisError,) if redis else ()


def _version(ctx: click.Context, _option: click.Parameter, asked: bool) -> None:
    if not asked:
        return
    try:
        version = metadata.version("sudocode-orchestrator")
    except metadata.PackageNotFoundError:
        version = "(run from its source folder)"
    click.echo(f"orch {version}")
    ctx.exit()


@click.command(
    cls=Orch,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=EXIT_CODES,
)
@click.option(
    "-C",
    "--project",
    metavar="DIR",
    type=click.Path(exists=True, file_okay=False, resolve_path=True),
    help="The repo to work on. Default: $ORCH_PROJECT_ROOT, else the one around the current folder.",
)
@click.option("--version", is_flag=True, is_eager=True, expose_value=False, callback=_version, help="Say which orch.")
@click.pass_context
def main(ctx: click.Context, project: str | None) -> None:
    """Ready issues become verified branches: each is implemented, reviewed twice and verified by coding agents.

    \b
      orch demo                             see it work, without any set-up
      cd my-repo; orch init; orch doctor    make a repo of yours ready for it
      orch issue add "Say hello in French"  file what is to be done
      orch up                               have it done
    """
    if os.environ.get("NO_COLOR"):
        ctx.color = False
    if project:
        # In the environment, because every process that a command starts must work on the same repo.
        os.environ["ORCH_PROJECT_ROOT"] = project
