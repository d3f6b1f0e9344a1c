"""One commit per step, whatever the agent did in it: the hard cases, each really provoked."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.adapters.git import GitWorkspace, create_project
from orchestrator.errors import WorkspaceError
from orchestrator.models import Worktree
from orchestrator.text import commit_message
from tests.git_project import FILES, Project

MESSAGE = "Step one\n\nWhat it did.\n\nSudocode-Issue: i-abc\nOrch-Session: s1\n"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    return Project(tmp_path)


@pytest.fixture
def workspace(project: Project) -> GitWorkspace:
    return project.workspace()


@pytest.fixture
def worktree(workspace: GitWorkspace) -> Worktree:
    return workspace.prepare("i-abc")


def on_branch(project: Project, worktree: Worktree, commit: str) -> None:
    """The commit is the one step on the branch, and the worktree stands on it, clean."""
    assert [commit] == project.git("rev-list", f"{worktree.base}..{worktree.branch}").split()
    assert commit == project.git("rev-parse", "HEAD", cwd=worktree.path)
    assert worktree.branch == project.git("symbolic-ref", "--short", "HEAD", cwd=worktree.path)
    assert "" == project.git("status", "--porcelain", cwd=worktree.path)


# What the agent did with git itself


def test_an_agents_own_commits_become_one(project: Project, workspace: GitWorkspace, worktree: Worktree) -> None:
    """Several commits and loose changes are one commit; its message lists theirs before the trailers; theirs stay."""
    project.commit("one.py", cwd=worktree.path)
    last = project.commit("two.py", cwd=worktree.path)
    (worktree.path / "three.py").write_text("x\n")
    commit = workspace.commit(worktree, MESSAGE).commit

    on_branch(project, worktree, commit)
    assert FILES.keys() | {"one.py", "two.py", "three.py"} == project.files(commit)
    assert (
        "Step one\n\nWhat it did.\n\n"
        "Squashed, as the agent had named them:\n- Add one.py\n- Add two.py\n\n"
        "Sudocode-Issue: i-abc\nOrch-Session: s1"
    ) == project.git("log", "-1", "--format=%B", commit)
    assert [last] == project.wip()


def test_what_an_agent_named_its_commits_acts_on_nothing(
    project: Project, workspace: GitWorkspace, worktree: Worktree
) -> None:
    """The list of them goes to the forge: it has no secret, mentions nobody and closes nothing."""
    subject = f"Use g\u200bhp_{'a1' * 18}, thanks @octocat, fixes #12"
    project.git("commit", "--quiet", "--allow-empty", "-m", subject, cwd=worktree.path)
    (worktree.path / "three.py").write_text("x\n")
    commit = workspace.commit(worktree, MESSAGE).commit

    assert "\n- Use [redacted], thanks @ octocat, fixes # 12\n" in project.git("log", "-1", "--format=%B", commit)


def test_commits_on_a_switched_branch_are_in(project: Project, workspace: GitWorkspace, worktree: Worktree) -> None:
    """An agent that works on a branch of its own has worked for the issue all the same; its commits are kept."""
    project.git("switch", "--quiet", "-c", "agents-own", cwd=worktree.path)
    own = project.commit("own.py", cwd=worktree.path)
    commit = workspace.commit(worktree, MESSAGE).commit

    on_branch(project, worktree, commit)
    assert "own.py" in project.files(commit)
    assert "- Add own.py" in project.git("log", "-1", "--format=%B", commit)
    assert [own] == project.wip()
    assert "" == project.git("branch", "--list", "agents-own")


def test_commits_on_a_detached_head_are_in(project: Project, workspace: GitWorkspace, worktree: Worktree) -> None:
    """Nothing that a detached HEAD held is lost."""
    project.git("checkout", "--quiet", "--detach", cwd=worktree.path)
    detached = project.commit("own.py", cwd=worktree.path)
    commit = workspace.commit(worktree, MESSAGE).commit

    on_branch(project, worktree, commit)
    assert "own.py" in project.files(commit)
    assert [detached] == project.wip()


def test_a_rebase_left_going_is_ended(project: Project, workspace: GitWorkspace, worktree: Worktree) -> None:
    """The files as the agent left them, conflict marks and all, are the commit; the rebase is over."""
    project.commit("README.md", "ours\n", cwd=worktree.path)
    project.git("checkout", "--quiet", "-b", "other", project.first, cwd=worktree.path)
    project.commit("README.md", "theirs\n", cwd=worktree.path)
    who = ("-c", "user.name=Agent", "-c", "user.email=agent@example.org")
    done = subprocess.run(["git", *who, "rebase", worktree.branch], cwd=worktree.path, capture_output=True, check=False)
    commit = workspace.commit(worktree, MESSAGE).commit

    assert done.returncode == 1
    on_branch(project, worktree, commit)
    assert "<<<<<<<" in project.text(commit, "README.md")


def test_a_branch_moved_back_does_not_undo_earlier_steps(
    project: Project, workspace: GitWorkspace, worktree: Worktree
) -> None:
    """The commit goes upon the one the step started from, not upon where the agent moved the branch."""
    (worktree.path / "one.py").write_text("1\n")
    first = workspace.commit(worktree, "One\n").commit
    project.git("reset", "--quiet", "--soft", "main", cwd=worktree.path)
    (worktree.path / "two.py").write_text("2\n")
    second = workspace.commit(worktree, "Two\n").commit

    assert [second, first] == project.git("rev-list", f"main..{worktree.branch}").split()


def test_a_deleted_branch_comes_back(project: Project, workspace: GitWorkspace, worktree: Worktree) -> None:
    """Deleting the branch from under the step costs nothing."""
    project.git("checkout", "--quiet", "--detach", cwd=worktree.path)
    project.git("branch", "--quiet", "-D", worktree.branch, cwd=worktree.path)
    (worktree.path / "new.py").write_text("x\n")

    on_branch(project, worktree, workspace.commit(worktree, MESSAGE).commit)


def test_commits_that_undo_each_other_leave_none(project: Project, workspace: GitWorkspace, worktree: Worktree) -> None:
    """A commit and its revert change nothing, so the branch goes back to where it was."""
    project.commit("one.py", cwd=worktree.path)
    project.git("revert", "--no-edit", "HEAD", cwd=worktree.path)

    assert project.first == workspace.commit(worktree, MESSAGE).commit
    assert project.first == workspace.head(worktree)
    assert 1 == len(project.wip())


def test_half_staged_changes_are_in_as_the_files_say(
    project: Project, workspace: GitWorkspace, worktree: Worktree
) -> None:
    """The files count, not what was staged, nor what was hidden from git."""
    (worktree.path / "README.md").write_text("staged\n")
    project.git("add", "README.md", cwd=worktree.path)
    (worktree.path / "README.md").write_text("last\n")
    project.git("update-index", "--assume-unchanged", "src/calc.py", cwd=worktree.path)
    (worktree.path / "src/calc.py").write_text("changed\n")
    commit = workspace.commit(worktree, MESSAGE).commit

    on_branch(project, worktree, commit)
    assert ("last", "changed") == (project.text(commit, "README.md"), project.text(commit, "src/calc.py"))


def test_git_folder_made_by_the_agent_is_not_believed(
    project: Project, workspace: GitWorkspace, worktree: Worktree
) -> None:
    """`rm .git; git init; git commit` in the worktree: the files are committed to our repo."""
    shutil.rmtree(worktree.path / ".git")
    project.git("init", "--quiet", cwd=worktree.path)
    project.commit("own.py", cwd=worktree.path)
    commit = workspace.commit(worktree, MESSAGE).commit

    on_branch(project, worktree, commit)
    assert "own.py" in project.files(commit)


def test_a_folder_that_is_gone_is_not_committed_as_deleted(workspace: GitWorkspace, worktree: Worktree) -> None:
    """Without its folder a step cannot be committed; the error says to prepare again."""
    worktree.path.rename(worktree.path.parent / "moved")

    with pytest.raises(WorkspaceError, match=r"i-abc: the worktree .* is gone; prepare it again"):
        workspace.commit(worktree, MESSAGE)


# .sudocode


def test_the_tracker_folder_is_left_out(project: Project, workspace: GitWorkspace, worktree: Worktree) -> None:
    """Edited, added, deleted, ignored or committed by the agent: `.sudocode` stays as it was, in commit and folder."""
    folder = worktree.path / ".sudocode"
    project.commit(".sudocode/issues.jsonl", "forged\n", cwd=worktree.path)
    (folder / "added.md").write_text("x\n")
    (folder / "cache.db").write_text("ignored\n")
    (folder / ".gitignore").unlink()
    (worktree.path / "new.py").write_text("x\n")
    commit = workspace.commit(worktree, MESSAGE).commit

    on_branch(project, worktree, commit)
    assert ["new.py"] == project.git("diff", "--name-only", project.first, commit).split()
    assert [".gitignore", "issues.jsonl"] == sorted(path.name for path in folder.iterdir())
    assert FILES[".sudocode/issues.jsonl"] == (folder / "issues.jsonl").read_text()


@pytest.mark.parametrize("instead", ["file", "link"])
def test_a_replaced_tracker_folder_comes_back(
    project: Project, workspace: GitWorkspace, worktree: Worktree, instead: str
) -> None:
    """A link in the place of `.sudocode` is not followed: what it points to is left alone."""
    folder, outside = worktree.path / ".sudocode", project.worktrees / "outside"
    outside.mkdir()
    (outside / "theirs.md").write_text("x\n")
    project.git("rm", "--quiet", "-r", "--cached", ".sudocode", cwd=worktree.path)
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()
    if instead == "file":
        folder.write_text("x\n")
    else:
        folder.symlink_to(outside)

    assert project.first == workspace.commit(worktree, MESSAGE).commit
    assert {"issues.jsonl", ".gitignore"} == {path.name for path in folder.iterdir()}
    assert (outside / "theirs.md").exists()


# Repos in the repo


def test_an_embedded_repo_becomes_files(project: Project, workspace: GitWorkspace, worktree: Worktree) -> None:
    """`git init` in a folder, with or without commits, even one in another, must not lose the files in it."""
    for name in ("made", "made/inner", "cloned"):
        project.git("init", "--quiet", str(worktree.path / name))
    project.commit("committed.py", cwd=worktree.path / "cloned")
    (worktree.path / "made/file.py").write_text("1\n")
    (worktree.path / "made/inner/deep.py").write_text("1\n")
    (worktree.path / "made/left.cache").write_text("ignored\n")
    (worktree.path / "made/.gitignore").write_text("*.cache\n")
    first = workspace.commit(worktree, MESSAGE).commit
    (worktree.path / "made/file.py").write_text("2\n")
    (worktree.path / "cloned/more.py").write_text("2\n")
    second = workspace.commit(worktree, "Two\n").commit

    added = {"made/file.py", "made/inner/deep.py", "made/.gitignore", "cloned/committed.py"}
    assert FILES.keys() | added == project.files(first)
    assert FILES.keys() | added | {"cloned/more.py"} == project.files(second)
    assert "160000" not in project.git("ls-tree", "-r", second)
    assert ["cloned/", "made/"] == sorted(
        {path.split("/")[0] + "/" for path in workspace.restore(worktree, project.first)}
    )
    assert not (worktree.path / "made").exists()
    assert not (worktree.path / "cloned").exists()


def test_a_file_replaced_by_a_repo_becomes_files(project: Project, workspace: GitWorkspace, worktree: Worktree) -> None:
    """A tracked file gives way to the folder of the same name."""
    (worktree.path / "README.md").unlink()
    project.git("init", "--quiet", str(worktree.path / "README.md"))
    (worktree.path / "README.md/inside.md").write_text("x\n")
    commit = workspace.commit(worktree, MESSAGE).commit

    assert FILES.keys() - {"README.md"} | {"README.md/inside.md"} == project.files(commit)
    workspace.restore(worktree, project.first)
    assert (worktree.path / "README.md").is_file()


def test_a_submodule_stays_one(project: Project, workspace: GitWorkspace, worktree: Worktree, tmp_path: Path) -> None:
    """What `.gitmodules` declares is meant as a link to another repo, and is committed as such."""
    create_project(tmp_path / "library", {"lib.py": "x\n"})
    allow = ("-c", "protocol.file.allow=always")
    project.git(*allow, "submodule", "--quiet", "add", str(tmp_path / "library"), "vendor/lib", cwd=worktree.path)
    commit = workspace.commit(worktree, MESSAGE).commit

    on_branch(project, worktree, commit)
    assert "160000" in project.git("ls-tree", commit, "vendor/lib")
    assert commit == workspace.head(workspace.prepare("i-abc"))
    assert [] == project.wip()


# Odd files


def test_odd_names_links_and_modes_are_kept(project: Project, workspace: GitWorkspace, worktree: Worktree) -> None:
    """Any name a file system takes, links to anywhere, and the executable bit."""
    names = ["-dash", "new\nline", "sp ace", "ümläut", 'quo"te', "*.py", ":(top)x", "tab\t", "back\\slash"]
    for name in names:
        (worktree.path / name).write_text("x\n")
    raw = os.path.join(os.fsencode(worktree.path), b"latin-\xe9")  # noqa: PTH118 - no Path has these bytes
    with open(raw, "wb") as file:  # noqa: PTH123
        file.write(b"x")
    (worktree.path / "link").symlink_to("/nowhere")
    (worktree.path / "run.sh").write_text("#!/bin/sh\n")
    (worktree.path / "run.sh").chmod(0o755)
    os.mkfifo(worktree.path / "pipe")
    commit = workspace.commit(worktree, MESSAGE).commit

    assert FILES.keys() | {*names, "latin-\ufffd", "link", "run.sh"} == project.files(commit)
    assert project.git("ls-tree", commit, "link").startswith("120000")
    assert project.git("ls-tree", commit, "run.sh").startswith("100755")
    assert sorted([*names, "latin-\ufffd", "link", "run.sh"]) == workspace.restore(worktree, project.first)
    assert not (worktree.path / "new\nline").exists()
    assert "# Project\n" == (worktree.path / "README.md").read_text()


def test_a_folder_replaced_by_a_link_is_not_followed(
    project: Project, workspace: GitWorkspace, worktree: Worktree, tmp_path: Path
) -> None:
    """Restoring through a link would write outside the worktree."""
    outside = tmp_path / "outside"
    (worktree.path / "src").rename(outside)
    (outside / "calc.py").write_text("outside\n")
    (worktree.path / "src").symlink_to(outside)

    assert ["src", "src/calc.py", "src/text.py"] == workspace.restore(worktree, project.first)
    assert "outside\n" == (outside / "calc.py").read_text()
    assert (worktree.path / "src").is_dir()
    assert not (worktree.path / "src").is_symlink()


@pytest.mark.parametrize("autocrlf", ["true", "input", "false"])
def test_line_endings_do_not_change_by_themselves(project: Project, autocrlf: str) -> None:
    """Only the file that the agent touched is in the commit, whatever the repo holds and the user configures."""
    (project.repo / "dos.txt").write_bytes(b"a\r\nb\r\n")
    (project.repo / "run.bat").write_bytes(b"a\r\nb\r\n")
    (project.repo / ".gitattributes").write_text("*.bat text eol=crlf\n")
    project.git("-c", "core.autocrlf=false", "add", ".")
    project.git("commit", "--quiet", "-m", "Add files with CRLF")
    project.git("config", "core.autocrlf", autocrlf)
    project.git("config", "core.safecrlf", "true")
    workspace = project.workspace()
    worktree = workspace.prepare("i-abc")
    (worktree.path / "mixed.txt").write_bytes(b"a\r\nb\n")
    commit = workspace.commit(worktree, MESSAGE).commit

    assert ["mixed.txt"] == project.git("diff", "--name-only", worktree.base, commit).split()
    assert b"a\r\nb\r\n" == (worktree.path / "run.bat").read_bytes()
    assert [] == workspace.restore(worktree, commit)


def test_five_thousand_files(project: Project, workspace: GitWorkspace, worktree: Worktree) -> None:
    """Many files at once are one commit, and are thrown away as one."""
    for number in range(5000):
        folder = worktree.path / f"many/{number % 50}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number}.txt").write_text(f"{number}\n")
    commit = workspace.commit(worktree, MESSAGE).commit

    assert len(FILES) + 5000 == len(project.files(commit))
    assert 5000 == len(workspace.restore(worktree, worktree.base))
    assert not (worktree.path / "many").exists()


def test_binary_files_are_named_but_not_shown(workspace: GitWorkspace, worktree: Worktree) -> None:
    """A change with binary and undecodable content is still text for a reviewer."""
    (worktree.path / "image.bin").write_bytes(bytes(range(256)) * 40)
    (worktree.path / "latin.txt").write_bytes(b"caf\xe9\n" + b"x\n" * 5000 + b"\0\n")
    workspace.commit(worktree, MESSAGE)
    change = workspace.change(worktree, max_chars=10**6)

    assert "Binary files /dev/null and b/image.bin differ" in change
    assert "+caf\ufffd\n" in change
    assert "\0" not in change


# The user's configuration


def test_the_users_hooks_signing_and_diff_tools_do_not_run(project: Project, tmp_path: Path) -> None:
    """A hook, a signing key, a filter monitor or a diff tool of the user's neither runs nor blocks."""
    trap = tmp_path / "trap"
    trap.write_text(f"#!/bin/sh\ntouch {tmp_path / 'sprung'}\nexit 1\n")
    trap.chmod(0o755)
    hooks = project.repo / ".git/hooks"
    hooks.mkdir()
    for name in ("pre-commit", "commit-msg", "post-checkout", "reference-transaction", "post-index-change"):
        (hooks / name).symlink_to(trap)
    for setting in ("core.fsmonitor", "gpg.program", "diff.external", "core.pager", "core.editor", "core.askPass"):
        project.git("config", "--global", setting, str(trap))
    for setting in ("commit.gpgSign", "log.showSignature", "submodule.recurse", "core.splitIndex"):
        project.git("config", "--global", setting, "true")
    workspace = project.workspace()
    worktree = workspace.prepare("i-abc")
    (worktree.path / "README.md").write_text("# Changed\n")
    workspace.commit(worktree, MESSAGE)

    assert "+# Changed" in workspace.change(worktree, max_chars=1000)
    assert [] == workspace.restore(worktree, workspace.head(worktree))
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize(
    ("config", "author"),
    [
        ({"user.name": "Ada", "user.email": "ada@example.org"}, "Ada <ada@example.org>"),
        ({"user.name": "Ada"}, "sudocode-orchestrator <orch@localhost>"),
        ({}, "sudocode-orchestrator <orch@localhost>"),
    ],
    ids=["configured", "half", "none"],
)
def test_the_author_is_the_user_or_us(
    project: Project, workspace: GitWorkspace, worktree: Worktree, config: dict[str, str], author: str
) -> None:
    """A configured identity is taken whole; a missing or half one is replaced by ours."""
    for key, value in config.items():
        project.git("config", "--global", key, value)
    (worktree.path / "new.py").write_text("x\n")
    commit = workspace.commit(worktree, MESSAGE).commit

    assert [author, author] == project.git("log", "-1", "--format=%an <%ae>%n%cn <%ce>", commit).splitlines()


