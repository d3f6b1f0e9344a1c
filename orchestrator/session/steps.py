"""Doing a session's steps in a git worktree: agents work and review there, and we verify there."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property

import structlog

from orchestrator.agent_roles import RoleAgentAdapter, RoleSteps
from orchestrator.errors import AgentError, CommitMissing, SettingsError, WorkspaceError
from orchestrator.leases import Lease
from orchestrator.models import ImplementerResult, Progress, Report, ReviewResult, Stage, Step, VerificationEvidence
from orchestrator.ports import AgentTransport, Remote, Reviewer, Verifier, Workspace, Worktree
from orchestrator.prompts import render_issue_prompt
from orchestrator.session.keeper import LeaseKeeper
from orchestrator.snapshot import Status
from orchestrator.text import bounded_text, commit_message

log = structlog.get_logger(__name__)

MAX_CHANGE_CHARS = 60_000

_CHANGE = """
# The change

{change}
"""


@dataclass(frozen=True)
class Tools:
    """What a session works with. `transport` and `verifier` are made per worktree; the keeper can cut them off."""

    workspace: Workspace
    remote: Callable[[Lease], Remote]
    transport: Callable[[Lease, Worktree, LeaseKeeper], AgentTransport]
    verifier: Callable[[Lease, Worktree, LeaseKeeper], Verifier]
    verify_command: Callable[[str], Sequence[str] | None]
    prompt_template: Callable[[], str]
    sweep: Callable[[Lease], object]
    now: Callable[[], datetime]


def put_aside(lease: Lease, tools: Tools) -> list[str]:
    """End what still runs of the session on this host, and give the refs that keep what its step had done so far.

    Running it again gives none. Raises WorkspaceError.
    """
    tools.sweep(lease)
    return tools.workspace.put_aside(lease.issue_id)


class WorktreeSteps:
    """Does the steps of one session in its worktree.

    A step that was cut off is done again from the commit of the last recorded one.
    """

    def __init__(self, lease: Lease, tools: Tools, keeper: LeaseKeeper) -> None:
        self._lease = lease
        self._tools = tools
        self._keeper = keeper
        self._worktree: Worktree | None = None

    def __call__(self, step: Step, progress: Progress) -> Report:
        """Do one step. Raises LeaseLost or SessionStopped before it, or in it when it is cut off.

        If the worktree is deleted under it the step counts for nothing, and is done again in a new one, once.
        """
        with structlog.contextvars.bound_contextvars(stage=step.stage, attempt=step.attempt):
            try:
                return self._told(step, progress)
            finally:
                # What was raised without a lease was raised by the loss of it: others may have ended our agent by now.
                self._keeper.hold()

    def _told(self, step: Step, progress: Progress) -> Report:
        for _ in range(2):
            self._keeper.check()
            started = self._tools.now()
            log.debug("step_started")
            if report := self._done(step, progress):
                seconds = (self._tools.now() - started).total_seconds()
                log.info("step_done", seconds=round(seconds, 1), **_facts(report))
                return report
            log.warning("worktree_gone")
            self._worktree = None
        raise WorkspaceError(f"{self._lease.issue_id}: its worktree was deleted in two steps running; see by whom")

    @cached_property
    def _remote(self) -> Remote:
        return self._tools.remote(self._lease)

    def _done(self, step: Step, progress: Progress) -> Report | None:
        """The step's report; None when the worktree did not outlive it: no answer is one about files that are gone."""
        try:
            worktree = self._worktree or self._prepared(progress)
            report = self._steps(step, progress, worktree)(step, progress)
        except (AgentError, WorkspaceError):
            if self._worktree is None or self._worktree.path.is_dir():
                raise
            return None
        return report if worktree.path.is_dir() else None

    def _prepared(self, progress: Progress) -> Worktree:
        workspace, record = self._tools.workspace, self._lease.record
        # A holder that froze may have left an agent at work in this very worktree.
        self._tools.sweep(self._lease)
        fetched = self._remote.fetch()
        self._keeper.hold()
        worktree = workspace.prepare(self._lease.issue_id, start_from=record.start_from, fetched=fetched)
        self._worktree = worktree
        try:
            if progress.commit:
                workspace.restore(worktree, progress.commit)
        except CommitMissing as error:
            raise WorkspaceError(
                f"{worktree.issue_id}: its work so far, commit {progress.commit[:12]}, is neither in this clone nor on "
                f"its remote; the clone of {self._lease.taken_from or 'the worker before'} has it: fetch branch "
                f"{worktree.branch} from there, then `orch enqueue {worktree.issue_id}`"
            ) from error
        self._remote.push(workspace.head(worktree))
        return worktree

    def _steps(self, step: Step, progress: Progress, worktree: Worktree) -> RoleSteps:
        roles = RoleAgentAdapter(self._tools.transport(self._lease, worktree, self._keeper))

        def implement(prompt: str, fix_list: Sequence[str]) -> ImplementerResult:
            result = roles.implementer(prompt, fix_list)
            self._keeper.hold()
            before = self._tools.workspace.head(worktree)
            commit = self._tools.workspace.commit(worktree, self._message(step, result.notes))
            # Before it is recorded: whoever finds the record must find the commit.
            self._remote.push(commit)
            changed_at = self._tools.now() if commit != before else result.code_changed_at
            return replace(result, commit=commit, code_changed_at=changed_at)

        def read_only(review: Reviewer) -> Reviewer:
            def reviewed(prompt: str, result: ImplementerResult, attempt: int) -> ReviewResult:
                change = self._tools.workspace.change(worktree, max_chars=MAX_CHANGE_CHARS)
                answer = review(prompt + _CHANGE.format(change=change), result, attempt)
                self._keeper.hold()
                discarded = self._tools.workspace.restore(worktree, progress.commit)
                if discarded:
                    log.warning("reviewer_changed_files", files=discarded[:10], count=len(discarded))
                    thrown = f"(The reviewer changed {len(discarded)} files; that was thrown away.)"
                    return replace(answer, notes=f"{answer.notes}\n{thrown}".strip())
                return answer

            return reviewed

        return RoleSteps(
            self._prompt(),
            implementer=implement,
            spec_reviewer=read_only(roles.spec_reviewer),
            quality_reviewer=read_only(roles.quality_reviewer),
            now=self._tools.now,
            verify=lambda progress: self._verify(progress, worktree),
        )

    def _prompt(self) -> str:
        try:
            return render_issue_prompt(self._tools.prompt_template(), self._lease.record.issue)
        except (ValueError, OSError) as error:
            raise SettingsError(
                f"{self._lease.issue_id}: {error}; correct the template that orch.toml names"
            ) from error

    def _verify(self, progress: Progress, worktree: Worktree) -> VerificationEvidence | str:
        level = self._lease.record.issue.verify_level
        command = self._tools.verify_command(level) or _claimed_command(progress)
        if not command:
            return (
                f"no verification command: the implementer named none, and orch.toml has none for level {level};"
                ' write e.g. [verify] default = ["make", "test"] in orch.toml'
            )
        verifier = self._tools.verifier(self._lease, worktree, self._keeper)
        return verifier(command, worktree, progress.commit)

    def _message(self, step: Step, notes: str) -> str:
        issue, record = self._lease.record.issue, self._lease.record
        what = "" if step.stage is Stage.RUNNING else f" ({_FIX_NAMES[step.stage]} {step.attempt})"
        # Titles usually start with the task's id; an issue's own id stands in the trailers.
        named = issue.task_id == issue.issue_id or issue.title.startswith(issue.task_id)
        title = issue.title if named else f"{issue.task_id}: {issue.title}"
        trailers = {
            "Sudocode-Issue": issue.issue_id,
            "Orch-Session": record.session_id,
            "Orch-Step": f"{step.stage}/{step.attempt}",
            "Orch-Token": str(self._lease.token),
        }
        return commit_message(subject=f"{title}{what}", body=notes, trailers=trailers)


def _facts(report: Report) -> dict[str, object]:
    """What a log line says of a step."""
    if report.stage is not Stage.VERIFICATION:
        failed = bounded_text("; ".join(report.failed_items))
        return {"result": Status.FAIL, "failed": failed} if failed else {"result": Status.PASS}
    result, ran = (Status.PASS if report.passed else Status.FAIL), report.evidence
    if ran is None:
        return {"result": result, "reason": report.notes}
    return {"result": result, "command": bounded_text(ran.command), "exit_code": ran.exit_code}


_FIX_NAMES = {Stage.SPEC_FIX: "spec fix", Stage.QUALITY_FIX: "quality fix"}


def _claimed_command(progress: Progress) -> Sequence[str] | None:
    """The command the implementer says it verified with: we run it ourselves."""
    claim = progress.implementer_result.verification if progress.implementer_result else None
    try:
        return shlex.split(claim.command) if claim else None
    except ValueError:
        return None
