"""The steps of a session in a real worktree: what they leave in git, and that they write nothing without the lease."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from orchestrator.errors import (
    AgentFailed,
    LeaseLost,
    NothingChanged,
    RedBase,
    SessionStopped,
    StoppedByHand,
    WorkspaceError,
)
from orchestrator.memory import MemoryHistory
from orchestrator.models import (
    DEFAULT_LIMITS,
    NOTHING_FETCHED,
    Entry,
    Fetched,
    Lease,
    Progress,
    Remote,
    Report,
    Role,
    SessionRecord,
    Stage,
    Step,
    Verdict,
    VerificationEvidence,
    Worktree,
)
from orchestrator.publish.entries import About
from orchestrator.session.keeper import LeaseKeeper
from orchestrator.session.steps import SessionTools, WorktreeSteps, put_aside
from orchestrator.session.verification import Verification
from orchestrator.session_loop import perform
from tests.git_project import Host, Project, with_bare
from tests.support import NOON, an_answer, an_issue, evidence, noon

ISSUE = "i-abc"
REF = f"refs/orch/{ISSUE}"
RECORD = SessionRecord("s-1", "orch-main", an_issue(issue_id=ISSUE), 3, 2)
LEASE_S = 30.0
SAID = datetime(2020, 1, 1, tzinfo=UTC)
IMPLEMENTED = {"code_changed_at": SAID.isoformat(), "notes": "did it", "verification": None}
PASSED = {"passed": True, "failed_items": [], "fix_list": [], "notes": "good"}

Deed = Callable[["Session", Path], object]


class Clock:
    """A clock that goes when told to."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


class NoLeases:
    """The leases of a holder that renews nothing: its lease is over when the clock says so."""

    def renew(self, lease: Lease) -> bool:
        return True

    def stop_asked(self, lease: Lease) -> str:
        return ""

    def release(self, lease: Lease) -> None:
        pass


def nothing(_session: object, _worktree: Path) -> None:
    """An agent that reads, and answers."""


def edits(name: str = "work.py") -> Deed:
    """An agent that writes a file."""
    return lambda _session, worktree: (worktree / name).write_text("x\n")


@dataclass
class Session:
    """One session on a host of its own; `deeds` is what each role does before it answers, `asked` who was asked.

    `claims` is what the implementer says in its next answers about the work being there already.
    """

    project: Project
    host: Host
    deeds: dict[Role, Deed] = field(default_factory=dict)
    verifies: Callable[[Session, Path], int | None] = nothing
    sets_up: Callable[[Session, Path], int | None] = nothing
    retries: int = 1
    command: tuple[str, ...] | None = ("make", "test")
    trust_agent: bool = False
    says: dict[str, object] = field(default_factory=dict)
    stopping: bool = False
    stop: str = ""
    other_remote: Remote | None = None
    asked: list[str] = field(default_factory=list)
    prompts: list[str] = field(default_factory=list)
    claims: list[bool] = field(default_factory=list)
    clock: Clock = field(default_factory=Clock)

    def __post_init__(self) -> None:
        self.lease = Lease(ISSUE, 1, RECORD, stop=self.stop)
        self.keeper = LeaseKeeper(
            NoLeases(),
            self.lease,
            lease_s=LEASE_S,
            stopping=lambda: self.stopping,
            grace_s=0,
            monotonic=self.clock,
        )
        self.tools = SessionTools(
            workspace=self.host.workspace,
            remote=lambda lease: self.other_remote or self.host.workspace.remote(lease, host="here"),
            transport=lambda _lease, worktree, _keeper: lambda role, prompt: self._agent(worktree, Role(role), prompt),
            verification=lambda _lease, _cut: Verification(
                self.host.workspace, self._sets_up("set up clean"), self._verified, retries=self.retries
            ),
            verify_command=lambda _level: self.command,
            prompt_template=lambda: "{{title}}",
            sweep=lambda _lease: self.asked.append("sweep"),
            now=noon,
            set_up=lambda _lease, _cut: self._sets_up("set up"),
            set_up_commands=[("sh", "set-up.sh")],
            trust_agent=self.trust_agent,
            doubt_base=lambda: self.asked.append("doubt base"),
        )
        self.steps = WorktreeSteps(self.lease, self.tools, self.keeper)

    def lose(self) -> None:
        """End the lease without any word of it."""
        self.clock.now += LEASE_S + 1

    def _agent(self, worktree: Worktree, role: Role, prompt: str) -> str:
        self.asked.append(role)
        self.prompts.append(prompt)
        self.deeds.get(role, nothing)(self, worktree.path)
        claim = {"already_done": self.claims.pop(0)} if self.claims and role is Role.IMPLEMENTER else {}
        return an_answer(prompt, IMPLEMENTED | self.says | claim if role is Role.IMPLEMENTER else PASSED)

    def _verified(self, command: Sequence[str], worktree: Worktree, commit: str) -> VerificationEvidence:
        self.asked.append(" ".join(command))
        return evidence(self.verifies(self, worktree.path) or 0)

    def _sets_up(self, said: str) -> Callable[[Worktree, str], VerificationEvidence | None]:
        def set_up(checkout: Worktree, _commit: str) -> VerificationEvidence | None:
            self.asked.append(said)
            code = self.sets_up(self, checkout.path)
            return replace(evidence(code), command="npm ci", set_up=True) if code else None

        return set_up

    @property
    def branch(self) -> str:
        """The commit that the issue's branch stands on; empty without one."""
        return self.git("for-each-ref", "--format=%(objectname)", f"refs/heads/orch/{ISSUE}")

    @property
    def pushed(self) -> str:
        """The commit that the remote has for the issue; empty without one."""
        return self.git("ls-remote", "origin", REF).partition("\t")[0]

    def git(self, *args: str) -> str:
        """What git says in the host's clone."""
        return self.project.git(*args, cwd=self.host.repo)

    def implemented(self) -> tuple[Report, Progress]:
        """The first step, done with one file."""
        self.deeds = {Role.IMPLEMENTER: edits()}
        report = self.steps(Step(Stage.RUNNING), Progress())
        self.deeds = {}
        return report, Progress().after(report)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    monkeypatch.setenv("HOME", str(tmp_path))
    return with_bare(tmp_path)


