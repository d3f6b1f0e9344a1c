"""`orch status` and `orch history`, as an operator types them: with the stack up, without it, without a tracker."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from orchestrator.adapters.git import create_project
from orchestrator.adapters.redis import server as redis_server
from orchestrator.adapters.redis.history import RedisHistory
from orchestrator.issue import context, read
from orchestrator.models import (
    DEFAULT_LIMITS,
    Claim,
    Progress,
    Report,
    SessionRecord,
    Stage,
    Step,
    Verdict,
    VerificationEvidence,
)
from orchestrator.publish.entries import About, opening_entries
from orchestrator.session_loop import perform
from orchestrator.settings import load
from orchestrator.status import collect
from orchestrator.tracker import init
from orchestrator.wiring.project import Wiring
from tests.orch import orch_here
from tests.support import NOON, ROOT, noon

Project = Callable[..., Wiring]


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    """Makes a repo with the bundled tracker and, in orch.toml, what is given."""
    made: list[Wiring] = []

    def make(orch_toml: str = 'tracker = "bundled"\n') -> Wiring:
        init(tmp_path / "repo")
        create_project(tmp_path / "repo", {"orch.toml": orch_toml})
        made.append(Wiring(load(tmp_path / "repo", {"ORCH_STATE_DIR": str(tmp_path / "state")})))
        return made[0]

    yield make
    for wiring in made:
        wiring.tracker.close()


@contextmanager
def redis_up(wiring: Wiring) -> Iterator[None]:
    """The private Redis, with a worker of two slots announced."""
    server = redis_server.ensure(wiring.settings.state_dir)
    try:
        wiring.leases.announce("sessions@here", 2, for_s=60)
        yield
    finally:
        wiring.client.close()
        server.stop()


@pytest.fixture
def up(project: Project) -> Iterator[Wiring]:
    """Such a repo while its stack is up."""
    wiring = project()
    with redis_up(wiring):
        yield wiring


def environment(wiring: Wiring) -> Mapping[str, str]:
    settings = wiring.settings
    own = {"ORCH_PROJECT_ROOT": str(settings.root), "ORCH_STATE_DIR": str(settings.state_dir)}
    return os.environ | own | {"PYTHONPATH": str(ROOT), "NO_COLOR": "1", "COLUMNS": "200"}


def orch(wiring: Wiring, *arguments: str) -> subprocess.CompletedProcess[str]:
    return orch_here(*arguments, cwd=Path.cwd(), env=environment(wiring))


def said(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    """The one JSON object."""
    assert (0, "") == (done.returncode, done.stderr)
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def file_issue(wiring: Wiring, title: str) -> str:
    issue_id: str = wiring.tracker.upsert_issue(title=title, description="- [ ] it is done")["id"]
    return issue_id


def claimed(wiring: Wiring, issue_id: str) -> About:
    """A session of the issue, opened as a poll opens it."""
    issue = context(read(wiring.tracker.show_issue(issue_id)))
    claim = wiring.leases.claim(issue_id, forced=True)
    assert isinstance(claim, Claim)
    about = About(issue, f"session-{claim.token}", "orch-main")
    record = SessionRecord(about.session_id, "orch-main", issue, spec_limit=3, quality_limit=2)
    wiring.leases.open(claim, record, opening_entries(about, at=NOON))
    return about


def run_session(wiring: Wiring, issue_id: str, *, verification_exits: int) -> None:
    """A session of the issue with clean reviews, told to the tracker."""
    about = claimed(wiring, issue_id)
    lease = wiring.leases.acquire(issue_id, "sessions@here/1")
    assert lease

    def do(step: Step, progress: Progress) -> Report:
        if step.stage is not Stage.VERIFICATION:
            return Report(step.stage, step.attempt, NOON, commit="c0ffee")
        evidence = VerificationEvidence("make test", "2 failed", verification_exits, NOON, "c0ffee")
        passed = verification_exits == 0
        notes = "" if passed else "`make test` exited with 1: 2 failed"
        return Report(step.stage, step.attempt, NOON, passed, notes=notes, evidence=evidence)

    history = RedisHistory(wiring.client, wiring.keys, lease, error_limit=3, wake=lambda: None)
    perform(about, do, history, limits=DEFAULT_LIMITS, now=noon)
    wiring.publish()


def test_an_issue_claimed_while_status_looks_is_not_called_lost(up: Wiring) -> None:
    """Redis was asked before the claim, and the tracker after it."""
    issue_id = file_issue(up, "Parse empty input")
    list_issues = up.tracker.list_issues

    def claimed_meanwhile() -> object:
        claimed(up, issue_id)
        up.tracker.upsert_issue(issue_id=issue_id, status="in_progress")
        return list_issues()

    up.tracker.list_issues = claimed_meanwhile  # type: ignore[assignment, method-assign] # the moment is what is tested
    (issue,) = collect(up.sources()).issues

    assert ("in_progress", "claimed", "") == (issue.status, issue.state, issue.reason)


def test_status_while_the_stack_is_down(project: Project) -> None:
    """The tracker's issues are shown, and a line says what is missing and what to type."""
    wiring = project()
    issue_id = file_issue(wiring, "Parse empty input")
    found = said(orch(wiring, "status", "--json"))

    assert [(issue_id, "Parse empty input", "open")] == [(i["id"], i["title"], i["status"]) for i in found["issues"]]
    (problem,) = found["problems"]
    assert problem.startswith("orch is not running here: start it with `orch up`")
    assert "`orch history ISSUE`" in problem
    assert (False, 0, 0) == (found["complete"], found["slots_used"], found["slots_total"])
    assert redis_server.find(wiring.settings.state_dir) is None


