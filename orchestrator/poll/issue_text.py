"""How users write issues: fact lines, a checklist of boxes, tags. Everything is optional and has a default.

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
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from orchestrator.errors import InvalidMCPResponseError
from orchestrator.models import ISSUE_ID, UNSAID, IssueContext

_FACT = re.compile(
    r"^[\s>*_-]*(Roadmap Task ID|Manifest|Gate|Epic|Verify|Approval|Source Doc|Depends On)[*_]*\s*:[*_]*(.*)$",
    re.IGNORECASE,
)
_BOX = re.compile(r"^\s*[-*+]\s+\[[ xX]\]\s*\S")
_TAG_FACTS = {"task": "roadmap task id", "gate": "gate", "epic": "epic", "verify": "verify", "approval": "approval"}


def read_issue(record: Mapping[str, object]) -> IssueContext:
    """The issue in a tracker's answer. A host may also give the fields of IssueContext directly; they win.

    InvalidMCPResponseError when there is no usable id.
    """
    issue_id = str(record.get("id") or record.get("issue_id") or "")
    if not ISSUE_ID.fullmatch(issue_id):
        raise InvalidMCPResponseError(f"the tracker showed an issue whose id is {issue_id!r}; expected i-<id>")
    body = str(record.get("content") or record.get("description") or "")
    head, checklist, rest = _split(body)
    facts = _facts_of_tags(record.get("tags")) | _facts_of_lines(head)
    title = str(record.get("title") or UNSAID)

    def said(field: str, fact: str = "", default: str = UNSAID) -> str:
        return str(record.get(field) or facts.get(fact) or default)

    level = said("verify_level", "verify").upper()
    return IssueContext(
        issue_id=issue_id,
        manifest_id=said("manifest_id", "manifest", facts.get("source doc", UNSAID)),
        task_id=said("task_id", "roadmap task id", issue_id),
        gate_id=said("gate_id", "gate"),
        epic_id=said("epic_id", "epic"),
        title=title,
        depends_on=said("depends_on", "depends on"),
        dod_checklist_full=said("dod_checklist_full", default=checklist or body.strip() or title),
        verify_level=level if level in {"L0", "L1", "L2"} else UNSAID,
        approval="auto" if said("approval", "approval").lower() == "auto" else "manual",
        source_doc=said("source_doc", "source doc"),
        description=_prose(head, rest) if checklist else "",
    )


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
    """What is neither a fact nor the checklist's own heading."""
    while head and (not head[-1].strip() or head[-1].rstrip(" *_").endswith(":") or head[-1].startswith("#")):
        head = head[:-1]
    return "\n".join(line for line in (*head, *rest) if not _FACT.match(line)).strip()


def _facts_of_lines(lines: Iterable[str]) -> dict[str, str]:
    facts: dict[str, str] = {}
    for fact in filter(None, map(_FACT.match, lines)):
        if value := fact[2].strip():
            facts.setdefault(fact[1].lower(), value)
    return facts


def _facts_of_tags(tags: object) -> dict[str, str]:
    """`task:DEV-001` and the like; a tag of any other form is the user's own."""
    pairs = (tag.split(":", 1) for tag in tags if isinstance(tag, str) and ":" in tag) if isinstance(tags, list) else ()
    return {_TAG_FACTS[key.lower()]: value for key, value in pairs if key.lower() in _TAG_FACTS and value}
