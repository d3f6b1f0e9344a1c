"""What every Workspace promises. Git is the one adapter."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.errors import LeaseLost, WorkspaceError
from orchestrator.models import BASE, Workspace
from tests.git_project import Project


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    return Project(tmp_path)


@pytest.fixture
def workspace(project: Project) -> Workspace:
    return project.workspace()


def test_prepare_gives_the_files_of_base_on_a_branch_of_the_issue(project: Project, workspace: Workspace) -> None:
    """A fresh issue gets a folder with base's files, on branch orch/<issue-id>, standing on base."""
    worktree = workspace.prepare("i-abc")

    assert ("i-abc", "orch/i-abc", project.first) == (worktree.issue_id, worktree.branch, worktree.base)
    assert "# Project\n" == (worktree.path / "README.md").read_text()
    assert project.first == workspace.head(worktree)


def test_prepare_again_changes_nothing(workspace: Workspace) -> None:
    """A second prepare gives the same worktree and leaves files and branch alone."""
    worktree = workspace.prepare("i-abc")
    (worktree.path / "new.py").write_text("x\n")
    head = workspace.commit(worktree, "Add new\n").commit
    (worktree.path / "built.cache").write_text("kept: it is ignored\n")
    before = {path: path.stat().st_mtime_ns for path in worktree.path.rglob("*.*") if path.is_file()}

    assert worktree == workspace.prepare("i-abc")
    assert head == workspace.head(worktree)
    assert before == {path: path.stat().st_mtime_ns for path in before}


def test_two_issues_do_not_see_each_other(workspace: Workspace) -> None:
    """What is committed for one issue is not in the other's folder or branch."""
    one, other = workspace.prepare("i-abc"), workspace.prepare("i-xyz")
    (one.path / "one.py").write_text("x\n")
    workspace.commit(one, "Add one\n")

    assert not (workspace.prepare("i-xyz").path / "one.py").exists()
    assert workspace.head(one) != workspace.head(other)


def test_commit_takes_new_modified_and_deleted_files(project: Project, workspace: Workspace) -> None:
    """Everything that changed is in the commit; what is ignored is not."""
    worktree = workspace.prepare("i-abc")
    (worktree.path / "new.py").write_text("new\n")
    (worktree.path / "README.md").write_text("# Changed\n")
    (worktree.path / "src/text.py").unlink()
    (worktree.path / "built.cache").write_text("ignored\n")
    commit = workspace.commit(worktree, "Change things\n").commit

    changed = project.git("diff-tree", "-r", "--name-status", worktree.base, commit).splitlines()
    assert ["M\tREADME.md", "A\tnew.py", "D\tsrc/text.py"] == changed
    assert commit == workspace.head(worktree)
    assert "Change things" == project.git("log", "-1", "--format=%B", commit).strip()


def test_each_commit_is_one_step_on_the_branch(project: Project, workspace: Workspace) -> None:
    """Two calls give two commits, the second upon the first."""
    worktree = workspace.prepare("i-abc")
    (worktree.path / "new.py").write_text("1\n")
    first = workspace.commit(worktree, "One\n").commit
    (worktree.path / "new.py").write_text("2\n")
    second = workspace.commit(worktree, "Two\n").commit

    assert [second, first] == project.git("rev-list", f"{worktree.base}..{worktree.branch}").split()


def test_commit_without_changes_gives_the_commit_that_is_there(workspace: Workspace) -> None:
    """A step that changed nothing leaves no empty commit."""
    worktree = workspace.prepare("i-abc")

    assert worktree.base == workspace.commit(worktree, "Nothing\n").commit
    assert worktree.base == workspace.head(worktree)


def test_prepare_continues_committed_work(workspace: Workspace) -> None:
    """Work on the branch that base does not have is where the next session goes on, also after a drop."""
    worktree = workspace.prepare("i-abc")
    (worktree.path / "new.py").write_text("kept\n")
    commit = workspace.commit(worktree, "Add new\n").commit
    workspace.drop("i-abc")
    again = workspace.prepare("i-abc")

    assert (worktree, commit) == (again, workspace.head(again))
    assert "kept\n" == (again.path / "new.py").read_text()


def test_prepare_moves_a_branch_without_work_up_to_base(project: Project, workspace: Workspace) -> None:
    """A branch that base contains starts anew from where base stands now."""
    workspace.prepare("i-abc")
    newest = project.commit("later.py")
    worktree = workspace.prepare("i-abc")

    assert (newest, newest) == (worktree.base, workspace.head(worktree))
    assert (worktree.path / "later.py").exists()


