"""SudocodeGateway: what it asks, what it retries, what it refuses, and what it never does twice."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from orchestrator.errors import InvalidMCPResponseError, TrackerRefused, TrackerUnavailable, TransientMCPError
from orchestrator.gateway import SudocodeGateway
from orchestrator.issue import feedback_of
from orchestrator.memory import MemoryTracker
from orchestrator.models import IssueStatus
from orchestrator.text import redacted
from tests.support import gateway_to

Call = Callable[[SudocodeGateway], object]

CALLS: dict[str, Call] = {
    "ready": lambda gateway: gateway.get_ready_issues(),
    "show": lambda gateway: gateway.show_issue("i-a"),
    "status": lambda gateway: gateway.set_issue_status("i-a", "open"),
    "feedback": lambda gateway: gateway.add_feedback("i-a", "{}"),
    "create": lambda gateway: gateway.create_fix_issue("[FIX] x", "body"),
    "link": lambda gateway: gateway.link_issues("i-a", "i-b", "related"),
}
every_call = pytest.mark.parametrize("call", CALLS.values(), ids=CALLS.keys())


class Tracker:
    """Answers every tool with the same answers in order (the last one over and over); an exception is raised."""

    def __init__(self, *answers: object) -> None:
        self.answers = list(answers)
        self.calls: list[tuple[str, tuple[object, ...], dict[str, object]]] = []
        self.slept: list[float] = []

    @property
    def gateway(self) -> SudocodeGateway:
        return SudocodeGateway(
            mcp_ready=self._tool("ready"),
            mcp_show_issue=self._tool("show_issue"),
            mcp_upsert_issue=self._tool("upsert_issue"),
            mcp_add_feedback=self._tool("add_feedback"),
            mcp_link=self._tool("link"),
            sleep=self.slept.append,
        )

    def _tool(self, name: str) -> Callable[..., object]:
        def answer(*args: object, **kwargs: object) -> object:
            self.calls.append((name, args, kwargs))
            given = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
            if isinstance(given, Exception):
                raise given
            return given

        return answer


def not_applied(message: str = "connection refused") -> TransientMCPError:
    error = TransientMCPError(message)
    error.maybe_applied = False
    return error


@pytest.mark.parametrize("answer", [{"id": "i-a", "status": "needs_review"}, {"id": "i-a"}, None])
def test_a_status_that_was_set(answer: object) -> None:
    """The answered row confirms the status; a host whose callable answers something else is believed."""
    tracker = Tracker(answer)
    tracker.gateway.set_issue_status("i-a", "needs_review")

    assert 1 == len(tracker.calls)


def test_a_host_s_callable_gets_a_status_as_plain_text() -> None:
    """It may pass the word on to a writer of YAML or of SQL that knows no enums."""
    tracker = Tracker(None)
    tracker.gateway.set_issue_status("i-a", IssueStatus.NEEDS_REVIEW)
    ((_tool, _positional, words),) = tracker.calls

    assert (str, "needs_review") == (type(words["status"]), words["status"])


def test_a_status_that_was_not_set() -> None:
    """A yes with a row that says otherwise is a no."""
    tracker = Tracker({"id": "i-a", "status": "in_progress"})

    with pytest.raises(TrackerRefused, match=r"i-a to needs_review: .* its status is 'in_progress'"):
        tracker.gateway.set_issue_status("i-a", "needs_review")


def test_the_tools_are_called_as_sudocode_names_their_arguments() -> None:
    """Names and keywords of every call are the contract's; feedback goes from the issue to itself."""
    tracker = Tracker({"id": "i-new", "issues": []})
    for call in CALLS.values():
        call(tracker.gateway)

    assert [
        ("ready", (), {}),
        ("show_issue", ("i-a",), {}),
        ("upsert_issue", (), {"issue_id": "i-a", "status": "open"}),
        ("add_feedback", (), {"issue_id": "i-a", "to_id": "i-a", "content": "{}"}),
        ("upsert_issue", (), {"title": "[FIX] x", "description": "body"}),
        ("link", (), {"from_id": "i-a", "to_id": "i-b", "type": "related"}),
    ] == tracker.calls


@every_call
def test_a_transient_error_is_tried_three_times(call: Call) -> None:
    """Two failures and an answer: the answer, after 1 s and 2 s."""
    tracker = Tracker(not_applied(), not_applied(), {"id": "i-new", "issues": []})
    call(tracker.gateway)

    assert 3 == len(tracker.calls)
    assert [1.0, 2.0] == tracker.slept


