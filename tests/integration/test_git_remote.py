"""Work on a remote: found by other hosts, fenced against those who lost it, and never a reason to fail."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from orchestrator.errors import LeaseLost
from orchestrator.models import Fetched, Lease, SessionRecord
from tests.git_project import Host, Project, put_before_git, with_bare
from tests.support import an_issue, wait_until

REF = "refs/orch/i-abc"


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return with_bare(tmp_path)


@pytest.fixture
def bare(project: Project) -> Callable[..., str]:
    """Asks git in the bare repo."""
    return lambda *args: project.git(*args, cwd=project.repo.parent / "bare.git")


@pytest.fixture
def one(project: Project) -> Host:
    return Host(project, "one")


@pytest.fixture
def two(project: Project) -> Host:
    return Host(project, "two")


def test_another_host_goes_on_from_the_same_commit(one: Host, two: Host, bare: Callable[..., str]) -> None:
    """What one host committed, the other has in its clone, under the same id, and grows its own commit upon it."""
    first = one.work(one.remote(1), 1)
    remote = two.remote(2)
    worktree = two.workspace.prepare("i-abc", fetched=remote.fetch())

    assert first == two.workspace.head(worktree)
    assert "x\n" == (worktree.path / "work.py").read_text()

    second = two.work(two.remote(3), 3, "y\n")
    assert second == bare("rev-parse", REF)
    assert [second, first] == bare("rev-list", f"main..{REF}").split()


def test_taking_up_leaves_a_mark_and_no_change(one: Host, two: Host, bare: Callable[..., str]) -> None:
    """Who takes an issue up pushes a commit without changes that names issue, session, token and host."""
    first = one.work(one.remote(1), 1)
    two.remote(2).push(two.remote(2).fetch().work)

    trailers = bare("log", "-1", "--format=%(trailers:only,unfold)", REF).splitlines()
    assert ["Sudocode-Issue: i-abc", "Orch-Session: s-1", "Orch-Token: 2", "Orch-Holder: two"] == trailers
    assert first == bare("rev-parse", f"{REF}^")
    assert "" == bare("diff", f"{REF}^", REF)
    assert first == two.remote(3).fetch().work


def test_a_holder_that_lost_the_issue_is_refused(one: Host, two: Host, bare: Callable[..., str]) -> None:
    """Whoever froze, and wakes when a newer holder has taken up, pushes nothing any more, however often it tries."""
    frozen = one.remote(1)
    worktree = one.workspace.prepare("i-abc", fetched=frozen.fetch())
    frozen.push(one.workspace.head(worktree))
    two.remote(2).push(two.remote(2).fetch().work)
    before = bare("rev-parse", REF)
    (worktree.path / "work.py").write_text("too late\n")
    commit = one.workspace.commit(worktree, "Too late\n\nOrch-Token: 1\n").commit

    for _ in range(2):
        with pytest.raises(LeaseLost, match="i-abc: a worker with a newer lease has pushed to origin"):
            frozen.push(commit)
    assert before == bare("rev-parse", REF)


def test_a_new_look_of_the_loser_does_not_help_it(one: Host, two: Host, bare: Callable[..., str]) -> None:
    """Work names its token as markers do: who froze before it looked at the remote at all is refused as well."""
    commit = two.work(two.remote(2), 2)
    frozen = one.remote(1)
    frozen.fetch()

    with pytest.raises(LeaseLost):
        frozen.push(commit)
    assert commit == bare("rev-parse", REF)


def test_of_two_that_looked_at_once_the_newer_wins(one: Host, two: Host, bare: Callable[..., str]) -> None:
    """Both have read the same value: whoever pushes first, the ref ends with the higher token."""
    older, newer = one.remote(1), two.remote(2)
    base = older.fetch().base
    newer.fetch()
    older.push(base)
    newer.push(base)

    assert "2" == bare("log", "-1", "--format=%(trailers:key=Orch-Token,valueonly)", REF).strip()
    with pytest.raises(LeaseLost):
        older.push(base + "^0")


def test_a_push_whose_answer_was_lost_has_been_made(
    one: Host, bare: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What counts is what the remote has afterwards."""
    script = 'case "$*" in *--force-with-lease*) $GIT "$@"; exit 1;; esac'
    monkeypatch.setenv("PATH", put_before_git(tmp_path / "bin", script))
    with capture_logs() as logs:
        commit = one.work(one.remote(1), 1)

    assert commit == bare("rev-parse", REF)
    assert [] == logs


