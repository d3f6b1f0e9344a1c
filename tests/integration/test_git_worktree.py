"""Worktrees that agents, people and power cuts have ruined: prepare makes each whole again and loses nothing."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.errors import WorkspaceError
from orchestrator.models import Worktree
from tests.git_project import Project


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    return Project(tmp_path)


def delete_folder(project: Project, worktree: Worktree) -> None:
    shutil.rmtree(worktree.path)


def delete_git(project: Project, worktree: Worktree) -> None:
    shutil.rmtree(worktree.path / ".git")


def point_nowhere(project: Project, worktree: Worktree) -> None:
    delete_git(project, worktree)
    (worktree.path / ".git").write_text("gitdir: /nowhere\n")


def point_to_another_repo(project: Project, worktree: Worktree) -> None:
    other = worktree.path.parent / "other"
    project.git("init", "--quiet", str(other))
    delete_git(project, worktree)
    (worktree.path / ".git").write_text(f"gitdir: {other / '.git'}\n")


def link_to_the_users_repo(project: Project, worktree: Worktree) -> None:
    delete_git(project, worktree)
    (worktree.path / ".git").symlink_to(project.repo / ".git")


def make_it_a_repo(project: Project, worktree: Worktree) -> None:
    delete_git(project, worktree)
    project.git("init", "--quiet", cwd=worktree.path)
    project.commit("mine.py", cwd=worktree.path)


def make_pipes_of_it(project: Project, worktree: Worktree) -> None:
    for name in ("HEAD", "config", "packed-refs", f"refs/heads/{worktree.branch}"):
        path = worktree.path / ".git" / name
        path.unlink()
        os.mkfifo(path)


def lock_index_and_refs(project: Project, worktree: Worktree) -> None:
    for lock in ("index.lock", "HEAD.lock", "config.lock"):
        (worktree.path / ".git" / lock).touch()
    (project.repo / ".git/refs/heads/orch/i-abc.lock").touch()
    (project.worktrees / ".orch/i-abc/index.lock").touch()


def spoil_indexes(project: Project, worktree: Worktree) -> None:
    (worktree.path / ".git/index").write_bytes(b"")
    (project.worktrees / ".orch/i-abc/index").write_bytes(b"garbage")


def half_make(project: Project, worktree: Worktree) -> None:
    shutil.rmtree(worktree.path)
    shutil.rmtree(project.worktrees / ".orch/i-abc/ours")
    (project.worktrees / ".orch/i-abc/new").mkdir()


def be_an_old_worktree(project: Project, worktree: Worktree) -> None:
    """Earlier versions registered it with the user's repo."""
    commit = project.git("rev-parse", worktree.branch)
    shutil.rmtree(worktree.path)
    shutil.rmtree(project.worktrees / ".orch/i-abc")
    project.git("worktree", "add", "--quiet", str(worktree.path), worktree.branch)
    assert commit == project.git("rev-parse", "HEAD", cwd=worktree.path)


def switch_branch(project: Project, worktree: Worktree) -> None:
    project.git("switch", "--quiet", "-c", "agents-own", cwd=worktree.path)


def switch_to_old_commit(project: Project, worktree: Worktree) -> None:
    project.git("checkout", "--quiet", "--detach", project.first, cwd=worktree.path)


def break_head(project: Project, worktree: Worktree) -> None:
    (worktree.path / ".git/HEAD").write_text("garbage\n")


def be_in_a_merge(project: Project, worktree: Worktree) -> None:
    project.git("checkout", "--quiet", "-b", "other", project.first, cwd=worktree.path)
    project.commit("kept.py", "theirs\n", cwd=worktree.path)
    project.git("checkout", "--quiet", worktree.branch, cwd=worktree.path)
    conflict(worktree, "merge", "other")


def be_in_a_rebase(project: Project, worktree: Worktree) -> None:
    project.git("checkout", "--quiet", "-b", "other", project.first, cwd=worktree.path)
    project.commit("kept.py", "theirs\n", cwd=worktree.path)
    project.git("checkout", "--quiet", worktree.branch, cwd=worktree.path)
    conflict(worktree, "rebase", "other")


