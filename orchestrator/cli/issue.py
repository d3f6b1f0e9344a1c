"""`orch issue`: the tracker, for people without a CLI of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, TextIO, TypeVar

import click
from pydantic import BaseModel, BeforeValidator, Field, TypeAdapter, ValidationError

from orchestrator.cli import project
from orchestrator.cli.terminal import IssueId, json_option, line, plain, print_json
from orchestrator.errors import InvalidMCPResponseError, OrchestratorError, TrackerRefused
from orchestrator.poll.candidates import blockers

if TYPE_CHECKING:
    from orchestrator.adapters.mcp import McpTracker

STATUSES = ("open", "in_progress", "blocked", "needs_review", "closed")


class Row(BaseModel):
    """What the tracker lists of an issue."""

    id: str
    title: str
    status: str
    priority: int
    created_at: str = ""


class Issue(Row):
    """What the tracker shows of an issue."""

    content: Annotated[str, BeforeValidator(lambda text: text or "")] = ""
    tags: list[str] = Field(default=[])
    feedback: list[object] = Field(default=[])


class Created(BaseModel):
    """What the tracker says of a new issue."""

    id: str


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
            _show(tracker, issue)  # before anything is made
        answer = tracker.upsert_issue(title=title, description=text, priority=priority, tags=tags or None)
        created = _read(Created, answer)
        for issue in waits_for:
            try:
                tracker.link(from_id=issue, to_id=created.id, type="blocks")
            except OrchestratorError as error:
                raise TrackerRefused(f"{created.id} is filed, but does not wait for {issue}: {error}") from error
    if as_json:
        print_json(created.model_dump())
    else:
        click.echo(created.id)


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
        answer = tracker.list_issues(status=status, limit=-1)
    rows = sorted(_read(list[Row], answer), key=lambda row: (row.priority, row.created_at, row.id))
    if as_json:
        print_json([row.model_dump() for row in rows])
        return
    for row in rows:
        click.echo(f"{line(row.id):<8} {line(row.status):<12} {row.priority}  {line(row.title)}")
    if not rows:
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
        answer = _show(tracker, issue_id)
    if as_json:
        print_json(answer)
        return
    issue = _read(Issue, answer)
    facts = {
        "status": issue.status,
        "priority": str(issue.priority),
        "tags": ", ".join(issue.tags),
        "blocked by": ", ".join(blockers(answer)),
        "created": issue.created_at,
        "feedback": f"{len(issue.feedback)} entries, `orch history {issue.id}` tells them" if issue.feedback else "",
    }
    click.echo(f"{issue.id}  {line(issue.title)}")
    click.echo("".join(f"{name:<11}{line(fact)}\n" for name, fact in facts.items() if fact), nl=False)
    if issue.content.strip():
        click.echo(f"\n{plain(issue.content.strip())}")


@command.command
@click.argument("issue_id", type=IssueId(), metavar="ISSUE")
@json_option
def reopen(issue_id: str, as_json: bool) -> None:
    """Set an issue's status to open, so that it is run again.

    \b
      orch issue reopen i-a1b2
    """
    with project.here().tracker as tracker:
        _show(tracker, issue_id)
        tracker.upsert_issue(issue_id=issue_id, status="open")
    if as_json:
        print_json({"id": issue_id, "status": "open"})
    else:
        click.echo(f"{issue_id} is open; `orch enqueue {issue_id}` runs it next")


def _body(body: str | None, body_file: TextIO | None) -> str | None:
    if body is not None and body_file is not None:
        raise click.UsageError("give --body or --body-file, not both")
    try:
        return body_file.read() if body_file else body
    except UnicodeDecodeError as error:
        raise click.BadParameter(f"byte {error.start + 1} is not UTF-8", param_hint="--body-file") from None


def _show(tracker: McpTracker, issue_id: str) -> dict[str, object]:
    """The tracker's record of an issue. TrackerRefused when there is none."""
    try:
        record: dict[str, object] = tracker.show_issue(issue_id)
    except TrackerRefused as refusal:
        if issue_id not in str(refusal):
            raise  # a refusal that is not about this issue, and says itself what to do
        raise TrackerRefused(f"{refusal}; `orch issue list` shows what there is") from refusal
    return record


Shape = TypeVar("Shape")


def _read(shape: type[Shape], answer: object) -> Shape:
    """A tracker's answer in the shape it should have. Raises InvalidMCPResponseError."""
    try:
        return TypeAdapter(shape).validate_python(answer)
    except ValidationError as error:
        wrong = error.errors()[0]
        where = ".".join(map(str, wrong["loc"]))
        raise InvalidMCPResponseError(f"the tracker answered {where}: {wrong['msg']}; see `orch doctor`") from error
