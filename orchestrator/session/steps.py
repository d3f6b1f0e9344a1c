"""The steps of a session: agents work and review in its git worktree, and we verify in a clean checkout."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property
from threading import Event
from typing import NoReturn

import structlog

from orchestrator.agent_roles import AgentTransport, RoleAgentAdapter, Steps, to_review
from orchestrator.errors import AgentError, CommitMissing, NothingChanged, RedBase, SettingsError, WorkspaceError
from orchestrator.models import (
    NOTHING_FETCHED,
    NOTHING_TO_MERGE,
    ImplementerResult,
    Lease,
    Progress,
    Remote,
    Report,
    ReviewResult,
    Role,
    SetUp,
    Stage,
    Step,
    VerificationEvidence,
    Workspace,
    Worktree,
)
from orchestrator.prompts import prompt_with_change, render_issue_prompt
from orchestrator.session.keeper import LeaseKeeper
from orchestrator.session.touched import touched
from orchestrator.session.verification import Verification
from orchestrator.snapshot import Status
from orchestrator.text import bounded_text, commit_message, last_line, one_line

log = structlog.get_logger(__name__)

MAX_CHANGE_CHARS = 60_000


@dataclass(frozen=True)
class SessionTools:
    """The tools of a session. What is made per lease ends when the event is set.

    `set_up` is for the agents' worktree; without it there is nothing to do. `doubt_base` has the base verified anew,
    `hold_base` lets nothing start from it or be closed by it until a person says so.
    `watch` is False where agents cannot reach what is the user's: then nothing is compared.
    """

    workspace: Workspace
    remote: Callable[[Lease], Remote]
    transport: Callable[[Lease, Worktree, Event], AgentTransport]
    verification: Callable[[Lease, Event], Verification]
    verify_command: Callable[[str], Sequence[str] | None]
    prompt_template: Callable[[], str]
    sweep: Callable[[Lease], object]
    now: Callable[[], datetime]
    watch: bool = True
    set_up: Callable[[Lease, Event], SetUp] | None = None
    set_up_commands: Sequence[Sequence[str]] = ()
    trust_agent: bool = False
    doubt_base: Callable[[], object] = lambda: None
    hold_base: Callable[[str], object] = lambda _reason: None


def put_aside(lease: Lease, tools: SessionTools) -> list[str]:
    """End what still runs of the session on this host, and give the refs that keep what its step had done so far.

    Running it again gives none. Raises WorkspaceError.
    """
    tools.sweep(lease)
    return tools.workspace.put_aside(lease.issue_id)


class WorktreeSteps(Steps):
    """The steps of one session, done in its worktree while its lease is ours.

    A step that was cut off is done again from the commit of the last recorded one.
    """

    def __init__(self, lease: Lease, tools: SessionTools, keeper: LeaseKeeper) -> None:
        self.now = tools.now
        self._lease = lease
        self._tools = tools
        self._keeper = keeper
        self._worktree: Worktree | None = None
        self._remarks: list[str] = []
        self._set_up_done = tools.set_up is None

    def __call__(self, step: Step, progress: Progress) -> Report:
        """Do one step. Raises LeaseLost or SessionStopped before it, or in it when it is cut off.

        If the worktree is deleted under it the step counts for nothing, and is done again in a new one, once.
        """
        with structlog.contextvars.bound_contextvars(stage=step.stage, attempt=step.attempt), self._keeper.held():
            for _ in range(2):
                self._keeper.check()
                began = self.now()
                log.debug("step_started")
                try:
                    self._prepare(progress)
                    report = self._watched(step, progress)
                except (AgentError, WorkspaceError):
                    if not self._gone():
                        raise
                else:
                    # No answer is one about files that are gone.
                    if not self._gone():
                        seconds = (self.now() - began).total_seconds()
                        log.info("step_done", seconds=round(seconds, 1), **_facts(report))
                        return report
                log.warning("worktree_gone")
                self._worktree = None
                self._set_up_done = self._tools.set_up is None
            raise WorkspaceError(
                f"{self._lease.issue_id}: its worktree was deleted twice in a row; find out what does it"
            )

    def _watched(self, step: Step, progress: Progress) -> Report:
        """Do the step, and remark on what of it is no part of the commit, or changed what is no agent's to change."""
        self._remarks.clear()
        before = self._tools.workspace.outside() if self._tools.watch else None
        report = super().__call__(step, progress)
        if before and (changed := self._tools.workspace.outside(before).since(before)):
            by = "changed outside the worktree meanwhile, by its agent or by somebody else"
            self._remarks.append(f"{by}: {'; '.join(changed)}")
        self._look_at_base(report, before.base_commit if before else "")
        if self._remarks:
            log.warning("remarked", remarks=self._remarks)
        return replace(report, base=self._here.base, remarks=tuple(self._remarks))

    def _look_at_base(self, report: Report, base_was: str) -> None:
        """Hold everything until a person has looked, when the base has got what only an agent can have put there."""
        # The remote is asked once, before the work counts as finished.
        fetched = self._remote.fetch() if report.stage is Stage.VERIFICATION else NOTHING_FETCHED
        intrusion = self._tools.workspace.intrusion(self._here, report.commit, base_was=base_was, fetched=fetched)
        if intrusion:
            self._tools.hold_base(intrusion)
            self._remarks.append(intrusion)

    def implement(self, step: Step) -> ImplementerResult:
        """Ask the implementer, and make one commit of what it changed, on the remote too.

        Where its branch then adds nothing to the base it is asked once more, unless it says that the work is there
        already. Raises NothingChanged when that helps nothing.
        """
        self._set_up()
        roles, prompt, fixes = self._roles(), self._prompt(), list(step.fix_list)
        result = self._committed(step, roles.implementer(prompt, fixes))
        adds = self._adds(result)
        if not adds and not result.already_done:
            log.warning("nothing_changed", hint="the implementer is asked once more")
            result = self._committed(step, roles.implementer_again(prompt, fixes))
            adds = self._adds(result)
        if not adds and not result.already_done:
            raise NothingChanged(
                f"{self._lease.issue_id}: {NOTHING_TO_MERGE}: the implementer was asked twice and changed nothing, and "
                "does not say that the work is there already; say more in the issue, or close it with "
                f"`orch issue close {self._lease.issue_id}`; it said: {bounded_text(one_line(result.notes))}"
            )
        return replace(result, already_done=not adds)

    def _adds(self, result: ImplementerResult) -> bool:
        """True if the base would get anything from what was committed."""
        return self._tools.workspace.adds(result.commit, grown_from=self._here.base)

    def _committed(self, step: Step, result: ImplementerResult) -> ImplementerResult:
        """The implementer's account, with the commit that we made of what it changed; the remote has it too."""
        self._keeper.hold()
        before = self._tools.workspace.head(self._here)
        made = self._tools.workspace.commit(self._here, self._message(step, result.notes))
        self._remarks.extend(made.remarks)
        # Before it is recorded: the reader of the record must find the commit.
        self._remote.push(made.commit)
        changed_at = self.now() if made.commit != before else result.code_changed_at
        return replace(result, commit=made.commit, code_changed_at=changed_at)

    def review(self, role: Role, step: Step, progress: Progress) -> ReviewResult:
        """Ask a reviewer, and throw away what it changed."""
        result = to_review(step, progress)
        self._set_up()
        change = self._tools.workspace.change(self._here, max_chars=MAX_CHANGE_CHARS)
        prompt = prompt_with_change(self._prompt(), change)
        answer = self._roles().review(role, prompt, result=result, attempt=step.attempt)
        self._keeper.hold()
        discarded = self._tools.workspace.restore(self._here, progress.commit)
        if discarded:
            log.warning("reviewer_changed_files", files=discarded[:10], count=len(discarded))
            self._remarks.append(f"the reviewer changed {len(discarded)} files; that was thrown away")
        return answer

    def verify(self, progress: Progress) -> VerificationEvidence | str:
        """Run the user's verification command, or one that the implementer names where the user trusts it."""
        command = self._tools.verify_command(self._lease.record.issue.verify_level)
        chosen_by_agent = not command and self._tools.trust_agent
        if chosen_by_agent:
            command = _claimed_command(progress)
        if not command:
            return self._no_command(progress)
        verification = self._tools.verification(self._lease, self._keeper.cut)
        ran = verification(command, self._lease.issue_id, progress.commit)
        if ran.set_up and (on_base := verification.sets_up(self._lease.issue_id, self._here.base)):
            self._raise_red_base(on_base)
        changed = self._tools.workspace.changed(self._here, progress.commit)
        decide = touched([command, *self._tools.set_up_commands], changed)
        return replace(ran, chosen_by_agent=chosen_by_agent, touched=tuple(decide))

    def _no_command(self, progress: Progress) -> str:
        level = self._lease.record.issue.verify_level
        named = _claimed_command(progress)
        does_not_count = f" (`{shlex.join(named)}`, which the implementer names, does not count)" if named else ""
        return (
            f"no verification command: orch.toml has none for level {level}{does_not_count};"
            ' write e.g. [verify] default = ["make", "test"] in orch.toml'
        )

    def _set_up(self) -> None:
        """Make the worktree fit for agents, once. What that leaves must be ignored by git, or it would be committed.

        Raises RedBase when the base itself cannot be set up. Where the work broke it, agents go on: they may mend it.
        """
        if self._set_up_done or self._tools.set_up is None:
            return
        workspace, head = self._tools.workspace, self._tools.workspace.head(self._here)
        failed = self._tools.set_up(self._lease, self._keeper.cut)(self._here, head)
        self._keeper.hold()
        if left := workspace.restore(self._here, head):
            log.warning("set_up_not_ignored", files=left[:10], count=len(left), hint="removed: add them to .gitignore")
        if failed and head == self._here.base:
            self._raise_red_base(failed)
        if failed:
            log.warning("set_up_failed", command=failed.command, exit_code=failed.exit_code, log=failed.output_ref)
        self._set_up_done = True

    def _raise_red_base(self, failed: VerificationEvidence) -> NoReturn:
        """The base cannot be set up: not the issue's fault, and nothing more is claimed until that was looked at."""
        self._tools.doubt_base()
        raise RedBase(
            f"{self._lease.issue_id}: not its fault: the set-up `{failed.command}` exited with {failed.exit_code} "
            f"on its base, commit {self._here.base[:12]}: {last_line(failed.output)}; correct the base, [workspace] "
            f"setup in orch.toml or this host, then `orch doctor --verify`; log: {failed.output_ref}"
        )

    def _prepare(self, progress: Progress) -> None:
        """Make the worktree as the last recorded step left it, here and on the remote, if it is not prepared yet."""
        if self._worktree:
            return
        workspace, record = self._tools.workspace, self._lease.record
        # A holder that froze may have left an agent at work in this very worktree.
        self._tools.sweep(self._lease)
        fetched = self._remote.fetch()
        self._keeper.hold()
        worktree = workspace.prepare(
            self._lease.issue_id, start_from=record.start_from, fetched=fetched, token=self._lease.token
        )
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

    @property
    def _here(self) -> Worktree:
        assert self._worktree is not None, "a step begins by preparing its worktree"
        return self._worktree

    def _gone(self) -> bool:
        """True when the worktree was deleted since it was prepared."""
        return self._worktree is not None and not self._worktree.path.is_dir()

    @cached_property
    def _remote(self) -> Remote:
        return self._tools.remote(self._lease)

    def _roles(self) -> RoleAgentAdapter:
        return RoleAgentAdapter(self._tools.transport(self._lease, self._here, self._keeper.cut))

    def _prompt(self) -> str:
        try:
            return render_issue_prompt(self._tools.prompt_template(), self._lease.record.issue)
        except (ValueError, OSError) as error:
            raise SettingsError(
                f"{self._lease.issue_id}: {error}; correct the template that orch.toml names"
            ) from error

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
    """A step's report, in the fields of a log line."""
    if report.stage is not Stage.VERIFICATION:
        failed = bounded_text("; ".join(report.failed_items))
        unchanged = {"reason": "nothing was changed, as all is there already"} if report.already_done else {}
        return {"result": Status.FAIL, "failed": failed} if failed else {"result": Status.PASS, **unchanged}
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
