"""The tracker as it is asked, and its issues, parsed once: the record, and what users write into the body.

A body is fact lines, then a checklist of boxes; tags may say the facts too. Everything is optional and has a default:

    Roadmap Task ID: DEV-001
    Gate: G1
    Epic: EPIC-01 - Foundations
    Verify: L1
    Approval: auto
    Source Doc: docs/roadmap.md
    Depends On: DEV-000

    DoD Checklist:
    - [ ] the parser accepts empty input
    - [ ] `make test` passes

Raw rows of a tracker are read here and nowhere else.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime

from orchestrator.errors import InvalidMCPResponseError
from orchestrator.models import ISSUE_ID, UNSAID, IssueContext, IssueStatus
from orchestrator.text import redacted

FIX_TITLE = "[FIX] "
"""How the title of an issue begins that goes on with one whose reviews failed too often."""

ORIGINAL_LINE = "Original issue: {}"
"""The line of a [FIX] issue's body that names the issue it goes on with."""

_STATUSES = {status.value: status for status in IssueStatus}
_WAITING_SIDE = {"blocks": ("incoming", "from_id"), "depends-on": ("outgoing", "to_id")}
_ORIGINAL = re.compile(rf"^{ORIGINAL_LINE.format(f'({ISSUE_ID.pattern})')}$", re.MULTILINE)
_LAST_PRIORITY = 9
_LAST_MOMENT = datetime.max.replace(tzinfo=UTC)

_FACT = re.compile(
    r"^[\s>*_-]*(Roadmap Task ID|Manifest|Gate|Epic|Verify|Approval|Source Doc|Depends On)[*_]*\s*:[*_]*(.*)$",
    re.IGNORECASE,
)
_BOX = re.compile(r"^\s*[-*+]\s+\[[ xX]\]\s*\S")
_TAG_FACTS = {"task": "roadmap task id", "gate": "gate", "epic": "epic", "verify": "verify", "approval": "approval"}


@dataclass(frozen=True)
class Issue:
    """One issue of the tracker. What its record does not say is empty or None.

    `record` is the row or answer itself, for programs that ask for it. `status` is None for a word that is no status;
    `status_said` keeps that word for people. `feedback` is what the issue gave, newest first. `blockers` are the issues
    that it waits for, closed or not; `linked_from` those that an overflow linked to it (`related`, once `depends-on`).
    """

    id: str
    title: str
    status: IssueStatus | None
    status_said: str
    priority: int | None = None
    body: str = ""
    tags: tuple[str, ...] = ()
    created_at: datetime | None = None
    updated_at: datetime | None = None
    closed_at: datetime | None = None
    blockers: tuple[str, ...] = ()
    linked_from: tuple[str, ...] = ()
    feedback: tuple[str, ...] = ()
    record: Mapping[str, object] = field(default_factory=dict, repr=False, compare=False)

    @property
    def is_fix(self) -> bool:
        """True for an issue that goes on with one whose reviews failed too often."""
        return self.title.startswith(FIX_TITLE.strip())

    @property
    def original(self) -> str:
        """The issue that this [FIX] issue goes on with; empty where it is no [FIX] or names none."""
        found = _ORIGINAL.search(self.body) if self.is_fix else None
        return found[1] if found else ""

    @property
    def claiming_order(self) -> tuple[int, datetime, str]:
        """The key to sort by: priority 0 first, then the oldest, then by id; what is not said comes last."""
        priority = _LAST_PRIORITY if self.priority is None else self.priority
        return priority, self.created_at or _LAST_MOMENT, self.id


def read(record: object) -> Issue:
    """The issue in one row or answer of the tracker. InvalidMCPResponseError when it is none or has no id."""
    if not isinstance(record, Mapping):
        raise InvalidMCPResponseError(f"the tracker showed {record!r:.200}, which is no issue")
    issue_id = str(record.get("id") or record.get("issue_id") or "")
    if not issue_id:
        raise InvalidMCPResponseError("the tracker showed an issue whose id is ''; expected i-<id>")
    said = str(record.get("status") or "")
    priority = record.get("priority")
    return Issue(
        id=issue_id,
        title=str(record.get("title") or ""),
        status=_STATUSES.get(said),
        status_said=said,
        priority=priority if isinstance(priority, int) and not isinstance(priority, bool) else None,
        body=str(record.get("content") or record.get("description") or ""),
        tags=tuple(_tags(record)),
        created_at=moment(record.get("created_at")),
        updated_at=moment(record.get("updated_at")),
        closed_at=moment(record.get("closed_at")),
        blockers=tuple(_blockers(record)),
        linked_from=tuple(_edges(record, ("related", "depends-on"), "incoming", "from_id")),
        feedback=tuple(feedback_of(record)),
        record=record,
    )


def shown(show_issue: Callable[[str], Mapping[str, object]], issue_id: str) -> Issue:
    """The issue that the tracker shows under this id; raises what `show_issue` does, and InvalidMCPResponseError."""
    answer = show_issue(issue_id)
    return read({**answer, "id": issue_id} if isinstance(answer, Mapping) else answer)


def listed(rows: Iterable[object]) -> list[Issue]:
    """The issues in a list of the tracker; a row without an id is passed over."""
    return [read(row) for row in rows if isinstance(row, Mapping) and (row.get("id") or row.get("issue_id"))]