def conflict(worktree: Worktree, *args: str) -> None:
    who = ("-c", "user.name=Agent", "-c", "user.email=agent@example.org")
    done = subprocess.run(["git", *who, *args], cwd=worktree.path, capture_output=True, check=False)
    assert done.returncode == 1, done.stderr


def be_a_link(project: Project, worktree: Worktree) -> None:
    moved = worktree.path.rename(worktree.path.parent / "moved")
    worktree.path.symlink_to(moved)


def hide_files(project: Project, worktree: Worktree) -> None:
    project.git("update-index", "--assume-unchanged", "README.md", cwd=worktree.path)
    project.git("update-index", "--skip-worktree", "src/calc.py", cwd=worktree.path)
    (worktree.path / "README.md").write_text("hidden\n")
    (worktree.path / "src/calc.py").unlink()


RUIN = [
    delete_folder,
    delete_git,
    point_nowhere,
    point_to_another_repo,
    link_to_the_users_repo,
    make_it_a_repo,
    make_pipes_of_it,
    lock_index_and_refs,
    spoil_indexes,
    half_make,
    be_an_old_worktree,
    switch_branch,
    switch_to_old_commit,
    break_head,
    be_in_a_merge,
    be_in_a_rebase,
    be_a_link,
    hide_files,
]


@pytest.mark.parametrize("ruin", RUIN, ids=lambda ruin: ruin.__name__)
def test_prepare_makes_a_ruined_worktree_whole(project: Project, ruin: Callable[[Project, Worktree], None]) -> None:
    """After prepare the worktree is sound, clean and on its branch, with the committed work in it."""
    workspace = project.workspace()
    worktree = workspace.prepare("i-abc")
    (worktree.path / "kept.py").write_text("ours\n")
    commit = workspace.commit(worktree, "Keep\n").commit
    ruin(project, worktree)
    before = project.main_checkout()

    assert worktree == workspace.prepare("i-abc")
    assert before == project.main_checkout()
    assert "ours\n" == (worktree.path / "kept.py").read_text()
    assert commit == project.git("rev-parse", "HEAD", cwd=worktree.path)
    assert worktree.branch == project.git("symbolic-ref", "--short", "HEAD", cwd=worktree.path)
    assert "" == project.git("status", "--porcelain", cwd=worktree.path)
    assert "nothing to commit, working tree clean" == project.git("status", cwd=worktree.path).splitlines()[-1]
    assert 1 == len(project.git("worktree", "list").splitlines())

    project.commit("more.py", cwd=worktree.path)


@pytest.mark.parametrize(
    "ruin",
    [delete_folder, delete_git, make_it_a_repo, make_pipes_of_it, half_make, be_an_old_worktree, break_head, be_a_link],
    ids=lambda ruin: ruin.__name__,
)
def test_drop_removes_a_ruined_worktree(project: Project, ruin: Callable[[Project, Worktree], None]) -> None:
    """However broken, the folder goes, and the branch stays."""
    workspace = project.workspace()
    worktree = workspace.prepare("i-abc")
    (worktree.path / "kept.py").write_text("ours\n")
    commit = workspace.commit(worktree, "Keep\n").commit
    ruin(project, worktree)
    workspace.drop("i-abc")

    assert not worktree.path.exists()
    assert commit == project.git("rev-parse", worktree.branch)
    assert commit == workspace.head(workspace.prepare("i-abc"))


def test_interrupted_work_is_put_aside(project: Project) -> None:
    """What a killed step left uncommitted is kept in git, and the next step starts clean; ignored files stay."""
    workspace = project.workspace()
    worktree = workspace.prepare("i-abc")
    (worktree.path / "half.py").write_text("half done\n")
    (worktree.path / "README.md").unlink()
    (worktree.path / "built.cache").write_text("ignored\n")
    workspace.prepare("i-abc")
    (wip,) = project.wip()

    assert ["D\tREADME.md", "A\thalf.py"] == project.git("diff", "--name-status", "main", wip).splitlines()
    assert not (worktree.path / "half.py").exists()
    assert (worktree.path / "built.cache").exists()
    assert "" == project.git("status", "--porcelain", cwd=worktree.path)