@pytest.fixture
def host(project: Project) -> Host:
    return Host(project, "here")


@pytest.fixture
def session(project: Project, host: Host) -> Session:
    return Session(project, host)


class Onlooker(MemoryHistory):
    """A history that looks what the remote has when a step is recorded."""

    def __init__(self, session: Session) -> None:
        super().__init__()
        self.session = session
        self.on_remote: list[bool] = []

    def record(self, report: Report, entries: Iterable[Entry]) -> None:
        self.on_remote.append(self.session.pushed == report.commit)
        super().record(report, entries)


def test_a_session_is_one_pushed_commit_reviewed_and_verified(session: Session) -> None:
    """Each role is asked once, in one worktree, and when a step is recorded the remote has its commit already."""
    session.deeds = {Role.IMPLEMENTER: edits()}
    history = Onlooker(session)
    about = About(RECORD.issue, "s-1", "orch-main")
    outcome = perform(about, session.steps, history, limits=DEFAULT_LIMITS, now=noon)

    assert Verdict.DONE == outcome.final_state
    assert ["sweep", "set up", *Role, "set up clean", "make test"] == session.asked
    assert [True] * 4 == history.on_remote
    assert {session.branch} == {report.commit for report in history.reports}
    assert "A\twork.py" == session.git("diff", "--name-status", "main", session.branch)
    assert f"{RECORD.issue.title}\n\ndid it" in session.git("log", "-1", "--format=%B", session.branch).strip()


def test_each_report_says_what_the_branch_grew_out_of(session: Session) -> None:
    """So that it is known later whether the session came to work of its own."""
    report, _ = session.implemented()

    assert session.git("rev-parse", "origin/main") == report.base != report.commit


def test_the_time_of_a_change_is_ours(session: Session) -> None:
    """Evidence must not be older than the change: the agent's word counts only where it changed nothing."""
    report, progress = session.implemented()
    unchanged = session.steps(Step(Stage.SPEC_FIX), progress)

    assert (NOON, SAID) == (report.code_changed_at, unchanged.code_changed_at)
    assert report.commit == unchanged.commit


