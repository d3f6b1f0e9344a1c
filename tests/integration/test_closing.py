"""One look for merges, over a real Redis and real repos, with the tracker in memory."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import pytest

from orchestrator.adapters.git.remote import GitDelivery
from orchestrator.adapters.redis.merges import RedisMerges
from orchestrator.errors import (
    GitHubUnavailable,
    NothingToMerge,
    SettingsError,
    TrackerRefused,
    TrackerUnavailable,
    WorkspaceError,
)
from orchestrator.issue import feedback_of
from orchestrator.merge_close.events import NEVER, Delivered, LastLook, MergeClosePayload, PullText
from orchestrator.merge_close.look import STALE_AFTER, Delivery, Health, MergeLook, health
from orchestrator.merge_close.poll import MergePoll, Settled
from orchestrator.models import Claim, Progress, Stage, Verdict, utc_now
from orchestrator.publish.entries import verdict_entries
from tests.engine import Engine, a_record, a_report, about, told_of
from tests.git_project import Host, Project, with_bare
from tests.merges import payload
from tests.support import NOON, gateway_to

ISSUE = "i-a1b2"
COMMIT = "c0ffee"


class Repo:
    """What the repo and the forge would say, and what was asked of them."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.merges = RedisMerges(engine.client, engine.keys)
        self.merged: list[MergeClosePayload] = []
        self.away: Exception | None = None
        self.has_all: set[str] = set()
        self.pushed: list[tuple[str, str]] = []
        self.pulls: list[PullText] = []
        self.closed: list[str] = []

    def local(self, delivered: Iterable[Delivered]) -> list[MergeClosePayload]:
        finished = {work.issue_id for work in delivered}
        return [merge for merge in self.merged if merge.issue_id in finished]

    def push(self, issue_id: str, commit: str) -> None:
        if self.away:
            raise self.away
        self.pushed.append((issue_id, commit))

    def open_pull(self, _branch: str, text: PullText) -> str:
        self.pulls.append(text)
        return f"https://github.com/acme/shop/pull/{len(self.pulls)}"

    @property
    def look(self) -> MergeLook:
        return MergeLook(
            publish=self.engine.publish,
            tracker=self.engine.gateway,
            finished=self.merges,
            local=self.local,
            poll=None,
            deliver=Delivery(self.push, self.open_pull),
            adds=lambda commit: commit not in self.has_all,
            closed=self.closed.extend,
        )


@pytest.fixture
def repo(engine: Engine) -> Repo:
    return Repo(engine)


def done(engine: Engine, issue_id: str = ISSUE, *, already_done: bool = False) -> None:
    """A session that ended DONE, of which the tracker has not been told yet."""
    if issue_id not in engine.tracker.issues:
        engine.tracker.file("Parse empty input", issue_id=issue_id)
    lease = engine.running(issue_id)
    history = engine.history(lease)
    report = a_report(commit=COMMIT, already_done=already_done, notes="in greet.py")
    history.record(report, told_of(lease, report))
    progress = Progress().after(report)
    entries = verdict_entries(about(lease), progress, Verdict.DONE, at=NOON)
    history.close(Verdict.DONE, entries, reason=progress.why(Verdict.DONE))


def markers(engine: Engine, issue_id: str = ISSUE) -> list[str]:
    """What the issue's feedback says of merges, oldest first."""
    told = reversed(list(feedback_of(engine.tracker.show_issue(issue_id))))
    return [entry["marker"] for entry in map(json.loads, told) if "marker" in entry]


def test_a_merge_closes_its_issue_once(engine: Engine, repo: Repo) -> None:
    """The tracker is told first that the work waits for a merge; then the issue is closed, and nothing looks again."""
    done(engine)
    repo.merged = [payload()]

    assert [ISSUE] == repo.look()
    assert [] == repo.look()
    assert ["needs_review", "closed"] == [status for _, status in engine.tracker.status_updates][-2:]
    assert ["MERGE_EVIDENCE_RECORDED", "MERGE_CLOSE_APPLIED"] == markers(engine)
    assert [ISSUE] == repo.closed
    assert [] == list(repo.merges.finished())


def test_nothing_is_closed_that_was_not_merged(engine: Engine, repo: Repo) -> None:
    """Finished work waits."""
    done(engine)

    assert [] == repo.look()
    assert "needs_review" == engine.status(ISSUE)
    assert [(ISSUE, COMMIT)] == [(work.issue_id, work.commit) for work in repo.merges.finished()]


