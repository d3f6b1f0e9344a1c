"""Sessions in a host's own process: the serial runner, the dispatcher, the dry run."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from orchestrator.errors import InvalidMCPResponseError, SessionStopped, TrackerUnavailable
from orchestrator.issue import feedback_of
from orchestrator.memory import MemoryTracker
from orchestrator.runner import IssueSessionRunner, WorkerPoolDispatcher, main, run_dry_run
from orchestrator.session_loop import SingleSessionOrchestrator
from tests.support import NOON, Roles, gateway_to, noon, wait_until

TEMPLATE = "{{task_id}}: {{title}}\n{{dod_checklist_full}}"
CLEAN = ["SESSION_START", "IMPLEMENT_DONE", "SPEC_REVIEW_PASS", "QUALITY_REVIEW_PASS", "SESSION_DONE"]


def runner_of(tracker: MemoryTracker, roles: Roles | None = None, *, template: str = TEMPLATE) -> IssueSessionRunner:
    """A runner as the runbook wires it, with well-behaved roles."""
    roles, gateway = roles or Roles(), gateway_to(tracker)
    return IssueSessionRunner(
        gateway=gateway,
        orchestrator=SingleSessionOrchestrator(gateway=gateway, now=noon),
        orchestrator_id="orch-test",
        prompt_template=template,
        implementer=roles.implementer,
        spec_reviewer=roles.spec_reviewer,
        quality_reviewer=roles.quality_reviewer,
    )


def timeline(tracker: MemoryTracker, issue_id: str) -> list[dict[str, Any]]:
    """The snapshots of an issue, oldest first."""
    return [json.loads(content) for content in feedback_of(tracker.show_issue(issue_id))][::-1]


def events(tracker: MemoryTracker, issue_id: str) -> list[str]:
    return [row["event_type"] for row in timeline(tracker, issue_id)]


# IssueSessionRunner


def test_a_clean_session_has_five_snapshots_and_three_statuses() -> None:
    """The claim sets in_progress, the session sets it again, and a clean end sets needs_review."""
    tracker = MemoryTracker()
    issue_id = tracker.file("Parse", content="- [ ] x")

    assert issue_id == runner_of(tracker).poll_ready_and_run_once()
    assert CLEAN == events(tracker, issue_id)
    assert [(issue_id, "in_progress"), (issue_id, "in_progress"), (issue_id, "needs_review")] == tracker.status_updates


def test_a_session_is_one_session_of_this_orchestrator() -> None:
    """All snapshots of a run carry one session id; the next run of the same issue has another."""
    tracker = MemoryTracker()
    issue_id = tracker.file("Parse", content="- [ ] x")
    runner_of(tracker).claim_and_run_issue(issue_id)
    runner_of(tracker).claim_and_run_issue(issue_id)
    ids = [row["session_id"] for row in timeline(tracker, issue_id)]

    assert 1 == len(set(ids[:5])) == len(set(ids[5:]))
    assert ids[0] != ids[5]
    assert {"orch-test"} == {row["orchestrator_id"] for row in timeline(tracker, issue_id)}


def test_nothing_ready_is_none() -> None:
    """A poll that finds nothing says so, and changes nothing."""
    tracker = MemoryTracker()

    assert runner_of(tracker).poll_ready_and_run_once() is None
    assert [] == tracker.status_updates


def test_the_first_in_order_is_run_and_only_that() -> None:
    """One poll, one issue: priority 0 before 2."""
    tracker = MemoryTracker()
    later, first = tracker.file("later", priority=2), tracker.file("first", priority=0)

    assert first == runner_of(tracker).poll_ready_and_run_once()
    assert "open" == tracker.issues[later]["status"]


def test_an_issue_waits_for_a_blocker_that_is_not_closed() -> None:
    """The tracker calls it ready once its blocker needs review; we wait until that is closed."""
    tracker = MemoryTracker()
    blocker, waiting, other = tracker.file("a"), tracker.file("b", priority=0), tracker.file("c", priority=4)
    tracker.link(from_id=blocker, to_id=waiting, type="blocks")
    tracker.issues[blocker]["status"] = "needs_review"
    ran = [runner_of(tracker).poll_ready_and_run_once(), runner_of(tracker).poll_ready_and_run_once()]
    tracker.issues[blocker]["status"] = "closed"

    assert [other, None] == ran
    assert waiting == runner_of(tracker).poll_ready_and_run_once()


def test_a_malformed_record_does_not_stop_the_poll() -> None:
    """The issue with priority 7 is skipped, and the next one runs."""
    tracker = MemoryTracker()
    bad, good = tracker.file("bad", priority=7), tracker.file("good")

    assert good == runner_of(tracker).poll_ready_and_run_once()
    assert "open" == tracker.issues[bad]["status"]


def test_the_roles_hear_the_rendered_prompt() -> None:
    """The prompt is the template filled from what the tracker shows, or with the task id that the host gives."""
    tracker = MemoryTracker()
    issue_id = tracker.file("Parse", content="Roadmap Task ID: DEV-1\n- [ ] x")
    heard: list[str] = []

    class Listening(Roles):
        def implementer(self, prompt: str, fix_list: Any) -> Any:
            heard.append(prompt)
            return super().implementer(prompt, fix_list)

    runner_of(tracker, Listening()).claim_and_run_issue(issue_id)
    runner_of(tracker, Listening()).claim_and_run_issue(issue_id, task_id="DEV-9")

    assert ["DEV-1: Parse\n- [ ] x", "DEV-9: Parse\n- [ ] x"] == heard
    assert ["DEV-1", "DEV-9"] == [timeline(tracker, issue_id)[n]["task_id"] for n in (0, 5)]


class Broken(Roles):
    """Roles of which one raises."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error

    def quality_reviewer(self, *_: object) -> Any:
        """Raises."""
        raise self.error


