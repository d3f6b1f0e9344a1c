"""`orch escalate`: all that is known of an issue, redacted, as one file for the person who is to help."""

from __future__ import annotations

import io
import json
import platform
import tarfile
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from importlib import metadata
from pathlib import Path

import click
from pydantic import TypeAdapter

from orchestrator.adapters.process.foreign import tail
from orchestrator.cli import doctor, explain, history, project
from orchestrator.cli.checks import examine
from orchestrator.cli.project import Settings
from orchestrator.cli.terminal import IssueId, json_option, print_json
from orchestrator.models import Report, utc_now
from orchestrator.status import SessionTold, look_at
from orchestrator.status import explain as explanation_of

LOG_BYTES = 200_000
"""How much of the end of each log goes in."""
MAX_LOGS = 50
LAST_SNAPSHOTS = 3
PROGRAMS = ("celery", "redis", "click", "mcp", "pydantic")
REPORTS: TypeAdapter[list[Report]] = TypeAdapter(list[Report])


@click.command
@click.argument("issue", type=IssueId())
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Where to write it. Default: escalation-ISSUE-DATE.tar.gz, here.",
)
@json_option
def command(*, issue: str, output: Path | None, as_json: bool) -> None:
    """Pack all that is known of an issue into one file to send to the person who is to help.

    It holds why the issue stands where it stands, its last snapshots and verdicts, its whole history, the evidence of
    its verifications, the end of each log of its last sessions, versions, settings, and what `orch doctor` finds.
    What looks like a secret is redacted; look into it before you send it all the same: the issue's text and your
    code are in it.

    \b
      orch escalate i-a1b2
      orch escalate i-a1b2 -o /tmp/for-anna.tar.gz
    """
    now = utc_now()
    path = output or Path(f"escalation-{issue}-{now:%Y%m%d-%H%M%S}.tar.gz")
    # Beside the file and then put in its place: a bundle is whole, or not there.
    part = path.with_name(f".{path.name}.part")
    try:
        part.touch(mode=0o600)  # redacted or not, only its owner reads it
        here = project.here()
        parts = bundle(here, issue, now=now)
        packed = pack(part, parts, folder=f"escalation-{issue}", now=now, redact=here.redact)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    if as_json:
        print_json({"file": str(path.resolve()), "holds": dict(packed)})
        return
    click.echo(f"{path.resolve()} ({path.stat().st_size / 1000:.0f} kB, secrets redacted) holds")
    for name, size in packed:
        click.echo(f"  {name:<40} {size / 1000:.1f} kB")


Parts = Iterator[tuple[str, str]]


def pack(
    path: Path, parts: Parts, *, folder: str, now: datetime, redact: Callable[[str], str]
) -> list[tuple[str, int]]:
    """Write the parts into a tar.gz, redacted; gives the name and size of each."""
    packed = []
    with tarfile.open(path, "w:gz") as tar:
        for name, text in parts:
            content = redact(text).encode(errors="replace")
            member = tarfile.TarInfo(f"{folder}/{name}")
            member.size, member.mtime = len(content), int(now.timestamp())
            tar.addfile(member, io.BytesIO(content))
            packed.append((name, len(content)))
    return packed


def bundle(here: project.Wiring, issue: str, *, now: datetime) -> Parts:
    """Every part by its name. What is away is said by the explanation, and keeps nothing else out."""
    facts = look_at(here.sources(), issue)
    logs, sessions, found = here.settings.logs / issue, facts.of(issue).sessions, explanation_of(facts.of(issue))
    reports = facts.redis.answer.reports.get(issue, ()) if facts.redis.answer else ()
    page = "\n".join(explain.page(issue, found, now=now))
    past = history.as_object(
        issue, "redis", dict(enumerate(sessions, start=1)), None, branch=facts.of(issue).branch, logs=logs
    )
    yield "summary.md", _summary(f"{issue}, {now:%Y-%m-%d %H:%M:%S} UTC", page, sessions)
    yield "explanation.json", _json(explain.as_object(issue, found))
    yield "history.json", _json(past | {"reports": REPORTS.dump_python(list(reports), mode="json")})
    yield "evidence.txt", "\n".join(_evidence(reports)) or "Redis has no verification of its last session.\n"
    yield "doctor.txt", "\n".join(doctor.row(*looked_at).plain for looked_at in examine(lambda _name: None)) + "\n"
    yield "versions.txt", "\n".join(_versions()) + "\n"
    secret = {name for name, field in Settings.model_fields.items() if not field.repr}
    yield "settings.json", _json(here.settings.model_dump(mode="json", exclude=secret))
    yield from _logs(logs)


def _summary(title: str, page: str, sessions: Sequence[SessionTold]) -> str:
    ended = [session for session in sessions if session.verdict]
    verdicts = [f"- {it.heard_at:%Y-%m-%d %H:%M:%S} {it.verdict}: {it.reason or 'nothing failed'}" for it in ended]
    snapshots = [moment.snapshot for session in sessions for moment in session.moments]
    last = [_json(snapshot.model_dump(mode="json")) for snapshot in snapshots[-LAST_SNAPSHOTS:]]
    return "\n".join(
        [
            f"# {title}\n\n```\n{page}\n```\n",
            "## How its sessions ended, oldest first\n",
            *(verdicts or ["none has"]),
            f"\n## Its last {LAST_SNAPSHOTS} snapshots\n\n```json",
            *last,
            "```\n",
        ]
    )


def _evidence(reports: Sequence[Report]) -> Iterator[str]:
    for report in reports:
        if evidence := report.evidence:
            yield f"== {report.stage} {report.attempt}, {evidence.produced_at:%Y-%m-%d %H:%M:%S} UTC, {evidence.commit}"
            yield "".join(f"! {remark}\n" for remark in evidence.remarks) + f"$ {evidence.command}\n{evidence.output}"
            yield f"exit code {evidence.exit_code}, {evidence.output_ref}\n"


def _versions() -> Iterator[str]:
    """The versions that `orch doctor` does not say: ours, the system's, and those of our libraries."""
    yield f"{platform.platform()}, Python {platform.python_version()}"
    for name in ("sudocode-orchestrator", *PROGRAMS):
        try:
            yield f"{name} {metadata.version(name)}"
        except metadata.PackageNotFoundError:
            yield f"{name} (not installed as a package)"


def _logs(folder: Path) -> Parts:
    """The end of each of the newest logs."""
    files = [path for path in folder.glob("*/*") if path.is_file()]
    newest = sorted(files, key=lambda path: path.stat().st_mtime, reverse=True)[:MAX_LOGS]
    for path in sorted(newest):
        yield f"logs/{path.relative_to(folder)}", tail(path, LOG_BYTES)


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, indent=2) + "\n"