@every_call
def test_after_three_tries_the_tracker_is_unavailable(call: Call) -> None:
    """The third failure is not waited for; what is raised is still transient, and says what was tried and why."""
    tracker = Tracker(not_applied("connection refused"))

    with pytest.raises(TrackerUnavailable, match=r"3 tries, last: connection refused") as raised:
        call(tracker.gateway)
    assert isinstance(raised.value, TransientMCPError)
    assert 3 == len(tracker.calls)
    assert [1.0, 2.0] == tracker.slept


@every_call
@pytest.mark.parametrize(
    "error", [TrackerRefused("Issue not found"), InvalidMCPResponseError("?"), OSError("x"), KeyError()], ids=repr
)
def test_nothing_else_is_retried(call: Call, error: Exception) -> None:
    """What trying again cannot help is raised at once, as it is."""
    tracker = Tracker(error)

    with pytest.raises(type(error)) as raised:
        call(tracker.gateway)
    assert error is raised.value
    assert 1 == len(tracker.calls)
    assert [] == tracker.slept


def test_without_a_sleep_of_its_own_it_waits_for_real() -> None:
    """The runbook's wiring passes no sleep: the standard one is used."""
    assert time.sleep is inspect.signature(SudocodeGateway).parameters["sleep"].default


@pytest.mark.parametrize("answer", [{"ready": {"issues": ["a", "b"]}}, {"issues": ["a", "b"]}, {"issues": ("a", "b")}])
def test_both_forms_of_a_ready_answer(answer: object) -> None:
    """The records come as they are, from the server's form and from the plain one."""
    assert ["a", "b"] == Tracker(answer).gateway.get_ready_issues()


NOT_READY: list[object] = [
    *(None, [], "x", 7, {}),
    *({"ready": []}, {"ready": {}}, {"ready": None, "issues": []}),
    *({"issues": None}, {"issues": "x"}, {"issues": {}}),
]


@pytest.mark.parametrize("answer", NOT_READY, ids=repr)
def test_any_other_ready_answer_is_invalid(answer: object) -> None:
    """An answer without a list of issues is not taken for "nothing is ready"."""
    with pytest.raises(InvalidMCPResponseError, match=r"^ready: expected"):
        Tracker(answer).gateway.get_ready_issues()


@pytest.mark.parametrize("answer", [None, [], "x", 7])
def test_a_shown_issue_is_an_object(answer: object) -> None:
    """Anything else is invalid, and the issue is named."""
    with pytest.raises(InvalidMCPResponseError, match="show_issue i-a"):
        Tracker(answer).gateway.show_issue("i-a")


@pytest.mark.parametrize("answer", [{"id": "i-new"}, {"issue_id": "i-new"}, {"id": "i-new", "title": "x"}])
def test_both_names_of_a_new_issues_id(answer: object) -> None:
    """The real server says `id`, older hosts say `issue_id`."""
    assert "i-new" == Tracker(answer).gateway.create_fix_issue("[FIX] x", "body")


@pytest.mark.parametrize(
    "answer", [None, [], "i-new", {}, {"id": None}, {"id": 7}, {"id": ""}, {"issue": {"id": "i-new"}}]
)
def test_a_new_issue_without_an_id_is_invalid(answer: object) -> None:
    """Without an id the [FIX] issue cannot be linked, so its absence is an error; the answer is shown."""
    with pytest.raises(InvalidMCPResponseError, match="new issue's id"):
        Tracker(answer).gateway.create_fix_issue("[FIX] x", "body")


def test_a_huge_answer_is_not_quoted_whole() -> None:
    """An error is one line for a person."""
    with pytest.raises(InvalidMCPResponseError) as raised:
        Tracker("x" * 100_000).gateway.show_issue("i-a")

    assert len(str(raised.value)) < 300


class Lossy(MemoryTracker):
    """A tracker that does what it is asked and then, for the first `losses` writes, says that it failed."""

    def __init__(self, losses: int, *, applies: bool = True) -> None:
        super().__init__()
        self.losses = losses
        self.applies = applies
        self.wrote = 0

    def upsert_issue(self, **arguments: Any) -> Mapping[str, object]:
        """Create or update, perhaps without saying so."""
        return self._lossy(lambda: super(Lossy, self).upsert_issue(**arguments))

    def add_feedback(self, **arguments: Any) -> Mapping[str, object]:
        """Append, perhaps without saying so."""
        return self._lossy(lambda: super(Lossy, self).add_feedback(**arguments))

    def _lossy(self, write: Callable[[], Mapping[str, object]]) -> Mapping[str, object]:
        self.wrote += 1
        lost = self.wrote <= self.losses
        if lost and not self.applies:
            raise TransientMCPError("timed out before it began")
        answer = write()
        if lost:
            raise TransientMCPError("timed out after it was done")
        return answer