# Messages


def test_a_message_has_subject_body_and_trailers_last() -> None:
    """The three parts, a line between each; empty ones leave no gap."""
    whole = commit_message(
        subject="Add x", body="Because.\r\n\r\nAnd so.\n", trailers={"Issue": "i-abc", "Step": "a\nb"}
    )

    assert "Add x\n\nBecause.\n\nAnd so.\n\nIssue: i-abc\nStep: a b\n" == whole
    assert "Add x\n" == commit_message(subject="Add x", body="", trailers={})
    assert "(no subject)\n" == commit_message(subject=" \x1b\n", body="", trailers={})


def test_a_long_subject_is_cut_between_words() -> None:
    """At most 72 characters, no broken word unless one is longer than that."""
    assert ("word " * 14).strip() + "\n" == commit_message(subject="word " * 30, body="", trailers={})
    assert "x" * 72 + "\n" == commit_message(subject="x" * 100, body="", trailers={})
    assert "y" * 72 + "\n" == commit_message(subject="y" * 72 + " z", body="", trailers={})


@given(subject=st.text(), body=st.text(), value=st.text())
def test_no_text_breaks_a_message(subject: str, body: str, value: str) -> None:
    """Whatever an agent writes: a subject of one short line, printable characters only, trailers as the last block."""
    message = commit_message(subject=subject, body=body, trailers={"Issue": "i-abc", "Note": value})
    lines = message.splitlines()

    assert 0 < len(lines[0]) <= 72
    assert "" == lines[1]
    assert lines[-2] == "Issue: i-abc"
    assert lines[-1].startswith("Note:")
    assert not any(char < " " and char not in "\n\t" for char in message)
    message.encode()


def test_a_project_is_made_once(tmp_path: Path, project: Project) -> None:
    """A second call leaves the repo as it is; a folder inside another repo gets its own."""
    made = create_project(project.repo / "demo", {"a/b.txt": "x\n"}, branch="trunk")

    assert made == create_project(project.repo / "demo", {"a/b.txt": "changed\n"}, branch="trunk")
    assert "x\n" == (project.repo / "demo/a/b.txt").read_text()
    assert "trunk" == project.git("branch", "--show-current", cwd=project.repo / "demo")
