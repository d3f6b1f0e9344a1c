"""What each role is told, how often, and what its answer is once it is found."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from orchestrator.agent_roles import RoleAgentAdapter, _ImplementerAnswer, _ReviewerAnswer, new_nonce
from orchestrator.answers import Question, parse_answer
from orchestrator.errors import AgentFailed, AgentTimedOut, MalformedAnswer
from orchestrator.models import ImplementerResult, ReviewResult, VerificationEvidence
from tests.support import NOON, an_answer, evidence

IMPLEMENTED: dict[str, Any] = {
    "code_changed_at": "2026-01-05T12:00:00Z",
    "notes": "done",
    "verification": {
        "command": "make test",
        "output": "ok",
        "exit_code": 0,
        "produced_at": "2026-01-05T21:00:00+09:00",
    },
}
REVIEWED: dict[str, Any] = {"passed": False, "failed_items": ["a"], "fix_list": ["b"], "notes": "n"}
RESULT = ImplementerResult(evidence(1, output="1 failed"), NOON, "I did {this} and %s")


class Agent:
    """A transport that gives its answers in order, objects with the prompt's nonce, and keeps what it was asked."""

    def __init__(self, *answers: str | Mapping[str, object]) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[str, str]] = []

    def __call__(self, role: str, prompt: str, /) -> str:
        self.asked.append((role, prompt))
        answer = self.answers.pop(0)
        return answer if isinstance(answer, str) else an_answer(prompt, answer)


def implementer(agent: Agent) -> ImplementerResult:
    return RoleAgentAdapter(agent).implementer("PROMPT", [])


def spec_reviewer(agent: Agent) -> ReviewResult:
    return RoleAgentAdapter(agent).spec_reviewer("PROMPT", RESULT, 2)


def quality_reviewer(agent: Agent) -> ReviewResult:
    return RoleAgentAdapter(agent).quality_reviewer("PROMPT", RESULT, 2)


ROLES: list[tuple[Callable[[Agent], object], dict[str, Any]]] = [
    (implementer, IMPLEMENTED),
    (spec_reviewer, REVIEWED),
    (quality_reviewer, REVIEWED),
]
role_and_answer = pytest.mark.parametrize(("ask", "answer"), ROLES, ids=[ask.__name__ for ask, _ in ROLES])


def test_an_implementers_answer_is_read_whole() -> None:
    """Every field of the answer arrives, times as the moments they are."""
    tokyo = datetime(2026, 1, 5, 21, 0, tzinfo=timezone(timedelta(hours=9)))

    assert ImplementerResult(VerificationEvidence("make test", "ok", 0, tokyo), NOON, "done") == implementer(
        Agent(IMPLEMENTED)
    )


def test_an_implementer_may_have_verified_nothing() -> None:
    """`verification` may be null; it may not be left out."""
    silent = {name: value for name, value in IMPLEMENTED.items() if name != "verification"}
    result = implementer(Agent(IMPLEMENTED | {"verification": None}))

    assert result.verification is None
    with pytest.raises(MalformedAnswer, match="implementer: verification"):
        implementer(Agent(silent, silent))


@pytest.mark.parametrize("review", [spec_reviewer, quality_reviewer])
def test_a_review_is_read_whole(review: Callable[[Agent], ReviewResult]) -> None:
    """Both reviewers answer in the same shape."""
    assert ReviewResult(False, ["a"], ["b"], "n") == review(Agent(REVIEWED))


@role_and_answer
def test_a_role_is_asked_by_its_name_with_the_issues_prompt_first(ask: Callable[[Agent], object], answer: Any) -> None:
    """The transport hears the role's name, and the prompt before the role's own part."""
    agent = Agent(answer)
    ask(agent)
    role, prompt = agent.asked[0]

    assert ask.__name__ == role
    assert prompt.startswith("PROMPT\n# Your role: " + role.replace("_", " "))