def test_what_a_reviewer_changes_is_thrown_away(session: Session) -> None:
    """The branch and the files are as the implementer left them, and the review says so."""
    _, progress = session.implemented()
    commit = session.branch
    session.deeds = {Role.SPEC_REVIEWER: edits("new.py")}
    report = session.steps(Step(Stage.SPEC_REVIEW), progress)

    assert ("good", ("the reviewer changed 1 files; that was thrown away",)) == (report.notes, report.remarks)
    assert commit == session.branch == report.commit
    assert not (session.host.workspace.prepare(ISSUE, token=1).path / "new.py").exists()
    assert "" == session.git("diff", "--name-only", commit, session.branch)


def test_what_changes_outside_meanwhile_is_remarked(session: Session) -> None:
    """A file of the main checkout, by whoever it was; where agents cannot reach it nobody is suspected."""

    def leak(session: Session, worktree: Path) -> None:
        (session.host.repo / "leaked.py").write_text("x\n")
        (worktree / "work.py").write_text("x\n")

    session.deeds = {Role.IMPLEMENTER: leak}
    report = session.steps(Step(Stage.RUNNING), Progress())
    (session.host.repo / "leaked.py").unlink()
    session.tools = replace(session.tools, watch=False)
    unwatched = WorktreeSteps(session.lease, session.tools, session.keeper)(Step(Stage.RUNNING), Progress())

    said = "changed outside the worktree meanwhile, by its agent or by somebody else: main checkout: leaked.py"
    assert ((said,), ()) == (report.remarks, unwatched.remarks)


def test_a_base_that_a_reviewer_moved_is_held(session: Session) -> None:
    """By the step at the latest after which the work counts as finished; the verdict is the session's own."""

    def merge(session: Session, _worktree: Path) -> None:
        session.git("update-ref", "refs/heads/main", f"orch/{ISSUE}")

    def push(session: Session, _worktree: Path) -> None:
        session.git("push", "--quiet", "origin", f"orch/{ISSUE}:main")

    held: list[str] = []
    session.tools = replace(session.tools, hold_base=held.append)
    session.steps = WorktreeSteps(session.lease, session.tools, session.keeper)
    _, progress = session.implemented()
    said = f"main has commit {session.branch[:12]} of {ISSUE}, which nobody could merge yet"
    assert [] == held
    session.deeds = {Role.QUALITY_REVIEWER: merge}
    report = session.steps(Step(Stage.QUALITY_REVIEW), progress)
    assert ([said], True) == (held, said in report.remarks)
    session.git("update-ref", "refs/heads/main", "refs/remotes/origin/main")
    session.verifies = push
    verified = session.steps(Step(Stage.VERIFICATION), progress)

    assert ([said] * 2, True) == (held, verified.passed)


def test_what_cannot_be_committed_is_remarked(session: Session) -> None:
    """A repo that the agent cloned into its worktree, and a setting of its own git."""

    def clone(session: Session, here: Path) -> None:
        session.project.git("clone", "--quiet", str(session.host.repo), "copy", cwd=here)
        session.project.git("config", "core.bare", "true", cwd=here)
        (here / "work.py").write_text("x\n")

    session.deeds = {Role.IMPLEMENTER: clone}

    assert (
        "copy: a repository of its own, which is not a part of this one",
        "git settings of its own repository, which ended with the step: core.bare",
    ) == session.steps(Step(Stage.RUNNING), Progress()).remarks


def test_a_step_begins_where_the_last_recorded_one_ended(project: Project, host: Host, session: Session) -> None:
    """A worker that takes the session up finds what an interrupted step left put aside, not in its worktree."""
    report, progress = session.implemented()
    session.deeds = {Role.IMPLEMENTER: edits("half.py")}
    session.steps(Step(Stage.SPEC_FIX), progress)
    seen: list[set[str]] = []

    def look(_session: Session, here: Path) -> None:
        seen.append({path.name for path in here.iterdir()})

    heir = Session(project, host, {Role.IMPLEMENTER: look})
    heir.steps(Step(Stage.SPEC_FIX), progress)

    assert "work.py" in seen[0]
    assert "half.py" not in seen[0]
    assert report.commit == heir.branch


# Without a change


def one_by_one(*deeds: Deed) -> Deed:
    """An implementer that does another thing each time it is asked."""
    left = iter(deeds)
    return lambda session, worktree: next(left)(session, worktree)


