"""`orch explain`: every state that an issue can be in, provoked for real, and what is said of it."""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from orchestrator.adapters.git import create_project
from orchestrator.adapters.redis import server as redis_server
from orchestrator.adapters.redis.history import RedisHistory
from orchestrator.adapters.redis.merges import RedisMerges
from orchestrator.errors import AgentFailed
from orchestrator.merge_close.events import MergeClosePayload
from orchestrator.merge_close.rules import apply_merge_close
from orchestrator.models import BaseVerified, Lease, Progress, Report, Stage, Step, VerificationEvidence
from orchestrator.session.keeper import LeaseKeeper
from orchestrator.session.run import Sessions
from orchestrator.session_loop import Doer
from orchestrator.settings import load
from orchestrator.status import Explanation, collect, explained
from orchestrator.status.explanation import State
from orchestrator.tracker import init
from orchestrator.wiring.project import Wiring
from tests.orch import orch_here

LEASE_S = 600.0
PULL = "https://github.com/me/my-repo/pull/7"
OUTPUT = "collected 3 items\nFAILED test_greet.py::test_french - assert 'Hello' == 'Bonjour'\n"

Provoke = Callable[["World"], str]


class World:
    """A repo with the bundled tracker and a private Redis that is up. Sessions are played in this process."""

    def __init__(self, folder: Path) -> None:
        self.repo, self.state = folder / "repo", folder / "state"
        init(self.repo)
        create_project(self.repo, {"orch.toml": f'tracker = "bundled"\nlease_seconds = {LEASE_S}\n'})
        self.server: redis_server.RedisServer | None = None
        self.redis_up()
        self.wiring = self.wired()
        self.filed: list[str] = []

    def wired(self, **environ: str) -> Wiring:
        """As a process that starts now has it."""
        return Wiring(load(self.repo, {"ORCH_STATE_DIR": str(self.state), **environ}))

    def redis_up(self) -> None:
        """The private Redis."""
        self.server = redis_server.ensure(self.state)

    def redis_down(self) -> None:
        """It is gone."""
        if self.server:
            self.server.stop()
        self.server = None

    def close(self) -> None:
        """Nothing of it stays."""
        self.wiring.tracker.close()
        self.redis_down()

    def fresh(self) -> None:
        """Redis knows nothing but a worker of eight slots, and takes writes; no issue of before is open."""
        self.wiring.client.config_set("maxmemory", 0)
        while self.filed:
            self.wiring.tracker.upsert_issue(issue_id=self.filed.pop(), status="closed")
        self.wiring.client.flushdb()
        self.wiring.leases.announce("sessions@here", 8, for_s=600)

    def key(self, name: str, of: str = "") -> str:
        """A key in Redis."""
        return self.wiring.keys(name, of)

    def file(self, *, status: str = "", waits_for: str = "") -> str:
        """An issue."""
        issue: str = self.wiring.tracker.upsert_issue(title="Greet in French", description="- [ ] done")["id"]
        self.filed.append(issue)
        if waits_for:
            self.link(waits_for, issue)
        if status:
            self.wiring.tracker.upsert_issue(issue_id=issue, status=status)
        return issue

    def link(self, blocker: str, issue: str) -> None:
        """The one blocks the other."""
        self.wiring.tracker.link(from_id=blocker, to_id=issue, type="blocks")

    def polled(self, issue: str) -> str:
        """The issue was asked for and claimed, and waits for a worker."""
        self.wiring.leases.want(issue)
        self.wiring.poll(start=lambda _issue, _token: None, sessions=self.sessions())()
        return issue

    def taken(self, issue: str) -> Lease:
        """A worker has it."""
        lease = self.wiring.leases.acquire(self.polled(issue), "sessions@box/7")
        assert lease
        return lease

    def sessions(self, do: Doer | None = None) -> Sessions:
        """What runs sessions, with a doer of our own."""

        def doer(_lease: Lease, _keeper: LeaseKeeper) -> Doer:
            return do or steps()

        return Sessions(
            leases=self.wiring.leases,
            history=self.history,
            doer=doer,
            owner="sessions@box/7",
            lease_s=LEASE_S,
            grace_s=0.0,
            stopping=lambda: False,
            now=lambda: datetime.now(UTC),
            put_aside=lambda _lease: [],
        )

    def history(self, lease: Lease) -> RedisHistory:
        """As the wiring makes it."""
        return RedisHistory(self.wiring.client, self.wiring.keys, lease, error_limit=3, wake=lambda: None)

    def ran(self, do: Doer | None = None, *, issue: str = "", told: bool = True) -> str:
        """A whole session, of which the tracker knows all."""
        issue = self.polled(issue or self.file())
        self.run(issue, do)
        if told:
            self.wiring.publish()
        return issue

    def run(self, issue: str, do: Doer | None) -> None:
        """The claimed issue's session; what it ends in is in the history."""
        with contextlib.suppress(AgentFailed):
            self.sessions(do).run(issue)

    def seen_merge(self, issue: str, **changes: Any) -> str:
        """A merge of the issue's pull request was seen."""
        merge = MergeClosePayload(issue, PULL, "c0ffee" * 6, datetime.now(UTC), merged=True, source="daemon")
        payload = replace(merge, **changes)
        apply_merge_close(gateway=self.wiring.gateway, payload=payload)
        return issue


