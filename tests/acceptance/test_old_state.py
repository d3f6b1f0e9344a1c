"""State that an earlier version has left: the new program goes on with all of it, and does none of it twice.

What is in `tests/data/old_state`, and how it was made, says the README there.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import pytest
import redis

from orchestrator.adapters.redis.password import password_in
from tests import old_state
from tests.acceptance.project import CLEAN, Project, Running, up
from tests.github_server import TOKEN, GitHubServer
from tests.support import ROOT

pytestmark = pytest.mark.timeout(300)

OLD = ROOT / "tests" / "data" / "old_state"
ISSUES: dict[str, str] = json.loads((OLD / "issues.json").read_text())
STORED: dict[str, Any] = json.loads((OLD / "redis.json").read_text())["keys"]
NAME = "orch-old"
PAUSE = {"by": "root@oldbox", "reason": "the update"}
REDIS = (sys.executable, "-P", "-m", "orchestrator.redis_service")
ORCH = (sys.executable, "-P", "-m", "orchestrator.cli")
ALL_IN_ONE = """
import json, sys
from orchestrator.cli import main
for words in json.loads(sys.argv[1]):
    main(words, standalone_mode=False)
    print(end="\\0")
"""
"""Many commands for the price of one: it is the start of a process that takes its time."""

TOP = 'concurrency = 6\ndeliver = "none"'
VERIFY = 'L1 = ["test", "-s", "missing.txt"]'
GITHUB = '\n[github]\nrepo = "acme/shop"\napi = "{}"\n'

STATUS: dict[str, dict[str, Any]] = {
    "done": {"status": "needs_review", "state": "ended", "verdict": "DONE", "delivered_to": f"orch/{ISSUES['done']}"},
    "unverified": {"status": "in_progress", "state": "ended", "verdict": "VERIFY_FAILED", "stage": "VERIFICATION"},
    "held": {"status": "open", "state": "ended", "verdict": "ERROR", "held": True},
    "stopped": {"status": "open", "state": "ended", "verdict": "ERROR", "held": True},
    "running": {"status": "in_progress", "state": "running", "stage": "QUALITY_FIX", "attempt": 1, "quality": 1},
    "untold": {"status": "in_progress", "state": "ended", "verdict": "DONE"},
    "failing": {"status": "open", "state": "ended", "verdict": "ERROR", "held": False},
    "overflown": {"status": "needs_review", "state": "ended", "verdict": "OVERFLOW", "fix_issue_id": ISSUES["fix"]},
    "fix": {"status": "open", "state": None},
    "claimed": {"status": "open", "state": None},
    "wanted": {"status": "open", "state": None},
}
"""What `orch status --json` says of each issue before anything has gone on; `merged` is closed, `refused` is gone."""

STATES = {
    "merged": "MERGED",
    "done": "TO_REVIEW",
    "unverified": "VERIFY_FAILED",
    "held": "HELD",
    "stopped": "STOPPED",
    "refused": "UNKNOWN_ISSUE",
    "running": "RESCUE",
    "untold": "UNTOLD",
    "failing": "BACKOFF",
    "overflown": "OVERFLOW",
    "fix": "PAUSED",
    "claimed": "STARTING",
    "wanted": "PAUSED",
}
"""What `orch explain` says of each."""


def stored(name: str, of: str = "") -> Any:
    """What the earlier version left under this name in Redis."""
    return STORED[f"orch:{{{NAME}}}:{name}" + (f":{of}" if of else "")]["value"]


def session_of(name: str) -> str:
    """The id of the only session that the issue has had."""
    (session_id,) = stored("runs", ISSUES[name])
    return str(session_id)


class Old:
    """A project in the state that the earlier version left it in. Keys in Redis have the names of that version."""

    def __init__(self, project: Project) -> None:
        self.project = project
        old_state.unpack(OLD, old_state.Place(project.folder))

    def orch(self, *words: str) -> None:
        """What a person types."""
        subprocess.run([*ORCH, *words], cwd=self.project.repo, env=self.project.env, capture_output=True, check=True)

    def asks(self, *commands: tuple[str, ...]) -> list[Any]:
        """What commands say with --json."""
        words = json.dumps([(*command, "--json") for command in commands])
        done = subprocess.run(
            [sys.executable, "-P", "-c", ALL_IN_ONE, words],
            cwd=self.project.repo,
            env=self.project.env,
            capture_output=True,
            text=True,
            check=False,
        )
        assert (0, "") == (done.returncode, done.stderr), done
        return [json.loads(said) for said in done.stdout.split("\0")[:-1]]

    @contextmanager
    def redis_up(self) -> Iterator[None]:
        """Its Redis, and nothing else of the stack."""
        with Running(self.project, REDIS) as service:
            service.until(lambda: answers(self.client), "Redis should be up")
            yield
        self.client.close()

    @property
    def client(self) -> Any:
        path = self.project.state / "r.sock"
        password = password_in(self.project.state / "redis")
        return redis.Redis(unix_socket_path=str(path), password=password, decode_responses=True)

    def key(self, name: str, of: str = "") -> str:
        return f"orch:{{{NAME}}}:{name}" + (f":{of}" if of else "")

    def session(self, name: str) -> dict[str, str]:
        """What Redis has of the issue's last session."""
        found: dict[str, str] = self.client.hgetall(self.key("session", ISSUES[name]))
        return found

    def ended(self, *names: str) -> bool:
        """Whether their sessions have ended, and the tracker knows all there is to know."""
        return all(self.session(name).get("state") == "ended" for name in names) and not self.client.xlen(
            self.key("outbox")
        )

    def told(self, name: str) -> list[str]:
        """What the tracker was told of the issue, oldest first, as text."""
        return self.project.feedback(ISSUES[name])

    def events(self, name: str) -> list[str]:
        """The events and markers among that."""
        read = self.project.told(ISSUES[name])
        return [entry.get("event_type") or entry["marker"] for entry in read]

    def asked(self, name: str) -> tuple[int, ...]:
        """How often each agent was started since."""
        roles = ("implementer", "spec_reviewer", "quality_reviewer")
        return tuple(self.project.asked(ISSUES[name], role) for role in roles)

    def status(self, name: str) -> str:
        return self.project.status(ISSUES[name])

    def merge(self, name: str) -> None:
        """Merge the branch as a person does. Its greeting stays: a merge that takes none of the work closes nothing."""
        who = ("-c", "user.name=Ada", "-c", "user.email=ada@example.org")
        self.project.git(*who, "merge", "--quiet", "--strategy-option=theirs", f"orch/{ISSUES[name]}")