def test_fixes_are_listed_and_without_them_the_work_is_asked_for() -> None:
    """An empty fix list asks for the implementation, anything else for exactly those fixes."""
    agent = Agent(IMPLEMENTED, IMPLEMENTED)
    adapter = RoleAgentAdapter(agent)
    adapter.implementer("PROMPT", [])
    adapter.implementer("PROMPT", ["close the {file}", "rename x"])
    first, fixing = (prompt for _role, prompt in agent.asked)

    assert "fix exactly this" not in first
    assert "fix exactly this:\n\n- close the {file}\n- rename x\n" in fixing


def test_who_changed_nothing_is_asked_the_same_once_more_with_a_way_out() -> None:
    """The same question, and after it how to say that there is nothing to do; by itself the answer claims nothing."""
    agent = Agent(IMPLEMENTED, IMPLEMENTED | {"already_done": True})
    adapter = RoleAgentAdapter(agent, nonce=lambda: "bcdfghjkmnpq")
    first = adapter.implementer("PROMPT", ["close the file"])
    again = adapter.implementer_again("PROMPT", ["close the file"])
    (_, question), (role, second) = agent.asked

    assert (False, True, "implementer") == (first.already_done, again.already_done, role)
    assert second.startswith(question)
    assert '"already_done": true' in second.removeprefix(question)
    assert "already_done" not in question


def test_reviewers_see_claims_and_the_attempt() -> None:
    """The implementer's words reach the reviewer as they are, marked as claims; a missing claim is said too."""
    agent = Agent(REVIEWED, REVIEWED)
    spec_reviewer(agent)
    RoleAgentAdapter(agent).quality_reviewer("PROMPT", ImplementerResult(None, NOON, ""), 1)
    with_claim, without = (prompt for _role, prompt in agent.asked)

    assert "I did {this} and %s" in with_claim
    assert "`make test` exited with 1\n1 failed" in with_claim
    assert "This is attempt 2." in with_claim
    assert 2 == without.count("(none)")


@role_and_answer
def test_a_bad_answer_is_asked_for_once_more_with_the_reason(ask: Callable[[Agent], object], answer: Any) -> None:
    """The second prompt is the first one and what was wrong; a good second answer is as good as a first one."""
    agent = Agent("I am done!", answer)
    good = ask(agent)
    (_, first), (_, second) = agent.asked

    assert ask(Agent(answer)) == good
    assert second.startswith(first.partition("# Your role")[0])
    assert f"{ask.__name__}: its answer does not end with a JSON object; it ends with 'I am done!'.\nEnd with" in second


@role_and_answer
def test_an_agent_that_knows_no_nonces_is_asked_twice_and_then_believed(
    ask: Callable[[Agent], object], answer: Any
) -> None:
    """A host's transport of old still works, and is told why it is asked again."""
    agent = Agent(json.dumps(answer), json.dumps(answer))

    assert ask(Agent(answer)) == ask(agent)
    assert f"could not be used: {ask.__name__}: its answer has no nonce" in agent.asked[1][1]


def test_an_implementers_quotation_is_no_answer() -> None:
    """What the issue has the implementer claim is not its claim."""
    quoted = json.dumps(IMPLEMENTED)

    with pytest.raises(MalformedAnswer, match="a quotation"):
        RoleAgentAdapter(Agent(quoted, quoted)).implementer(f"Say {quoted}", [])


def test_each_prompt_has_a_nonce_of_its_own() -> None:
    """No two prompts share a nonce, so no answer of the past, or of another role, answers them; none is like a word."""
    agent = Agent("?", REVIEWED, "?", REVIEWED, IMPLEMENTED)
    spec_reviewer(agent)
    quality_reviewer(agent)
    implementer(agent)
    nonces = [json.loads(an_answer(prompt, {}))["nonce"] for _, prompt in agent.asked]

    assert 5 == len(set(nonces))
    assert all(12 == len(nonce) and not set(nonce) - set("bcdfghjkmnpqrstvwxz") for nonce in [*nonces, new_nonce()])


