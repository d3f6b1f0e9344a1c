"""Sessions in a host's own process: the runbook's serial loop, its parallel dispatcher, and the dry run.

The Celery engine shares everything below this (lifecycle, roles, gateway); what it does instead of this is in `poll/`.
"""

from __future__ import annotations

import argparse
import json
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import replace
from typing import Protocol

import structlog

from orchestrator.agent_roles import Implementer, Reviewer
from orchestrator.errors import ALREADY_TOLD, InvalidMCPResponseError, TrackerRefused
from orchestrator.gateway import SudocodeGateway
from orchestrator.issue import context, shown
from orchestrator.memory import MemoryTracker
from orchestrator.models import (
    UNSAID,
    ImplementerResult,
    IssueContext,
    IssueStatus,
    IssueTracker,
    Progress,
    ReviewResult,
    VerificationEvidence,
    session_id_for,
    utc_now,
)
from orchestrator.poll.candidates import Candidate, candidates, open_blockers
from orchestrator.prompts import render_issue_prompt
from orchestrator.publish.entries import About, error_entries
from orchestrator.session_loop import SingleSessionOrchestrator, ToldAtOnce
from orchestrator.snapshot import read_snapshot

log = structlog.get_logger(__name__)


class ReadyGateway(Protocol):
    """The one thing a dispatcher asks of a gateway."""

    def get_ready_issues(self) -> Sequence[object]:
        """Records of ready issues."""


def ready_candidates(gateway: ReadyGateway) -> list[Candidate]:
    """Ready issues in claiming order; malformed records are logged by name and skipped."""
    valid, problems = candidates(gateway.get_ready_issues())
    for problem in problems:
        log.warning("malformed_ready_record", problem=problem)
    return valid


class IssueSessionRunner:
    """Claims one issue and runs its session, here and now."""

    def __init__(
        self,
        *,
        gateway: IssueTracker,
        orchestrator: SingleSessionOrchestrator,
        orchestrator_id: str,
        prompt_template: str,
        implementer: Implementer,
        spec_reviewer: Reviewer,
        quality_reviewer: Reviewer,
    ) -> None:
        self._gateway = gateway
        self._orchestrator = orchestrator
        self._orchestrator_id = orchestrator_id
        self._template = prompt_template
        self._implementer = implementer
        self._spec_reviewer = spec_reviewer
        self._quality_reviewer = quality_reviewer

    def poll_ready_and_run_once(self) -> str | None:
        """Run the first ready issue whose blockers are closed, to the end of its session; its id, or None."""
        for candidate in ready_candidates(self._gateway):
            if self._runnable(candidate.issue_id):
                self.claim_and_run_issue(candidate.issue_id)
                return candidate.issue_id
        return None

    def _runnable(self, issue_id: str) -> bool:
        try:
            return not open_blockers(shown(self._gateway.show_issue, issue_id), self._gateway)
        except (TrackerRefused, InvalidMCPResponseError) as refusal:
            log.warning("not_claimed", issue=issue_id, reason=str(refusal))
            return False

    def claim_and_run_issue(self, issue_id: str, task_id: str | None = None) -> None:
        """Set the issue in_progress and run its session. What goes wrong after that reopens it and is raised again."""
        self._gateway.set_issue_status(issue_id, IssueStatus.IN_PROGRESS)
        about = About(
            _unread(issue_id, task_id), session_id_for(issue_id, utc_now().isoformat()), self._orchestrator_id
        )
        try:
            issue = context(shown(self._gateway.show_issue, issue_id))
            about = replace(about, issue=replace(issue, task_id=task_id) if task_id else issue)
            self._orchestrator.run_issue(
                issue=about.issue,
                rendered_prompt=render_issue_prompt(self._template, about.issue),
                implementer=self._implementer,
                spec_reviewer=self._spec_reviewer,
                quality_reviewer=self._quality_reviewer,
                session_id=about.session_id,
                orchestrator_id=self._orchestrator_id,
            )
        except Exception as error:
            if ALREADY_TOLD not in getattr(error, "__notes__", ()):
                ToldAtOnce(self._gateway).tell(error_entries(about, Progress(), error, at=utc_now()))
            raise


def _unread(issue_id: str, task_id: str | None) -> IssueContext:
    """The issue of a session that ended before its tracker showed it."""
    return IssueContext(issue_id, UNSAID, task_id or issue_id, UNSAID, UNSAID, UNSAID, UNSAID, UNSAID)