def answers(client: Any) -> bool:
    """Whether there is a Redis that has loaded its data."""
    try:
        return bool(client.ping())
    except redis.RedisError:
        return False


@dataclass(frozen=True)
class Seen:
    """What was said before anything went on."""

    status: dict[str, Any]
    explained: dict[str, Any]
    told: dict[str, list[str]]

    @property
    def issues(self) -> dict[str, Any]:
        return {issue["id"]: issue for issue in self.status["issues"]}


@dataclass(frozen=True)
class After:
    """What is said at the end: of all, of the issue that goes on failing, of merges, and of two issues' sessions."""

    status: dict[str, Any]
    failing: dict[str, Any]
    merges: dict[str, Any]
    running: dict[str, Any]
    unverified: dict[str, Any]

    def issue(self, name: str) -> dict[str, Any]:
        """What the status says of one."""
        (found,) = (issue for issue in self.status["issues"] if issue["id"] == ISSUES[name])
        return dict(found)


@dataclass(frozen=True)
class Update:
    """The state, what was seen of it at first, how it was while still paused, and where it all went."""

    old: Old
    seen: Seen
    while_paused: dict[str, tuple[int, ...]]
    after: After


@pytest.fixture(scope="module")
def update(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Update]:
    """The state is looked at, then a stack takes it over, is resumed, and sees merges, until nothing is left to do."""
    folder = tmp_path_factory.mktemp("update") / NAME
    folder.mkdir()
    with GitHubServer() as github, Project(folder, top=TOP, verify=VERIFY) as project:
        project.env |= {"ORCH_GITHUB_TOKEN": TOKEN}
        project.toml.write_text(project.toml.read_text() + GITHUB.format(github.url))
        merged_before(github)
        old = Old(project)
        with old.redis_up():
            old_state.load(OLD, old_state.Place(folder), old.client)
            seen = look(old)
        project.play(ISSUES["running"], implementer=[{"append": {"work.txt": "politely\n"}, "notes": "made it polite"}])
        project.play(ISSUES["failing"], implementer=[{"misbehave": "exit3"}])
        project.play(ISSUES["fix"], implementer=[{"append": {"work.txt": "Saluton\n"}, "notes": "added Saluton"}])
        with up(project) as stack:
            stack.says("is up")
            stack.until(lambda: old.ended("running", "claimed", "untold"), "what had begun should come to its end")
            stack.until(lambda: old.session("untold").get("delivered_to"), "it should be delivered")
            while_paused = {name: old.asked(name) for name in ISSUES}
            go_on(old, stack)
            yield Update(old, seen, while_paused, look_again(old))


def merged_before(github: GitHubServer) -> None:
    """The forge still lists the pull request that the earlier version has settled."""
    ((identity, at),) = json.loads(stored("merge-checkpoint"))["settled"].items()
    number = github.open(f"orch/{ISSUES['merged']}", body=f"Sudocode-Issue: {ISSUES['merged']}\n")
    assert identity.split("#") == [github.repo, str(number), github.merge(number, at=datetime.fromisoformat(at))]