def committed(rows: Iterable[Mapping[str, object]], issue_id: str) -> Issue | None:
    """The issue in the lines of `issues.jsonl`, if it is there.

    A union merge leaves two lines for one issue: the later update holds. A line may have its feedback in any order.
    """
    lines = sorted((row for row in rows if row.get("id") == issue_id), key=lambda row: str(row.get("updated_at")))
    if not lines:
        return None
    feedback = lines[-1].get("feedback")
    given = [row for row in feedback if isinstance(row, Mapping)] if isinstance(feedback, list) else []
    return read({**lines[-1], "feedback": sorted(given, key=lambda row: str(row.get("created_at")), reverse=True)})


def moment(text: object) -> datetime | None:
    """A time of the tracker, which writes UTC and does not say so; None for what is no time."""
    try:
        at = datetime.fromisoformat(str(text))
    except ValueError:
        return None
    return at if at.tzinfo else at.replace(tzinfo=UTC)


def feedback_of(record: Mapping[str, object]) -> Iterator[str]:
    """The contents of the feedback that an issue gave, as the tracker orders them."""
    given = record.get("feedback")
    for row in given if isinstance(given, Sequence) else ():
        if isinstance(row, Mapping) and isinstance(content := row.get("content"), str):
            yield content


def _tags(record: Mapping[str, object]) -> Iterator[str]:
    tags = record.get("tags")
    yield from (tag for tag in tags if isinstance(tag, str)) if isinstance(tags, list | tuple) else ()


def _blockers(record: Mapping[str, object]) -> Iterator[str]:
    """The issues that block it and those that it depends on, each once. Specs block nothing."""
    found = (other for kind, side in _WAITING_SIDE.items() for other in _edges(record, (kind,), *side))
    yield from dict.fromkeys(found)


def _edges(record: Mapping[str, object], kinds: tuple[str, ...], side: str, end: str) -> Iterator[str]:
    relationships = record.get("relationships")
    edges = relationships.get(side) if isinstance(relationships, Mapping) else None
    for edge in edges if isinstance(edges, Sequence) else ():
        named = str(edge.get(end)) if isinstance(edge, Mapping) and edge.get("relationship_type") in kinds else ""
        if ISSUE_ID.fullmatch(named):
            yield named


def context(issue: Issue, *, redact: Callable[[str], str] = redacted) -> IssueContext:
    """The issue as the roles need it. A host may give the fields of IssueContext in the record directly; they win.

    All of it passes through `redact`: from here it goes into prompts, commits, pull requests and Redis.
    InvalidMCPResponseError when its id is not usable.
    """
    if not ISSUE_ID.fullmatch(issue.id):
        raise InvalidMCPResponseError(f"the tracker showed an issue whose id is {issue.id!r}; expected i-<id>")
    head, checklist, rest = _split(issue.body)
    facts = _facts_of_tags(issue.tags) | _facts_of_lines(head)
    title = issue.title or UNSAID

    def said(field: str, fact: str = "", default: str = UNSAID) -> str:
        return str(issue.record.get(field) or facts.get(fact) or default)

    level = said("verify_level", "verify").upper()
    found = IssueContext(
        issue_id=issue.id,
        manifest_id=said("manifest_id", "manifest", facts.get("source doc", UNSAID)),
        task_id=said("task_id", "roadmap task id", issue.id),
        gate_id=said("gate_id", "gate"),
        epic_id=said("epic_id", "epic"),
        title=title,
        depends_on=said("depends_on", "depends on"),
        dod_checklist_full=said("dod_checklist_full", default=checklist or issue.body.strip() or title),
        verify_level=level if level in {"L0", "L1", "L2"} else UNSAID,
        approval="auto" if said("approval", "approval").lower() == "auto" else "manual",
        source_doc=said("source_doc", "source doc"),
        description=_prose(head, rest) if checklist else "",
    )
    return replace(found, **{name: redact(text) for name, text in asdict(found).items() if isinstance(text, str)})


def _split(body: str) -> tuple[list[str], str, list[str]]:
    """The lines before the first box, the boxes with everything between and indented under them, and the rest."""
    lines = body.splitlines()
    boxes = [n for n, line in enumerate(lines) if _BOX.match(line)]
    if not boxes:
        return lines, "", []
    end = boxes[-1] + 1
    while end < len(lines) and lines[end].startswith((" ", "\t")):
        end += 1
    return lines[: boxes[0]], "\n".join(lines[boxes[0] : end]), lines[end:]


def _prose(head: list[str], rest: list[str]) -> str:
    """The lines that are neither a fact nor the checklist's own heading."""
    while head and (not head[-1].strip() or head[-1].rstrip(" *_").endswith(":") or head[-1].startswith("#")):
        head = head[:-1]
    return "\n".join(line for line in (*head, *rest) if not _FACT.match(line)).strip()


def _facts_of_lines(lines: Iterable[str]) -> dict[str, str]:
    facts: dict[str, str] = {}
    for fact in filter(None, map(_FACT.match, lines)):
        if value := fact[2].strip():
            facts.setdefault(fact[1].lower(), value)
    return facts


def _facts_of_tags(tags: Iterable[str]) -> dict[str, str]:
    """`task:DEV-001` and the like; a tag of any other form is the user's own."""
    pairs = (tag.split(":", 1) for tag in tags if ":" in tag)
    return {_TAG_FACTS[key.lower()]: value for key, value in pairs if key.lower() in _TAG_FACTS and value}
