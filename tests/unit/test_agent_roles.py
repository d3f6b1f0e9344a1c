"""What each role is told, and how its answer is found in whatever an agent prints."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.agent_roles import (
    SEARCHED_CHARS,
    TRIED_STARTS,
    RoleAgentAdapter,
    _ImplementerAnswer,
    _ReviewerAnswer,
    json_objects,
    parse_answer,
)
from orchestrator.errors import AgentFailed, AgentTimedOut, MalformedAnswer
from orchestrator.models import ImplementerResult, ReviewResult, VerificationEvidence
from tests.support import NOON, evidence

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

texts = st.text(alphabet=st.characters(codec="utf-8", exclude_characters="\0"), max_size=20)
items = st.lists(texts, max_size=3)
reviews = st.fixed_dictionaries({"passed": st.booleans(), "failed_items": items, "fix_list": items, "notes": texts})


class Agent:
    """A transport that gives its answers in order, and keeps what it was asked."""

    def __init__(self, *answers: str) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[str, str]] = []

    def __call__(self, role: str, prompt: str, /) -> str:
        self.asked.append((role, prompt))
        return self.answers.pop(0)


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
        Agent(json.dumps(IMPLEMENTED))
    )


def test_an_implementer_may_have_verified_nothing() -> None:
    """`verification` may be null; it may not be left out."""
    silent = {name: value for name, value in IMPLEMENTED.items() if name != "verification"}
    result = implementer(Agent(json.dumps(IMPLEMENTED | {"verification": None})))

    assert result.verification is None
    with pytest.raises(MalformedAnswer, match="implementer: verification"):
        implementer(Agent(json.dumps(silent), json.dumps(silent)))


@pytest.mark.parametrize("review", [spec_reviewer, quality_reviewer])
def test_a_review_is_read_whole(review: Callable[[Agent], ReviewResult]) -> None:
    """Both reviewers answer in the same shape."""
    assert ReviewResult(False, ["a"], ["b"], "n") == review(Agent(json.dumps(REVIEWED)))


@role_and_answer
def test_a_role_is_asked_by_its_name_with_the_issues_prompt_first(ask: Callable[[Agent], object], answer: Any) -> None:
    """The transport hears the role's name, and the prompt before the role's own part."""
    agent = Agent(json.dumps(answer))
    ask(agent)
    role, prompt = agent.asked[0]

    assert ask.__name__ == role
    assert prompt.startswith("PROMPT\n# Your role: " + role.replace("_", " "))


def test_fixes_are_listed_and_without_them_the_work_is_asked_for() -> None:
    """An empty fix list asks for the implementation, anything else for exactly those fixes."""
    agent = Agent(json.dumps(IMPLEMENTED), json.dumps(IMPLEMENTED))
    adapter = RoleAgentAdapter(agent)
    adapter.implementer("PROMPT", [])
    adapter.implementer("PROMPT", ["close the {file}", "rename x"])
    first, fixing = (prompt for _role, prompt in agent.asked)

    assert "fix exactly this" not in first
    assert "fix exactly this:\n\n- close the {file}\n- rename x\n" in fixing


def test_reviewers_see_claims_and_the_attempt() -> None:
    """The implementer's words reach the reviewer as they are, marked as claims; a missing claim is said too."""
    agent = Agent(*[json.dumps(REVIEWED)] * 2)
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
    agent = Agent("I am done!", json.dumps(answer))
    good = ask(agent)
    (_, first), (_, second) = agent.asked

    assert ask(Agent(json.dumps(answer))) == good
    assert second.startswith(first)
    assert f"{ask.__name__}: no JSON object in its answer; it ends with 'I am done!'" in second


@role_and_answer
def test_two_bad_answers_are_an_error(ask: Callable[[Agent], object], answer: Any) -> None:
    """After the second bad answer nobody is asked again; the error is a ValueError that names the role."""
    agent = Agent("no", "no", json.dumps(answer))

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