def test_status_with_sessions(up: Wiring) -> None:
    """Slots, the step under way, a verdict with its reason, a blocker; what is closed is not listed."""
    running, failed, waiting, closed = (file_issue(up, title) for title in ("Run", "Fail", "Wait", "Closed"))
    up.tracker.link(from_id=failed, to_id=waiting, type="blocks")
    up.tracker.upsert_issue(issue_id=closed, status="closed")
    run_session(up, failed, verification_exits=1)
    claimed(up, running)
    assert up.leases.acquire(running, "sessions@here/2")
    found = said(orch(up, "status", "--json"))
    issues = {issue["id"]: issue for issue in found["issues"]}

    assert (1, 2, [], True) == (found["slots_used"], found["slots_total"], found["problems"], found["complete"])
    assert {running, failed, waiting} == issues.keys()
    assert ("running", Stage.RUNNING, None) == tuple(issues[running][key] for key in ("state", "stage", "verdict"))
    assert (Verdict.VERIFY_FAILED, "its verification failed: `make test` exited with 1: 2 failed") == (
        issues[failed]["verdict"],
        issues[failed]["reason"],
    )
    assert ([failed], f"its blocker {failed} is in in_progress") == (
        issues[waiting]["blockers"],
        issues[waiting]["reason"],
    )


def test_status_for_people(up: Wiring) -> None:
    """The same as a table, a row per issue; what an agent or a title says cannot steer the terminal."""
    issue_id = file_issue(up, "Parse \x1b[31mempty\x1b[0m input")
    run_session(up, issue_id, verification_exits=1)
    done = orch(up, "status")

    assert 0 == done.returncode
    assert "sessions 0 of 2" in done.stdout
    (row,) = (line for line in done.stdout.splitlines() if line.startswith(issue_id))
    assert "●●●✗" in row
    assert "`make test` exited with 1: 2 failed" in row
    assert "\x1b" not in done.stdout


def test_status_while_the_tracker_is_down(project: Project) -> None:
    """The sessions are shown all the same, with the titles they started with, and a line says why no more."""
    wiring = project()
    issue_id = file_issue(wiring, "Parse empty input")
    with redis_up(wiring):
        run_session(wiring, issue_id, verification_exits=0)
        (wiring.settings.root / "orch.toml").write_text('[tracker]\ncommand = ["false"]\n')
        found = said(orch(wiring, "status", "--json"))

    assert [(issue_id, "Parse empty input", None, "DONE")] == [
        (issue["id"], issue["title"], issue["status"], issue["verdict"]) for issue in found["issues"]
    ]
    assert "the tracker does not answer" in found["problems"][0]