def test_commits_off_the_branch_are_put_aside(project: Project) -> None:
    """What an interrupted agent committed on a detached HEAD keeps a ref; files edited on top of it too."""
    workspace = project.workspace()
    worktree = workspace.prepare("i-abc")
    project.git("checkout", "--quiet", "--detach", cwd=worktree.path)
    lost = project.commit("lost.py", cwd=worktree.path)
    (worktree.path / "edited.py").write_text("x\n")
    workspace.prepare("i-abc")
    wip = project.wip()

    assert lost in wip
    assert {"lost.py", "edited.py"} <= project.files(next(commit for commit in wip if commit != lost))


def test_work_is_kept_when_the_branch_was_moved_back(project: Project) -> None:
    """Somebody resets the branch meanwhile: that does not take the earlier step's commit with it."""
    workspace = project.workspace()
    worktree = workspace.prepare("i-abc")
    (worktree.path / "new.py").write_text("x\n")
    commit = workspace.commit(worktree, "Add new\n").commit
    project.git("update-ref", f"refs/heads/{worktree.branch}", "main")
    workspace.prepare("i-abc")
    moved_back = workspace.head(worktree)

    assert project.first == moved_back
    assert [commit] == project.wip()
    assert ["new.py"] == workspace.restore(worktree, commit)
    assert commit == workspace.head(worktree)


def test_a_persons_commits_on_the_branch_are_continued(project: Project, tmp_path: Path) -> None:
    """Somebody put a fix on the branch after the session: the next session goes on from it."""
    workspace = project.workspace()
    worktree = workspace.prepare("i-abc")
    project.git("worktree", "add", "--quiet", str(tmp_path / "persons"), worktree.branch)
    theirs = project.commit("fix.py", cwd=tmp_path / "persons")
    workspace.prepare("i-abc")

    assert theirs == workspace.head(worktree)
    assert [] == project.wip()


def test_ignored_files_survive_a_lost_repository(project: Project) -> None:
    """A repository is made anew in place, so what a build left beside it need not be built again."""
    workspace = project.workspace()
    worktree = workspace.prepare("i-abc")
    (worktree.path / "built.cache").write_text("expensive\n")
    delete_git(project, worktree)
    workspace.prepare("i-abc")

    assert "expensive\n" == (worktree.path / "built.cache").read_text()


def test_a_persons_worktree_lets_go_of_the_branch(project: Project, tmp_path: Path) -> None:
    """Checked out to be looked at, and worked on again since: it keeps its files, and nothing moves under it."""
    workspace, theirs = project.workspace(), tmp_path / "persons"
    worktree = workspace.prepare("i-abc")
    project.git("worktree", "add", "--quiet", str(theirs), worktree.branch)
    (theirs / "unsaved.py").write_text("x\n")
    workspace.prepare("i-abc")

    assert "?? unsaved.py" == project.git("status", "--porcelain", cwd=theirs)
    assert "HEAD" == project.git("rev-parse", "--abbrev-ref", "HEAD", cwd=theirs)


def test_a_branch_in_the_main_checkout_is_refused(project: Project) -> None:
    """The main checkout is a person's: nothing is moved under it, and the error says what to do."""
    project.git("switch", "--quiet", "-c", "orch/i-abc")
    before = project.main_checkout()

    with pytest.raises(WorkspaceError, match=r"i-abc: orch/i-abc is checked out in the main checkout .* switch it"):
        project.workspace().prepare("i-abc")
    assert before == project.main_checkout()