def commits_nothing(session: Session, worktree: Path) -> None:
    """An agent that makes a commit without a change."""
    session.project.git("commit", "--quiet", "--allow-empty", "-m", "Done!", cwd=worktree)


def goes_back(session: Session, worktree: Path) -> None:
    """An agent that takes back all it did."""
    (worktree / "work.py").unlink()


NOTHINGS: dict[str, Deed] = {
    "it only talks": nothing,
    "what it writes is ignored": edits("only.cache"),
    "it writes into the tracker's folder": edits(".sudocode/notes"),
    "its commit is empty": commits_nothing,
    "it makes an empty folder": lambda _session, here: (here / "folder").mkdir(),
    "it does something and undoes it": lambda session, here: (edits()(session, here), goes_back(session, here)),
}


@pytest.mark.parametrize("deed", NOTHINGS.values(), ids=NOTHINGS)
def test_an_implementer_that_changes_nothing_is_asked_once_more_and_then_it_is_an_error(
    session: Session, deed: Deed
) -> None:
    """Nothing is there to review; the second question says why it is asked, and the error what a person may do."""
    session.deeds = {Role.IMPLEMENTER: one_by_one(deed, nothing)}
    history = MemoryHistory()

    with pytest.raises(
        NothingChanged, match=f"^{ISSUE}: nothing to merge: .* `orch issue close {ISSUE}`; it said: did it"
    ):
        perform(About(RECORD.issue, "s-1", "o"), session.steps, history, limits=DEFAULT_LIMITS, now=noon)
    assert ["sweep", "set up", *[Role.IMPLEMENTER] * 2] == session.asked
    assert ["already_done" in prompt for prompt in session.prompts] == [False, True]
    assert Verdict.ERROR == history.verdict


def test_work_that_comes_at_the_second_asking_is_as_good(session: Session) -> None:
    """It is committed, pushed and goes on."""
    session.deeds = {Role.IMPLEMENTER: one_by_one(nothing, edits())}
    report = session.steps(Step(Stage.RUNNING), Progress())

    assert (False, NOON) == (report.already_done, report.code_changed_at)
    assert session.branch == report.commit == session.pushed
    assert "A\twork.py" == session.git("diff", "--name-status", "main", session.branch)


@pytest.mark.parametrize("claims", [[False, True], [True]], ids=["when asked once more", "at once"])
def test_a_claim_that_all_is_there_already_is_reviewed_and_verified(session: Session, claims: list[bool]) -> None:
    """The reviewers are told that there is no change; the session ends DONE, and its reason says nothing to merge."""
    asked = len(claims)
    session.claims = claims
    history = MemoryHistory()
    outcome = perform(About(RECORD.issue, "s-1", "o"), session.steps, history, limits=DEFAULT_LIMITS, now=noon)

    assert Verdict.DONE == outcome.final_state
    by_agents = [*[Role.IMPLEMENTER] * asked, *list(Role)[1:]]
    assert ["sweep", "set up", *by_agents, "set up clean", "make test"] == session.asked
    assert all("Nothing was changed" in prompt for prompt in session.prompts[asked:])
    assert "nothing to merge: the implementer says that the work is there already: did it" == history.reason
    assert session.git("rev-parse", "main") == history.reports[-1].commit


def test_a_claim_beside_a_change_counts_for_nothing(session: Session) -> None:
    """Whatever it says, there is work to merge."""
    session.deeds, session.claims = {Role.IMPLEMENTER: edits()}, [True]
    report = session.steps(Step(Stage.RUNNING), Progress())

    assert not report.already_done
    assert 1 == session.asked.count(Role.IMPLEMENTER)


def test_a_fix_that_takes_all_back_leaves_nothing_to_merge(session: Session) -> None:
    """The branch has commits, and the files of its base: that is asked about as the first time."""
    _, progress = session.implemented()
    session.deeds = {Role.IMPLEMENTER: one_by_one(goes_back, nothing)}

    with pytest.raises(NothingChanged):
        session.steps(Step(Stage.SPEC_FIX, 1, ("do it otherwise",)), progress)
    assert "do it otherwise" in session.prompts[-1]


