"""A throw-away repo of somebody else's and the stack on it, as its user has them: real processes, scripted agents."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import redis

from orchestrator.adapters.git import create_project
from orchestrator.adapters.process.marked import _above as above
from orchestrator.adapters.redis import Keys, connect
from orchestrator.adapters.redis import server as redis_server
from orchestrator.adapters.redis.history import RedisOutbox
from orchestrator.adapters.redis.leases import RedisLeases
from orchestrator.models import Holding
from orchestrator.tracker.jsonl import init
from tests.support import ROOT, wait_until
from tests.tracker_here import TrackerHere

ORCH_UP = (sys.executable, "-P", "-m", "orchestrator.cli", "up", "--no-flower")
CELERY = (sys.executable, "-m", "celery", "-A", "orchestrator")
TRACKER = (sys.executable, "-P", "-m", "orchestrator.tracker")
AGENT = (sys.executable, "-P", "-m", "orchestrator.adapters.agents.scripted")

GOOD = {"write": {"work.txt": "done\n"}, "notes": "wrote work.txt"}
"""One run of an implementer whose work passes the verification of L2."""

CLEAN = ["SESSION_START", "IMPLEMENT_DONE", "SPEC_REVIEW_PASS", "QUALITY_REVIEW_PASS", "SESSION_DONE"]
"""What is told of a session in which nobody finds fault."""

ORCH_TOML = """\
project = "{name}"
tracker = "bundled"
sandbox = "{sandbox}"
poll_interval = {poll_s}
lease_seconds = {lease_s}
{top}

[limits]
{limits}

[verify]
L2 = ["test", "-s", "work.txt"]
{verify}

[agents]
env = ["PYTHONPATH"]

