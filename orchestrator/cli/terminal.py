"""The input and output of commands: options and ids, pauses in words, JSON."""

from __future__ import annotations

import contextlib
import getpass
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import click
from click.shell_completion import CompletionItem

from orchestrator.models import ISSUE_ID, IssueStatus, Paused
from orchestrator.text import line, plain, span

__all__ = [
    "ISSUES",
    "IssueId",
    "because",
    "json_option",
    "known_issues",
    "line",
    "me",
    "pause_words",
    "plain",
    "print_json",
    "span",
]

json_option = click.option("--json", "as_json", is_flag=True, help="The same as JSON, for programs.")


class IssueId(click.ParamType[str]):
    """An issue's id, `i-` and letters and digits."""

    name = "issue"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The id, if it is one."""
        if not ISSUE_ID.fullmatch(value):
            self.fail(f"{value!r} is no issue's id; ids look like i-a1b2, and `orch issue list` shows them", param, ctx)
        return value

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """The issues whose ids begin like this, with their titles."""
        known = known_issues(ctx.find_root().params.get("project"))
        return [CompletionItem(issue, help=line(title)) for issue, title in known if issue.startswith(incomplete)]


def me() -> str:
    """The user and host of this command, for those who read who paused or stopped something."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user may have a number and no name
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}"


def pause_words(paused: Paused) -> str:
    """A pause in words: `paused by anna@box (the disk is nearly full)`."""
    return f"paused by {paused.by}{because(paused.reason)}"


def because(reason: str) -> str:
    """A reason, if there is one, to follow what was done."""
    return f" ({reason})" if reason else ""


def print_json(value: object) -> None:
    """Print for a program."""
    click.echo(json.dumps(value, ensure_ascii=False, indent=2, sort_keys=True))


ISSUES = Path(".sudocode", "issues.jsonl")
"""Where the tracker keeps its issues for git. Asking the tracker itself would take longer than a person waits."""


def known_issues(project: str | None) -> Iterator[tuple[str, str]]:
    """The ids and titles of the repo's issues, those that are not closed first; none where they cannot be read."""
    start = Path(project or os.environ.get("ORCH_PROJECT_ROOT") or ".").absolute()
    file = next((folder / ISSUES for folder in (start, *start.parents) if (folder / ISSUES).is_file()), None)
    rows = []
    # A shell that completes is no place for complaints; `orch doctor` has them.
    with contextlib.suppress(OSError, ValueError):
        rows = [json.loads(line) for line in file.read_text("utf-8").splitlines()] if file else []
    for row in sorted(rows, key=lambda row: row.get("status") == IssueStatus.CLOSED):
        yield str(row.get("id")), str(row.get("title"))
