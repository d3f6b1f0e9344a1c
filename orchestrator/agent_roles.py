"""What each role is told, and how its answer is found and parsed.

Real agents wrap their JSON in prose and code fences, so the answer is looked for; if it is not there or not valid,
the role is asked once more with the reason. A second bad answer is an error, not a failed review.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Annotated, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictBool,
    StrictInt,
    StrictStr,
    ValidationError,
)

from orchestrator.errors import HistoryMismatch, MalformedAnswer
from orchestrator.models import ImplementerResult, Progress, Report, ReviewResult, Stage, Step, VerificationEvidence
from orchestrator.ports import AgentTransport, Implementer, Reviewer
from orchestrator.text import last_line, sendable

IMPLEMENTER = "implementer"
SPEC_REVIEWER = "spec_reviewer"
QUALITY_REVIEWER = "quality_reviewer"
ROLES = (IMPLEMENTER, SPEC_REVIEWER, QUALITY_REVIEWER)

# The answer comes last. Starts are tried in the end of the output only, so that hostile output costs bounded time.
SEARCHED_CHARS = 262_144
TRIED_STARTS = 200


def _aware(value: object) -> datetime:
    if not isinstance(value, str):
        raise ValueError("must be ISO-8601 text")
    moment = datetime.fromisoformat(value)
    if moment.utcoffset() is None:
        raise ValueError("must say its time zone")
    return moment


Aware = Annotated[datetime, BeforeValidator(_aware)]
Text = Annotated[StrictStr, AfterValidator(sendable)]


class _Answer(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class _Verification(_Answer):
    command: Text
    output: Text
    exit_code: StrictInt
    produced_at: Aware


class _ImplementerAnswer(_Answer):
    code_changed_at: Aware
    notes: Text
    verification: _Verification | None

    def result(self) -> ImplementerResult:
        claim = VerificationEvidence(**dict(self.verification)) if self.verification else None
        return ImplementerResult(claim, self.code_changed_at, self.notes)


class _ReviewerAnswer(_Answer):
    passed: StrictBool
    failed_items: list[Text]
    fix_list: list[Text]
    notes: Text = Field(default="")

    def result(self) -> ReviewResult:
        return ReviewResult(self.passed, self.failed_items, self.fix_list, self.notes)


AnswerT = TypeVar("AnswerT", _ImplementerAnswer, _ReviewerAnswer)

_IMPLEMENT = """
# Your role: implementer

Do the work described above. {task}