def test_origin_stands_in_for_a_base_that_is_not_checked_out(project: Project, tmp_path: Path) -> None:
    """A clone that has only origin/develop starts issues from it."""
    project.git("switch", "--quiet", "-c", "develop")
    newest = project.commit("dev.py")
    project.git("switch", "--quiet", "main")
    project.git("clone", "--quiet", "--branch", "main", str(project.repo), str(tmp_path / "clone"))
    project.repo = tmp_path / "clone"

    assert newest == project.workspace(base="develop").prepare("i-abc").base


@pytest.mark.parametrize("base", ["nope", "-x", "", "a..b"])
def test_an_unknown_base_names_the_setting(project: Project, base: str) -> None:
    """The error names the branch and the setting."""
    with pytest.raises(WorkspaceError, match=r"i-abc: .* set `base` in orch.toml"):
        project.workspace(base=base).prepare("i-abc")


def test_a_folder_that_is_no_repo_is_refused(project: Project, tmp_path: Path) -> None:
    """The error names the folder and the variable."""
    project.repo = tmp_path / "empty"
    project.repo.mkdir()

    with pytest.raises(WorkspaceError, match=r"empty is no git repo .* check ORCH_PROJECT_ROOT"):
        project.workspace().prepare("i-abc")


def test_unrelated_history_is_refused(project: Project) -> None:
    """A branch by the issue's name that never came from base is not built upon."""
    empty = project.git("hash-object", "-t", "tree", "-w", "/dev/null")
    project.git("update-ref", "refs/heads/orch/i-abc", project.git("commit-tree", empty, "-m", "orphan"))

    with pytest.raises(WorkspaceError, match="i-abc: orch/i-abc shares no history with base"):
        project.workspace().prepare("i-abc")


def test_the_callers_git_environment_does_not_leak_in(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker started from a git hook has GIT_DIR and GIT_INDEX_FILE set; they point at another repo."""
    for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY", "GIT_COMMON_DIR"):
        monkeypatch.setenv(name, "/nowhere")
    workspace = project.workspace()
    worktree = workspace.prepare("i-abc")
    (worktree.path / "new.py").write_text("x\n")
    commit = workspace.commit(worktree, "Add new\n").commit
    monkeypatch.undo()

    assert "new.py" in project.files(commit)


def test_a_repo_that_is_itself_a_worktree_will_do(project: Project, tmp_path: Path) -> None:
    """`repo` may be a linked worktree or a folder in the repo."""
    project.git("worktree", "add", "--quiet", str(tmp_path / "linked"), "-b", "side")
    project.repo = tmp_path / "linked" / "src"

    assert (project.workspace().prepare("i-abc").path / "README.md").exists()


def test_a_sparse_main_checkout_gets_whole_worktrees(project: Project) -> None:
    """The main checkout's sparse patterns neither hide files from agents nor delete them from commits."""
    project.git("sparse-checkout", "set", "--no-cone", "/README.md")
    workspace = project.workspace()
    worktree = workspace.prepare("i-abc")
    (worktree.path / "new.py").write_text("x\n")
    commit = workspace.commit(worktree, "Add new\n").commit

    assert (worktree.path / "src/calc.py").exists()
    assert "A\tnew.py" == project.git("diff", "--name-status", project.first, commit)


def test_a_hanging_git_is_stopped_in_time(project: Project, tmp_path: Path) -> None:
    """A filter that never ends costs timeout_s; the error names the call, and no lock stays behind."""
    project.git("config", "filter.slow.clean", f"test -e {tmp_path / 'fast'} || sleep 60; cat")
    workspace = project.workspace()
    worktree = workspace.prepare("i-abc")
    (worktree.path / ".gitattributes").write_text("*.slow filter=slow\n")
    (worktree.path / "a.slow").write_text("x\n")
    with pytest.raises(WorkspaceError, match=r"i-abc: git add did not end in 0\.5 s"):
        project.workspace(timeout_s=0.5).commit(worktree, "Slow\n")
    (tmp_path / "fast").touch()

    assert "a.slow" in project.files(workspace.commit(worktree, "Fast\n").commit)