[agents.default]
command = {agent}
"""


class Project:
    """A git repo with one commit, an orch.toml and a tracker, as a context manager; all of it below `folder`.

    Its agents run without a sandbox: on machines with one and without, tests see the same.

    Leaving it leaves no process behind, and fails if there was one.
    """

    def __init__(
        self,
        folder: Path,
        *,
        top: str = "",
        limits: str = "",
        verify: str = "",
        lease_s: float = 3,
        poll_s: float = 0.5,
        sandbox: str = "off",
    ) -> None:
        self.folder = folder
        self.repo = folder / "repo"
        self.state = folder / "state"
        self.playbooks = folder / "playbooks"
        self.toml = self.repo / "orch.toml"
        self._name = folder.name.replace("_", "-").lower()[:40]
        self._lease_s = lease_s
        create_project(self.repo, {"README.md": "# Somebody's project\n"})
        init(self.repo)
        agent = json.dumps([*AGENT, "--role", "{role}", "--issue", "{issue}", "--playbook", str(self.playbooks)])
        self.toml.write_text(
            ORCH_TOML.format(
                name=self._name,
                sandbox=sandbox,
                poll_s=poll_s,
                lease_s=lease_s,
                top=top,
                limits=limits,
                verify=verify,
                agent=agent,
            )
        )
        self.playbooks.mkdir()
        self.state.mkdir(mode=0o700, exist_ok=True)
        self.play("default", implementer=[GOOD])
        (folder / "home").mkdir()
        self.env = {
            "PATH": os.environ["PATH"],
            "HOME": str(folder / "home"),
            "PYTHONPATH": str(ROOT),
            "ORCH_PROJECT_ROOT": str(self.repo),
            "ORCH_STATE_DIR": str(self.state),
            "ORCH_LOG_FORMAT": "text",  # what tests wait for stands in lines for people
        }

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.tracker.close()
        left = self.processes()
        for pid in left:
            kill(pid)
        socket_folder = redis_server._socket_path(self.state.resolve()).parent
        if socket_folder != self.state.resolve():
            shutil.rmtree(socket_folder, ignore_errors=True)  # it was never up
        assert error is not None or not left, f"left behind: {left}"

    # What its user does

    @cached_property
    def tracker(self) -> TrackerHere:
        """The bundled tracker, beside the stack's."""
        return TrackerHere(TRACKER, cwd=self.repo, lock_path=self.state / "tracker.lock")

    def file(self, title: str, *, verify: str = "L2", content: str = "", priority: int = 2, **roles: object) -> str:
        """File an issue, with a playbook of its own if there are roles; its id."""
        text = content or f"Verify: {verify}\n\n- [ ] {title} is done\n"
        issue_id: str = self.tracker.upsert_issue(title=title, description=text, priority=priority)["id"]
        if roles:
            self.play(issue_id, **{"implementer": [GOOD], **roles})
        return issue_id

    def play(self, name: str, **roles: object) -> None:
        """Write a playbook."""
        (self.playbooks / f"{name}.json").write_text(json.dumps(roles))

    def git(self, *args: str) -> str:
        """What git says in the main checkout."""
        done = subprocess.run(["git", *args], cwd=self.repo, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    # What can be seen from outside

    @cached_property
    def redis(self) -> redis.Redis:
        """A connection to the project's private Redis, which must be up when it is first asked for."""
        url = redis_server.find(self.state)
        assert url is not None, "the project's Redis should be up"
        return connect(url)

    @property
    def keys(self) -> Keys:
        """What the project's keys in Redis are called."""
        return Keys(self._name)

    @property
    def leases(self) -> RedisLeases:
        """Who runs what."""
        return RedisLeases(self.redis, self.keys, lease_s=self._lease_s)

    @property
    def outbox(self) -> RedisOutbox:
        """What the tracker has still to be told."""
        return RedisOutbox(self.redis, self.keys)

    def known(self, issue_id: str) -> bool:
        """Whether the issue has had a session."""
        return any(holding.issue_id == issue_id for holding in self.leases.holdings())

    def holding(self, issue_id: str) -> Holding:
        """The issue as Redis knows it."""
        return next(holding for holding in self.leases.holdings() if holding.issue_id == issue_id)

    def over(self, *issue_ids: str) -> bool:
        """Whether these and no other sessions have run, have ended, and the tracker knows all of it."""
        ended = {holding.issue_id for holding in self.leases.holdings() if holding.state == "ended"}
        return ended == set(issue_ids) and self.outbox.waiting() == 0

    def snapshots(self, issue_id: str) -> list[str]:
        """The snapshots of the issue's only session, as Redis has them."""
        (session_id,) = self.leases.runs(issue_id)
        return self.leases.snapshots(session_id)

    def status(self, issue_id: str) -> str:
        """The issue's status in the tracker."""
        return str(self.tracker.show_issue(issue_id)["status"])

    def feedback(self, issue_id: str) -> list[str]:
        """What the tracker was told of the issue, oldest first."""
        return [entry["content"] for entry in reversed(self.tracker.show_issue(issue_id)["feedback"])]

    def told(self, issue_id: str) -> list[dict[str, Any]]:
        """The same, read."""
        return [json.loads(text) for text in self.feedback(issue_id)]

    def events(self, issue_id: str) -> list[str]:
        """The events that the tracker was told of, oldest first."""
        return [snapshot["event_type"] for snapshot in self.told(issue_id)]

    def asked(self, issue_id: str, role: str = "implementer") -> int:
        """How often an agent was started in this role for this issue."""
        counter = self.playbooks / "state" / f"{issue_id}.{role}"
        return int(counter.read_text() or 0) if counter.exists() else 0

    def worktree(self, issue_id: str) -> Path:
        """Where the issue's agents work."""
        return self.state / "worktrees" / issue_id

    def files(self, issue_id: str) -> dict[str, str]:
        """The files on the issue's branch."""
        names = self.git("ls-tree", "-r", "--name-only", f"orch/{issue_id}").splitlines()
        return {name: self.git("show", f"orch/{issue_id}:{name}") for name in names}

    def main_checkout(self) -> tuple[str, str, dict[str, str]]:
        """What the stack must not change: HEAD, git's status, and the files."""
        files = {path.name: path.read_text() for path in self.repo.iterdir() if path.is_file()}
        return self.git("rev-parse", "HEAD"), self.git("status", "--porcelain"), files

    def processes(self, words: str = "") -> dict[int, str]:
        """Every process of this project, by its arguments, environment or folder; those with `words` in arguments.

        Our own keep these to themselves, but from root: whoever else tests takes all that it started for its project's.
        """
        mark, found = os.fsencode(self.folder), {}
        for place in Path("/proc").glob("[0-9]*"):
            try:
                line = (place / "cmdline").read_bytes()
                try:
                    ours = mark in line + (place / "environ").read_bytes() + os.fsencode((place / "cwd").readlink())
                except PermissionError:
                    ours = os.getpid() in above(int(place.name))
            except (FileNotFoundError, ProcessLookupError):
                continue
            if ours and line:
                found[int(place.name)] = line.replace(b"\0", b" ").decode(errors="replace")
        return {pid: line for pid, line in found.items() if words in line}

    def is_down(self) -> bool:
        """Whether nothing of the project runs."""
        return not self.processes()


class Running:
    """A program on the project, as a context manager; leaving ends it with SIGTERM if it still runs."""

    def __init__(self, project: Project, argv: Sequence[str], env: Mapping[str, str] | None = None) -> None:
        self._argv, self._folder, self._env = argv, project.folder, {**project.env, **(env or {})}

    def __enter__(self) -> Self:
        self._log = self._folder / f"{len(list(self._folder.glob('*.log')))}.log"
        self._forgotten = 0
        with self._log.open("wb") as output:
            self.process = subprocess.Popen(
                self._argv,
                cwd=self._folder,
                env=self._env,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        return self

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        try:
            self.process.wait(30)
        finally:
            self.process.kill()
            self.process.wait()

    def forget(self) -> None:
        """Leave out what it printed until now from all that follows."""
        self._forgotten = self._log.stat().st_size

    @property
    def printed(self) -> str:
        """All it printed until now."""
        return self._log.read_bytes()[self._forgotten :].decode(errors="replace")

    def lines(self, *words: str) -> list[str]:
        """The printed lines in which all of these words stand."""
        return [line for line in self.printed.splitlines() if all(word in line for word in words)]

    def says(self, *words: str) -> None:
        """Wait for such a line."""
        self.until(lambda: self.lines(*words), f"a line with {words}")

    def until(self, predicate: Callable[[], object], what: str, timeout: float = 60.0) -> None:
        """Wait while it runs; a failure shows what it printed."""
        seen: list[object] = []
        try:
            wait_until(lambda: seen.append(predicate()) or seen[-1] or self.process.poll() is not None, what, timeout)
            assert seen[-1] or predicate(), f"it ended before: {what}"
        except AssertionError as failure:
            raise AssertionError(f"{failure}\n{self.printed}") from failure

    def ends(self, number: int | None = None) -> int:
        """Its exit code, once it has ended; of the signal, if there is one."""
        if number is not None:
            self.process.send_signal(number)
        return self.process.wait(30)


def up(project: Project) -> Running:
    """`orch up`, without Flower."""
    return Running(project, ORCH_UP)


def kill(pid: int, number: int = signal.SIGKILL) -> None:
    """kill -9, unless another signal is named, of what may be gone already."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


def parent(pid: int) -> int:
    """The process that a process belongs to; 0 for one that is gone."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except (FileNotFoundError, ProcessLookupError):
        return 0