def test_a_fix_that_changes_nothing_is_left_to_the_reviewer(session: Session) -> None:
    """There is work on the branch, so it is judged again, as it is."""
    report, progress = session.implemented()
    fixed = session.steps(Step(Stage.SPEC_FIX, 1, ("a detail",)), progress)

    assert (report.commit, False) == (fixed.commit, fixed.already_done)
    assert 2 == session.asked.count(Role.IMPLEMENTER)


def test_a_session_that_carries_on_earlier_work_need_not_add_to_it(project: Project, host: Host) -> None:
    """What an earlier session of the issue left on the branch is work to merge."""
    earlier, _ = Session(project, host).implemented()
    session = Session(project, host)
    report = session.steps(Step(Stage.RUNNING), Progress())

    assert (earlier.commit, False) == (report.commit, report.already_done)
    assert 1 == session.asked.count(Role.IMPLEMENTER)


def test_work_that_the_base_got_meanwhile_is_nothing_to_merge(session: Session) -> None:
    """Another has brought the same change to the base, in a commit of its own, beside others."""

    def overtaken(session: Session, worktree: Path) -> None:
        edits()(session, worktree)
        session.project.commit("other.py", cwd=session.host.repo)
        session.project.commit("work.py", cwd=session.host.repo)

    session.deeds = {Role.IMPLEMENTER: one_by_one(overtaken, nothing)}
    session.claims = [False, True]

    assert session.steps(Step(Stage.RUNNING), Progress()).already_done


def test_a_clone_that_is_behind_its_remote_takes_its_own_start_for_the_base(project: Project, session: Session) -> None:
    """What others pushed since it was cloned is no change of the session's."""
    project.commit("later.py")
    project.git("push", "--quiet", str(project.repo.parent / "bare.git"), "main")

    with pytest.raises(NothingChanged):
        session.steps(Step(Stage.RUNNING), Progress())
    assert "later.py" in session.git("ls-tree", "--name-only", session.branch)


def test_the_lease_is_looked_at_before_each_answer_counts(session: Session) -> None:
    """Lost while the implementer was asked once more: nothing is committed, and it is no error of the issue's."""
    session.deeds = {Role.IMPLEMENTER: one_by_one(nothing, lambda session, _here: session.lose())}

    with pytest.raises(LeaseLost):
        session.steps(Step(Stage.RUNNING), Progress())


# Without the lease


def test_a_step_that_begins_without_the_lease_asks_no_agent(session: Session) -> None:
    """Not even the processes of the session are swept: they may be the heir's."""
    session.lose()

    with pytest.raises(LeaseLost):
        session.steps(Step(Stage.RUNNING), Progress())
    assert [] == session.asked


def test_a_stopping_worker_begins_no_step(session: Session) -> None:
    """The session goes on elsewhere."""
    session.stopping = True

    with pytest.raises(SessionStopped):
        session.steps(Step(Stage.RUNNING), Progress())
    assert [] == session.asked


def test_a_session_that_was_stopped_begins_no_step(project: Project, host: Host) -> None:
    """A person's stop that came before the first step."""
    session = Session(project, host, stop="stopped by anna")

    with pytest.raises(StoppedByHand, match="anna"):
        session.steps(Step(Stage.RUNNING), Progress())
    assert [] == session.asked


def test_a_lease_that_is_lost_while_the_remote_answers_leaves_the_worktree_to_the_heir(session: Session) -> None:
    """The answer may take half a minute: nothing is made or put aside after it."""

    class Slow:
        def fetch(self) -> Fetched:
            session.lose()
            return NOTHING_FETCHED

        def push(self, commit: str) -> None:
            raise AssertionError("nothing should be pushed")

    session.other_remote = Slow()

    with pytest.raises(LeaseLost):
        session.steps(Step(Stage.RUNNING), Progress())
    assert "" == session.branch


def test_an_implementation_without_the_lease_is_neither_committed_nor_pushed(session: Session) -> None:
    """Lost while the agent worked: its files stay in the worktree for the next worker."""
    session.deeds = {Role.IMPLEMENTER: lambda _session, here: (edits()(session, here), session.lose())}

    with pytest.raises(LeaseLost):
        session.steps(Step(Stage.RUNNING), Progress())
    assert session.git("rev-parse", "main") == session.branch
    assert "work.py" not in session.git("ls-tree", "--name-only", session.pushed)


