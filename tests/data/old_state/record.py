"""Makes the state beside this file, with the program that it runs with: `python -m tests.data.old_state.record`.

It plays an evening on which all that can be stored gets stored, kills the stack with kill -9 in the middle of it, and
writes down what is left. README.md says which issue is there for what.
"""

from __future__ import annotations

import contextlib
import functools
import json
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from tests import old_state
from tests.acceptance.project import GOOD, Project, Running, kill, parent, up
from tests.github_server import TOKEN, GitHubServer
from tests.support import wait_until

FOLDER = Path("/tmp/orch-old")
TOP = 'concurrency = 6\ndeliver = "none"'
VERIFY = 'L1 = ["test", "-s", "missing.txt"]'
GITHUB = '\n[github]\nrepo = "acme/shop"\napi = "{}"\n'
FAILS: dict[str, object] = {"misbehave": "exit3"}
REDIS = (sys.executable, "-P", "-m", "orchestrator.redis_service")


class Evening:
    """One project on its way to the state."""

    def __init__(self, project: Project, stack: Running, github: GitHubServer) -> None:
        self.project, self.stack, self.github = project, stack, github
        self.issues: dict[str, str] = {}

    def file(self, name: str, title: str, **options: object) -> str:
        """An issue that the test knows by this name."""
        self.issues[name] = self.project.file(title, **options)  # type: ignore[arg-type] # playbooks are any JSON
        return self.issues[name]

    def orch(self, *args: str) -> None:
        """What a person types."""
        argv = [sys.executable, "-P", "-m", "orchestrator.cli", *args]
        subprocess.run(argv, cwd=self.project.repo, env=self.project.env, check=True)

    def go(self, name: str) -> None:
        """Let the one go on that waits for this file."""
        (self.project.folder / name).touch()

    def until(self, predicate: Callable[[], object], what: str) -> None:
        self.stack.until(predicate, what)

    def session(self, issue: str, field: str) -> str | None:
        return self.project.redis.hget(self.project.keys("session", issue), field)  # type: ignore[return-value]

    def ended(self, issue: str) -> bool:
        return self.session(issue, "state") == "ended"

    def half(self, issue: str) -> Path:
        return self.project.worktree(issue) / "half.txt"

    def told(self) -> bool:
        return self.project.outbox.waiting() == 0

    def errors(self, issue: str, number: int) -> None:
        """Wait until so many of its sessions have ended in an error; the time between them is passed over."""
        for count in map(str, range(1, number + 1)):
            if count != "1":
                self.pass_over_wait(issue)
            self.stack.until(functools.partial(self.failed, issue, count), f"it should fail for the {count}. time")

    def pass_over_wait(self, issue: str) -> None:
        self.until(self.told, "the tracker should know")
        self.project.redis.zadd(self.project.keys("held"), {issue: 1})

    def failed(self, issue: str, count: str) -> bool:
        return bool(self.project.redis.hget(self.project.keys("errors"), issue) == count)


def waits_for(name: str, exits: int = 0) -> list[str]:
    """A command that ends once this file is there."""
    return ["sh", "-c", f"until test -e {FOLDER / name}; do sleep 0.1; done; exit {exits}"]


def check(run: list[str], item: str = "French is greeted") -> dict[str, object]:
    return {"checks": [{"item": item, "run": run, "fix": "add Bonjour"}]}


HALF_DONE = {"write": {"half.txt": "half done\n"}, "run": [waits_for("never")]}


def before_the_pause(it: Evening) -> None:
    """What ended while all was well, and what a person stopped."""
    merged = it.file("merged", "Greet in Dutch")
    done = it.file("done", "Greet in Danish", implementer=[{"write": {"work.txt": "Goddag\n"}, "notes": "wrote it"}])
    unverified = it.file("unverified", "Greet in Czech", verify="L1")
    it.until(lambda: all(map(it.ended, (merged, done, unverified))) and it.told(), "three should have ended")
    number = it.github.open(f"orch/{merged}", body=f"Sudocode-Issue: {merged}\n")
    it.github.merge(number, at=datetime.now(UTC))
    it.until(lambda: it.project.status(merged) == "closed", "its merge should close it")
    it.errors(it.file("held", "Greet in Latin", implementer=[FAILS]), 3)
    stopped = it.file("stopped", "Greet in Norse", implementer=[HALF_DONE])
    it.until(lambda: it.half(stopped).exists(), "it should be half done")
    it.orch("stop", stopped, "--reason", "wrong issue")
    it.until(lambda: it.ended(stopped), "it should be stopped")
    refused = it.file("refused", "Greet in Klingon", quality_reviewer=[check(waits_for("refused"))])
    it.until(lambda: it.project.asked(refused, "quality_reviewer"), "it should be reviewed")
    with contextlib.closing(sqlite3.connect(it.project.repo / old_state.DATABASE)) as database, database:
        database.execute("DELETE FROM issues WHERE id = ?", (refused,))
    it.go("refused")
    it.until(lambda: it.ended(refused) and it.told(), "the tracker should have refused it")