@pytest.mark.parametrize("losses", [0, 1, 2])
@pytest.mark.parametrize("applies", [True, False])
def test_feedback_is_given_once(losses: int, applies: bool) -> None:
    """A failed try that was applied is found; one that was not is made up for."""
    tracker = Lossy(losses, applies=applies)
    issue_id = tracker.file("x")
    gateway_to(tracker).add_feedback(issue_id, "{}")

    assert ["{}"] == list(feedback_of(tracker.show_issue(issue_id)))


@pytest.mark.parametrize("losses", [0, 1, 2])
@pytest.mark.parametrize("applies", [True, False])
@pytest.mark.parametrize("lists", [True, False], ids=["list_issues", "five callables"])
def test_a_fix_issue_is_made_once(losses: int, applies: bool, lists: bool) -> None:
    """The same for the [FIX] issue, also for a host that has the five callables only."""
    tracker = Lossy(losses, applies=applies)
    tracker.file("[FIX] x", content="of another session", issue_id="i-other")
    tracker.file("[FIX] y", content="body", issue_id="i-another")
    gateway = gateway_to(tracker)
    if lists:
        gateway = SudocodeGateway(
            mcp_ready=tracker.ready,
            mcp_show_issue=tracker.show_issue,
            mcp_upsert_issue=tracker.upsert_issue,
            mcp_add_feedback=tracker.add_feedback,
            mcp_link=tracker.link,
            mcp_list_issues=tracker.list_issues,
            sleep=lambda _seconds: None,
        )
    fix_id = gateway.create_fix_issue("[FIX] x", "body")

    assert {"i-other", "i-another", fix_id} == set(tracker.issues)
    assert ("[FIX] x", "body") == (tracker.issues[fix_id]["title"], tracker.issues[fix_id]["content"])


@pytest.mark.parametrize("name", ["feedback", "create"])
def test_what_cannot_have_been_applied_is_not_looked_for(name: str) -> None:
    """A refused connection changed nothing, so the retry costs one call and not three."""
    tracker = Tracker(not_applied(), {"id": "i-new"})
    CALLS[name](tracker.gateway)

    assert 2 == len({id(call) for call in tracker.calls}) == len(tracker.calls)
    assert 1 == len({tool for tool, _args, _kwargs in tracker.calls})


def test_with_a_look_what_is_there_already_is_left_alone() -> None:
    """Who took over from a dead process asks to look first: nothing is written twice."""
    tracker = MemoryTracker()
    issue_id = tracker.file("x")
    for _ in range(2):
        gateway_to(tracker).add_feedback(issue_id, "{}", look_first=True)
    first, second = (gateway_to(tracker).create_fix_issue("[FIX] x", "body", look_first=True) for _ in range(2))

    assert ["{}"] == list(feedback_of(tracker.show_issue(issue_id)))
    assert first == second
    assert 2 == len(tracker.issues)


def test_nothing_secret_is_written_and_what_is_there_is_found() -> None:
    """A retry looks for the text as it was written, without the secret."""
    tracker = MemoryTracker()
    issue_id, secret = tracker.file("x"), f"ghp_{'a1' * 18}"
    gateway = gateway_to(tracker, redact=redacted)
    for _ in range(2):
        gateway.add_feedback(issue_id, f'{{"why": "{secret}"}}', look_first=True)
    first, second = (gateway.create_fix_issue(f"[FIX] {secret}", f"it has {secret}", look_first=True) for _ in "12")

    assert ['{"why": "[redacted]"}'] == list(feedback_of(tracker.show_issue(issue_id)))
    assert first == second
    assert ("[FIX] [redacted]", "it has [redacted]") == tuple(
        tracker.show_issue(first)[name] for name in ("title", "content")
    )


def test_without_a_look_the_same_words_may_be_said_twice() -> None:
    """Looking costs a call; who knows that it is the first time does not pay it."""
    tracker = MemoryTracker()
    issue_id = tracker.file("x")
    for _ in range(2):
        gateway_to(tracker).add_feedback(issue_id, "{}")

    assert ["{}", "{}"] == list(feedback_of(tracker.show_issue(issue_id)))


def test_looking_that_fails_is_an_unavailable_tracker() -> None:
    """If even looking fails three times, nothing is written on a guess."""
    tracker = Tracker(TransientMCPError("timed out"))

    with pytest.raises(TrackerUnavailable, match="show_issue i-a"):
        tracker.gateway.add_feedback("i-a", "{}")
    assert ["add_feedback", "show_issue", "show_issue", "show_issue"] == [tool for tool, _, _ in tracker.calls]


@pytest.mark.parametrize("shown", [{}, {"feedback": None}, {"feedback": 7}, {"feedback": ["x", {"content": 7}, {}]}])
def test_feedback_of_an_issue_without_any(shown: Mapping[str, object]) -> None:
    """What is not feedback is passed over."""
    assert [] == list(feedback_of(shown))