def test_watch_looks_again_and_ends_with_ctrl_c(up: Wiring) -> None:
    """Exit code 0 and not a word on standard error."""
    watcher = Redis.from_url(up.redis_url, decode_responses=True, socket_timeout=60)
    with watcher.monitor() as monitor:  # type: ignore[no-untyped-call] # redis-py has no types there
        watching = subprocess.Popen(
            [sys.executable, "-m", "orchestrator.cli", "status", "--watch"],
            env=environment(up),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            # Where these tests run in a shell's background, Ctrl-C is ignored, and children inherit that.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )
        try:
            looks = (command for command in monitor.listen() if command["command"].startswith("XLEN"))
            list(islice(looks, 2))
            watching.send_signal(signal.SIGINT)
            _, errors = watching.communicate(timeout=30)
        finally:
            watching.kill()

    assert (0, "") == (watching.returncode, errors)


def test_watch_and_json_do_not_go_together(project: Project) -> None:
    """That is misuse: exit code 2, nothing on standard output."""
    done = orch(project(), "status", "--watch", "--json")

    assert (2, "") == (done.returncode, done.stdout)


def test_history_has_every_step_of_every_session(up: Wiring) -> None:
    """Two sessions, numbered, each with its events in order and the evidence; one can be picked."""
    issue_id = file_issue(up, "Parse empty input")
    run_session(up, issue_id, verification_exits=1)
    up.tracker.upsert_issue(issue_id=issue_id, status="open")
    run_session(up, issue_id, verification_exits=0)
    found = said(orch(up, "history", issue_id, "--json"))
    second = said(orch(up, "history", issue_id, "--session", "2", "--json"))

    assert ("redis", f"orch/{issue_id}") == (found["source"], found["branch"])
    assert [(1, "VERIFY_FAILED"), (2, "SESSION_DONE")] == [
        (session["number"], session["events"][-1]["event_type"]) for session in found["sessions"]
    ]
    assert 1 == found["sessions"][0]["events"][-1]["verify"]["exit_code"]
    assert found["sessions"][1:] == second["sessions"]


def test_history_for_people(up: Wiring) -> None:
    """A line per event with what failed, the evidence, and where the logs are."""
    issue_id = file_issue(up, "Parse empty input")
    run_session(up, issue_id, verification_exits=1)
    done = orch(up, "history", issue_id)

    assert (0, "") == (done.returncode, done.stderr)
    for text in ("SESSION_START", "QUALITY_REVIEW_PASS", "- `make test` exited with 1: 2 failed", "orch: `make test`"):
        assert text in done.stdout
    assert str(up.settings.logs / issue_id) in done.stdout


def test_history_without_redis_is_read_from_the_tracker(project: Project) -> None:
    """With the same events, and a word that these may be an agent's."""
    wiring = project()
    issue_id = file_issue(wiring, "Parse empty input")
    with redis_up(wiring):
        run_session(wiring, issue_id, verification_exits=0)
        recorded = said(orch(wiring, "history", issue_id, "--json"))
    published = said(orch(wiring, "history", issue_id, "--json"))

    assert ("redis", "tracker") == (recorded["source"], published["source"])
    assert recorded["sessions"] == published["sessions"]
    assert "which agents may write too" in orch(wiring, "history", issue_id).stdout


def test_a_report_without_redis_is_read_from_the_tracker(project: Project) -> None:
    """With the same sessions, and a word that says so."""
    wiring = project()
    issue_id = file_issue(wiring, "Parse empty input")
    with redis_up(wiring):
        run_session(wiring, issue_id, verification_exits=1)
    found = said(orch(wiring, "report", "--since", NOON.isoformat(), "--json"))

    assert [(issue_id, Verdict.VERIFY_FAILED)] == [
        (issue["id"], issue["sessions"][-1]["verdict"]) for issue in found["issues"]
    ]
    assert ["orch is not running here: sessions are as the tracker was told of them"] == found["gaps"]


def test_history_of_an_issue_without_sessions(project: Project) -> None:
    """One clear line."""
    wiring = project()
    issue_id = file_issue(wiring, "Parse empty input")
    done = orch(wiring, "history", issue_id)

    assert (0, f"{issue_id}: no session is known; `orch status` says what it waits for\n") == (
        done.returncode,
        done.stdout,
    )


def test_history_of_no_issue(project: Project) -> None:
    """An id that the tracker does not know fails with one line; what is no id at all is misuse."""
    wiring = project()
    unknown, misused = orch(wiring, "history", "i-zzzz"), orch(wiring, "history", "--", "-rf")

    assert (1, "") == (unknown.returncode, unknown.stdout)
    assert "i-zzzz" in unknown.stderr
    assert 1 == len(unknown.stderr.splitlines())
    assert 2 == misused.returncode
