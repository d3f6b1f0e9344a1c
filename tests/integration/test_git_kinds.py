"""Repos with submodules, large files, missing history or missing objects: agents and verifications get whole files."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from orchestrator.adapters.git import GitWorkspace, create_project
from orchestrator.errors import WorkspaceError
from tests.git_project import Host, Project, with_bare

ALLOW = ("-c", "protocol.file.allow=always")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    return with_bare(tmp_path)


# Submodules


@pytest.fixture
def library(project: Project) -> Path:
    """A library with one of its own, which the project has as a submodule."""
    inner, library = project.repo.parent / "inner", project.repo.parent / "library"
    create_project(inner, {"inner.py": "x\n"})
    create_project(library, {"lib.py": "x\n"})
    project.git(*ALLOW, "submodule", "--quiet", "add", str(inner), "deep", cwd=library)
    project.git("commit", "--quiet", "-m", "Add inner", cwd=library)
    project.git(*ALLOW, "submodule", "--quiet", "add", str(library), "vendor/lib")
    project.git(*ALLOW, "submodule", "--quiet", "update", "--init", "--recursive")
    project.git("commit", "--quiet", "-m", "Add library")
    return library


def test_submodules_are_filled_without_a_network(project: Project, library: Path) -> None:
    """From the main checkout's, and theirs from theirs; each is a repository that agents may ruin, in a sound one."""
    shutil.rmtree(library)
    workspace = project.workspace()
    worktree = workspace.prepare("i-abc")
    lib = worktree.path / "vendor/lib"

    assert ("x\n", "x\n") == ((lib / "lib.py").read_text(), (lib / "deep/inner.py").read_text())
    assert "" == project.git("status", "--porcelain", cwd=worktree.path)
    assert project.git("rev-parse", "HEAD:vendor/lib") == project.git("rev-parse", "HEAD", cwd=lib)
    assert worktree.base == workspace.commit(worktree, "Nothing\n").commit

    with workspace.clean("i-abc", worktree.base) as clean:
        assert (clean.path / "vendor/lib/deep/inner.py").exists()


def test_changes_inside_a_submodule_are_named(project: Project, library: Path) -> None:
    """They are in no commit of this repo, and gone with the step; the rest of the work is in."""
    workspace = project.workspace()
    worktree = workspace.prepare("i-abc")
    (worktree.path / "vendor/lib/lib.py").write_text("changed\n")
    (worktree.path / "new.py").write_text("x\n")
    project.git("config", "core.fsmonitor", f"touch {project.repo.parent / 'sprung'}", cwd=worktree.path / "vendor/lib")
    made = workspace.commit(worktree, "Work\n")

    assert ("vendor/lib: changes inside a submodule, which only a commit of its own repo can hold",) == made.remarks
    assert "new.py" == project.git("diff", "--name-only", worktree.base, made.commit)
    assert "x\n" == (worktree.path / "vendor/lib/lib.py").read_text()
    assert not (project.repo.parent / "sprung").exists()


def test_a_submodule_moves_to_a_commit_that_is_known(project: Project, library: Path) -> None:
    """A step may take up another version; one that the main checkout does not have is named."""
    older = project.git("rev-parse", "HEAD~1", cwd=library)
    workspace = project.workspace()
    worktree = workspace.prepare("i-abc")
    lib = worktree.path / "vendor/lib"
    project.git("checkout", "--quiet", older, cwd=lib)
    first = workspace.commit(worktree, "Older\n")
    assert older == project.git("rev-parse", "HEAD", cwd=lib)
    own = project.commit("own.py", cwd=lib)
    second = workspace.commit(worktree, "Own\n")

    assert (older, ()) == (project.git("rev-parse", f"{first.commit}:vendor/lib"), first.remarks)
    assert own == project.git("rev-parse", f"{second.commit}:vendor/lib")
    said = f"vendor/lib: submodule on commit {own[:12]}, which the main checkout does not have of it"
    assert (said,) == second.remarks


def test_a_submodule_becomes_files_or_goes(project: Project, library: Path) -> None:
    """`git rm` takes it away; without its line in `.gitmodules` its files are ordinary ones."""
    workspace = project.workspace()
    gone, files = workspace.prepare("i-gone"), workspace.prepare("i-files")
    project.git("rm", "--quiet", "-f", "vendor/lib", cwd=gone.path)
    shutil.rmtree(files.path / "vendor/lib/.git")
    shutil.rmtree(files.path / "vendor/lib/deep")
    (files.path / ".gitmodules").unlink()
    first, second = (workspace.commit(worktree, "Work\n").commit for worktree in (gone, files))

    assert "vendor/lib" not in project.git("ls-tree", "-r", first)
    assert "vendor/lib/lib.py" in project.files(second)