def with_the_pause(it: Evening) -> None:
    """What runs on while nothing new starts, and what waits for that."""
    running = it.file(
        "running",
        "Greet in French",
        implementer=[
            GOOD,
            {"append": {"work.txt": "Bonjour\n"}, "notes": "added Bonjour"},
            HALF_DONE,
        ],
        spec_reviewer=[check(["false"]), {}],
        quality_reviewer=[check(waits_for("running", 1), "it is polite")],
    )
    untold = it.file("untold", "Greet in Finnish", quality_reviewer=[check(waits_for("untold"))])
    it.until(
        lambda: all(it.project.asked(issue, "quality_reviewer") for issue in (running, untold)),
        "two should be reviewed",
    )
    late = FAILS | {"run": [waits_for("failing")]}
    failing = it.file("failing", "Greet in Greek", implementer=[FAILS, late])
    it.errors(failing, 1)
    it.pass_over_wait(failing)
    it.until(lambda: it.project.asked(failing) == 2, "it should be tried again")
    overflown = it.file("overflown", "Greet in Esperanto", implementer=[GOOD], spec_reviewer=[check(["false"])])
    it.until(lambda: it.project.asked(overflown), "it should be claimed")
    it.orch("pause", "--reason", "the update")
    it.until(lambda: it.session(overflown, "fix_issue_id"), "its [FIX] issue should be filed")
    it.go("failing")
    it.until(lambda: it.failed(failing, "2") and it.told(), "it should fail again, and the tracker should know all")
    it.issues["fix"] = it.session(overflown, "fix_issue_id") or ""


def without_the_tracker(it: Evening) -> None:
    """The tracker is away: what ends now is not told, and what is claimed now is not opened."""
    claimed = it.file("claimed", "Greet in Irish")
    it.file("wanted", "Greet in Welsh")
    toml = it.project.toml.read_text()
    it.project.toml.write_text(toml.replace('tracker = "bundled"', 'tracker = {command = ["false"]}'))
    for words in ("-Q poll,publish", "-Q merge_close"):
        (worker,) = (pid for pid in it.project.processes(words) if parent(pid) == it.stack.process.pid)
        kill(worker)
    it.go("running")
    it.go("untold")
    it.until(lambda: it.half(it.issues["running"]).exists(), "one should be half done")
    it.until(lambda: it.ended(it.issues["untold"]), "one should have ended")
    it.orch("resume")
    it.orch("enqueue", claimed, "--wait", "0")
    it.until(lambda: it.session(claimed, "state") == "claimed", "it should be claimed")
    it.orch("pause", "--reason", "the update")
    it.orch("enqueue", it.issues["wanted"])


@contextmanager
def redis_up(project: Project) -> Iterator[None]:
    """The project's Redis, and nothing else of the stack."""
    with Running(project, REDIS) as service:
        service.until(lambda: (project.state / "r.sock").exists(), "Redis should be up")
        yield


def main() -> None:
    """Make the state anew."""
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir()
    to = Path(__file__).parent
    with GitHubServer() as github, Project(FOLDER, top=TOP, verify=VERIFY) as project:
        python = Path(sys.executable)
        project.env |= {"ORCH_GITHUB_TOKEN": TOKEN, "PATH": f"{python.parent}:{project.env['PATH']}"}
        # By its name: the command of an agent that failed is stored.
        toml = project.toml.read_text().replace(str(python), python.name)
        project.toml.write_text(toml + GITHUB.format(github.url))
        with up(project) as stack:
            stack.says("is up")
            evening = Evening(project, stack, github)
            before_the_pause(evening)
            with_the_pause(evening)
            without_the_tracker(evening)
            stack.process.kill()
            wait_until(project.is_down, "a killed stack should leave nothing running", 30)
        with redis_up(project):
            project.redis.connection_pool.disconnect()
            old_state.write(old_state.Place(FOLDER), project.redis, to)
    (to / "issues.json").write_text(json.dumps(evening.issues, indent=1) + "\n")


if __name__ == "__main__":
    main()