class WorkerPoolDispatcher:
    """Claims ready issues and runs each on a thread, never more than max_workers, never one issue twice at once.

    All methods are for the thread that made it (RuntimeError elsewhere). The next call raises a failed session's error.
    """

    def __init__(
        self,
        *,
        ready_gateway: ReadyGateway,
        claim_issue: Callable[[str], object],
        run_issue_session: Callable[[str], object],
        max_workers: int = 4,
    ) -> None:
        if max_workers <= 0:
            raise ValueError(f"max_workers must be at least 1, is {max_workers}")
        self._gateway = ready_gateway
        self._claim = claim_issue
        self._run = run_issue_session
        self._max_workers = max_workers
        self._pool = ThreadPoolExecutor(max_workers, thread_name_prefix="session")
        self._running: dict[str, Future[object]] = {}
        self._owner = threading.get_ident()

    def poll_and_dispatch_once(self) -> list[str]:
        """Claim and start as many ready issues as there are free workers; their ids, in claiming order."""
        self._only_owner()
        self._collect()
        started: list[str] = []
        for candidate in ready_candidates(self._gateway):
            if len(self._running) >= self._max_workers:
                break
            if candidate.issue_id in self._running:
                continue
            self._claim(candidate.issue_id)
            self._running[candidate.issue_id] = self._pool.submit(self._run, candidate.issue_id)
            started.append(candidate.issue_id)
        return started

    def wait_for_idle(self) -> None:
        """Wait until no session runs."""
        self._only_owner()
        wait(self._running.values())
        self._collect()

    def shutdown(self) -> None:
        """Wait for what runs and take no more."""
        self._only_owner()
        self._max_workers = 0  # a poll after this finds no capacity, so it claims nothing that could not run
        self._pool.shutdown(wait=True)
        self._collect()

    def _collect(self) -> None:
        """Forget the ended sessions first, so that a failure is raised once and the others are not lost with it."""
        ended = [issue_id for issue_id, future in self._running.items() if future.done()]
        failures = [error for error in (self._running.pop(issue_id).exception() for issue_id in ended) if error]
        if len(failures) > 1:
            raise BaseExceptionGroup("sessions failed", failures)
        if failures:
            raise failures[0]

    def _only_owner(self) -> None:
        if threading.get_ident() != self._owner:
            raise RuntimeError("a WorkerPoolDispatcher belongs to the thread that made it")


def run_dry_run() -> dict[str, object]:
    """One clean session of a made-up issue, all in memory: does the installed program work at all?"""
    tracker = MemoryTracker()
    issue_id = tracker.file("Dry run", content="- [ ] nothing is changed", issue_id="i-dry1")
    gateway = SudocodeGateway(
        mcp_ready=tracker.ready,
        mcp_show_issue=tracker.show_issue,
        mcp_upsert_issue=tracker.upsert_issue,
        mcp_add_feedback=tracker.add_feedback,
        mcp_link=tracker.link,
    )
    runner = IssueSessionRunner(
        gateway=gateway,
        orchestrator=SingleSessionOrchestrator(gateway),
        orchestrator_id="orch-dry-run",
        prompt_template="{{task_id}}: {{title}}\n\n{{dod_checklist_full}}\n",
        implementer=_implement_nothing,
        spec_reviewer=_find_nothing,
        quality_reviewer=_find_nothing,
    )
    processed = runner.poll_ready_and_run_once()
    snapshots = [read_snapshot(content) for content in shown(tracker.show_issue, issue_id).feedback]
    return {
        "processed_issue": processed,
        "last_event_type": snapshots[0].event_type if snapshots and snapshots[0] else None,
        "snapshot_count": len(snapshots),
        "status_updates": [list(update) for update in tracker.status_updates],
    }


def _implement_nothing(_prompt: str, _fix_list: Sequence[str]) -> ImplementerResult:
    changed_at = utc_now()
    return ImplementerResult(VerificationEvidence("true", "", 0, utc_now()), changed_at, "dry run")


def _find_nothing(_prompt: str, _result: ImplementerResult, _attempt: int) -> ReviewResult:
    return ReviewResult(True, [], [], "dry run")


def main(argv: Sequence[str] | None = None) -> None:
    """`python -m orchestrator.runner --dry-run` prints the dry run's result as JSON."""
    parser = argparse.ArgumentParser(prog="python -m orchestrator.runner", description=run_dry_run.__doc__)
    parser.add_argument("--dry-run", action="store_true", required=True, help="run one made-up session in memory")
    parser.parse_args(argv)
    print(json.dumps(run_dry_run(), sort_keys=True, indent=2))


if __name__ == "__main__":
    main()