def test_base_is_where_the_branch_left_base(project: Project, workspace: Workspace) -> None:
    """When base goes on, the change of the issue stays its own work."""
    worktree = workspace.prepare("i-abc")
    (worktree.path / "new.py").write_text("x\n")
    workspace.commit(worktree, "Add new\n")
    project.commit("later.py")
    again = workspace.prepare("i-abc")

    assert project.first == again.base
    assert "later.py" not in workspace.change(again, max_chars=10_000)


def test_restore_puts_everything_back_and_names_what_it_threw_away(workspace: Workspace) -> None:
    """Edits, deletions, untracked files and commits are undone; ignored files stay; the paths come sorted."""
    worktree = workspace.prepare("i-abc")
    (worktree.path / "kept.py").write_text("kept\n")
    commit = workspace.commit(worktree, "Keep\n").commit
    (worktree.path / "later.py").write_text("x\n")
    workspace.commit(worktree, "Later\n")
    (worktree.path / "README.md").write_text("spoiled\n")
    (worktree.path / "src/calc.py").unlink()
    (worktree.path / "deep/er").mkdir(parents=True)
    (worktree.path / "deep/er/new.txt").write_text("x\n")
    (worktree.path / "built.cache").write_text("ignored\n")

    assert ["README.md", "deep/er/new.txt", "later.py", "src/calc.py"] == workspace.restore(worktree, commit)
    assert commit == workspace.head(worktree)
    assert "# Project\n" == (worktree.path / "README.md").read_text()
    assert (worktree.path / "src/calc.py").exists()
    assert (worktree.path / "built.cache").exists()
    assert not (worktree.path / "deep").exists()
    assert [] == workspace.restore(worktree, commit)


def test_restore_refuses_what_is_no_commit(workspace: Workspace) -> None:
    """An unknown commit is an error, and nothing is thrown away."""
    worktree = workspace.prepare("i-abc")
    (worktree.path / "new.py").write_text("x\n")

    with pytest.raises(WorkspaceError, match=r"i-abc: 0{40} is no commit"):
        workspace.restore(worktree, "0" * 40)
    assert (worktree.path / "new.py").exists()


def test_change_lists_files_and_shows_the_diff(workspace: Workspace) -> None:
    """The reviewer sees a list with renames, then the diff."""
    worktree = workspace.prepare("i-abc")
    (worktree.path / "src/text.py").rename(worktree.path / "src/words.py")
    (worktree.path / "README.md").write_text("# Changed\n")
    workspace.commit(worktree, "Rename\n")
    change = workspace.change(worktree, max_chars=10_000)

    assert ["M\tREADME.md", "R100\tsrc/text.py\tsrc/words.py"] == change.splitlines()[:2]
    assert "-# Project\n+# Changed\n" in change


def test_change_without_changes_is_empty(workspace: Workspace) -> None:
    """Nothing changed, nothing to show."""
    worktree = workspace.prepare("i-abc")

    assert "" == workspace.change(worktree, max_chars=1000)


@pytest.mark.parametrize("max_chars", [250, 300, 1000, 4321])
def test_change_is_cut_and_says_so(workspace: Workspace, max_chars: int) -> None:
    """A long change fits into max_chars; its last line counts what is missing and says how to see it."""
    worktree = workspace.prepare("i-abc")
    (worktree.path / "long.txt").write_text("".join(f"line {number}\n" for number in range(2000)))
    workspace.commit(worktree, "Write a lot\n")
    whole = workspace.change(worktree, max_chars=10**6)
    cut = workspace.change(worktree, max_chars=max_chars)
    shown, _, note = cut.rstrip("\n").rpartition("\n")

    assert len(cut) <= max_chars
    assert whole.startswith(shown + "\n")
    assert f"[cut: {len(whole) - len(shown) - 1} of {len(whole)} characters are not shown; `git diff " in note
    assert f"..{worktree.branch}`" in note


def test_drop_removes_the_folder_and_keeps_the_branch(project: Project, workspace: Workspace) -> None:
    """After a drop the folder is gone and the work is still on its branch; dropping again changes nothing."""
    worktree = workspace.prepare("i-abc")
    (worktree.path / "new.py").write_text("x\n")
    commit = workspace.commit(worktree, "Add new\n").commit
    workspace.drop("i-abc")
    workspace.drop("i-abc")
    workspace.drop("i-never")

    assert not worktree.path.exists()
    assert commit == project.git("rev-parse", "orch/i-abc")