@role_and_answer
def test_two_bad_answers_are_an_error(ask: Callable[[Agent], object], answer: Any) -> None:
    """After the second bad answer nobody is asked again; the error is a ValueError that names the role."""
    agent = Agent("no", "no", answer)

    with pytest.raises(ValueError, match=ask.__name__) as refused:
        ask(agent)
    assert isinstance(refused.value, MalformedAnswer)
    assert 2 == len(agent.asked)


@pytest.mark.parametrize("failure", [AgentFailed("exit code 1"), AgentTimedOut("1 h"), OSError("no such file")])
def test_what_the_transport_raises_is_passed_on(failure: Exception) -> None:
    """An agent that did not run at all is not asked again here."""

    def transport(_role: str, _prompt: str) -> str:
        raise failure

    with pytest.raises(type(failure)) as raised:
        RoleAgentAdapter(transport).implementer("PROMPT", [])
    assert failure is raised.value


QUESTION = Question("r", "PROMPT", "n")
WRONG_TIMES: list[object] = [None, 7, 1.5, True, [], {}, "", "noon", "1767614400", "2026-01-05T12:00:00"]
WRONG_TEXTS: list[object] = [None, 7, True, [], {}]
WRONG_LISTS: list[object] = [None, "a", [1], [None], {}]
WRONG: dict[tuple[type[_ImplementerAnswer | _ReviewerAnswer], str], list[object]] = {
    (_ImplementerAnswer, "code_changed_at"): WRONG_TIMES,
    (_ImplementerAnswer, "notes"): WRONG_TEXTS,
    (_ImplementerAnswer, "verification"): [7, "ok", [], {}, True],
    (_ImplementerAnswer, "already_done"): [None, 0, 1, "true", "yes", []],
    (_ReviewerAnswer, "passed"): [None, 0, 1, "true", "yes", []],
    (_ReviewerAnswer, "failed_items"): WRONG_LISTS,
    (_ReviewerAnswer, "fix_list"): WRONG_LISTS,
    (_ReviewerAnswer, "notes"): WRONG_TEXTS,
}
CASES = [(shape, field, wrong) for (shape, field), values in WRONG.items() for wrong in values]


@pytest.mark.parametrize(("shape", "field", "wrong"), CASES, ids=[f"{field}={wrong!r}" for _, field, wrong in CASES])
def test_a_wrong_type_names_role_and_field(shape: Any, field: str, wrong: object) -> None:
    """Nothing is coerced: what is not of the field's type is refused by role and field."""
    answer = IMPLEMENTED if shape is _ImplementerAnswer else REVIEWED

    with pytest.raises(MalformedAnswer, match=rf"^r: {field}"):
        parse_answer(QUESTION, json.dumps(answer | {"nonce": "n", field: wrong}), shape)


@pytest.mark.parametrize(
    ("field", "wrong"),
    [
        ("command", 7),
        ("output", None),
        ("exit_code", "0"),
        ("exit_code", True),
        ("produced_at", "12:00"),
        ("produced_at", 0),
    ],
)
def test_a_wrong_type_inside_the_verification_is_named(field: str, wrong: object) -> None:
    """The claim's own fields are as strict, and named with their place."""
    claim = IMPLEMENTED["verification"] | {field: wrong}

    with pytest.raises(MalformedAnswer, match=rf"^r: verification\.{field}"):
        parse_answer(QUESTION, json.dumps(IMPLEMENTED | {"nonce": "n", "verification": claim}), _ImplementerAnswer)


def test_an_answer_with_half_a_character_is_mended() -> None:
    """JSON can spell NUL and half of an emoji, which no argument takes; what is told and asked later is whole text."""
    items = r'"failed_items": ["\ud83d", " "], "fix_list": [], "notes": "a\udc00\u0000b"'
    answer = parse_answer(QUESTION, f'{{"nonce": "n", "passed": false, {items}}}', _ReviewerAnswer)

    assert ReviewResult(False, ["?"], [], "a??b") == answer.result()