def take_away(project: Project) -> None:
    (project.repo.parent / "bare.git").rename(project.repo.parent / "gone.git")


def refuse(project: Project) -> None:
    hook = project.repo.parent / "bare.git/hooks/pre-receive"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text("#!/bin/sh\necho 'not today' >&2\nexit 1\n")
    hook.chmod(0o755)


def hide(project: Project) -> None:
    project.git("config", "transfer.hideRefs", "refs/orch", cwd=project.repo.parent / "bare.git")


@pytest.mark.parametrize(
    ("trouble", "reason"),
    [(take_away, "does not appear to be a git repo"), (refuse, "pre-receive hook declined"), (hide, "hidden ref")],
)
def test_a_remote_in_trouble_is_one_warning(
    project: Project, one: Host, trouble: Callable[[Project], None], reason: str
) -> None:
    """Whatever is wrong with the remote, the step is done and committed here; one line per session says why."""
    trouble(project)
    with capture_logs() as logs:
        commit = one.work(one.remote(1), 1)
    [warning] = logs

    assert commit == project.git("rev-parse", "orch/i-abc", cwd=one.repo)
    assert ("not_on_remote", "warning", "origin") == (warning["event"], warning["log_level"], warning["remote"])
    assert reason in warning["reason"]


def ended(pid: str) -> bool:
    """A process that nobody has reaped yet has no words left."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes() == b""
    except OSError:
        return True


def test_a_remote_that_hangs_is_given_up(project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that takes the connection and says nothing costs its time limit, and leaves no process."""
    pids = tmp_path / "pids"
    ssh = tmp_path / "ssh"
    ssh.write_text(f"#!/bin/sh\necho $$ >>{pids}\nexec sleep 60\n")
    ssh.chmod(0o755)
    monkeypatch.setenv("GIT_SSH_COMMAND", str(ssh))
    one = Host(project, "one", answer_s=0.5)
    project.git("remote", "set-url", "origin", "ssh://nowhere/repo", cwd=one.repo)
    with capture_logs() as logs:
        assert Fetched() == one.remote(1).fetch()

    assert ["it did not answer in 0.5 s"] == [line["reason"] for line in logs]
    for pid in pids.read_text().split():
        wait_until(partial(ended, pid), "ssh should have ended")


def test_a_remote_that_is_back_has_the_next_step(project: Project, one: Host, bare: Callable[..., str]) -> None:
    """A session whose remote was away for a while can be resumed from its next commit on."""
    remote = one.remote(1)
    take_away(project)
    one.work(remote, 1)
    (project.repo.parent / "gone.git").rename(project.repo.parent / "bare.git")
    commit = one.work(remote, 1, "y\n")

    assert commit == bare("rev-parse", REF)


def test_without_a_remote_nothing_is_said(project: Project) -> None:
    """A repo that nobody ever pushed anywhere works as it did."""
    workspace = project.workspace()
    remote = workspace.remote(Lease("i-abc", 1, SessionRecord("s-1", "orch-main", an_issue(), 3, 2)), host="here")
    with capture_logs() as logs:
        assert Fetched() == remote.fetch()
        remote.push(workspace.head(workspace.prepare("i-abc")))

    assert [] == logs