WRONG_TIMES: list[object] = [None, 7, 1.5, True, [], {}, "", "noon", "1767614400", "2026-01-05T12:00:00"]
WRONG_TEXTS: list[object] = [None, 7, True, [], {}]
WRONG_LISTS: list[object] = [None, "a", [1], [None], {}]
WRONG: dict[tuple[type[_ImplementerAnswer | _ReviewerAnswer], str], list[object]] = {
    (_ImplementerAnswer, "code_changed_at"): WRONG_TIMES,
    (_ImplementerAnswer, "notes"): WRONG_TEXTS,
    (_ImplementerAnswer, "verification"): [7, "ok", [], {}, True],
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
        parse_answer("r", json.dumps(answer | {field: wrong}), shape)


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
        parse_answer("r", json.dumps(IMPLEMENTED | {"verification": claim}), _ImplementerAnswer)


def test_more_than_was_asked_for_is_ignored() -> None:
    """Agents like to add fields; the ones we asked for still count."""
    answer = parse_answer("r", json.dumps(REVIEWED | {"confidence": 0.9}), _ReviewerAnswer)

    assert ReviewResult(False, ["a"], ["b"], "n") == answer.result()


FENCES = ["{}", "```json\n{}\n```", "Here it is:\n\n```\n{}\n```\nGood night!", "<answer>{}</answer>", "> {}"]
PROSE = [
    "",
    "All good.",
    'I changed {"a": 1} and {x}.\n',
    "a } b { c\n",
    '{"passed": tr\n',
    "``` {\n",
    "{{title}} 🎉\n",
]


@given(reviews, st.sampled_from(FENCES), st.sampled_from(PROSE), st.sampled_from(PROSE[:2]), st.sampled_from([None, 2]))
def test_an_answer_is_found_in_prose_and_fences(
    review: Any, fence: str, before: str, after: str, indent: int | None
) -> None:
    """Whatever stands around the object, it is found, pretty-printed or not."""
    printed = before + fence.replace("{}", json.dumps(review, indent=indent)) + after
    found = parse_answer("r", printed, _ReviewerAnswer).result()

    assert review == vars(found)


@given(reviews, st.text(alphabet=st.characters(exclude_characters="{"), max_size=200))
def test_an_answer_is_found_after_any_words(review: Any, before: str) -> None:
    """No words before the object hide it."""
    assert review == vars(parse_answer("r", before + json.dumps(review), _ReviewerAnswer).result())


def test_the_last_of_several_answers_counts() -> None:
    """An agent that corrects itself, or whose output repeats the question, means what it said last."""
    first, last = (json.dumps(REVIEWED | {"notes": notes}) for notes in ("first", "last"))

    assert "last" == parse_answer("r", f"{first}\nNo, wait:\n{last}", _ReviewerAnswer).notes


def test_an_object_that_is_no_answer_does_not_stand_in_for_one() -> None:
    """What looks most like the role's answer is taken, even if some other object comes after it."""
    assert "n" == parse_answer("r", json.dumps(REVIEWED) + ' {"tokens": 7, "notes": "x"}', _ReviewerAnswer).notes


def test_an_answer_with_half_a_character_is_mended() -> None:
    """JSON can spell NUL and half of an emoji, which no argument takes; what is told and asked later is whole text."""
    answer = parse_answer(
        "r",
        r'{"passed": false, "failed_items": ["\ud83d"], "fix_list": [], "notes": "a\udc00\u0000b"}',
        _ReviewerAnswer,
    )

    assert ReviewResult(False, ["?"], [], "a??b") == answer.result()


@given(st.text(alphabet=st.characters()) | st.lists(st.sampled_from('{}[]":,\\ ntrue0.e-')).map("".join))
def test_no_output_is_too_strange(printed: str) -> None:
    """Any text has objects or none, and is an answer or a MalformedAnswer."""
    objects = list(json_objects(printed))

    assert all(isinstance(found, dict) for found in objects)
    for shape in (_ImplementerAnswer, _ReviewerAnswer):
        with pytest.raises(MalformedAnswer):
            parse_answer("r", printed, shape)  # type: ignore[type-var] # mypy joins the two shapes to their base


HOSTILE = {
    "unfinished keys": '{"' * 200_000,
    "nested objects": '{"a":' * 200_000,
    "nested to an end": '{"a":' * 50_000 + "1" + "}" * 50_000,
    "nested lists": '{"a":' + "[" * 200_000,
    "spaces": "{" + " " * 200_000 + "{" * 200_000,
    "an endless text": '{"a": "' + "x" * 500_000,
    "a number too long for Python": '{"passed": ' + "9" * 5_000 + "}",
    "backslashes": '{"a": "' + "\\" * 200_001,
    "empty objects": "{}" * 200_000,
}


@pytest.mark.parametrize("printed", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_output_is_only_a_malformed_answer(printed: str) -> None:
    """Output made to be slow or deep costs a bounded number of tries and ends as any bad answer does."""
    with pytest.raises(MalformedAnswer):
        parse_answer("r", printed, _ReviewerAnswer)


def test_only_the_last_starts_are_tried() -> None:
    """However many objects there are, as many as allowed are looked at, and those are the last ones."""
    objects = list(json_objects('{"a": 1}' + "{}" * TRIED_STARTS))

    assert [{}] * TRIED_STARTS == objects


@pytest.mark.parametrize(
    "noise", ["{} " * 1_000, '{"' * 2_000, '{"a": ' + "9" * 5_000 + "} ", "x" * SEARCHED_CHARS], ids=len
)
def test_the_answer_is_found_after_hostile_output(noise: str) -> None:
    """The answer comes last, so what was printed before it does not matter."""
    assert "n" == parse_answer("r", noise + "\n" + json.dumps(REVIEWED), _ReviewerAnswer).notes