def test_a_review_without_the_lease_throws_nothing_away(session: Session) -> None:
    """Lost while the reviewer read: what is in the worktree by now is the heir's."""
    _, progress = session.implemented()
    places: list[Path] = []

    def overtaken(_session: Session, here: Path) -> None:
        session.lose()
        (here / "heirs.py").write_text("x\n")
        places.append(here / "heirs.py")

    session.deeds = {Role.SPEC_REVIEWER: overtaken}

    with pytest.raises(LeaseLost):
        session.steps(Step(Stage.SPEC_REVIEW), progress)
    assert [True] == [place.exists() for place in places]


def fails(session: Session, _worktree: Path) -> None:
    """An agent that dies because the heir ended it."""
    session.lose()
    raise AgentFailed("exited with code 137")


def test_what_fails_without_the_lease_fails_for_the_loss_of_it(session: Session) -> None:
    """An agent that the heir ended is no error of the issue's."""
    session.deeds = {Role.IMPLEMENTER: fails}

    with pytest.raises(LeaseLost):
        session.steps(Step(Stage.RUNNING), Progress())


def test_a_verification_without_the_lease_counts_for_nothing(session: Session) -> None:
    """Whatever it said, another may have changed the files under it."""
    _, progress = session.implemented()
    session.verifies = lambda session, _worktree: session.lose()

    with pytest.raises(LeaseLost):
        session.steps(Step(Stage.VERIFICATION), progress)


# Without the worktree


@pytest.mark.parametrize("after", ["an answer", "an error"])
def test_a_step_whose_worktree_is_deleted_is_done_again(session: Session, after: str) -> None:
    """It counts for nothing, however it ended, and the second time it has a new worktree from the recorded commit."""
    _, progress = session.implemented()

    def deletes_once(session: Session, here: Path) -> None:
        if session.asked.count(Role.QUALITY_REVIEWER) == 1:
            shutil.rmtree(here)
            if after == "an error":
                raise AgentFailed("no such folder")

    session.deeds = {Role.QUALITY_REVIEWER: deletes_once}
    report = session.steps(Step(Stage.QUALITY_REVIEW), progress)

    assert report.passed
    assert 2 == session.asked.count(Role.QUALITY_REVIEWER)
    assert progress.commit == session.branch == report.commit


def test_a_verification_whose_worktree_is_deleted_is_done_again(session: Session) -> None:
    """A green run of files that are gone is no evidence."""
    _, progress = session.implemented()
    session.verifies = lambda session, here: shutil.rmtree(here) if session.asked.count("make test") == 1 else None
    report = session.steps(Step(Stage.VERIFICATION), progress)

    assert report.passed
    assert 2 == session.asked.count("make test")


def test_a_verification_whose_checkout_is_deleted_twice_ends_the_session(session: Session) -> None:
    """Green or not: there is no evidence to be had."""
    _, progress = session.implemented()
    session.verifies = lambda _session, here: shutil.rmtree(here)

    with pytest.raises(WorkspaceError, match="the checkout of its verification was deleted twice in a row"):
        session.steps(Step(Stage.VERIFICATION), progress)


def test_a_worktree_that_is_deleted_twice_ends_the_session(session: Session) -> None:
    """That is no accident: a person has to see."""
    session.deeds = {Role.IMPLEMENTER: lambda _session, here: shutil.rmtree(here)}

    with pytest.raises(WorkspaceError, match="its worktree was deleted twice in a row"):
        session.steps(Step(Stage.RUNNING), Progress())
    assert 2 == session.asked.count(Role.IMPLEMENTER)


def test_an_error_with_the_worktree_in_place_is_raised_at_once(session: Session) -> None:
    """An agent that fails is not asked again."""

    def breaks(_session: Session, _worktree: Path) -> None:
        raise AgentFailed("exited with code 3")

    session.deeds = {Role.IMPLEMENTER: breaks}

    with pytest.raises(AgentFailed, match="code 3"):
        session.steps(Step(Stage.RUNNING), Progress())
    assert 1 == session.asked.count(Role.IMPLEMENTER)


# Stopped by a person


