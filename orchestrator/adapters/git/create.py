"""A git repo with something in it, for a first project."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from orchestrator.adapters.git.command import IDENTITY, question, reason
from orchestrator.errors import WorkspaceError


def create_project(folder: Path, files: Mapping[str, str], *, branch: str = "main") -> str:
    """A git repo in `folder` whose `branch` holds `files` in one commit; gives the commit.

    Running it again changes nothing: a repo that has a commit is left as it is.
    """
    folder.mkdir(parents=True, exist_ok=True)

    def git(*args: str) -> str:
        done = question(folder, *args, timeout_s=60)
        if done.returncode:
            raise WorkspaceError(f"no project could be made in {folder}: {reason(done.stderr)}; name another folder")
        return done.stdout.strip()

    git("init", "--quiet", "--template=", f"--initial-branch={branch}")
    if not git("rev-list", "--all", "--max-count=1"):
        for name, text in files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        git("add", "--all")
        git(*IDENTITY, "commit", "--quiet", "--allow-empty", "--message=Start the project")
    return git("rev-parse", "HEAD")
