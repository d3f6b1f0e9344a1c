"""`orch gc`: what closed issues left is removed, nothing else, and the dry run says exactly what."""

from __future__ import annotations

import json
import subprocess
from typing import Any

from orchestrator.adapters.redis import Keys, connect
from orchestrator.adapters.redis import server as redis_server
from orchestrator.adapters.redis.leases import RedisLeases
from orchestrator.models import Claim
from tests.acceptance.project import Project
from tests.engine import a_record
from tests.orch import orch_here


def gc(project: Project, *words: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    """`orch gc words...`"""
    done = orch_here("gc", *words, cwd=project.repo, env=project.env)
    assert code == done.returncode, done
    return done


def said(project: Project, *words: str) -> dict[str, Any]:
    """The same, for programs."""
    found: dict[str, Any] = json.loads(gc(project, "--json", *words).stdout)
    return found


def branches(project: Project) -> set[str]:
    return set(project.git("for-each-ref", "--format=%(refname)", "refs/heads/orch").split())


def closed_issue(project: Project, title: str, *, merged: bool) -> str:
    """An issue that is closed, with a branch of its own."""
    issue_id = project.file(title)
    commit = "main"
    if not merged:
        who = ("-c", "user.name=A", "-c", "user.email=a@example.org")
        blob = project.git("hash-object", "-w", "orch.toml")
        project.git("update-index", "--add", "--cacheinfo", f"100644,{blob},work.txt")
        commit = project.git(*who, "commit-tree", project.git("write-tree"), "-p", "main", "-m", "Work")
    project.git("update-ref", f"refs/heads/orch/{issue_id}", commit)
    project.tracker.upsert_issue(issue_id=issue_id, status="closed")
    return issue_id


def test_the_dry_run_is_exact(project: Project) -> None:
    """It removes nothing and lists what the run removes then; what would be lost stays, with a reason."""
    merged, unmerged = (closed_issue(project, title, merged=title == "Merged") for title in ("Merged", "Not merged"))
    opened = project.file("Open")
    project.git("update-ref", f"refs/heads/orch/{opened}", "main")
    project.git("update-ref", "refs/heads/orch/i-0000", "main")
    before = branches(project)
    dry = said(project, "--dry-run")

    assert before == branches(project)
    assert [merged] == [removed["issue_id"] for removed in dry["removed"]]
    assert {unmerged, "i-0000"} == {kept["issue_id"] for kept in dry["kept"]}

    real = said(project)
    assert (dry["removed"], dry["kept"]) == (real["removed"], real["kept"])
    assert {removed["name"] for removed in real["removed"]} == before - branches(project)
    assert [] == said(project)["removed"]


def test_what_people_read(project: Project) -> None:
    """A line for each thing; and one when there is nothing."""
    empty = gc(project)
    merged = closed_issue(project, "Merged", merged=True)
    dry, real = gc(project, "--dry-run"), gc(project)

    assert ("closed issues have left nothing\n", "") == (empty.stdout, empty.stderr)
    assert f"would remove branch refs/heads/orch/{merged}: merged into main\n" == dry.stdout
    assert f"removed branch refs/heads/orch/{merged}: merged into main\n" == real.stdout


def test_a_session_in_flight_is_not_touched(project: Project) -> None:
    """Somebody closed the issue while its session runs."""
    issue_id = closed_issue(project, "Merged", merged=True)
    server = redis_server.ensure(project.state)
    try:
        leases = RedisLeases(connect(server.url), Keys(project.folder.name.replace("_", "-").lower()[:40]), lease_s=60)
        leases.announce("sessions@here", 1, for_s=60)
        claim = leases.claim(issue_id)
        assert isinstance(claim, Claim)
        leases.open(claim, a_record(issue_id), [])
        found = said(project)
    finally:
        server.stop()

    assert [] == found["removed"]
    assert ["its session is in flight; see `orch status`"] == [kept["why"] for kept in found["kept"]]


def test_without_a_tracker_nothing_is_removed(project: Project) -> None:
    """What is closed only the tracker knows: one line, and the branches stay."""
    closed_issue(project, "Merged", merged=True)
    before = branches(project)
    project.tracker.close()
    (project.repo / ".sudocode").rename(project.repo / ".away")
    done = gc(project, code=1)

    assert ("", 1) == (done.stdout, len(done.stderr.splitlines()))
    assert "there is no tracker" in done.stderr
    assert before == branches(project)
