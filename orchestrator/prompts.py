"""The prompt template, rendered strictly: placeholders are replaced, nothing else happens."""

from __future__ import annotations

import re
from collections.abc import Mapping

from orchestrator.models import IssueContext

PLACEHOLDERS = ("manifest_id", "task_id", "gate_id", "epic_id", "title", "depends_on", "dod_checklist_full")
OPTIONAL_PLACEHOLDERS = ("issue_id", "description")

_PLACEHOLDER = re.compile(r"\{\{\s*([A-Za-z0-9_]+)\s*\}\}")
_LEFT_OVER = re.compile(r"\{\{.*?\}\}", re.DOTALL)


def render_prompt(template_text: str, payload: Mapping[str, str]) -> str:
    """The template with each `{{name}}` replaced by its value, taken literally whatever it contains.

    ValueError names every placeholder that has no value, or is no name at all (`{{ a b }}`).
    """
    template = template_text.replace("\r\n", "\n").replace("\r", "\n")
    missing = sorted({name for name in _PLACEHOLDER.findall(template) if not isinstance(payload.get(name), str)})
    strange = sorted(set(_LEFT_OVER.findall(_PLACEHOLDER.sub("", template))))
    if missing or strange:
        names = ", ".join([f"{{{{{name}}}}}" for name in missing] + strange)
        raise ValueError(f"prompt template: no value for {names}; known are {', '.join(sorted(payload))}")
    return _PLACEHOLDER.sub(lambda found: payload[found[1]], template)


def render_issue_prompt(template_text: str, issue: IssueContext) -> str:
    """The template rendered for one issue; it may use the seven PLACEHOLDERS and the OPTIONAL_PLACEHOLDERS."""
    return render_prompt(template_text, {name: getattr(issue, name) for name in PLACEHOLDERS + OPTIONAL_PLACEHOLDERS})