def test_what_a_session_delivers_is_told_with_where_and_when_it_began(engine: Engine, repo: Repo) -> None:
    """Its base is that of its first step: one that is handed on prepares anew, and may find its own work merged."""
    engine.tracker.file("Parse empty input", issue_id=ISSUE)
    lease = engine.running(ISSUE)
    history = engine.history(lease)
    for report in (a_report(base="ba5e"), a_report(Stage.SPEC_REVIEW, commit=COMMIT, base=COMMIT)):
        history.record(report, [])
    history.close(Verdict.DONE, [])
    holding = engine.leases.holding(ISSUE)
    assert holding is not None
    began = datetime.fromtimestamp(holding.started_at_ms / 1000, UTC)

    assert Delivered(ISSUE, COMMIT, "ba5e", began) == repo.merges.last(ISSUE)
    assert [repo.merges.last(ISSUE)] == list(repo.merges.finished())
    assert repo.merges.last("i-unknown") is None


def test_work_is_delivered_once(engine: Engine, repo: Repo) -> None:
    """Its branch is pushed and its pull request opened, whose address is kept."""
    done(engine)
    repo.look()
    repo.look()

    assert [(ISSUE, COMMIT)] == repo.pushed
    assert f"Sudocode-Issue: {ISSUE}" in repo.pulls[0].body
    assert "https://github.com/acme/shop/pull/1" == engine.leases.holdings()[0].delivered_to


@pytest.mark.parametrize("away", [WorkspaceError("it is away"), SettingsError("set ORCH_GITHUB_TOKEN")])
def test_what_cannot_be_delivered_is_tried_again(engine: Engine, repo: Repo, away: Exception) -> None:
    """It is not asked for again before its time; why it failed can be seen until it has succeeded."""
    done(engine)
    repo.away = away
    repo.look()
    repo.away = None
    repo.look()

    assert [] == repo.pushed
    assert str(away) == engine.leases.holdings()[0].undelivered
    engine.client.zadd(engine.keys("deliveries"), {ISSUE: 1})
    repo.look()

    assert [(ISSUE, COMMIT)] == repo.pushed
    assert "" == engine.leases.holdings()[0].undelivered


def test_what_is_nothing_to_merge_is_neither_delivered_nor_looked_for(engine: Engine, repo: Repo) -> None:
    """The issue waits in review for a person, and the tracker is told how it is closed."""
    done(engine, already_done=True)
    repo.merged = [payload()]
    repo.look()

    assert ([], [], [], []) == (repo.pushed, repo.pulls, list(repo.merges.finished()), repo.merges.due())
    assert "needs_review" == engine.status(ISSUE)
    told = json.loads(engine.tracker.issues[ISSUE]["feedback"][0]["content"])
    assert ("SESSION_DONE", []) == (told["event_type"], told["failed_items"])
    assert [
        "nothing to merge: the implementer says that the work is there already: in greet.py",
        f"close it with `orch issue close {ISSUE}`",
    ] == told["fix_list"]


@pytest.mark.parametrize("who", ["the repo", "the forge"])
def test_work_that_the_base_has_already_is_tried_once(engine: Engine, repo: Repo, who: str) -> None:
    """It is not asked for again; the reason is kept, and a merge that is seen after all still closes the issue."""
    done(engine)
    if who == "the repo":
        repo.has_all = {COMMIT}
    else:
        repo.away = NothingToMerge("No commits between main and orch/i-a1b2")
    repo.look()
    repo.look()

    assert ([], []) == (repo.pulls, repo.merges.due())
    assert "nothing to merge: " == engine.held(ISSUE).reason[:18]
    assert Health.HEALTHY == health(repo.merges.last_look(), now=utc_now())[0]
    repo.merged = [payload()]

    assert [ISSUE] == repo.look()


def test_a_new_session_delivers_its_own_work_only(engine: Engine, repo: Repo) -> None:
    """When the issue is claimed anew, what its last session had to hand over is forgotten."""
    done(engine)
    engine.publish()
    engine.running(ISSUE)
    repo.merged = [payload()]

    assert [] == repo.look()
    assert [] == repo.pushed
    assert [] == list(repo.merges.finished())


def test_what_becomes_of_an_old_delivery_does_not_touch_the_new_session(engine: Engine, repo: Repo) -> None:
    """A push that ended only after the issue was claimed anew, and done again, leaves the new work to be delivered."""
    done(engine)
    engine.publish()
    claim = engine.leases.claim(ISSUE, forced=True)
    assert isinstance(claim, Claim)
    engine.leases.open(claim, a_record(ISSUE, "2"), [])
    engine.history(engine.acquired()).close(Verdict.DONE, [])
    due_at = repo.merges.due_at_ms(ISSUE)
    repo.merges.delivered(ISSUE, a_record(ISSUE).session_id, "an old branch")
    repo.merges.postponed(ISSUE, a_record(ISSUE).session_id, "an old problem", wait_s=3600)
    repo.merges.nothing(ISSUE, a_record(ISSUE).session_id, "nothing to merge: it was old")
    holding = engine.leases.holding(ISSUE)

    assert holding is not None
    assert ("", "", "", due_at) == (
        holding.delivered_to,
        holding.undelivered,
        holding.reason,
        repo.merges.due_at_ms(ISSUE),
    )
    assert [ISSUE] == repo.merges.due()


