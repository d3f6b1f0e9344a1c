"""`orch issue`: the tracker, for people without a CLI of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import TextIO

import click

from orchestrator.cli import project
from orchestrator.cli.terminal import IssueId, json_option, line, plain, print_json
from orchestrator.errors import OrchestratorError, TrackerRefused
from orchestrator.issue import Issue, listed, read, shown
from orchestrator.models import IssueStatus

STATUSES = [status.value for status in IssueStatus]


@click.group
def command() -> None:
    """File, list and read the issues of this repo's tracker.

    \b
      orch issue add "Greet in French" --body "- [ ] greet('fr') gives 'Bonjour'"
      orch issue list --status open
      orch issue show i-a1b2
    """


@command.command
@click.argument("title")
@click.option("--body", default=None, metavar="TEXT", help="What is to be done; `- [ ]` lines are what is reviewed.")
@click.option("--body-file", type=click.File(encoding="utf-8"), metavar="FILE", help="The body in a file; - is stdin.")
@click.option("--priority", type=click.IntRange(0, 4), help="0 comes first. The tracker's own default is 2.")
@click.option("--tag", "tags", multiple=True, metavar="TAG", help="A tag; may be given again.")
@click.option("--blocked-by", "waits_for", multiple=True, type=IssueId(), help="Wait until that issue is closed.")
@json_option
def add(
    title: str,
    *,
    body: str | None,
    body_file: TextIO | None,
    priority: int | None,
    tags: list[str],
    waits_for: list[str],
    as_json: bool,
) -> None:
    """File an issue and print its id.

    \b
      orch issue add "Greet in French"
      orch issue add "Release it" --priority 1 --blocked-by i-a1b2 --body-file release.md
    """
    if not title.strip():
        raise click.BadParameter("an issue needs a title", param_hint="TITLE")
    text = _body(body, body_file)
    with project.here().tracker as tracker:
        for issue in waits_for:
            _show(tracker.show_issue, issue)  # before anything is made
        with tracker.alone():
            created = read(tracker.upsert_issue(title=title, description=text, priority=priority, tags=tags or None)).id
            for issue in waits_for:
                try:
                    tracker.link(from_id=issue, to_id=created, type="blocks")
                except OrchestratorError as error:
                    raise TrackerRefused(f"{created} is filed, but does not wait for {issue}: {error}") from error
    if as_json:
        print_json({"id": created})
    else:
        click.echo(created)


@command.command(name="list")
@click.option("--status", type=click.Choice(STATUSES), help="Only issues of this status.")
@json_option
def list_issues(status: str | None, as_json: bool) -> None:
    """List issues in the order in which they would be run: id, status, priority and title.

    \b
      orch issue list
      orch issue list --status needs_review
    """
    with project.here().tracker as tracker:
        rows = tracker.list_issues(status=status, limit=-1)
    issues = sorted(listed(rows), key=lambda issue: issue.claiming_order)
    if as_json:
        print_json([_row(issue) for issue in issues])
        return
    for issue in issues:
        click.echo(f"{line(issue.id):<8} {line(issue.status_said):<12} {_priority(issue)}  {line(issue.title)}")
    if not issues:
        click.echo('There are none; `orch issue add "What to do"` files one.', err=True)


@command.command
@click.argument("issue_id", type=IssueId(), metavar="ISSUE")
@json_option
def show(issue_id: str, as_json: bool) -> None:
    """Show one issue: its status, what it waits for, and what it says.

    \b
      orch issue show i-a1b2
    """
    with project.here().tracker as tracker:
        issue = _show(tracker.show_issue, issue_id)
    if as_json:
        print_json(issue.record)
        return
    facts = {
        "status": issue.status_said,
        "priority": _priority(issue),
        "tags": ", ".join(issue.tags),
        "blocked by": ", ".join(issue.blockers),
        "created": _time(issue.created_at),
        "feedback": f"{len(issue.feedback)} entries, `orch history {issue.id}` tells them" if issue.feedback else "",
    }
    click.echo(f"{issue.id}  {line(issue.title)}")
    click.echo("".join(f"{name:<11}{line(fact)}\n" for name, fact in facts.items() if fact), nl=False)
    if issue.body.strip():
        click.echo(f"\n{plain(issue.body.strip())}")


@command.command
@click.argument("issue_id", type=IssueId(), metavar="ISSUE")
@json_option
def reopen(issue_id: str, as_json: bool) -> None:
    """Set an issue's status to open, so that it is run again.

    \b
      orch issue reopen i-a1b2
    """
    _set_status(issue_id, IssueStatus.OPEN, f"`orch enqueue {issue_id}` runs it next", as_json=as_json)


@command.command
@click.argument("issue_id", type=IssueId(), metavar="ISSUE")
@json_option
def close(issue_id: str, as_json: bool) -> None:
    """Set an issue's status to closed, by your word instead of a merge.

    \b
      orch issue close i-a1b2

    For an issue whose session found nothing to merge, or that is not wanted any more. What waits for it may start then.
    A session that runs is not ended by this: `orch stop` does that.
    """
    _set_status(issue_id, IssueStatus.CLOSED, f"`orch issue reopen {issue_id}` undoes that", as_json=as_json)


def _set_status(issue_id: str, status: IssueStatus, then: str, *, as_json: bool) -> None:
    """Set it in the tracker, by a person's word; `then` says what follows. Running it again is harmless."""
    with project.here().tracker as tracker:
        _show(tracker.show_issue, issue_id)
        tracker.upsert_issue(issue_id=issue_id, status=status)
    if as_json:
        print_json({"id": issue_id, "status": status})
    else:
        click.echo(f"{issue_id} is {status}; {then}")


def _body(body: str | None, body_file: TextIO | None) -> str | None:
    if body is not None and body_file is not None:
        raise click.UsageError("give --body or --body-file, not both")
    try:
        return body_file.read() if body_file else body
    except UnicodeDecodeError as error:
        raise click.BadParameter(f"byte {error.start + 1} is not UTF-8", param_hint="--body-file") from None


def _show(show_issue: Callable[[str], Mapping[str, object]], issue_id: str) -> Issue:
    """The tracker's issue. TrackerRefused when there is none."""
    try:
        return shown(show_issue, issue_id)
    except TrackerRefused as refusal:
        if issue_id not in str(refusal):
            raise  # a refusal that is not about this issue, and says itself what to do
        raise TrackerRefused(f"{refusal}; `orch issue list` shows what there is") from refusal


def _row(issue: Issue) -> dict[str, object]:
    return {
        "id": issue.id,
        "title": issue.title,
        "status": issue.status_said,
        "priority": issue.priority,
        "created_at": _time(issue.created_at),
    }


def _priority(issue: Issue) -> str:
    return "-" if issue.priority is None else str(issue.priority)


def _time(at: datetime | None) -> str:
    return f"{at:%Y-%m-%d %H:%M:%S}" if at else ""