def test_a_stopped_steps_work_is_kept_in_git(session: Session) -> None:
    """The worktree is as the step found it, the refs hold what was done since, and its processes are ended first."""
    _, progress = session.implemented()
    session.deeds = {Role.IMPLEMENTER: lambda _session, here: (edits("half.py")(session, here), session.lose())}
    with pytest.raises(LeaseLost):
        session.steps(Step(Stage.SPEC_FIX), progress)
    session.asked.clear()
    (ref,) = put_aside(session.lease, session.tools)

    assert ["sweep"] == session.asked
    assert "half.py" in session.git("ls-tree", "--name-only", ref).split()
    assert progress.commit == session.branch
    assert [] == put_aside(session.lease, session.tools)


# What is verified, and what the evidence says of it


def verified(session: Session, **agent: object) -> Report:
    """The report of a verification after one implementation; `agent` is what the implementer's answer says besides."""
    session.deeds = {Role.IMPLEMENTER: edits()}
    session.says = agent
    progress = Progress().after(session.steps(Step(Stage.RUNNING), Progress()))
    return session.steps(Step(Stage.VERIFICATION), progress)


def ran(report: Report) -> VerificationEvidence:
    """The evidence of a report that has some."""
    assert report.evidence is not None
    return report.evidence


CLAIM = {"command": "true", "output": "", "exit_code": 0, "produced_at": SAID.isoformat()}


def test_only_what_is_in_the_commit_is_verified(session: Session) -> None:
    """A file that git ignores is in the agent's folder, but not in the checkout that is verified."""
    seen: list[set[str]] = []

    def look(_session: Session, here: Path) -> None:
        seen.append({path.name for path in here.iterdir()})

    session.verifies = look
    _, progress = session.implemented()
    (session.host.workspace.prepare(ISSUE, token=1).path / "made.cache").write_text("x\n")
    evidence = ran(session.steps(Step(Stage.VERIFICATION), progress))

    assert [{".git", ".gitignore", ".sudocode", "README.md", "src", "work.py"}] == seen
    assert (True, session.branch) == (evidence.clean, evidence.commit)


def test_a_green_run_is_the_only_one(session: Session) -> None:
    """There is nothing to remark about it."""
    evidence = ran(verified(session))

    assert 1 == session.asked.count("make test")
    assert () == evidence.remarks


def test_a_red_run_is_tried_again_and_that_it_was_flaky_is_said(session: Session) -> None:
    """Each in a checkout of its own; a green one after a red one counts, with a remark."""
    seen: list[bool] = []

    def flaky(session: Session, here: Path) -> int:
        seen.append((here / "left.txt").exists())
        (here / "left.txt").write_text("x\n")
        return 7 if session.asked.count("make test") == 1 else 0

    session.verifies = flaky
    report = verified(session)

    assert report.passed
    assert [False, False] == seen
    assert ("flaky: exited with 7 before, on the same commit",) == ran(report).remarks


@pytest.mark.parametrize(("retries", "before"), [(0, ()), (1, (7,)), (3, (7, 7, 7))])
def test_a_run_that_stays_red_is_red(session: Session, retries: int, before: tuple[int, ...]) -> None:
    """It is run as often as orch.toml says, and the evidence has the exit codes."""
    session.retries = retries
    session.__post_init__()
    session.verifies = lambda _session, _here: 7
    report = verified(session)

    assert not report.passed
    assert (7, before) == (ran(report).exit_code, ran(report).red_before)
    assert report.notes.startswith("`make test` exited with 7: 3 passed")
    assert (retries > 0) == ("red again: exited with 7" in report.notes)


def test_a_command_that_is_not_there_is_not_tried_again(session: Session) -> None:
    """The second time it is not there either."""
    session.verifies = lambda _session, _here: 127

    assert () == ran(verified(session)).red_before
    assert 1 == session.asked.count("make test")


def test_without_a_command_of_the_users_nothing_is_verified(session: Session) -> None:
    """What the implementer names does not count, and the reason says so."""
    session.command = None
    report = verified(session, verification=CLAIM)

    assert not report.passed
    assert report.evidence is None
    assert "`true`, which the implementer names, does not count" in report.notes
    assert "true" not in session.asked


def test_a_user_may_trust_the_agents_command_and_the_evidence_says_so(session: Session) -> None:
    """It is run by us all the same."""
    session.command, session.trust_agent = None, True
    session.__post_init__()
    report = verified(session, verification=CLAIM)

    assert report.passed
    assert "true" in session.asked
    assert ("chosen by the agent",) == ran(report).remarks