def test_one_source_that_fails_does_not_stop_the_others(engine: Engine, repo: Repo) -> None:
    """Merges in the repo close while GitHub is away; that it is can be seen, until all is well again."""
    done(engine)
    repo.merged = [payload()]

    class Away(MergePoll):
        def __call__(self) -> list[Settled]:
            raise GitHubUnavailable("GitHub is away")

    away = replace(repo.look, poll=Away(*[cast(Any, None)] * 6))
    now = utc_now()

    assert [ISSUE] == away()
    assert (Health.DEGRADED, "GitHub is away") == (
        health(repo.merges.last_look(), now=now)[0],
        repo.merges.last_look().problem,
    )
    repo.look()

    assert Health.HEALTHY == health(repo.merges.last_look(), now=now)[0]


def test_what_the_tracker_refuses_stops_nothing_else(engine: Engine, repo: Repo) -> None:
    """One issue that cannot be closed does not keep the next one open."""
    done(engine)
    done(engine, "i-c3d4")
    engine.publish()
    repo.merged = [payload(), payload("i-c3d4")]
    close = engine.tracker.upsert_issue

    def refuses(**change: Any) -> Mapping[str, object]:
        if change == {"issue_id": ISSUE, "status": "closed"}:
            raise TrackerRefused("not this one")
        return close(**change)

    engine.tracker.upsert_issue = refuses  # type: ignore[method-assign] # the moment is what is tested

    assert ["i-c3d4"] == replace(repo.look, tracker=gateway_to(engine.tracker))()
    assert "needs_review" == engine.status(ISSUE)


def test_a_tracker_that_is_away(engine: Engine, repo: Repo) -> None:
    """Nothing can be closed then: the look says so and fails, and the next one closes."""
    done(engine)
    repo.merged = [payload()]

    def away() -> object:
        raise TrackerUnavailable("the tracker is away")

    with pytest.raises(TrackerUnavailable):
        replace(repo.look, publish=away)()

    assert "the tracker is away" == repo.merges.last_look().problem
    assert [ISSUE] == repo.look()


@pytest.mark.parametrize(
    ("look", "state"),
    [
        (NEVER, Health.STALE),
        (LastLook(NOON - STALE_AFTER * 2, NOON - STALE_AFTER * 2), Health.STALE),
        (LastLook(NOON, NOON - timedelta(hours=1), 3, "GitHub is away"), Health.DEGRADED),
        (LastLook(NOON, NOON), Health.HEALTHY),
    ],
    ids=["nobody ever looked", "nobody looks any more", "the last looks failed", "all is well"],
)
def test_health(look: LastLook, state: Health) -> None:
    """Its value is the exit code that operators know."""
    assert state == health(look, now=NOON)[0]


# --- pushing ---


@pytest.fixture
def hosts(tmp_path: Path) -> tuple[Project, Host]:
    project = with_bare(tmp_path)
    return project, Host(project, "here")


def delivery(host: Host) -> GitDelivery:
    found = host.workspace.delivery()
    assert found is not None
    return found


def on_remote(project: Project) -> str:
    return project.git("-C", str(project.repo.parent / "bare.git"), "rev-parse", "refs/heads/orch/i-abc")


def test_a_branch_is_pushed(hosts: tuple[Project, Host]) -> None:
    """Also again, and also when the next session's commit takes the place of the last one's."""
    project, host = hosts
    first = session_commit(project, host, "1")
    delivery(host).push("i-abc", first)
    delivery(host).push("i-abc", first)

    assert first == on_remote(project)
    second = session_commit(project, host, "2")
    delivery(host).push("i-abc", second)

    assert second == on_remote(project)


def test_what_somebody_else_pushed_is_left_alone(hosts: tuple[Project, Host]) -> None:
    """A reviewer's commit on the branch is not overwritten."""
    project, host = hosts
    ours = session_commit(project, host, "1")
    delivery(host).push("i-abc", ours)
    project.git("checkout", "--quiet", "--detach", ours, cwd=host.repo)
    theirs = project.commit("review.txt", cwd=host.repo)
    project.git("push", "--quiet", "origin", f"{theirs}:refs/heads/orch/i-abc", cwd=host.repo)

    with pytest.raises(WorkspaceError, match="somebody else has pushed"):
        delivery(host).push("i-abc", session_commit(project, host, "2"))

    assert theirs == on_remote(project)


def session_commit(project: Project, host: Host, n: str) -> str:
    """A commit as a session makes it."""
    project.git("checkout", "--quiet", "--detach", "origin/main", cwd=host.repo)
    (host.repo / "work.txt").write_text(n)
    project.git("add", "work.txt", cwd=host.repo)
    project.git("commit", "--quiet", "-m", f"Work\n\nSudocode-Issue: i-abc\nOrch-Token: {n}", cwd=host.repo)
    return project.git("rev-parse", "HEAD", cwd=host.repo)
