"""A small git project to try a workspace on, and a git to act as its user, or as an agent in a worktree."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from orchestrator.adapters.git import GitWorkspace, create_project
from orchestrator.adapters.git.remote import GitRemote
from orchestrator.models import Lease, SessionRecord
from tests.support import an_issue

FILES = {
    "README.md": "# Project\n",
    "src/calc.py": "def add(a, b):\n    return a + b\n",
    "src/text.py": "def shout(words):\n    return words.upper()\n",
    ".gitignore": "*.cache\n",
    ".sudocode/issues.jsonl": '{"id": "i-abc"}\n',
    ".sudocode/.gitignore": "cache.db\n",
}


class Project:
    """A repo with one commit on main, and where its worktrees go."""

    def __init__(self, folder: Path) -> None:
        self.repo = folder / "repo"
        self.worktrees = folder / "worktrees"
        self.first = create_project(self.repo, FILES)

    def workspace(self, *, base: str = "main", timeout_s: float = 60.0, lock_s: float = 60.0) -> GitWorkspace:
        return GitWorkspace(self.repo, worktrees=self.worktrees, base=base, timeout_s=timeout_s, lock_s=lock_s)

    def git(self, *args: str, cwd: Path | None = None) -> str:
        """What a person or an agent types; in the main checkout unless told where."""
        who = ("-c", "user.name=Agent", "-c", "user.email=agent@example.org")
        done = subprocess.run(["git", *who, *args], cwd=cwd or self.repo, capture_output=True, check=False)
        assert done.returncode == 0, (args, done.stderr)
        return done.stdout.decode("utf-8", "replace").rstrip("\n")

    def commit(self, name: str, text: str = "x\n", *, cwd: Path | None = None) -> str:
        """One more commit by hand."""
        path = (cwd or self.repo) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        self.git("add", "--force", "--", name, cwd=cwd)
        self.git("commit", "--quiet", "-m", f"Add {name}", cwd=cwd)
        return self.git("rev-parse", "HEAD", cwd=cwd)

    def files(self, commit: str) -> set[str]:
        return set(self.git("ls-tree", "-r", "-z", "--name-only", commit).split("\0")) - {""}

    def text(self, commit: str, name: str) -> str:
        return self.git("cat-file", "blob", f"{commit}:{name}")

    def wip(self, issue_id: str = "i-abc") -> list[str]:
        """Commits put aside for an issue."""
        return self.git("for-each-ref", "--format=%(objectname)", f"refs/orch/wip/{issue_id}/").split()

    def main_checkout(self) -> tuple[str, str, bytes]:
        """What must never change: HEAD, status and index of the main checkout."""
        head = (self.repo / ".git/HEAD").read_text()
        status = self.git("--no-optional-locks", "status", "--porcelain")
        return head, status, (self.repo / ".git/index").read_bytes()


def with_bare(folder: Path) -> Project:
    """A project, and beside it `bare.git` that has all of it: the remote of its hosts."""
    project = Project(folder)
    project.git("clone", "--quiet", "--bare", str(project.repo), str(folder / "bare.git"))
    return project


class Host:
    """A clone of its own, with worktrees of its own."""

    def __init__(self, project: Project, name: str, *, answer_s: float = 30.0) -> None:
        self.name = name
        self.repo = project.repo.parent / name
        project.git("clone", "--quiet", str(project.repo.parent / "bare.git"), str(self.repo))
        self.workspace = GitWorkspace(
            self.repo, worktrees=project.repo.parent / f"{name}-worktrees", base="main", answer_s=answer_s
        )

    def remote(self, token: int, issue_id: str = "i-abc", *, start_from: str = "") -> GitRemote:
        """The remote as the holder of this token sees it."""
        record = SessionRecord("s-1", "orch-main", an_issue(issue_id=issue_id), 3, 2, start_from)
        return self.workspace.remote(Lease(issue_id, token, record), host=self.name)

    def work(
        self, remote: GitRemote, token: int, text: str = "x\n", *, issue_id: str = "i-abc", name: str = "work.py"
    ) -> str:
        """Take the issue up and do a step, as a session does; gives the commit."""
        worktree = self.workspace.prepare(issue_id, fetched=remote.fetch())
        remote.push(self.workspace.head(worktree))
        (worktree.path / name).write_text(text)
        commit = self.workspace.commit(worktree, f"Work\n\nSudocode-Issue: {issue_id}\nOrch-Token: {token}\n").commit
        remote.push(commit)
        return commit


def put_before_git(folder: Path, script: str) -> str:
    """A PATH on which `git` first runs a few lines of shell; `$GIT` is the real one."""
    real = shutil.which("git")
    assert real
    folder.mkdir(exist_ok=True)
    wrapper = folder / "git"
    wrapper.write_text(f'#!/bin/sh\nGIT={real}\n{script}\nexec $GIT "$@"\n')
    wrapper.chmod(0o755)
    return f"{folder}:{os.environ['PATH']}"