When you are done, end your answer with one JSON object in a ```json fence, and nothing after it:
{{"code_changed_at": "<ISO-8601 time with zone of your last edit>",
 "notes": "<what you did and decided, for the reviewers, at most 20 lines>",
 "verification": {{"command": "<the test command you ran>", "output": "<its last lines>", "exit_code": 0,
                  "produced_at": "<ISO-8601 time with zone>"}}}}
`verification` is null if you ran nothing.
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
{{"passed": true or false, "failed_items": ["<each thing that is not true, in the checklist's words>"],
 "fix_list": ["<what to do about each, concretely: file and change>"], "notes": "<at most 10 lines>"}}
"""

_REVIEW_TASKS = {
    SPEC_REVIEWER: (
        "spec reviewer",
        "Check every line of the checklist against the code itself. Pass only if each one is true.",
    ),
    QUALITY_REVIEWER: (
        "quality reviewer",
        "The spec review has passed. Judge the change as a careful colleague: is it correct at the edges, simple, "
        "named and tested as the code around it is? Fail it only for what should not be merged.",
    ),
}


class RoleAgentAdapter:
    """The three roles over one transport `(role, prompt) -> str`.

    Each method raises MalformedAnswer (a ValueError that names role and field) after a second bad answer, and
    whatever the transport raises.
    """

    def __init__(self, transport: AgentTransport | Callable[[str, str], str]) -> None:
        self._transport = transport

    def implementer(self, prompt: str, fix_list: Sequence[str]) -> ImplementerResult:
        """Ask for the implementation, or with a fix_list for those fixes."""
        fixes = "\n".join(f"- {fix}" for fix in fix_list)
        task = f"It has been reviewed; fix exactly this:\n\n{fixes}\n" if fix_list else ""
        return self._ask(IMPLEMENTER, prompt + _IMPLEMENT.format(task=task), _ImplementerAnswer).result()

    def spec_reviewer(self, prompt: str, implementer_result: ImplementerResult, attempt: int) -> ReviewResult:
        """Ask whether every line of the checklist is true."""
        return self._review(SPEC_REVIEWER, prompt, implementer_result, attempt)

    def quality_reviewer(self, prompt: str, implementer_result: ImplementerResult, attempt: int) -> ReviewResult:
        """Ask whether the change should be merged as it is."""
        return self._review(QUALITY_REVIEWER, prompt, implementer_result, attempt)

    def _review(self, role: str, prompt: str, result: ImplementerResult, attempt: int) -> ReviewResult:
        title, task = _REVIEW_TASKS[role]
        claim = result.verification
        told = _REVIEW.format(
            title=title,
            task=task,
            attempt=attempt,
            notes=result.notes or "(none)",
            claim=f"`{claim.command}` exited with {claim.exit_code}\n{claim.output}" if claim else "(none)",
        )
        return self._ask(role, prompt + told, _ReviewerAnswer).result()

    def _ask(self, role: str, prompt: str, shape: type[AnswerT]) -> AnswerT:
        try:
            return parse_answer(role, self._transport(role, prompt), shape)
        except MalformedAnswer as bad:
            again = f"{prompt}\n# Once more\n\nYour last answer could not be used: {bad}.\nEnd with the JSON object.\n"
        return parse_answer(role, self._transport(role, again), shape)


def parse_answer(role: str, printed: str, shape: type[AnswerT]) -> AnswerT:
    """The last object in what an agent printed that looks like the role's answer, validated."""
    required = {name for name, field in shape.model_fields.items() if field.is_required()}
    found = list(json_objects(printed[-SEARCHED_CHARS:]))
    if not found:
        raise MalformedAnswer(f"{role}: no JSON object in its answer; it ends with {printed.strip()[-80:]!r}")
    best = max(enumerate(found), key=lambda n_and_object: (len(required & n_and_object[1].keys()), n_and_object[0]))[1]
    try:
        return shape.model_validate(best)
    except ValidationError as invalid:
        problems = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in invalid.errors())
        raise MalformedAnswer(f"{role}: {problems}") from invalid


_START = re.compile(r"\{\s*[\"}]")


def json_objects(text: str) -> Iterator[dict[str, object]]:
    """Every outermost JSON object in a text, left to right; only the last TRIED_STARTS places are tried."""
    decoder = json.JSONDecoder()
    end = 0
    for start in [found.start() for found in _START.finditer(text)][-TRIED_STARTS:]:
        if start < end:
            continue
        try:
            value, end = decoder.raw_decode(text, start)
        except (ValueError, RecursionError):  # not JSON, a number longer than Python reads, or too deep
            continue
        yield value


Verify = Callable[[Progress], VerificationEvidence | str]


def claimed_evidence(progress: Progress) -> VerificationEvidence | str:
    """The implementer's own claim, where nobody verifies independently; or why there is none that counts."""
    result = progress.implementer_result
    if result is None or result.verification is None:
        return "the implementer gave no verification"
    if result.verification.produced_at < result.code_changed_at:
        return f"`{result.verification.command}` was run before the last code change"
    return result.verification


@dataclass(frozen=True)
class RoleSteps:
    """Does steps by asking the three roles, and verifies."""

    prompt: str
    implementer: Implementer
    spec_reviewer: Reviewer
    quality_reviewer: Reviewer
    now: Callable[[], datetime]
    verify: Verify = claimed_evidence

    def __call__(self, step: Step, progress: Progress) -> Report:
        """Ask whom the step is for."""
        match step.stage:
            case Stage.RUNNING | Stage.SPEC_FIX | Stage.QUALITY_FIX:
                return self._implemented(step, self.implementer(self.prompt, list(step.fix_list)))
            case Stage.SPEC_REVIEW:
                return self._reviewed(step, self.spec_reviewer, progress)
            case Stage.QUALITY_REVIEW:
                return self._reviewed(step, self.quality_reviewer, progress)
            case _:
                return self._verified(step, progress)

    def _blank(self, step: Step) -> Report:
        return Report(step.stage, step.attempt, self.now())

    def _verified(self, step: Step, progress: Progress) -> Report:
        evidence = self.verify(progress)
        report = replace(self._blank(step), commit=progress.commit)
        if isinstance(evidence, str):
            return replace(report, passed=False, notes=evidence)
        failed = f"`{evidence.command}` exited with {evidence.exit_code}: {last_line(evidence.output)}"
        passed = evidence.exit_code == 0
        return replace(report, passed=passed, evidence=evidence, notes="" if passed else failed)

    def _implemented(self, step: Step, result: ImplementerResult) -> Report:
        return replace(
            self._blank(step),
            notes=result.notes,
            commit=result.commit,
            code_changed_at=result.code_changed_at,
            evidence=result.verification,
        )

    def _reviewed(self, step: Step, reviewer: Reviewer, progress: Progress) -> Report:
        if progress.implementer_result is None:
            raise HistoryMismatch(f"{step.stage} {step.attempt}: there is nothing to review yet")
        result: ReviewResult = reviewer(self.prompt, progress.implementer_result, step.attempt)
        return replace(
            self._blank(step),
            passed=result.passed,
            failed_items=tuple(result.failed_items),
            # An empty list would ask the implementer to start over.
            fix_list=tuple(result.fix_list or result.failed_items or (() if result.passed else (result.notes,))),
            notes=result.notes,
            commit=progress.commit,
        )