@pytest.mark.parametrize("error", [RuntimeError("no memory"), StopIteration(), SessionStopped("bye")], ids=repr)
def test_an_error_in_a_session_reopens_the_issue_and_is_raised_again(error: Exception) -> None:
    """A host sees the error itself; the tracker hears of it once, where the session stood; the issue is open again."""
    tracker = MemoryTracker()
    issue_id = tracker.file("Parse", content="- [ ] x")

    with pytest.raises(type(error)) as raised:
        runner_of(tracker, Broken(error)).poll_ready_and_run_once()
    assert error is raised.value
    assert [*CLEAN[:3], "SESSION_ERROR"] == events(tracker, issue_id)
    assert [str(error) or type(error).__name__] == timeline(tracker, issue_id)[-1]["failed_items"]
    assert "open" == tracker.issues[issue_id]["status"]


def test_a_template_that_does_not_render_reopens_the_issue() -> None:
    """What goes wrong between the claim and the session is told in the same way: SESSION_ERROR, open, raised again."""
    tracker = MemoryTracker()
    issue_id = tracker.file("Parse", content="- [ ] x")

    with pytest.raises(ValueError, match=r"\{\{colour\}\}"):
        runner_of(tracker, template="{{colour}}").poll_ready_and_run_once()
    (row,) = timeline(tracker, issue_id)
    assert ("SESSION_ERROR", "RUNNING", "FAIL", "orch-test") == (
        row["event_type"],
        row["stage"],
        row["status"],
        row["orchestrator_id"],
    )
    assert "{{colour}}" in row["failed_items"][0]
    assert [(issue_id, "in_progress"), (issue_id, "open")] == tracker.status_updates


class Showing(MemoryTracker):
    """A tracker whose answer to show_issue is changed on the way."""

    shown: dict[str, object]

    def show_issue(self, issue_id: str) -> dict[str, object]:
        """The issue, changed."""
        return {**super().show_issue(issue_id), **self.shown}


@pytest.mark.parametrize("shown", [{"id": "i-other"}, {"id": None}, {"id": 7}, {"issue_id": "i-other"}], ids=repr)
def test_the_issue_that_was_claimed_is_the_one_that_is_run(shown: dict[str, object]) -> None:
    """Whatever id the tracker shows, statuses and snapshots go to the issue that we hold."""
    tracker = Showing()
    tracker.shown = shown
    issue_id = tracker.file("Parse", content="- [ ] x")
    runner_of(tracker).claim_and_run_issue(issue_id)

    assert "needs_review" == tracker.issues[issue_id]["status"]
    assert {issue_id} == {row["issue_id"] for row in timeline(tracker, issue_id)}


def test_a_claim_that_fails_is_not_a_session() -> None:
    """If in_progress could not be set, there is nothing to reopen and nothing is told."""
    tracker = MemoryTracker()

    with pytest.raises(Exception, match="Issue not found"):
        runner_of(tracker).claim_and_run_issue("i-none")
    assert [] == tracker.status_updates


def test_an_id_of_another_form_is_reopened() -> None:
    """An id that could not be a branch is refused after the claim, so it is reopened as after any error."""
    tracker = MemoryTracker()
    tracker.file("x", issue_id="i-a/../b")

    with pytest.raises(InvalidMCPResponseError):
        runner_of(tracker).claim_and_run_issue("i-a/../b")
    assert "open" == tracker.issues["i-a/../b"]["status"]


class Deaf(MemoryTracker):
    """A tracker that cannot take needs_review."""

    def upsert_issue(self, **arguments: Any) -> Any:
        """Everything but needs_review."""
        if arguments.get("status") == "needs_review":
            raise TrackerUnavailable("away")
        return super().upsert_issue(**arguments)


