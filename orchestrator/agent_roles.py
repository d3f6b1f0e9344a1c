"""Ask the three roles: a step becomes a prompt, and the answer, found and parsed, becomes the step's report.

The prompts are in `prompts`, and `answers` finds the answer in what an agent printed. If it is not there or not valid,
the role is asked once more with the reason. A second bad answer is an error, not a failed review.
"""

from __future__ import annotations

import secrets
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from typing import Annotated, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictBool,
    StrictInt,
    StrictStr,
    model_validator,
)

from orchestrator.answers import AnswerT, Question, parse_answer
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
from orchestrator.prompts import implementer_prompt, prompt_after_nothing, prompt_once_more, reviewer_prompt
from orchestrator.text import last_line, sendable

AgentTransport = Callable[[str, str], str]
"""Ask one agent once: (role, prompt) to everything it printed.

Raises `AgentFailed`, `AgentTimedOut` or `AgentSilent`; and `SessionStopped` when the run was cut off.
"""

Implementer = Callable[[str, Sequence[str]], ImplementerResult]
"""The implementer of a session: (prompt, fix_list). An empty fix_list asks for the implementation."""

Reviewer = Callable[[str, ImplementerResult, int], ReviewResult]
"""A reviewer of a session: (prompt, implementer_result, attempt). Attempts count from 1."""


def _aware(value: object) -> datetime:
    if not isinstance(value, str):
        raise ValueError("must be ISO-8601 text")
    moment = datetime.fromisoformat(value)
    if moment.utcoffset() is None:
        raise ValueError("must say its time zone")
    return moment


Aware = Annotated[datetime, BeforeValidator(_aware)]
Text = Annotated[StrictStr, AfterValidator(sendable)]
Items = Annotated[list[Text], AfterValidator(lambda items: [item for item in items if item.strip()])]


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
    already_done: StrictBool = Field(default=False)

    def result(self) -> ImplementerResult:
        claim = VerificationEvidence(**dict(self.verification)) if self.verification else None
        return ImplementerResult(claim, self.code_changed_at, self.notes, already_done=self.already_done)


class _ReviewerAnswer(_Answer):
    passed: StrictBool
    failed_items: Items
    fix_list: Items
    notes: Text = Field(default="")

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> Self:
        """A fix list is what must be done before it may pass, so a PASS with one is no more a PASS than with failures.

        A FAIL without a word leaves nothing to fix.
        """
        if self.passed and (self.failed_items or self.fix_list):
            raise ValueError("passed is true, but there are failed_items or a fix_list; advice belongs in notes")
        if not (self.passed or self.failed_items or self.fix_list or self.notes.strip()):
            raise ValueError("passed is false, but nothing says why: name the failed_items")
        return self

    def result(self) -> ReviewResult:
        return ReviewResult(self.passed, self.failed_items, self.fix_list, self.notes)


def new_nonce() -> str:
    """Twelve letters that nobody can guess, easy to copy; without vowels they are no word, without digits no number."""
    return "".join(secrets.choice("bcdfghjkmnpqrstvwxz") for _ in range(12))


class RoleAgentAdapter:
    """The three roles over one transport `(role, prompt) -> str`.

    An answer repeats the nonce of its prompt, new for each; a transport that never does is asked twice, and then
    believed. Each method raises MalformedAnswer (a ValueError that names role and field) after a second bad answer,
    and whatever the transport raises.
    """

    def __init__(self, transport: AgentTransport, *, nonce: Callable[[], str] = new_nonce) -> None:
        self._transport = transport
        self._nonce = nonce

    def implementer(self, prompt: str, fix_list: Sequence[str]) -> ImplementerResult:
        """Ask for the implementation, or with a fix_list for those fixes."""
        told = partial(implementer_prompt, prompt, fix_list)
        return self._ask(Role.IMPLEMENTER, told, _ImplementerAnswer).result()

    def implementer_again(self, prompt: str, fix_list: Sequence[str]) -> ImplementerResult:
        """Ask for the same once more, after it changed nothing: for a change, or the claim that all is there."""
        told = partial(implementer_prompt, prompt, fix_list)
        answer = self._ask(Role.IMPLEMENTER, lambda nonce: prompt_after_nothing(told(nonce=nonce)), _ImplementerAnswer)
        return answer.result()

    def spec_reviewer(self, prompt: str, implementer_result: ImplementerResult, attempt: int) -> ReviewResult:
        """Ask for a review against every line of the checklist."""
        return self.review(Role.SPEC_REVIEWER, prompt, result=implementer_result, attempt=attempt)

    def quality_reviewer(self, prompt: str, implementer_result: ImplementerResult, attempt: int) -> ReviewResult:
        """Ask for a review of the change's quality."""
        return self.review(Role.QUALITY_REVIEWER, prompt, result=implementer_result, attempt=attempt)

    def review(self, role: Role, prompt: str, *, result: ImplementerResult, attempt: int) -> ReviewResult:
        """Ask one of the reviewers."""
        told = partial(reviewer_prompt, role, prompt, result=result, attempt=attempt)
        return self._ask(role, told, _ReviewerAnswer).result()

    def _ask(self, role: Role, told: Callable[..., str], shape: type[AnswerT]) -> AnswerT:
        """The answer to the prompt that `told` makes with a nonce; asked for twice at the most."""
        nonce = self._nonce()
        question = Question(role, told(nonce=nonce), nonce)
        printed = self._transport(role, question.prompt)
        try:
            return parse_answer(question, printed, shape)
        except MalformedAnswer as bad:
            problem = str(bad)
        nonce = self._nonce()
        question = Question(role, told(nonce=nonce), nonce, earlier=printed)
        again = prompt_once_more(question.prompt, problem, nonce=nonce)
        return parse_answer(question, self._transport(role, again), shape)


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
        # Without a commit of ours it is a word that nobody has looked at.
        already_done=result.already_done and bool(result.commit),
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
    what = "the set-up " if evidence.set_up else ""
    failed = f"{what}`{evidence.command}` exited with {evidence.exit_code}: {last_line(evidence.output)}"
    failed += f" ({'; '.join(evidence.remarks)})" if evidence.remarks else ""
    passed = evidence.exit_code == 0
    return replace(report, passed=passed, evidence=evidence, notes="" if passed else failed)
