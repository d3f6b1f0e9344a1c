"""What commands take from a terminal and give to it."""

from __future__ import annotations

import json
import unicodedata

import click

from orchestrator.issue_text import ISSUE_ID

json_option = click.option("--json", "as_json", is_flag=True, help="The same as JSON, for programs.")


class IssueId(click.ParamType[str]):
    """An issue's id, `i-` and letters and digits."""

    name = "issue"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The id, if it is one."""
        if not ISSUE_ID.fullmatch(value):
            self.fail(f"{value!r} is no issue's id; ids look like i-a1b2, and `orch issue list` shows them", param, ctx)
        return value


def print_json(value: object) -> None:
    """Print for a program."""
    click.echo(json.dumps(value, ensure_ascii=False, indent=2, sort_keys=True))


def plain(text: str) -> str:
    """Text that others wrote, safe to print: what could steer a terminal is replaced; lines and tabs stay."""
    return "".join(c if c in "\n\t" or unicodedata.category(c) not in ("Cc", "Cf", "Cs") else "\ufffd" for c in text)


def line(text: str) -> str:
    """As `plain`, in one line."""
    return " ".join(plain(text).split())