def steps(
    *, noes: int = 0, exits: int = 0, verified: bool = True, breaks: bool = False, already_done: bool = False
) -> Doer:
    """Reviews say no so often, then the verification exits like this; or the agent breaks down."""

    def do(step: Step, progress: Progress) -> Report:
        at = datetime.now(UTC)
        if breaks:
            raise AgentFailed("the implementer agent (claude) exited with code 1: rate limited")
        if step.stage in (Stage.SPEC_REVIEW, Stage.QUALITY_REVIEW):
            failed = step.attempt <= noes
            items = ("French is missing",) if failed else ()
            return Report(step.stage, step.attempt, at, not failed, failed_items=items, fix_list=items)
        if step.stage is not Stage.VERIFICATION:
            return Report(step.stage, step.attempt, at, notes="I", commit="c0ffee", already_done=already_done)
        if not verified:
            return Report(step.stage, step.attempt, at, passed=False, notes="no verification command: set [verify]")
        evidence = VerificationEvidence("make test", OUTPUT, exits, at, "c0ffee", "/logs/9-verification.log")
        notes = f"`make test` exited with {exits}: {OUTPUT.splitlines()[-1]}" if exits else ""
        return Report(step.stage, step.attempt, at, not exits, notes=notes, commit="c0ffee", evidence=evidence)

    return do


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """One for all: what a state needs is made anew for it."""
    made = World(tmp_path_factory.mktemp("explain"))
    yield made
    made.close()


def running(world: World) -> str:
    return world.taken(world.file()).issue_id


def lease_over_in(seconds: float) -> Provoke:
    """Its worker has fallen silent."""

    def provoke(world: World) -> str:
        issue = running(world)
        now = world.wiring.client.time()[0]
        world.wiring.client.zadd(world.key("inflight"), {issue: (now + seconds) * 1000})
        return issue

    return provoke


def given_back(world: World) -> str:
    lease = world.taken(world.file())
    world.wiring.leases.release(lease)
    return lease.issue_id


def stopping(world: World) -> str:
    issue = running(world)
    world.wiring.leases.stop(issue, "stopped by anna@box: wrong issue", hold=True)
    return issue


def stopped(world: World) -> str:
    issue = world.polled(world.file())
    world.wiring.leases.stop(issue, "stopped by anna@box: wrong issue", hold=True)
    world.wiring.poll(start=lambda _issue, _token: None, sessions=world.sessions())()
    world.wiring.publish()
    return issue


def stopped_while_wanted(world: World) -> str:
    issue = world.file()
    world.wiring.leases.want(issue)
    world.wiring.leases.stop(issue, "stopped by anna@box", hold=True)
    return issue


