"""A repo, a forge, a webhook and a tracker around the looks for merges, to see which event closes what."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Self

import httpx2
import pytest

from orchestrator.adapters.github.pulls import GitHub
from orchestrator.merge_close.events import Delivered, PullText
from orchestrator.merge_close.look import MergeLook
from orchestrator.merge_close.poll import MergePoll
from orchestrator.merge_close.rules import Trust
from orchestrator.models import Report, SessionRecord, Verdict
from orchestrator.text import commit_message
from orchestrator.web import webhook
from orchestrator.web.app import make_app
from tests.git_project import Project
from tests.github_server import SIGNATURE, TOKEN, GitHubServer, sign
from tests.merges import Tracked
from tests.support import NOON, gateway_to

ISSUE = "i-a1b2"
BRANCH = f"orch/{ISSUE}"
LINE = f"Sudocode-Issue: {ISSUE}"
SECRET = "between GitHub and us"


class Finished:
    """Finished sessions in this process, as Redis keeps them."""

    def __init__(self) -> None:
        self.sessions: dict[str, Delivered] = {}
        self.waiting: set[str] = set()

    def finished(self) -> Iterable[Delivered]:
        return [self.sessions[issue_id] for issue_id in sorted(self.waiting)]

    def work(self, issue_id: str) -> tuple[SessionRecord, Sequence[Report]] | None:
        return None

    def settled(self, issue_id: str, *, merged_at: datetime | None = None) -> None:
        self.waiting.discard(issue_id)

    def due(self) -> Sequence[str]:
        return ()

    def delivered(self, issue_id: str, session_id: str, place: str) -> None:
        """Nothing is delivered here."""

    def postponed(self, issue_id: str, session_id: str, reason: str, *, wait_s: float) -> None:
        """Nothing is delivered here."""

    def nothing(self, issue_id: str, session_id: str, reason: str) -> None:
        """Nothing is delivered here."""

    def looked(self, problem: str) -> None:
        assert problem == ""


class MergeWorld:
    """One issue's sessions, what people do with their work, and looks. Each thing that is done takes an hour."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.project = Project(folder)
        self.github = GitHubServer()
        self.tracker = Tracked()
        self.finished = Finished()
        self.checkpoint: str | None = None
        self.now = NOON
        self.hints = 0
        self.remembered: set[str] = set()
        self._patch = patch
        self._open = ExitStack()
        self.tick()

    def __enter__(self) -> Self:
        self._open.enter_context(self.github)
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def read(self) -> str | None:
        return self.checkpoint

    def write(self, text: str) -> None:
        self.checkpoint = text

    def tick(self) -> datetime:
        """An hour goes by; commits that people make bear the time."""
        self.now += timedelta(hours=1)
        for whose in ("AUTHOR", "COMMITTER"):
            self._patch.setenv(f"GIT_{whose}_DATE", self.now.isoformat())
        return self.now

    # The orchestrator

    def session(self, *texts: str, verdict: Verdict | None = Verdict.DONE, beside: bool = True) -> str:
        """A session whose steps write these into src/calc.py, and `beside` it a file of their own; its last commit."""
        began = self.tick()
        workspace, issue_id = self.project.workspace(), ISSUE
        worktree = workspace.prepare(issue_id)
        for n, text in enumerate(texts):
            (worktree.path / "src/calc.py").write_text(text)
            if beside:
                (worktree.path / f"step{n}.py").write_text(text)
            trailers = {"Sudocode-Issue": issue_id, "Orch-Session": f"s-{began:%d%H}", "Orch-Step": f"RUNNING/{n}"}
            workspace.commit(worktree, commit_message(subject=f"Step {n}", body="", trailers=trailers))
        delivered = Delivered(issue_id, workspace.head(worktree), worktree.base, began)
        self.finished.sessions[issue_id] = delivered
        self.finished.waiting.discard(issue_id)
        self.tracker.session(verdict, issue_id, at=self.tick())
        if verdict is Verdict.DONE:
            self.finished.waiting.add(issue_id)
        self.github.push(BRANCH, delivered.commit)
        return delivered.commit

    def look(self) -> list[str]:
        with GitHub("acme/shop", token=TOKEN, api=self.github.url, timeout_s=5) as feed:
            gateway = gateway_to(self.tracker)
            trust = Trust("acme/shop", "main", frozenset({"lead"}))
            poll = MergePoll(feed, gateway, self, trust, self.finished.sessions.get, lambda: self.now)
            look = MergeLook(
                publish=list,
                tracker=gateway,
                finished=self.finished,
                local=self.project.workspace().merges().merged,
                poll=poll,
                deliver=_delivers_nothing,
                adds=self.project.workspace().adds,
                closed=lambda _ids: None,
            )
            return look()

    def forget(self) -> None:
        """What `orch merges repair` does: the next look goes through all pull requests again."""
        self.checkpoint = None

    @property
    def status(self) -> str:
        return self.tracker.status(ISSUE)

    def reopen(self, status: str = "open") -> None:
        """A person opens the issue again."""
        self.tracker.issues[ISSUE]["status"] = status

    @property
    def closings(self) -> list[str]:
        return [issue_id for issue_id, status in self.tracker.status_updates if status == "closed"]

    # Git

    def git(self, *args: str) -> str:
        self.tick()
        return self.project.git(*args)

    def commit(self, name: str, text: str = "x\n") -> str:
        self.tick()
        return self.project.commit(name, text)

    @property
    def head(self) -> str:
        return self.project.git("rev-parse", "main")

    def merge(self, *how: str, what: str = BRANCH) -> str:
        self.git("merge", "--quiet", *(how or ("--no-ff",)), "--no-edit", what)
        return self.head

    def squash(self, *paragraphs: str) -> str:
        self.project.git("merge", "--quiet", "--squash", BRANCH)
        words = [word for text in ("Add numbers", *(paragraphs or (LINE,))) for word in ("-m", text)]
        self.git("commit", "--quiet", *words)
        return self.head

    def solve(self, text: str) -> None:
        """A person solves the conflict that a merge, pick or squash left in src/calc.py."""
        (self.project.repo / "src/calc.py").write_text(text)
        self.project.git("add", "--all")

    def conflicts(self, *args: str) -> None:
        """A git command that leaves a conflict."""
        with pytest.raises(AssertionError):
            self.git(*args)

    # The forge

    def pull(self, body: str = LINE, **options: Any) -> int:
        """A pull request of the session's branch."""
        return self.github.open(options.pop("branch", BRANCH), body=body, **options)

    def merged(self, body: str = LINE, **options: Any) -> int:
        """One that is merged now; gives its number."""
        number = self.pull(body, **options)
        self.github.merge(number, at=self.tick())
        return number

    def sha(self, number: int) -> str:
        return str(self.github.pulls[number]["merge_commit_sha"])

    # The webhook

    def hook(self, number: int, *, signature: str = "", delivery: str = "", **changes: Any) -> int:
        """GitHub tells of a pull request, and a look is made if it is believed; gives the answer's status."""
        event = self.github.closed_event(number)
        event = {**event, "action": changes.pop("action", "closed"), "pull_request": event["pull_request"] | changes}
        body = json.dumps(event).encode()
        headers = {
            "X-GitHub-Event": "pull_request",
            "X-GitHub-Delivery": delivery or f"delivery-{len(self.remembered)}",
            SIGNATURE: signature or sign(body, SECRET),
        }
        hints = self.hints
        status = asyncio.run(self._post(body, headers))
        if self.hints > hints:
            self.look()
        return status

    async def _post(self, body: bytes, headers: dict[str, str]) -> int:
        app = make_app(webhook.route(secret=SECRET, taken=self, hint=self._hint))
        async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://localhost") as client:
            return (await client.post("/webhooks/github", content=body, headers=headers)).status_code

    def _hint(self) -> None:
        self.hints += 1

    def seen(self, delivery: str) -> bool:
        return delivery in self.remembered

    def remember(self, delivery: str) -> None:
        self.remembered.add(delivery)


def _delivers_nothing(_work: Delivered, _text: PullText) -> str:
    raise AssertionError("nothing is due")
