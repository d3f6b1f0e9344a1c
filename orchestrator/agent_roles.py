"""Ask the three roles: a step becomes a prompt, and the answer, found and parsed, becomes the step's report.

The prompts are in `prompts`. Real agents wrap their JSON in prose and code fences, so the answer is looked for;
if it is not there or not valid, the role is asked once more with the reason. A second bad answer is an error, not a
failed review.
"""

from __future__ import annotations

import json
import re
from abc import ABC, abstractmethod
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
from orchestrator.models import (
    ImplementerResult,
    Progress,
    Report,
    ReviewResult,
    Role,
    Stage,
    Step,
    VerificationEvidence,
)
from orchestrator.prompts import implementer_prompt, prompt_once_more, reviewer_prompt
from orchestrator.text import last_line, sendable

AgentTransport = Callable[[str, str], str]
"""Ask one agent once: (role, prompt) to everything it printed.

Raises `AgentFailed`, `AgentTimedOut` or `AgentSilent`; and `SessionStopped` when the run was cut off.
"""

Implementer = Callable[[str, Sequence[str]], ImplementerResult]
"""The implementer of a session: (prompt, fix_list). An empty fix_list asks for the implementation."""

Reviewer = Callable[[str, ImplementerResult, int], ReviewResult]
"""A reviewer of a session: (prompt, implementer_result, attempt). Attempts count from 1."""

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


class RoleAgentAdapter:
    """The three roles over one transport `(role, prompt) -> str`.

    Each method raises MalformedAnswer (a ValueError that names role and field) after a second bad answer, and
    whatever the transport raises.
    """

    def __init__(self, transport: AgentTransport) -> None:
        self._transport = transport

    def implementer(self, prompt: str, fix_list: Sequence[str]) -> ImplementerResult:
        """Ask for the implementation, or with a fix_list for those fixes."""
        return self._ask(Role.IMPLEMENTER, implementer_prompt(prompt, fix_list), _ImplementerAnswer).result()

    def spec_reviewer(self, prompt: str, implementer_result: ImplementerResult, attempt: int) -> ReviewResult:
        """Ask for a review against every line of the checklist."""
        return self.review(Role.SPEC_REVIEWER, prompt, result=implementer_result, attempt=attempt)

    def quality_reviewer(self, prompt: str, implementer_result: ImplementerResult, attempt: int) -> ReviewResult:
        """Ask for a review of the change's quality."""
        return self.review(Role.QUALITY_REVIEWER, prompt, result=implementer_result, attempt=attempt)

    def review(self, role: Role, prompt: str, *, result: ImplementerResult, attempt: int) -> ReviewResult:
        """Ask one of the reviewers."""
        told = reviewer_prompt(role, prompt, result=result, attempt=attempt)
        return self._ask(role, told, _ReviewerAnswer).result()

    def _ask(self, role: Role, prompt: str, shape: type[AnswerT]) -> AnswerT:
        try:
            return parse_answer(role, self._transport(role, prompt), shape)
        except MalformedAnswer as bad:
            again = prompt_once_more(prompt, str(bad))
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


class Steps(ABC):
    """The steps of a session: each is done by its role, and the answer becomes its report."""

    now: Callable[[], datetime]

    def __call__(self, step: Step, progress: Progress) -> Report:
        """Do one step."""
        match step.stage:
            case Stage.RUNNING | Stage.SPEC_FIX | Stage.QUALITY_FIX:
                return _implemented(step, self.implement(step), at=self.now())
            case Stage.SPEC_REVIEW:
                return _reviewed(step, self.review(Role.SPEC_REVIEWER, step, progress), progress, at=self.now())
            case Stage.QUALITY_REVIEW:
                return _reviewed(step, self.review(Role.QUALITY_REVIEWER, step, progress), progress, at=self.now())
            case _:
                return _verified(step, self.verify(progress), progress, at=self.now())

    @abstractmethod
    def implement(self, step: Step) -> ImplementerResult:
        """Have the code changed: the implementation, or the step's fixes."""

    @abstractmethod
    def review(self, role: Role, step: Step, progress: Progress) -> ReviewResult:
        """Have the implementation judged."""

    @abstractmethod
    def verify(self, progress: Progress) -> VerificationEvidence | str:
        """Evidence of a verification, or why there is none that counts."""


@dataclass(frozen=True)
class RoleSteps(Steps):
    """Steps done by three callables, in a host's own process; the implementer's claim is the verification."""

    prompt: str
    implementer: Implementer
    spec_reviewer: Reviewer
    quality_reviewer: Reviewer
    now: Callable[[], datetime]

    def implement(self, step: Step) -> ImplementerResult:
        """Ask the implementer."""
        return self.implementer(self.prompt, list(step.fix_list))

    def review(self, role: Role, step: Step, progress: Progress) -> ReviewResult:
        """Ask the reviewer."""
        ask = self.spec_reviewer if role is Role.SPEC_REVIEWER else self.quality_reviewer
        return ask(self.prompt, to_review(step, progress), step.attempt)

    def verify(self, progress: Progress) -> VerificationEvidence | str:
        """Take the implementer's own claim."""
        return claimed_evidence(progress)


def to_review(step: Step, progress: Progress) -> ImplementerResult:
    """The implementation that a review is about. Raises HistoryMismatch when there is none yet."""
    if progress.implementer_result is None:
        raise HistoryMismatch(f"{step.stage} {step.attempt}: there is nothing to review yet")
    return progress.implementer_result


def claimed_evidence(progress: Progress) -> VerificationEvidence | str:
    """The implementer's own claim, for hosts without a verification of their own; or why there is none that counts."""
    result = progress.implementer_result
    if result is None or result.verification is None:
        return "the implementer gave no verification"
    if result.verification.produced_at < result.code_changed_at:
        return f"`{result.verification.command}` was run before the last code change"
    return result.verification


def _implemented(step: Step, result: ImplementerResult, *, at: datetime) -> Report:
    return Report(
        step.stage,
        step.attempt,
        at,
        notes=result.notes,
        commit=result.commit,
        code_changed_at=result.code_changed_at,
        evidence=result.verification,
    )


def _reviewed(step: Step, result: ReviewResult, progress: Progress, *, at: datetime) -> Report:
    return Report(
        step.stage,
        step.attempt,
        at,
        passed=result.passed,
        failed_items=tuple(result.failed_items),
        # An empty list would ask the implementer to start over.
        fix_list=tuple(result.fix_list or result.failed_items or (() if result.passed else (result.notes,))),
        notes=result.notes,
        commit=progress.commit,
    )


def _verified(step: Step, evidence: VerificationEvidence | str, progress: Progress, *, at: datetime) -> Report:
    report = Report(step.stage, step.attempt, at, commit=progress.commit)
    if isinstance(evidence, str):
        return replace(report, passed=False, notes=evidence)
    failed = f"`{evidence.command}` exited with {evidence.exit_code}: {last_line(evidence.output)}"
    passed = evidence.exit_code == 0
    return replace(report, passed=passed, evidence=evidence, notes="" if passed else failed)
