"""`orch merges audit`: say in CI what a merge would close; read-only."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import click
from pydantic import ValidationError

from orchestrator.adapters.git import base_holds
from orchestrator.adapters.github import PullRequestEvent
from orchestrator.cli.project import Settings, from_environment
from orchestrator.cli.terminal import json_option, line, print_json
from orchestrator.errors import InvalidMCPResponseError, TrackerRefused, TrackerUnavailable
from orchestrator.issue import Issue, committed
from orchestrator.merge_close import Audit, PullRequest, Ruling, Trust, audit_merge
from orchestrator.tracker import jsonl

WORDS = {
    Ruling.CLOSE: "closes",
    Ruling.SKIP: "changes nothing",
    Ruling.REJECT: "would be rejected",
    None: "concerns no issue",
}


def trust_of(settings: Settings, event: PullRequestEvent) -> Trust:
    """The merges that count here."""
    return Trust(
        settings.github.repo or event.repository.full_name,
        settings.base or event.repository.default_branch,
        frozenset(settings.github.authors),
    )


@click.command(short_help="What a closed pull request would close.")
@click.option(
    "--event-file",
    required=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="The event as GitHub tells it; in a workflow, $GITHUB_EVENT_PATH.",
)
@click.option("--dry-run", is_flag=True, help="Required: an audit looks, and changes nothing.")
@json_option
@click.pass_context
def audit(ctx: click.Context, event_file: Path, dry_run: bool, as_json: bool) -> None:
    """Say which issue a closed pull request names, and whether its merge closes it.

    \b
      orch merges audit --event-file "$GITHUB_EVENT_PATH" --dry-run

    Starts nothing and writes nothing: issues are read from .sudocode/issues.jsonl as it is in this checkout. What
    cannot be checked here is listed. Exit code 1 when the merge would be rejected; 0 when it closes its issue, or
    concerns none.
    """
    if not dry_run:
        raise click.UsageError("an audit only looks: give --dry-run; `orch merges close` closes")
    settings = from_environment()
    event = _closed(event_file)
    pull = event.pull_request.closed() if event else None
    found = _audit(settings, event, pull) if event and pull else Audit(None, "no pull request was closed")
    if as_json:
        print_json(_as_object(found, pull))
    else:
        what = f"{pull.url} " if pull else ""
        issue = f" ({found.issue_id})" if found.issue_id else ""
        click.echo(line(f"{what}{WORDS[found.ruling]}{issue}: {found.reason}"))
        for rule in found.unchecked:
            click.echo(f"not checked here: {line(rule)}")
    if found.ruling is Ruling.REJECT:
        ctx.exit(1)


def _audit(settings: Settings, event: PullRequestEvent, pull: PullRequest) -> Audit:
    trust = trust_of(settings, event)
    return audit_merge(
        pull,
        trust,
        show=_committed(settings.root / jsonl.FOLDER / "issues.jsonl"),
        on_base=lambda commit: base_holds(settings.root, trust.base, commit),
    )


def _closed(path: Path) -> PullRequestEvent | None:
    """The event, if it says that a pull request was closed. BadParameter when it is no event of GitHub's."""
    try:
        event = json.loads(path.read_bytes())
        if not isinstance(event, dict):
            raise ValueError("it is no JSON object")
        if event.get("action") != "closed" or "pull_request" not in event:
            return None
        return PullRequestEvent.model_validate(event)
    except ValidationError as error:
        first = error.errors()[0]
        what = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
    except (ValueError, RecursionError) as error:
        what = str(error)
    raise click.BadParameter(f"{path} is no event of GitHub's: {what}", param_hint="--event-file")


def _committed(path: Path) -> Callable[[str], Issue]:
    """Gives an issue as the tracker would show it, from the file that it keeps for git."""

    def show(issue_id: str) -> Issue:
        if not path.is_file():
            raise TrackerUnavailable(f"there is no {path}")
        try:
            found = committed(jsonl.read(path), issue_id)
        except jsonl.JsonlError as error:
            raise InvalidMCPResponseError(str(error)) from error
        if found is None:
            raise TrackerRefused(f"there is no {issue_id} in {path.parent.name}/{path.name}")
        return found

    return show


def _as_object(found: Audit, pull: PullRequest | None) -> dict[str, object]:
    return {
        "pull_request": pull.url if pull else None,
        "merge_sha": (pull.merge_sha or None) if pull else None,
        "issue": found.issue_id,
        "ruling": found.ruling,
        "reason": found.reason,
        "unchecked": found.unchecked,
    }