def test_a_commit_adds_what_its_base_has_not(project: Project, workspace: Workspace) -> None:
    """Its files count, not its commits: none of its own, one that was taken back, and one that base got otherwise."""
    worktree = workspace.prepare("i-abc")
    before = workspace.adds(worktree.base)
    (worktree.path / "new.py").write_text("x\n")
    work = workspace.commit(worktree, "Add new\n").commit
    (worktree.path / "new.py").unlink()
    taken_back = workspace.commit(worktree, "Take it back\n").commit
    added = workspace.adds(work)
    project.commit("later.py")
    project.commit("new.py")

    assert (False, True, False) == (before, added, workspace.adds(taken_back))
    assert not workspace.adds(work)
    assert not workspace.adds(work, grown_from=worktree.base)


def test_a_commit_is_compared_with_the_base_it_grew_from(project: Project, workspace: Workspace) -> None:
    """What the remote's base has and this clone's has not is no work of the branch."""
    newer = project.commit("theirs.py")
    project.git("reset", "--quiet", "--hard", project.first)

    assert workspace.adds(newer)
    assert not workspace.adds(newer, grown_from=newer)


def test_what_is_not_here_may_add_something(workspace: Workspace) -> None:
    """No commit is taken for nothing because this clone does not have it."""
    assert workspace.adds("c0ffee" + "0" * 34)


@pytest.mark.parametrize("issue_id", ["", "i-", "s-abc", "i-ABC", "i-a/b", "../i-abc", "i-abc\n", "-i-abc", "i-a b"])
def test_other_ids_are_refused(workspace: Workspace, issue_id: str) -> None:
    """An id becomes a folder and an argument, so only `i-` with letters and digits is one."""
    with pytest.raises(WorkspaceError, match="is no issue id"):
        workspace.prepare(issue_id)
    with pytest.raises(WorkspaceError, match="is no issue id"):
        workspace.drop(issue_id)


def test_the_main_checkout_is_never_touched(project: Project, workspace: Workspace) -> None:
    """A person's edits, index and HEAD stay as they are through a whole session."""
    (project.repo / "README.md").write_text("my own edit\n")
    (project.repo / "staged.py").write_text("staged\n")
    project.git("add", "staged.py")
    before = project.main_checkout()
    worktree = workspace.prepare("i-abc")
    (worktree.path / "new.py").write_text("x\n")
    workspace.commit(worktree, "Add new\n")
    workspace.restore(worktree, worktree.base)
    workspace.drop("i-abc")

    assert before == project.main_checkout()
    assert "my own edit\n" == (project.repo / "README.md").read_text()


def test_put_aside_gives_the_refs_that_keep_unfinished_work(project: Project, workspace: Workspace) -> None:
    """Files go back to where the step started, commits of finished steps stay; a second time there is nothing to do."""
    worktree = workspace.prepare("i-abc")
    (worktree.path / "done.py").write_text("done\n")
    commit = workspace.commit(worktree, "One step\n").commit
    (worktree.path / "half.py").write_text("half\n")
    [ref] = workspace.put_aside("i-abc")

    assert "half" == project.git("show", f"{ref}:half.py").strip()
    assert commit == project.git("rev-parse", f"{ref}^").strip() == workspace.head(worktree)
    assert ["done.py"] == sorted(path.name for path in worktree.path.glob("*.py"))
    assert [] == workspace.put_aside("i-abc")


def test_put_aside_keeps_what_an_agent_committed_itself(project: Project, workspace: Workspace) -> None:
    """Commits of a step that did not end are no finished work."""
    worktree = workspace.prepare("i-abc")
    (worktree.path / "half.py").write_text("half\n")
    project.git("add", "--all", cwd=worktree.path)
    project.git("commit", "--quiet", "-m", "mine", cwd=worktree.path)
    [ref] = workspace.put_aside("i-abc")

    assert "mine" == project.git("log", "-1", "--format=%s", ref).strip()
    assert worktree.base == workspace.head(worktree)


def test_a_holder_that_another_one_followed_writes_nothing(workspace: Workspace) -> None:
    """A worker that froze before its lock and wakes: files and branch are the newer holder's by then."""
    old = workspace.prepare("i-abc", token=7)
    new = workspace.prepare("i-abc", token=8)
    (new.path / "new.py").write_text("x\n")

    for verb in (
        lambda: workspace.commit(old, "Late\n"),
        lambda: workspace.restore(old, old.base),
        lambda: workspace.prepare("i-abc", token=7),
    ):
        with pytest.raises(LeaseLost, match="i-abc: a worker with a newer lease has taken its worktree over"):
            verb()
    assert new.base == workspace.head(new)
    assert (new.path / "new.py").exists()


def test_without_a_worktree_nothing_is_put_aside(workspace: Workspace) -> None:
    """An issue that never ran here has left nothing here."""
    assert [] == workspace.put_aside("i-abc")