def test_only_our_ref_is_pushed(project: Project, one: Host, bare: Callable[..., str], tmp_path: Path) -> None:
    """No hook of the user's runs, no tag and no branch goes along, and no ref of the clone is moved by a fetch."""
    hook = one.repo / ".git/hooks/pre-push"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n")
    hook.chmod(0o755)
    project.git("config", "push.followTags", "true", cwd=one.repo)
    project.git("tag", "-a", "v1", "-m", "v1", cwd=one.repo)
    project.commit("later.py")
    project.git("push", "--quiet", str(tmp_path / "bare.git"), "main")
    before = project.git("for-each-ref", cwd=one.repo)
    one.remote(1).fetch()

    assert before == project.git("for-each-ref", cwd=one.repo)
    one.work(one.remote(1), 1)
    assert ["refs/heads/main", REF] == bare("for-each-ref", "--format=%(refname)").split()
    assert not (tmp_path / "ran").exists()
    assert not (one.repo / ".git/FETCH_HEAD").exists()


def test_sessions_start_from_the_remotes_base(project: Project, one: Host, tmp_path: Path) -> None:
    """A clone that nobody pulls in starts issues from where the base stands on the remote now."""
    newest = project.commit("later.py")
    project.git("push", "--quiet", str(tmp_path / "bare.git"), "main")
    worktree = one.workspace.prepare("i-abc", fetched=one.remote(1).fetch())

    assert (newest, newest) == (worktree.base, one.workspace.head(worktree))
    assert project.first == project.git("rev-parse", "main", cwd=one.repo)


def test_a_base_that_is_ahead_of_the_remote_counts(project: Project, one: Host) -> None:
    """What was committed on the base here, and not pushed yet, is where this host starts from."""
    newest = project.commit("mine.py", cwd=one.repo)
    worktree = one.workspace.prepare("i-abc", fetched=one.remote(1).fetch())

    assert newest == worktree.base


def test_a_fix_grows_out_of_work_on_another_host(one: Host, two: Host) -> None:
    """The original's branch is not in this clone: its work comes from the remote."""
    first = one.work(one.remote(1), 1)
    remote = two.remote(2, "i-fix", start_from="orch/i-abc")
    worktree = two.workspace.prepare("i-fix", start_from="orch/i-abc", fetched=remote.fetch())

    assert first == two.workspace.head(worktree)


def test_work_that_went_another_way_here_is_put_aside(project: Project, one: Host, two: Host) -> None:
    """Two hosts have gone on from the same commit, one without the remote: both go on from the remote's."""
    one.work(one.remote(1), 1)
    theirs = two.work(two.remote(2), 2, "theirs\n")
    worktree = one.workspace.prepare("i-abc")
    (worktree.path / "work.py").write_text("ours\n")
    ours = one.workspace.commit(worktree, "Ours\n").commit
    worktree = one.workspace.prepare("i-abc", fetched=one.remote(3).fetch())
    put_aside = project.git("for-each-ref", "--format=%(objectname)", "refs/orch/wip/i-abc", cwd=one.repo)

    assert theirs == one.workspace.head(worktree)
    assert ours == put_aside


@pytest.mark.parametrize("how", ["ours", "in the environment", "in git's configuration"])
def test_ssh_never_asks(project: Project, one: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    """Ours is ssh in batch mode; what the user has chosen, in the environment or in git, is left as it is."""
    called = tmp_path / "called"
    for name in ("ssh", "chosen"):
        (tmp_path / name).write_text(f'#!/bin/sh\necho "{name} $*" >>{called}\nexit 255\n')
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.delenv("GIT_SSH_COMMAND", raising=False)
    if how == "in the environment":
        monkeypatch.setenv("GIT_SSH_COMMAND", "chosen")
    elif how == "in git's configuration":
        project.git("config", "core.sshCommand", "chosen", cwd=one.repo)
    project.git("remote", "set-url", "origin", "ssh://nowhere/repo", cwd=one.repo)
    one.remote(1).fetch()

    expected = "ssh -o BatchMode=yes -o ConnectTimeout=10 " if how == "ours" else "chosen "
    assert called.read_text().startswith(expected)