def rescued_too_often(world: World) -> str:
    lease = world.taken(world.file())
    for _ in range(world.wiring.settings.limits.rescues + 1):
        world.wiring.client.zadd(world.key("inflight"), {lease.issue_id: 1})
        world.wiring.leases.expired()
        world.wiring.leases.acquire(lease.issue_id, "sessions@box/8")
    world.wiring.client.zadd(world.key("inflight"), {lease.issue_id: 1})
    world.wiring.poll(start=lambda _issue, _token: None, sessions=world.sessions())()
    world.wiring.publish()
    return lease.issue_id


def no_slot(world: World) -> str:
    world.wiring.leases.announce("sessions@here", 1, for_s=600)
    running(world)
    return world.file()


def no_worker(world: World) -> str:
    world.wiring.leases.withdraw("sessions@here")
    return world.file()


def blocked(world: World) -> str:
    middle = world.file(waits_for=world.file())
    return world.file(waits_for=middle)


def blocked_by_review(world: World) -> str:
    return world.file(waits_for=world.ran())


def cycle(world: World) -> str:
    first = world.file()
    second = world.file(waits_for=first)
    world.link(second, first)
    return first


def paused(world: World) -> str:
    world.wiring.controls.pause(by="anna@box", reason="the disk is nearly full")
    return world.file()


def wanted(world: World) -> str:
    issue = world.file()
    world.wiring.leases.want(issue)
    return issue


def held(world: World) -> str:
    issue = world.ran(steps(breaks=True))
    for _ in range(2):
        world.wiring.client.zadd(world.key("held"), {issue: 1})  # its wait is over
        world.wiring.poll(start=lambda _issue, _token: None, sessions=world.sessions())()
        world.run(issue, steps(breaks=True))
        world.wiring.publish()
    return issue


def undelivered(world: World) -> str:
    issue = world.ran()
    merges = RedisMerges(world.wiring.client, world.wiring.keys)
    found = merges.work(issue)
    assert found
    merges.postponed(issue, found[0].session_id, "origin refused the push: protected branch", wait_s=60)
    return issue


def turned_down_merge(world: World) -> str:
    return world.seen_merge(world.ran(), objection="its base is dev, not main")


def closed_by_its_fix(world: World) -> str:
    issue = world.ran(steps(noes=3))
    holding = world.wiring.leases.holding(issue)
    assert holding
    assert holding.fix_issue_id
    world.seen_merge(world.ran(issue=holding.fix_issue_id))
    return issue


def altered(change: str) -> Provoke:
    """Somebody wrote into the tracker's database."""

    def provoke(world: World) -> str:
        issue = world.file()
        with contextlib.closing(sqlite3.connect(world.repo / ".sudocode" / "orch-tracker.db")) as database, database:
            database.execute(f"UPDATE issues SET {change} WHERE id = ?", (issue,))
        return issue

    return provoke


def lost(world: World) -> str:
    issue = running(world)
    world.wiring.publish()
    world.filed.clear()
    world.fresh()
    return issue


def read_only(world: World) -> str:
    world.wiring.client.config_set("maxmemory", 1)
    return world.file()


def base_is(*, failed: str) -> Provoke:
    """The base was verified where it stands, like this."""

    def provoke(world: World) -> str:
        check = world.wiring.base_check
        world.wiring.controls.record_base(BaseVerified(check.tip(), check.commands, failed, 1, failed))
        return world.file()

    return provoke


def base_under_way(world: World) -> str:
    assert world.wiring.controls.begin_base("`make test` on main", 600)
    return world.file()


def unknown_issue(world: World) -> str:
    return "i-zzzz"