def files(folder: Path) -> list[str]:
    """All files of a checkout but git's own, sorted."""
    found = (path.relative_to(folder) for path in folder.rglob("*") if not path.is_dir() or path.is_symlink())
    return sorted(str(path) for path in found if path.parts[0] != ".git")


def test_a_clean_checkout_has_the_commit_and_nothing_else(project: Project, workspace: Workspace) -> None:
    """Not what git ignores, not what was not committed; with rights and links, as a repository that stands on it."""
    worktree = workspace.prepare("i-abc")
    (worktree.path / "run.sh").write_text("#!/bin/sh\n")
    (worktree.path / "run.sh").chmod(0o755)
    (worktree.path / "link").symlink_to("run.sh")
    commit = workspace.commit(worktree, "Add a script\n").commit
    (worktree.path / "built.cache").write_text("ignored\n")
    (worktree.path / "later.py").write_text("not committed\n")

    with workspace.clean("i-abc", commit) as clean:
        assert project.git("ls-tree", "-r", "--name-only", commit).splitlines() == files(clean.path)
        assert (clean.path / "run.sh").stat().st_mode & 0o111
        assert "run.sh" == str((clean.path / "link").readlink())
        assert commit == project.git("rev-parse", "HEAD", cwd=clean.path)
        assert "" == project.git("status", "--porcelain", "--ignored", cwd=clean.path)
        assert ("i-abc", commit) == (clean.issue_id, clean.base)
    assert not clean.path.exists()


def test_a_clean_checkout_is_a_repository_of_its_own(project: Project, workspace: Workspace) -> None:
    """Whatever is done to its refs, config and files is not seen anywhere else, nor in the next one."""
    worktree = workspace.prepare("i-abc")
    before = project.git("for-each-ref"), (project.repo / ".git" / "config").read_text()
    for _ in range(2):
        with workspace.clean("i-abc", worktree.base) as clean:
            assert "" == project.git("diff", "--stat", "main", worktree.branch, cwd=clean.path)
            project.git("commit", "--quiet", "--allow-empty", "-m", "x", cwd=clean.path)
            project.git("config", "core.bare", "true", cwd=clean.path)
            project.git("update-ref", "refs/heads/main", "HEAD", cwd=clean.path)
            locked = clean.path / "locked"
            locked.mkdir()
            (locked / "file").touch()
            locked.chmod(0o500)

    assert before == (project.git("for-each-ref"), (project.repo / ".git" / "config").read_text())
    assert [] == workspace.put_aside("i-abc")


def test_one_clean_checkout_at_a_time(project: Project) -> None:
    """A second verification of the same issue, or of the base, takes no files from under the first one."""
    hasty = project.workspace(lock_s=0.2)
    for what in ("i-abc", BASE):
        with hasty.clean(what, project.first) as clean:
            hasty.prepare("i-abc")
            with (
                pytest.raises(WorkspaceError, match=r"has held .*verifying for 0\.2 s"),
                hasty.clean(what, project.first),
            ):
                pass
            assert (clean.path / "README.md").exists()
        with hasty.clean(what, project.first) as again:
            assert (again.path / "README.md").exists()


def test_a_clean_checkout_of_the_base_is_no_issues(project: Project, workspace: Workspace) -> None:
    """The base can be had without any issue."""
    with workspace.clean(BASE, project.first) as clean:
        assert "# Project\n" == (clean.path / "README.md").read_text()


def test_a_clean_checkout_goes_with_whatever_happens_in_it(workspace: Workspace) -> None:
    """An error of its user's comes through as it is."""
    worktree = workspace.prepare("i-abc")
    with (
        pytest.raises(FileNotFoundError, match="no such thing"),
        workspace.clean("i-abc", worktree.base) as clean,
    ):
        raise FileNotFoundError("no such thing")
    assert not clean.path.exists()


def test_no_clean_checkout_of_a_commit_that_is_not_there(workspace: Workspace) -> None:
    """It is an error, not an empty folder."""
    with pytest.raises(WorkspaceError, match="i-abc"), workspace.clean("i-abc", "c0ffee" + "0" * 34):
        pass


def test_changed_names_what_the_work_changed(project: Project, workspace: Workspace) -> None:
    """New, changed and deleted paths since the base, sorted; of the commit, whatever is in the folder."""
    worktree = workspace.prepare("i-abc")
    (worktree.path / "ünew.py").write_text("new\n")
    (worktree.path / "README.md").write_text("# Changed\n")
    (worktree.path / "src/text.py").unlink()
    commit = workspace.commit(worktree, "Change things\n").commit
    (worktree.path / "later.py").write_text("not committed\n")

    assert ["README.md", "src/text.py", "ünew.py"] == workspace.changed(worktree, commit)
    assert [] == workspace.changed(worktree, project.first)