def look(old: Old) -> Seen:
    """What is said while nothing runs but Redis."""
    status, *explained = old.asks(("status",), *(("explain", issue) for issue in ISSUES.values()))
    told = {name: old.told(name) for name in ISSUES if name != "refused"}
    return Seen(status, dict(zip(ISSUES, explained, strict=True)), told)


def look_again(old: Old) -> After:
    """What is said once all is done."""
    histories: list[tuple[str, ...]] = [("history", ISSUES[name]) for name in ("running", "unverified")]
    status, failing, merges, *found = old.asks(
        ("status",), ("explain", ISSUES["failing"]), ("merges", "health"), *histories
    )
    return After(status, failing, merges, *found)


def go_on(old: Old, stack: Running) -> None:
    """Let new sessions start, let the wait after an error be over, and merge what is done."""
    old.client.zadd(old.key("held"), {ISSUES["failing"]: 1})
    old.merge("done")
    old.orch("resume")
    runs = old.key("runs", ISSUES["failing"])
    stack.until(lambda: old.client.llen(runs) == 3, "what failed twice should be tried again")
    stack.until(lambda: old.ended("wanted", "fix", "failing"), "what had waited should run")
    old.merge("fix")
    stack.until(
        lambda: {"closed"} == {old.status(name) for name in ("done", "fix", "overflown")}, "merges should close three"
    )


# --- what is said of it ---


def test_status_shows_it(update: Update) -> None:
    """Every issue that is not closed is there, with its session, its step or verdict, and whether it is held."""
    issues = update.seen.issues

    assert {ISSUES[name] for name in STATUS} == issues.keys()
    for name, expected in STATUS.items():
        found = issues[ISSUES[name]]

        assert expected == {field: found[field] for field in expected}, name


def test_status_knows_the_rest(update: Update) -> None:
    """The pause, what the tracker is still to be told, what it refused, and why issues do not run."""
    status, issues = update.seen.status, update.seen.issues

    assert PAUSE == {field: status["paused"][field] for field in PAUSE}
    assert len(stored("outbox")) == status["outbox"]
    assert stored("refused") == status["refused"]
    assert status["complete"]
    assert "`test -s missing.txt` exited with 1" in issues[ISSUES["unverified"]]["reason"]
    assert "stopped by root@oldbox (wrong issue)" in issues[ISSUES["stopped"]]["reason"]
    assert "is tried again in" in issues[ISSUES["failing"]]["reason"]


def test_explain_knows_each_state(update: Update) -> None:
    """And what is said besides comes from what was stored: the errors in a row, the [FIX] issue, the merge."""
    explained = update.seen.explained

    assert STATES == {name: explained[name]["state"] for name in STATES}
    assert explained["held"]["cause"].startswith("3 sessions in a row ended in an error")
    assert f"it goes on as [FIX] {ISSUES['fix']}" in explained["overflown"]["cause"]
    assert "https://github.com/acme/shop/pull/1" in explained["merged"]["cause"]
    assert explained["untold"]["why"].startswith(f"{stored('pending')[ISSUES['untold']]} of its entries wait")


def test_history_has_every_step(update: Update) -> None:
    """The steps of before, with their evidence, and those since, as one session."""
    running, unverified = update.after.running, update.after.unverified

    assert ("redis", "redis") == (running["source"], unverified["source"])
    assert [update.old.events("running")] == [
        [event["event_type"] for event in session["events"]] for session in running["sessions"]
    ]
    assert [session_of("running")] == [session["session_id"] for session in running["sessions"]]
    assert 1 == unverified["sessions"][0]["events"][-1]["verify"]["exit_code"]


# --- what goes on ---


def test_the_running_session_goes_on(update: Update) -> None:
    """From the step that was cut off, which is done again with what the review had asked for; no other is repeated."""
    old = update.old
    steps = ["SPEC_REVIEW_FAIL", "SPEC_FIX_APPLIED", "SPEC_REVIEW_PASS", "QUALITY_REVIEW_FAIL", "QUALITY_FIX_APPLIED"]
    prompts = list((old.project.state / "logs" / ISSUES["running"]).glob("*/*implementer.prompt"))

    assert (1, 0, 1) == old.asked("running")
    assert [*CLEAN[:2], *steps, *CLEAN[3:]] == old.events("running")
    assert [session_of("running")] == old.client.lrange(old.key("runs", ISSUES["running"]), 0, -1)
    assert ["DONE", "needs_review"] == [old.session("running")["verdict"], old.status("running")]
    assert {"README.md", "work.txt"} == old.project.files(ISSUES["running"]).keys()
    assert "done\nBonjour\npolitely" == old.project.files(ISSUES["running"])["work.txt"]
    assert "add Bonjour" in prompts[0].read_text()