# The state, how it comes about, and what must be said of it: in the headline or below it.
STATES: list[tuple[State, Provoke, tuple[str, ...]]] = [
    (State.RUNNING, running, ("implement on sessions@box/7", "sign of life")),
    (State.STARTING, lambda world: world.polled(world.file()), ("about to start",)),
    (State.HANDED_ON, given_back, ("sessions@box/7 gave it back",)),
    (State.WORKER_SILENT, lease_over_in(20), ("sessions@box/7 has not renewed its lease for 10 min",)),
    (State.RESCUE, lease_over_in(-20), ("sessions@box/7 fell silent",)),
    (State.STOPPING, stopping, ("stopped by anna@box: wrong issue",)),
    (State.STOPPED, stopped, ("stopped by anna@box: wrong issue",)),
    (State.STOPPED, stopped_while_wanted, ("before its session began",)),
    (State.NO_SLOT, no_slot, ("all 1 slots", "have them")),
    (State.NO_WORKER, no_worker, ("no worker",)),
    (State.BLOCKED, blocked, ("its blocker", "is blocked", "waits for")),
    (State.BLOCKER_IN_REVIEW, blocked_by_review, ("is in needs_review",)),
    (State.BLOCKER_CYCLE, cycle, ("wait for each other",)),
    (State.BASE_RED, base_is(failed="`make test` exited with 2 on main"), ("the base is red: `make test` exited",)),
    (State.BASE_UNDER_WAY, base_under_way, ("the base is being verified: `make test` on main",)),
    (State.PAUSED, paused, ("paused by anna@box: the disk is nearly full",)),
    (State.STATUS_BLOCKED, lambda world: world.file(status="blocked"), ("waits for no open issue",)),
    (State.SOMEBODY_ELSE, lambda world: world.file(status="in_progress"), ("no session of this checkout",)),
    (State.REVIEW_BY_HAND, lambda world: world.file(status="needs_review"), ("no session of ours",)),
    (State.CLOSED, lambda world: world.file(status="closed"), ("it is closed", "not a merge")),
    (State.WANTED, wanted, ("a person asked for it",)),
    (State.READY, lambda world: world.file(), ("ready and a slot is free",)),
    (State.BACKOFF, lambda world: world.ran(steps(breaks=True)), ("rate limited", "tried again in")),
    (State.HELD, held, ("3 sessions in a row", "rate limited")),
    (State.RESCUED_TOO_OFTEN, rescued_too_often, ("workers died", "in the same step")),
    (State.VERIFY_FAILED, lambda world: world.ran(steps(exits=2)), ("exited with 2: FAILED test_greet.py", ".log")),
    (State.NO_VERIFICATION, lambda world: world.ran(steps(verified=False)), ("no verification command",)),
    (State.OVERFLOW, lambda world: world.ran(steps(noes=3)), ("goes on as [FIX] i-", "French is missing")),
    (State.TO_REVIEW, lambda world: world.ran(), ("to be reviewed and merged", "`make test` exited with 0")),
    (
        State.NOTHING_TO_MERGE,
        lambda world: world.ran(steps(already_done=True)),
        ("nothing to merge", "is there already: I", "`make test` exited with 0", "orch issue close i-"),
    ),
    (State.UNDELIVERED, undelivered, ("protected branch", "tried again in")),
    (State.MERGE_REJECTED, turned_down_merge, ("its base is dev, not main",)),
    (State.MERGED, lambda world: world.seen_merge(world.ran()), (PULL, "MERGE_CLOSE_APPLIED")),
    (State.CLOSED_BY_FIX, closed_by_its_fix, ("closed by the merge of i-",)),
    (State.UNKNOWN_ISSUE, unknown_issue, ("knows no such issue",)),
    (State.MALFORMED, altered("created_at = 'yesterday'"), ("malformed", "created_at")),
    (State.NOT_READY, altered("archived = 1"), ("does not list it as ready",)),
    (State.LOST, lost, ("Redis knows no session",)),
    (State.UNTOLD, lambda world: world.ran(told=False), ("still to be told", "DONE")),
    (State.REDIS_TAKES_NO_WRITES, read_only, ("its memory is full",)),
]


LIVE_STATES = {
    State.RUNNING,
    State.STARTING,
    State.HANDED_ON,
    State.WORKER_SILENT,
    State.RESCUE,
    State.STOPPING,
}
IN_OTHER_WORDS = {
    State.RUNNING,  # its row has the step
    State.STARTING,
    State.MERGE_REJECTED,  # the tracker's list has no feedback, which would say so
    State.REVIEW_BY_HAND,
}
START_BY_THEMSELVES = {State.READY, State.WANTED, State.NO_SLOT, State.BACKOFF, State.LOST}