def test_an_end_that_the_tracker_does_not_take_reopens_the_issue() -> None:
    """A clean session whose end cannot be told is an error that says how far it came."""
    tracker = Deaf()
    issue_id = tracker.file("Parse", content="- [ ] x")

    with pytest.raises(TrackerUnavailable):
        runner_of(tracker).poll_ready_and_run_once()
    assert [*CLEAN[:4], "SESSION_ERROR"] == events(tracker, issue_id)
    assert {"spec": 1, "quality": 1} == timeline(tracker, issue_id)[-1]["attempts"]
    assert "open" == tracker.issues[issue_id]["status"]


# WorkerPoolDispatcher


class Host:
    """A host of a dispatcher: its ready list, what it claimed and ran, and a gate that each session waits at."""

    def __init__(self, *issue_ids: str, max_workers: int = 4) -> None:
        self.ready = list(issue_ids)
        self.claimed: list[str] = []
        self.ran: list[str] = []
        self.failing: dict[str, BaseException] = {}
        self.unclaimable: set[str] = set()
        self.gate = threading.Event()
        self.running = 0
        self.most = 0
        self._lock = threading.Lock()
        self.dispatcher = WorkerPoolDispatcher(
            ready_gateway=self, claim_issue=self._claim, run_issue_session=self._run, max_workers=max_workers
        )

    def get_ready_issues(self) -> list[object]:
        """All of them, always, in the wrong order."""
        return [{"issue_id": issue_id, "priority": 2, "ready_at": NOON} for issue_id in reversed(self.ready)]

    def _claim(self, issue_id: str) -> None:
        if issue_id in self.unclaimable:
            raise TrackerUnavailable("away")
        self.claimed.append(issue_id)

    def _run(self, issue_id: str) -> None:
        with self._lock:
            self.running += 1
            self.most = max(self.most, self.running)
        assert self.gate.wait(10)
        with self._lock:
            self.running -= 1
            self.ran.append(issue_id)
        if issue_id in self.failing:
            raise self.failing[issue_id]


@pytest.fixture
def host() -> Iterator[Callable[..., Host]]:
    """Makes hosts, and lets their sessions end whatever the test did."""
    made: list[Host] = []

    def make(*issue_ids: str, max_workers: int = 4) -> Host:
        made.append(Host(*issue_ids, max_workers=max_workers))
        return made[-1]

    yield make
    for each in made:
        each.gate.set()
        each.failing.clear()
        each.dispatcher.shutdown()


def test_four_workers_by_default_and_never_more(host: Callable[..., Host]) -> None:
    """As many issues are claimed as there are free workers, in claiming order; the rest waits unclaimed."""
    six = host("i-1", "i-2", "i-3", "i-4", "i-5", "i-6")

    assert ["i-1", "i-2", "i-3", "i-4"] == six.dispatcher.poll_and_dispatch_once() == six.claimed
    wait_until(lambda: six.running == 4, "four sessions run")
    assert [] == six.dispatcher.poll_and_dispatch_once()
    six.gate.set()
    six.dispatcher.wait_for_idle()
    six.ready = ["i-5", "i-6"]
    assert ["i-5", "i-6"] == six.dispatcher.poll_and_dispatch_once()
    six.dispatcher.wait_for_idle()
    assert 4 == six.most


def test_an_issue_never_runs_twice_at_once(host: Callable[..., Host]) -> None:
    """The tracker may list an issue twice, or still list one that runs: it is claimed once until its session ended."""
    one = host("i-1", "i-1", max_workers=3)
    polls = [one.dispatcher.poll_and_dispatch_once() for _ in range(3)]
    one.gate.set()
    one.dispatcher.wait_for_idle()

    assert [["i-1"], [], []] == polls
    assert ["i-1"] == one.dispatcher.poll_and_dispatch_once()
    one.dispatcher.wait_for_idle()
    assert ["i-1", "i-1"] == one.claimed == one.ran


def test_capacity_is_free_again_when_a_session_ends(host: Callable[..., Host]) -> None:
    """One worker runs one issue after another."""
    two = host("i-1", "i-2", max_workers=1)
    assert ["i-1"] == two.dispatcher.poll_and_dispatch_once()
    two.gate.set()
    wait_until(lambda: two.ran == ["i-1"], "the first session ended")
    two.dispatcher.wait_for_idle()
    two.ready = ["i-2"]

    assert ["i-2"] == two.dispatcher.poll_and_dispatch_once()