def test_a_submodule_that_is_not_there_stays_empty(project: Project, library: Path) -> None:
    """A main checkout that never had it cannot give it; nothing else suffers."""
    project.git(*ALLOW, "push", "--quiet", str(project.repo.parent / "bare.git"), "main")
    host = Host(project, "one")
    worktree = host.workspace.prepare("i-abc")
    (worktree.path / "new.py").write_text("x\n")
    made = host.workspace.commit(worktree, "Work\n")

    assert [] == list((worktree.path / "vendor/lib").iterdir())
    assert "new.py" == project.git("diff", "--name-only", worktree.base, made.commit, cwd=host.repo)


@pytest.mark.parametrize("name", ["../../repo", "/etc", ".git/modules/x", "a/../../x"])
def test_a_path_out_of_the_workspace_is_no_submodule(project: Project, name: str) -> None:
    """What an agent writes into `.gitmodules` leads nowhere else."""
    workspace = project.workspace()
    worktree = workspace.prepare("i-abc")
    (worktree.path / ".gitmodules").write_text(f'[submodule "x"]\n\tpath = {name}\n\turl = x\n')

    assert ".gitmodules" in project.files(workspace.commit(worktree, "Work\n").commit)


# Large files


@pytest.fixture
def large(project: Project) -> Host:
    """A clone with LFS, and a large file on its remote."""
    if not shutil.which("git-lfs"):
        pytest.skip("git-lfs is not installed")
    host = Host(project, "one")
    project.git("lfs", "install", "--local", cwd=host.repo)
    project.git("lfs", "track", "*.bin", cwd=host.repo)
    (host.repo / "a.bin").write_bytes(b"large\n" * 100)
    project.git("add", "--all", cwd=host.repo)
    project.git("commit", "--quiet", "-m", "Add data", cwd=host.repo)
    project.git("push", "--quiet", "origin", "main", cwd=host.repo)
    return host


def lfs_objects(repo: Path) -> set[str]:
    return {path.name for path in (repo / "lfs/objects").rglob("*") if path.is_file()}


def test_large_files_are_whole_and_kept_where_the_users_are(project: Project, large: Host) -> None:
    """An agent sees the file, not its pointer; of a new one the commit has a pointer, the user's store the content."""
    worktree = large.workspace.prepare("i-abc")
    assert b"large\n" * 100 == (worktree.path / "a.bin").read_bytes()
    assert "" == project.git("status", "--porcelain", cwd=worktree.path)
    (worktree.path / "new.bin").write_bytes(b"new\n" * 1000)
    commit = large.workspace.commit(worktree, "Work\n").commit

    assert "git-lfs" in project.git("cat-file", "blob", f"{commit}:new.bin", cwd=large.repo)
    assert 2 == len(lfs_objects(large.repo / ".git"))
    with large.workspace.clean("i-abc", commit) as clean:
        assert b"new\n" * 1000 == (clean.path / "new.bin").read_bytes()


def test_large_files_are_delivered(project: Project, large: Host) -> None:
    """The remote has them before it has the commit that names them; another host fetches them from there."""
    remote = large.remote(1)
    commit = large.work(remote, 1, "new\n" * 1000, name="new.bin")
    delivery = large.workspace.delivery()
    assert delivery
    delivery.push("i-abc", commit)

    assert lfs_objects(large.repo / ".git") == lfs_objects(project.repo.parent / "bare.git")
    other = Host(project, "two")
    project.git("lfs", "install", "--local", cwd=other.repo)
    worktree = other.workspace.prepare("i-abc", fetched=other.remote(2).fetch())
    assert "new\n" * 1000 == (worktree.path / "new.bin").read_text()


def test_large_files_that_are_nowhere_end_the_step(project: Project, large: Host) -> None:
    """A pointer in their place would be verified as if it were the file."""
    shutil.rmtree(large.repo / ".git/lfs")
    shutil.rmtree(project.repo.parent / "bare.git/lfs")

    with pytest.raises(WorkspaceError, match=r"i-abc: git read-tree failed: .*a\.bin"):
        large.workspace.prepare("i-abc")


# Clones that do not have all, and what it takes to get the rest