@pytest.fixture
def calm(world: World) -> World:
    """The world without a trace of the tests before."""
    world.fresh()
    return world


TOLD: list[tuple[State, Explanation]] = []


@pytest.mark.parametrize(("state", "provoke", "words"), STATES, ids=[f"{s}-{n}" for n, (s, *_) in enumerate(STATES)])
def test_every_state_is_explained(calm: World, state: State, provoke: Provoke, words: tuple[str, ...]) -> None:
    """The state is recognised, its cause is named, and there is a command to paste."""
    issue = provoke(calm)
    found = explained(calm.wiring.sources(), issue)
    said = " ".join([found.cause, found.why, found.next, *found.evidence])
    TOLD.append((state, found))
    listed = {each.id: each for each in collect(calm.wiring.sources()).issues}

    assert state == found.state
    assert [] == [word for word in words if word not in said], said
    assert found.do[0].split()[0] in ("orch", "git", "gh")
    if row := listed.get(issue):
        # `orch status` tells the same story, in the same words.
        assert row.live == (state in LIVE_STATES)
        assert row.reason.startswith(found.cause.partition(" (")[0]) or state in IN_OTHER_WORDS, row.reason
        assert not row.settled or state not in (LIVE_STATES | START_BY_THEMSELVES)


def test_redis_away(calm: World) -> None:
    """What the tracker says is said all the same."""
    issue = calm.file()
    away = calm.wired(ORCH_REDIS_URL=f"unix://{calm.state}/nobody.sock")
    found = explained(away.sources(), issue)
    away.tracker.close()
    TOLD.append((State.REDIS_AWAY, found))

    assert (State.REDIS_AWAY, ("the tracker says: open",), ("orch doctor",)) == (found.state, found.evidence, found.do)


def test_the_tracker_away(calm: World) -> None:
    """What runs is shown as running, with a word about the tracker; of the rest its last end is known."""
    live, ended = running(calm), calm.ran(steps(exits=2))
    toml = calm.repo / "orch.toml"
    before = toml.read_text()
    toml.write_text(before.replace('tracker = "bundled"', "") + '[tracker]\ncommand = ["false"]\n')
    away = calm.wired()
    toml.write_text(before)
    runs, unknown = explained(away.sources(), live), explained(away.sources(), ended)
    TOLD.append((State.TRACKER_AWAY, unknown))

    assert State.RUNNING == runs.state
    assert "the tracker does not answer" in runs.also[0]
    assert (State.TRACKER_AWAY, ("orch doctor",)) == (unknown.state, unknown.do)
    assert "ended VERIFY_FAILED" in unknown.cause


def test_not_running_here(tmp_path: Path) -> None:
    """No Redis is started to find that out, and a blocker is named all the same."""
    world = World(tmp_path)
    first = world.file()
    second = world.file(waits_for=first)
    world.redis_down()
    here = world.wired()
    down, waits = explained(here.sources(), first), explained(here.sources(), second)
    here.tracker.close()
    world.close()
    TOLD.append((State.STACK_DOWN, down))

    assert (State.STACK_DOWN, ("orch up",)) == (down.state, down.do)
    assert (State.BLOCKED, (f"orch explain {first}",)) == (waits.state, waits.do)
    assert "orch is not running here" in waits.also[0]
    assert redis_server.find(world.state) is None


def orch(world: World, *words: str, cwd: Path | None = None, **env: str) -> subprocess.CompletedProcess[str]:
    own = {"ORCH_PROJECT_ROOT": str(world.repo), "ORCH_STATE_DIR": str(world.state)}
    return orch_here(*words, cwd=cwd or Path.cwd(), env=os.environ | own | env)


