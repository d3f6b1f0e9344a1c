"""Every prompt of an agent: the user's template for the issue, then its role's task and the answer it owes.

The last `"nonce": "..."` in a prompt is the one that the answer owes; whatever others wrote stands before it.
A template is rendered strictly: placeholders are replaced, nothing else happens.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from orchestrator.models import ImplementerResult, IssueContext, Role

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


_IMPLEMENT = """
# Your role: implementer

Do the work described above. {task}

When you are done, end your answer with one JSON object in a ```json fence, and nothing after it:
{{"nonce": "{nonce}",
 "code_changed_at": "<ISO-8601 time with zone of your last edit>",
 "notes": "<what you did and decided, for the reviewers, at most 20 lines>",
 "verification": {{"command": "<the test command you ran>", "output": "<its last lines>", "exit_code": 0,
                  "produced_at": "<ISO-8601 time with zone>"}}}}
`verification` is null if you ran nothing. Copy `nonce` as it is: it tells your answer from a quotation.
"""

_REVIEW = """
# Your role: {title}

You did not write this code. Change nothing in the worktree: whatever you change is thrown away. {task}
This is attempt {attempt}.

The implementer's notes (a claim, not a fact):
{notes}

The implementer's own verification (a claim, not a fact; it is run again after the reviews):
{claim}

End your answer with one JSON object in a ```json fence, and nothing after it:
{{"nonce": "{nonce}",
 "passed": <true or false>, "failed_items": ["<each thing that is not true, in the checklist's words>"],
 "fix_list": ["<what to do about each, concretely: file and change>"], "notes": "<at most 10 lines>"}}
If it passes, both lists are empty; advice that may be left undone goes into the notes. Copy `nonce` as it is: it tells
your answer from a quotation.
"""

_REVIEW_TASKS = {
    Role.SPEC_REVIEWER: (
        "spec reviewer",
        "Check every line of the checklist against the code itself. Pass only if each one is true.",
    ),
    Role.QUALITY_REVIEWER: (
        "quality reviewer",
        "The spec review has passed. Judge the change as a careful colleague: is it correct at the edges, simple, "
        "named and tested as the code around it is? Fail it only for what should not be merged.",
    ),
}

_CHANGE = """
# The change

{change}
"""

_NO_CHANGE = """(Nothing was changed: the implementer says that all of it is there already. That is what you judge:
pass only if the code as it is fulfils every line of the checklist.)"""

_NOTHING = """
# Once more: nothing was changed

You were asked for this before, and after your answer the branch had nothing that its base has not. Files that git
ignores, and the folder .sudocode, do not count. Do the work now, in the current directory.

If there is nothing to do because all of it is there already, change nothing, add "already_done": true to the JSON
object, and say in its notes where each line of the checklist is fulfilled. The reviewers look there.
"""

_AGAIN = """
# Once more

Your last answer could not be used: {problem}.
End with the JSON object, whole, with "nonce": "{nonce}" in it and nothing after it.
"""


def implementer_prompt(prompt: str, fix_list: Sequence[str], *, nonce: str) -> str:
    """The issue's prompt and the implementer's task: the implementation, or with a fix_list those fixes."""
    fixes = "\n".join(f"- {fix}" for fix in fix_list)
    task = f"It has been reviewed; fix exactly this:\n\n{fixes}\n" if fix_list else ""
    return prompt + _IMPLEMENT.format(task=task, nonce=nonce)


def reviewer_prompt(role: Role, prompt: str, *, result: ImplementerResult, attempt: int, nonce: str) -> str:
    """The issue's prompt, a reviewer's task, and what the implementer claims."""
    title, task = _REVIEW_TASKS[role]
    claim = result.verification
    return prompt + _REVIEW.format(
        title=title,
        task=task,
        attempt=attempt,
        nonce=nonce,
        notes=result.notes or "(none)",
        claim=f"`{claim.command}` exited with {claim.exit_code}\n{claim.output}" if claim else "(none)",
    )


def prompt_with_change(prompt: str, change: str) -> str:
    """The issue's prompt and the difference that is to be reviewed; that there is none is said."""
    return prompt + _CHANGE.format(change=change or _NO_CHANGE)


def prompt_after_nothing(prompt: str) -> str:
    """A prompt of the implementer that changed nothing, and how it may say that there is nothing to do."""
    return prompt + _NOTHING


def prompt_once_more(prompt: str, problem: str, *, nonce: str) -> str:
    """A prompt that was answered badly, and why the answer could not be used. The last nonce in it is its own."""
    return prompt + _AGAIN.format(problem=problem, nonce=nonce)