def test_a_users_own_command_is_run_even_where_the_agent_is_trusted(session: Session) -> None:
    """Trust is for where there is no command."""
    session.trust_agent = True
    session.__post_init__()

    assert () == ran(verified(session, verification=CLAIM)).remarks
    assert "make test" in session.asked


def test_work_that_touches_the_verification_is_named(session: Session) -> None:
    """Its Makefile and what sets it up; not the rest of the work."""
    session.deeds = {
        Role.IMPLEMENTER: lambda _session, here: [(here / name).touch() for name in ("Makefile", "set-up.sh", "a.py")]
    }
    progress = Progress().after(session.steps(Step(Stage.RUNNING), Progress()))
    evidence = ran(session.steps(Step(Stage.VERIFICATION), progress))

    assert ("the work touched the verification itself: Makefile, set-up.sh",) == evidence.remarks


# Set-up


def test_the_worktree_is_set_up_once_before_its_first_agent(session: Session) -> None:
    """Not before each agent; but again in a worktree that was made anew."""

    def deletes_once(session: Session, here: Path) -> None:
        if session.asked.count(Role.QUALITY_REVIEWER) == 1:
            shutil.rmtree(here)

    _, progress = session.implemented()
    session.deeds = {Role.QUALITY_REVIEWER: deletes_once}
    session.steps(Step(Stage.SPEC_REVIEW), progress)
    session.steps(Step(Stage.QUALITY_REVIEW), progress)

    asked = [Role.IMPLEMENTER, Role.SPEC_REVIEWER, Role.QUALITY_REVIEWER]
    assert ["sweep", "set up", *asked, "sweep", "set up", Role.QUALITY_REVIEWER] == session.asked


def test_what_a_set_up_leaves_is_not_the_agents_work(session: Session) -> None:
    """What git ignores stays for the agents; the rest would be committed as theirs, so it goes."""

    def leaves_files(_session: Session, here: Path) -> None:
        (here / "kept.cache").touch()
        (here / "left.txt").touch()

    session.sets_up = leaves_files
    session.implemented()

    assert "A\twork.py" == session.git("diff", "--name-status", "main", session.branch)
    assert (session.host.workspace.prepare(ISSUE, token=1).path / "kept.cache").exists()


def test_a_base_that_cannot_be_set_up_is_no_issues_fault(session: Session) -> None:
    """No agent is asked; the error names command and commit, and the base is verified anew."""
    session.sets_up = lambda _session, _here: 3
    main = session.git("rev-parse", "main")

    with pytest.raises(
        RedBase, match=f"^i-abc: not its fault: the set-up `npm ci` exited with 3 on its base, .*{main[:12]}"
    ):
        session.steps(Step(Stage.RUNNING), Progress())
    assert ["sweep", "set up", "doubt base"] == session.asked


def broken_by_work(_session: Session, here: Path) -> int:
    """A set-up that fails where there is work.py."""
    return 3 if (here / "work.py").exists() else 0


def test_work_that_cannot_be_set_up_is_not_verified(session: Session) -> None:
    """The base can be, so it is the work's fault: VERIFY_FAILED, and the reason names the set-up."""
    session.sets_up = broken_by_work
    report = verified(session)

    assert not report.passed
    assert report.notes.startswith("the set-up `npm ci` exited with 3: 3 passed")
    assert "make test" not in session.asked
    assert ran(report).set_up


def test_a_verification_whose_base_cannot_be_set_up_is_no_issues_fault(session: Session) -> None:
    """Something changed since the agents worked: the host, or the network."""
    _, progress = session.implemented()
    session.sets_up = lambda _session, _here: 3

    with pytest.raises(RedBase):
        session.steps(Step(Stage.VERIFICATION), progress)
    assert "doubt base" == session.asked[-1]


def test_agents_go_on_where_their_own_work_broke_the_set_up(session: Session) -> None:
    """They may be there to mend it."""
    _, progress = session.implemented()
    heir = Session(session.project, session.host, sets_up=broken_by_work)

    assert heir.steps(Step(Stage.SPEC_FIX), progress)
    assert Role.IMPLEMENTER in heir.asked