@pytest.mark.parametrize("surfacing", ["poll_and_dispatch_once", "wait_for_idle", "shutdown"])
def test_a_failed_session_surfaces_once(host: Callable[..., Host], surfacing: str) -> None:
    """The next call raises the session's own error, and the one after that goes on as if it had been dealt with."""
    one = host("i-1")
    one.failing["i-1"] = RuntimeError("the session failed")
    one.gate.set()
    one.dispatcher.poll_and_dispatch_once()
    one.ready = []
    surfaced: list[Exception] = []

    def call() -> bool:
        try:
            getattr(one.dispatcher, surfacing)()
        except RuntimeError as error:
            surfaced.append(error)
        return bool(surfaced)

    wait_until(call, "the failure surfaces")
    one.dispatcher.wait_for_idle()

    assert [one.failing["i-1"]] == surfaced


@pytest.mark.parametrize(
    "errors",
    [(ValueError("a"), KeyError("b")), (SystemExit(1), ValueError("b")), (SystemExit(1), KeyboardInterrupt())],
    ids=repr,
)
def test_sessions_that_fail_together_surface_together(
    host: Callable[..., Host], errors: tuple[BaseException, ...]
) -> None:
    """No failure is lost because another one came first."""
    two = host("i-1", "i-2")
    two.failing = dict(zip(["i-1", "i-2"], errors, strict=True))
    two.dispatcher.poll_and_dispatch_once()
    two.gate.set()

    with pytest.raises(BaseExceptionGroup) as raised:
        two.dispatcher.shutdown()
    assert set(errors) == set(raised.value.exceptions)


def test_a_claim_that_fails_starts_nothing_and_keeps_what_was_started(host: Callable[..., Host]) -> None:
    """The host hears of the failed claim; sessions that were started before it go on and can be waited for."""
    two = host("i-1", "i-2")
    two.unclaimable = {"i-2"}
    with pytest.raises(TrackerUnavailable):
        two.dispatcher.poll_and_dispatch_once()
    two.gate.set()
    two.dispatcher.wait_for_idle()

    assert ["i-1"] == two.ran


def test_malformed_records_are_skipped_by_the_dispatcher_too(host: Callable[..., Host]) -> None:
    """A record without a usable id takes no worker."""
    some = host("nonsense", "i-1", max_workers=1)

    assert ["i-1"] == some.dispatcher.poll_and_dispatch_once()


@pytest.mark.parametrize("method", ["poll_and_dispatch_once", "wait_for_idle", "shutdown"])
def test_another_thread_is_refused(host: Callable[..., Host], method: str) -> None:
    """A dispatcher has no locks: a second thread is told so instead of racing."""
    one = host("i-1")
    with ThreadPoolExecutor(1) as other:
        refused = other.submit(getattr(one.dispatcher, method)).exception()

    assert isinstance(refused, RuntimeError)
    assert [] == one.claimed


@pytest.mark.parametrize("max_workers", [0, -1])
def test_at_least_one_worker(max_workers: int) -> None:
    """A dispatcher that could never run anything is refused when it is made."""
    with pytest.raises(ValueError, match="max_workers"):
        Host(max_workers=max_workers)


def test_after_shutdown_nothing_is_claimed(host: Callable[..., Host]) -> None:
    """Shutdown waits for what runs; a poll after it claims nothing that it could not run."""
    one = host("i-1", "i-2", max_workers=1)
    one.dispatcher.poll_and_dispatch_once()
    one.gate.set()
    one.dispatcher.shutdown()

    assert ["i-1"] == one.ran
    assert [] == one.dispatcher.poll_and_dispatch_once()
    assert ["i-1"] == one.claimed
    one.dispatcher.shutdown()


# The dry run


DRY_RUN = {
    "last_event_type": "SESSION_DONE",
    "processed_issue": "i-dry1",
    "snapshot_count": 5,
    "status_updates": [["i-dry1", "in_progress"], ["i-dry1", "in_progress"], ["i-dry1", "needs_review"]],
}


def test_a_dry_run_is_one_clean_session() -> None:
    """The result is the runbook's, to the letter."""
    assert DRY_RUN == run_dry_run()


def test_the_dry_run_command_prints_sorted_json(capsys: pytest.CaptureFixture[str]) -> None:
    """Standard output is the JSON and nothing else, keys sorted."""
    main(["--dry-run"])
    printed = capsys.readouterr().out

    assert DRY_RUN == json.loads(printed)
    assert list(DRY_RUN) == sorted(DRY_RUN) == list(json.loads(printed))


@pytest.mark.parametrize("argv", [[], ["--run"], ["--dry-run", "i-a"]])
def test_without_the_flag_it_is_misused(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Anything but the flag is a usage error: exit 2, the usage on standard error, nothing on standard output."""
    with pytest.raises(SystemExit) as ended:
        main(argv)

    printed = capsys.readouterr()
    assert (2, "") == (ended.value.code, printed.out)
    assert printed.err.startswith("usage: ")