@pytest.mark.parametrize("kind", ["--depth=1", "--filter=blob:none", "--filter=tree:0", "--sparse", "--no-checkout"])
def test_a_clone_that_lacks_something_will_do(project: Project, kind: str) -> None:
    """History, objects or files: a session goes from the base to a delivered branch."""
    for number in range(3):
        project.commit(f"old-{number}.py", f"{number}\n")
    bare = project.repo.parent / "bare.git"
    project.git("push", "--quiet", str(bare), "main")
    project.git("config", "uploadpack.allowFilter", "true", cwd=bare)
    project.git("config", "uploadpack.allowAnySHA1InWant", "true", cwd=bare)
    clone = project.repo.parent / "clone"
    project.git("clone", "--quiet", kind, f"file://{bare}", str(clone))
    workspace = GitWorkspace(clone, worktrees=project.repo.parent / "wt", base="main")
    worktree = workspace.prepare("i-abc")
    (worktree.path / "old-0.py").write_text("changed\n")
    project.commit("own.py", cwd=worktree.path)
    made = workspace.commit(worktree, "Work\n\nSudocode-Issue: i-abc\nOrch-Token: 1\n")
    delivery = workspace.delivery()
    assert delivery
    delivery.push("i-abc", made.commit)

    assert ["old-0.py", "own.py"] == project.git("diff", "--name-only", "main", "orch/i-abc", cwd=bare).splitlines()
    assert "+changed" in workspace.change(worktree, max_chars=10_000)
    assert "Add old-2.py" in project.git("log", "--format=%s", cwd=worktree.path)
    assert "" == project.git("status", "--porcelain", cwd=worktree.path)
    with workspace.clean("i-abc", made.commit) as clean:
        assert "changed\n" == (clean.path / "old-0.py").read_text()


def test_a_repo_that_borrows_objects_will_do(project: Project) -> None:
    """A clone made with --shared has its objects elsewhere, and so has what borrows from it."""
    clone = project.repo.parent / "clone"
    project.git("clone", "--quiet", "--shared", str(project.repo), str(clone))
    workspace = GitWorkspace(clone, worktrees=project.repo.parent / "wt", base="main")
    worktree = workspace.prepare("i-abc")
    project.commit("own.py", cwd=worktree.path)

    assert "own.py" in project.git("ls-tree", "--name-only", workspace.commit(worktree, "Work\n").commit, cwd=clone)


@pytest.mark.parametrize(("kind", "needed"), [("--depth=1", False), ("--filter=blob:none", True)])
def test_secrets_of_the_settings_are_kept_only_to_fetch(project: Project, kind: str, needed: bool) -> None:
    """A token in an address or a header stays the user's alone, unless it takes that to fetch what an issue needs."""
    bare, clone = project.repo.parent / "bare.git", project.repo.parent / "clone"
    project.git("push", "--quiet", str(bare), "main")
    project.git("config", "uploadpack.allowFilter", "true", cwd=bare)
    project.git("clone", "--quiet", kind, f"file://{bare}", str(clone))
    project.git("config", "url.https://x:c4n4ry-one@git.test/.insteadOf", "https://git.test/", cwd=clone)
    project.git("config", "http.extraHeader", "Authorization: Basic Y2FuYXJ5LXR3bzp0d28=", cwd=clone)
    project.git("config", "--add", "http.extraHeader", "X-Login: canary", cwd=clone)
    project.git("config", "http.https://git.test/.proxy", "anna:canary-two@proxy:1", cwd=clone)
    GitWorkspace(clone, worktrees=project.repo.parent / "wt", base="main").prepare("i-abc")
    ours = (project.repo.parent / "wt/.orch/i-abc/ours/config").read_text()
    secrets = ("c4n4ry-one", "Y2FuYXJ5LXR3bzp0d28=", "X-Login", "canary-two")

    assert [needed] * 4 == [word in ours for word in secrets]
    assert f"file://{bare}" in ours


def test_secrets_of_the_settings_are_kept_for_large_files_that_an_issue_brings(project: Project) -> None:
    """Another host fetches those of a branch that base knows nothing of."""
    project.git("config", "filter.lfs.clean", "cat")
    project.git("config", "filter.lfs.smudge", "cat")
    project.git("config", "url.https://x:c4n4ry-one@git.test/.insteadOf", "https://git.test/")
    workspace, ours = project.workspace(), project.worktrees / ".orch/i-abc/ours/config"
    worktree = workspace.prepare("i-abc")
    assert "c4n4ry-one" not in ours.read_text()
    (worktree.path / ".gitattributes").write_text("*.bin filter=lfs\n")
    workspace.commit(worktree, "Track large files\n")
    workspace.prepare("i-abc")

    assert "c4n4ry-one" in ours.read_text()


def test_a_filter_is_kept_with_the_secret_in_it(project: Project) -> None:
    """Without it a file that is encrypted in the repo would be committed as it is shown."""
    (project.repo / ".gitattributes").write_text("key.txt filter=turn\n")
    project.git("config", "filter.turn.clean", "tr a-z n-za-m # --password hunter22")
    project.git("config", "filter.turn.smudge", "tr a-z n-za-m # --password hunter22")
    project.git("add", ".gitattributes")
    project.git("commit", "--quiet", "-m", "Encrypt the key")
    workspace = GitWorkspace(project.repo, worktrees=project.repo.parent / "wt", base="main")
    worktree = workspace.prepare("i-abc")
    (worktree.path / "key.txt").write_text("hello\n")
    commit = workspace.commit(worktree, "Add the key").commit

    assert "uryyb" == project.git("cat-file", "blob", f"{commit}:key.txt").strip()