def test_for_people_and_for_programs(calm: World) -> None:
    """A headline, then a line for each thing; the same as JSON."""
    blocker = calm.ran()
    issue = calm.file(waits_for=blocker)
    page = orch(calm, "explain", issue)
    found = json.loads(orch(calm, "explain", issue, "--json").stdout)

    assert (0, "") == (page.returncode, page.stderr)
    assert f"{issue}  waits: its blocker {blocker} is in needs_review" == page.stdout.splitlines()[0]
    assert f"  do        git merge --no-ff orch/{blocker}" == page.stdout.splitlines()[-1]
    assert (issue, "BLOCKER_IN_REVIEW", "waits") == (found["issue"], found["state"], found["kind"])
    assert [f"git merge --no-ff orch/{blocker}"] == found["do"]


def test_the_table_of_states(capsys: pytest.CaptureFixture[str]) -> None:
    """Each state that was provoked by now, with its headline and its command; all of the closed set are above."""
    with capsys.disabled():
        print()
        for state, found in TOLD:
            print(f"{state:<22} {found.kind}: {found.cause[:90]}\n{'':22} $ {found.do[0]}")

    provoked = {state for state, *_ in STATES} | {State.REDIS_AWAY, State.TRACKER_AWAY, State.STACK_DOWN}
    assert set(State) == provoked


def packed(path: Path) -> dict[str, str]:
    """The files of a bundle, by their names in its one folder."""
    with tarfile.open(path) as tar:
        files = {member.name.partition("/")[2]: tar.extractfile(member) for member in tar}
        return {name: file.read().decode() for name, file in files.items() if file}


def test_a_bundle_for_whoever_is_to_help(calm: World, tmp_path: Path) -> None:
    """All that the runbook asks for is in it, and no secret of the environment or of an agent's output."""
    issue = calm.ran(steps(exits=2))
    holding = calm.wiring.leases.holding(issue)
    assert holding
    assert holding.record
    logs = calm.wiring.settings.logs / issue / holding.record.session_id
    logs.mkdir(parents=True)
    (logs / "1-implementer.stdout").write_text("x" * 300_000 + "\nexport GH=ghp_0123456789abcdefghij01\ntop-secret-1\n")
    path = tmp_path / "bundle.tar.gz"
    done = orch(calm, "escalate", issue, "-o", str(path), MY_TOKEN="top-secret-1", ORCH_GITHUB_TOKEN="top-secret-2")
    files = packed(path)
    log = files.pop(f"logs/{holding.record.session_id}/1-implementer.stdout")

    assert 0 == done.returncode, done.stderr
    assert str(path) in done.stdout
    assert {"summary.md", "explanation.json", "history.json", "evidence.txt", "doctor.txt", "versions.txt"} <= set(
        files
    )
    assert "exited with 2: FAILED test_greet.py" in files["summary.md"]
    assert 3 == files["summary.md"].count('"schema_version"')
    assert f"$ make test\n{OUTPUT}" in files["evidence.txt"]
    assert 5 == len(json.loads(files["history.json"])["sessions"][0]["events"])
    assert "VERIFICATION" == json.loads(files["history.json"])["reports"][-1]["stage"]
    assert "github_token" not in json.loads(files["settings.json"])
    assert log.endswith("export GH=[redacted]\n[redacted]\n")
    assert len(log) <= 200_000
    assert [] == [name for name, text in files.items() if "top-secret" in text]


def test_a_bundle_while_all_is_down(calm: World, tmp_path: Path) -> None:
    """It is written all the same, here, under a name that says what it is; a name that cannot be is one line."""
    issue = calm.file()
    away = {"ORCH_REDIS_URL": f"unix://{calm.state}/nobody.sock"}
    done = orch(calm, "escalate", issue, cwd=tmp_path, **away)
    failed = orch(calm, "escalate", issue, "-o", str(tmp_path / "nowhere" / "x.tar.gz"), cwd=None, **away)
    (bundle,) = tmp_path.iterdir()

    assert 0 == done.returncode, done.stderr
    assert bundle.name.startswith(f"escalation-{issue}-")
    assert "Redis does not answer" in packed(bundle)["summary.md"]
    assert (1, 1) == (failed.returncode, len(failed.stderr.splitlines()))