def test_half_done_work_is_kept(update: Update) -> None:
    """What the step that was cut off had written is put aside, and what was put aside before is still there."""
    for name in ("running", "stopped"):
        (ref,) = update.old.project.git(
            "for-each-ref", "--format=%(refname)", f"refs/orch/wip/{ISSUES[name]}"
        ).splitlines()

        assert "half done" == update.old.project.git("show", f"{ref}:half.txt"), name


def test_what_is_untold_is_told_once(update: Update) -> None:
    """In order, after what was told before; a session that had ended does not run again."""
    old = update.old

    assert CLEAN == old.events("untold")
    assert "needs_review" == old.status("untold")
    assert f"orch/{ISSUES['untold']}" == old.session("untold")["delivered_to"]
    assert (0, 0, 0) == old.asked("untold")
    assert old.client.lrange(old.key("snapshots", session_of("untold")), 0, -1) == old.told("untold")


def test_the_pause_holds(update: Update) -> None:
    """Until it is ended by a person, nothing starts but what was claimed before it."""
    assert {"running", "claimed"} == {name for name, asked in update.while_paused.items() if any(asked)}


@pytest.mark.parametrize("name", ["claimed", "wanted", "fix"])
def test_what_waited_runs(update: Update, name: str) -> None:
    """A claim that was not opened, an issue that was asked for, and a [FIX] issue have one clean session each."""
    events = update.old.events(name)

    assert CLEAN == events[: len(CLEAN)]
    assert ["MERGE_EVIDENCE_RECORDED", "MERGE_CLOSE_APPLIED"] * (name == "fix") == events[len(CLEAN) :]
    assert (1, 1, 1) == update.old.asked(name)


def test_a_fix_goes_on_from_its_original(update: Update) -> None:
    """Its branch has the commits that the original's session had made."""
    project = update.old.project

    assert project.git("merge-base", "main", f"orch/{ISSUES['overflown']}") == project.git(
        "rev-parse", f"orch/{ISSUES['overflown']}"
    )


@pytest.mark.parametrize("name", ["held", "stopped", "unverified"])
def test_what_a_person_must_see_to_waits_on(update: Update, name: str) -> None:
    """It is not run, and is shown as before."""
    fields = ("status", "state", "verdict", "held", "reason", "session_id")
    after = update.after.issue(name)

    assert (0, 0, 0) == update.old.asked(name)
    assert [update.seen.issues[ISSUES[name]][field] for field in fields] == [after[field] for field in fields]


def test_errors_are_counted_on(update: Update) -> None:
    """One more error after two holds the issue back."""
    assert update.after.issue("failing")["held"]
    assert 1 == update.old.asked("failing")[0]
    assert update.after.failing["cause"].startswith("3 sessions in a row ended in an error")


def test_merges_close(update: Update) -> None:
    """Of a branch that was finished before, and of a [FIX], which closes its original too."""
    old = update.old

    assert ["MERGE_EVIDENCE_RECORDED", "MERGE_CLOSE_APPLIED"] == old.events("done")[len(CLEAN) :]
    assert "OVERFLOW_PARENT_CLOSED_BY_FIX" == old.events("overflown")[-1]
    assert ["closed"] * 3 == [old.status(name) for name in ("done", "fix", "overflown")]


def test_a_settled_merge_stays_settled(update: Update) -> None:
    """The record of settled merges is read, and nothing more is said of the one that is in it."""
    assert "healthy" == update.after.merges["health"]
    assert update.seen.told["merged"] == update.old.told("merged")


def test_nothing_is_lost_or_told_twice(update: Update) -> None:
    """What the tracker was told before is there, unchanged and first; no entry is there twice."""
    for name, before in update.seen.told.items():
        told = update.old.told(name)

        assert before == told[: len(before)], name
        assert len(set(told)) == len(told), name
    assert update.old.client.lrange(update.old.key("refused"), 0, -1) == stored("refused")


def test_what_is_counted_goes_on(update: Update) -> None:
    """Curves do not start anew: five more sessions are counted where those of before were."""
    before, after = stored("counts"), update.old.client.hgetall(update.old.key("counts"))

    def sessions(counts: dict[str, str], verdict: str) -> int:
        fields = [field for field in counts if field.startswith(f"session_seconds|{verdict}|")]
        return sum(int(counts[field]) for field in fields if not field.endswith("|ms"))

    assert {"DONE": 4, "ERROR": 1, "OVERFLOW": 0, "VERIFY_FAILED": 0, "STOPPED": 0} == {
        verdict: sessions(after, verdict) - sessions(before, verdict)
        for verdict in ("DONE", "ERROR", "OVERFLOW", "VERIFY_FAILED", "STOPPED")
    }
    assert "1" == after["rescues|"]
