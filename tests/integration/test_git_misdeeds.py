"""What agents do to git: contained in a repository of their own, or named where it was done to the user's."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.adapters.git import outside
from orchestrator.models import Fetched, Worktree
from tests.git_project import FILES, Project, put_before_git

Deed = Callable[[Project, Path], object]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    return Project(tmp_path)


def git(*args: str) -> Deed:
    """A git command that an agent runs in its worktree."""
    return lambda project, here: project.git(*args, cwd=here)


def both(*deeds: Deed) -> Deed:
    def do(project: Project, here: Path) -> None:
        for deed in deeds:
            deed(project, here)

    return do


def write(name: str, text: str = "x\n", mode: int = 0o644) -> Deed:
    def do(_project: Project, here: Path) -> None:
        (here / name).parent.mkdir(parents=True, exist_ok=True)
        (here / name).write_text(text)
        (here / name).chmod(mode)

    return do


def trap(project: Project) -> str:
    """A program that none of ours must ever start."""
    return f"touch {project.repo.parent / 'sprung'}; cat"


def set_a_filter(project: Project, here: Path) -> None:
    for setting in ("filter.x.clean", "filter.x.smudge", "core.fsmonitor", "core.sshCommand", "diff.x.textconv"):
        project.git("config", setting, trap(project), cwd=here)
    (here / ".gitattributes").write_text("* filter=x diff=x\n")


def set_a_remote(project: Project, here: Path) -> None:
    project.git("remote", "add", "origin", "ssh://nowhere.invalid/x", cwd=here)
    project.git("config", "remote.origin.uploadpack", trap(project), cwd=here)
    project.git("config", "remote.origin.receivepack", trap(project), cwd=here)


def set_hooks(project: Project, here: Path) -> None:
    for name in ("post-checkout", "reference-transaction", "post-index-change", "fsmonitor-watchman"):
        write(f".git/hooks/{name}", f"#!/bin/sh\n{trap(project)}\n", 0o755)(project, here)


def include_a_file(project: Project, here: Path) -> None:
    (here / "evil.cache").write_text(f'[core]\n\tfsmonitor = "{trap(project)}"\n\tbare = true\n')
    project.git("config", "include.path", str(here / "evil.cache"), cwd=here)


def borrow_elsewhere(_project: Project, here: Path) -> None:
    (here / ".git/objects/info/alternates").write_text("/nowhere\n")


def shut_a_folder(_project: Project, here: Path) -> None:
    (here / "shut").mkdir()
    (here / "shut/inside.py").write_text("x\n")
    (here / "shut").chmod(0o555)


CONTAINED: dict[str, Deed] = {
    "moves the base": both(git("commit", "--quiet", "--allow-empty", "-m", "x"), git("branch", "-f", "main", "HEAD")),
    "updates the base": git("update-ref", "refs/heads/main", "refs/heads/orch/i-abc"),
    "deletes the base": git("update-ref", "-d", "refs/heads/main"),
    "deletes its branch": git("update-ref", "--no-deref", "-d", "refs/heads/orch/i-abc"),
    "makes and moves tags": both(git("tag", "v9"), git("tag", "-f", "v1", "HEAD")),
    "stashes": both(write("stashed.py"), git("stash", "push", "--quiet", "-u")),
    "drops every stash": both(write("stashed.py"), git("stash", "push", "-qu"), git("stash", "clear")),
    "replaces a commit": both(git("commit", "-q", "--allow-empty", "-m", "x"), git("replace", "HEAD", "HEAD~1")),
    "sets core.bare": git("config", "core.bare", "true"),
    "sets core.worktree": git("config", "core.worktree", "/nowhere"),
    "sets who it is": both(git("config", "user.name", "Agent Smith"), git("config", "user.email", "s@example.org")),
    "sets core.hooksPath": git("config", "core.hooksPath", ".husky/_"),
    "sets filters": set_a_filter,
    "sets a remote": set_a_remote,
    "includes a file": include_a_file,
    "breaks its settings": write(".git/config", "garbage [[\n"),
    "makes hooks": set_hooks,
    "ignores executable bits": git("config", "core.fileMode", "false"),
    "excludes all files": write(".git/info/exclude", "*\n"),
    "hides files from git": git("update-index", "--assume-unchanged", "README.md"),
    "collects garbage": git("-c", "gc.pruneExpire=now", "gc", "--quiet", "--prune=now"),
    "deletes objects": lambda _project, here: shutil.rmtree(here / ".git/objects"),
    "borrows elsewhere": borrow_elsewhere,
    "leaves locks": both(write(".git/index.lock"), write(".git/HEAD.lock"), write(".git/config.lock")),
    "deletes .git": lambda _project, here: shutil.rmtree(here / ".git"),
    "makes a pipe of HEAD": lambda _project, here: ((here / ".git/HEAD").unlink(), os.mkfifo(here / ".git/HEAD")),
    "shuts a folder": shut_a_folder,
}


@pytest.mark.parametrize("deed", CONTAINED.values(), ids=CONTAINED)
def test_it_stays_in_its_repository(project: Project, deed: Deed) -> None:
    """The user's repo is as it was, the files are committed, nothing of it runs, the next agent finds none of it."""
    project.git("tag", "v1")
    project.git("config", "user.name", "Tester")
    project.git("config", "user.email", "tester@example.org")
    workspace = project.workspace()
    worktree = workspace.prepare("i-abc")
    fresh = state_of(project, worktree)
    before = workspace.outside()
    deed(project, worktree.path)
    write("run.sh", "#!/bin/sh\n", 0o755)(project, worktree.path)
    commit = workspace.commit(worktree, "Work\n\nSudocode-Issue: i-abc\n").commit

    assert [] == workspace.outside(before).since(before)
    assert project.git("ls-tree", commit, "run.sh").startswith("100755")
    assert {*FILES, "run.sh"} <= project.files(commit)
    assert "Tester <tester@example.org>" == project.git("log", "-1", "--format=%an <%ae>", commit)
    assert {**fresh, "HEAD": commit, "branch": commit} == state_of(project, worktree)
    assert not (project.repo.parent / "sprung").exists()


def state_of(project: Project, worktree: Worktree) -> dict[str, str]:
    """The agents' repository, as the next agent finds it."""

    def ask(*args: str) -> str:
        return project.git(*args, cwd=worktree.path)

    return {
        "HEAD": ask("rev-parse", "HEAD"),
        "branch": ask("rev-parse", worktree.branch),
        "base": ask("rev-parse", "main"),
        "refs": ask("for-each-ref", "--format=%(refname)"),
        "settings": ask("config", "--local", "--list"),
        "status": ask("status", "--porcelain"),
        "stash": ask("stash", "list"),
        "hooks": str(sorted((worktree.path / ".git").glob("hooks/*"))),
    }


def main(*args: str) -> Deed:
    """A git command that an agent runs in the main checkout, which nothing but a sandbox keeps from it."""
    return lambda project, _here: project.git(*args)


NAMED: dict[str, tuple[Deed, str]] = {
    "moves the base": (main("commit", "--quiet", "--allow-empty", "-m", "x"), "refs: refs/heads/main "),
    "switches the main checkout": (main("checkout", "--quiet", "--detach"), "refs: HEAD ref: refs/he -> "),
    "deletes a branch": (main("branch", "-D", "--quiet", "feature"), "refs: refs/heads/feature "),
    "tags": (main("tag", "v9"), "refs: refs/tags/v9 (new) -> "),
    "takes the stash": (main("stash", "pop", "--quiet"), "refs/stash"),
    "sets core.bare": (main("config", "core.bare", "true"), "settings: core.bare"),
    "sets a filter": (main("config", "filter.x.clean", "false"), "settings: filter.x.clean"),
    "sets for all repos": (main("config", "--global", "core.pager", "false"), "settings: core.pager"),
    "makes a hook": (lambda p, _: write(".git/hooks/pre-push")(p, p.repo), "hooks and attributes: hooks/pre-push"),
    "edits a file": (lambda p, _: write("README.md")(p, p.repo), "main checkout: README.md"),
    "edits a changed file": (lambda p, _: write("mine.py", "xx\n")(p, p.repo), "main checkout: mine.py"),
    "leaves a file": (lambda p, _: write("leaked.py")(p, p.repo), "main checkout: leaked.py"),
    "deletes a file": (lambda p, _: (p.repo / "README.md").unlink(), "main checkout: README.md"),
}


@pytest.mark.parametrize(("deed", "named"), NAMED.values(), ids=NAMED)
def test_what_is_done_to_the_users_repo_is_named(project: Project, deed: Deed, named: str) -> None:
    """Each kind of change, by what was changed; and no more than that."""
    project.git("branch", "feature")
    project.git("branch", "orch/i-other")
    write("mine.py")(project, project.repo)
    write("stashed.py")(project, project.repo)
    project.git("stash", "push", "--quiet", "-u", "stashed.py")
    workspace = project.workspace()
    worktree = workspace.prepare("i-abc")
    before = workspace.outside()
    assert [] == workspace.outside(before).since(before)
    deed(project, worktree.path)
    said = workspace.outside(before).since(before)

    assert named in "\n".join(said)
    assert len(said) <= 2


def test_work_of_others_is_not_named(project: Project) -> None:
    """Branches that move, our own refs, the tracker's folder and what a fetch brings are nobody's misdeed."""
    project.git("branch", "feature")
    workspace = project.workspace()
    workspace.prepare("i-abc")
    before = workspace.outside()
    project.git("branch", "-f", "feature", project.git("commit-tree", "HEAD^{tree}", "-p", "HEAD", "-m", "x"))
    project.git("update-ref", "refs/remotes/origin/main", "HEAD")
    write(".sudocode/issues.jsonl", "{}\n")(project, project.repo)
    workspace.commit(workspace.prepare("i-other"), "x\n")

    assert [] == workspace.outside(before).since(before)


def test_a_checkout_too_slow_to_be_seen_is_nobodys_fault(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that hangs under the user's checkout ends no session, and is no change either."""
    workspace = project.workspace()
    before = workspace.outside()
    slow = put_before_git(project.repo.parent / "bin", 'case "$*" in *status*) sleep 30;; esac')
    monkeypatch.setenv("PATH", slow)
    monkeypatch.setattr(outside, "STATUS_S", 0.2)

    assert [] == workspace.outside(before).since(before)


def test_settings_that_changed_keep_us_from_asking_more(project: Project) -> None:
    """A filter that an agent set for the user's repo is named, and not run by our own look at its files."""
    write("mine.py")(project, project.repo)
    project.git("add", "mine.py")
    workspace = project.workspace()
    before = workspace.outside()
    project.git("config", "filter.x.clean", trap(project))
    write(".gitattributes", "* filter=x\n")(project, project.repo)
    write("README.md", "# Projecu\n")(project, project.repo)

    assert ["settings: filter.x.clean"] == workspace.outside(before).since(before)
    assert not (project.repo.parent / "sprung").exists()


def test_what_an_implementer_set_does_not_reach_its_reviewer(project: Project) -> None:
    """The reviewer compares with the base that is, by git as it is."""
    workspace = project.workspace()
    worktree = workspace.prepare("i-abc")
    (worktree.path / "bad.py").write_text("x\n")
    project.git("config", "alias.diff", "log", cwd=worktree.path)
    project.git("add", "--all", cwd=worktree.path)
    project.git("commit", "--quiet", "-m", "x", cwd=worktree.path)
    project.git("branch", "-f", "main", "HEAD", cwd=worktree.path)
    made = workspace.commit(worktree, "Work\n")

    assert "bad.py" == project.git("diff", "--name-only", "main...HEAD", cwd=worktree.path)
    assert ("git settings of its own repository, which ended with the step: alias.diff",) == made.remarks


def test_stashes_of_two_agents_do_not_meet(project: Project) -> None:
    """Both put their work aside for a while, and each gets its own back."""
    workspace = project.workspace()
    one, two = workspace.prepare("i-abc"), workspace.prepare("i-xyz")
    for worktree in (one, two):
        (worktree.path / f"{worktree.issue_id}.py").write_text("x\n")
        project.git("stash", "push", "--quiet", "-u", cwd=worktree.path)
    project.git("stash", "pop", "--quiet", cwd=one.path)
    commit = workspace.commit(one, "One\n").commit

    assert FILES.keys() | {"i-abc.py"} == project.files(commit)


# Repos and odd things among the files


def test_a_sub_agents_worktree_is_left_out_and_named(project: Project) -> None:
    """Also when it has a branch of its own: its files are no part of the work, its commits are kept."""
    workspace = project.workspace()
    worktree = workspace.prepare("i-abc")
    project.git("worktree", "add", "--quiet", "-b", "sub", ".agents/one", cwd=worktree.path)
    theirs = project.commit("sub.py", cwd=worktree.path / ".agents/one")
    (worktree.path / "real.py").write_text("x\n")
    made = workspace.commit(worktree, "Work\n")

    assert FILES.keys() | {"real.py"} == project.files(made.commit)
    assert (".agents/one: a repository of its own, which is not a part of this one",) == made.remarks
    assert [theirs] == project.wip()


def test_a_clone_among_the_files_is_left_out_and_named(project: Project) -> None:
    """What came from elsewhere is no work on this repo; what was only begun here, is."""
    workspace = project.workspace()
    worktree = workspace.prepare("i-abc")
    project.git("clone", "--quiet", str(project.repo), "tmp/copy", cwd=worktree.path)
    project.git("init", "--quiet", "made", cwd=worktree.path)
    (worktree.path / "made/new.py").write_text("x\n")
    made = workspace.commit(worktree, "Work\n")

    assert FILES.keys() | {"made/new.py"} == project.files(made.commit)
    assert ("tmp/copy: a repository of its own, which is not a part of this one",) == made.remarks


@pytest.mark.parametrize("kind", ["pipe", "socket"])
def test_a_file_that_is_none_any_more_stays_and_is_named(project: Project, kind: str) -> None:
    """A pipe in the place of a tracked file cannot be committed: the file is as it was, the rest is in."""
    workspace = project.workspace()
    worktree = workspace.prepare("i-abc")
    (worktree.path / "README.md").unlink()
    if kind == "pipe":
        os.mkfifo(worktree.path / "README.md")
    else:
        bind = "import socket; socket.socket(socket.AF_UNIX).bind('README.md')"
        subprocess.run(["python3", "-c", bind], cwd=worktree.path, check=True)
    (worktree.path / "new.py").write_text("x\n")
    made = workspace.commit(worktree, "Work\n")

    assert FILES.keys() | {"new.py"} == project.files(made.commit)
    assert "# Project" == project.text(made.commit, "README.md")
    assert ("README.md: neither a file nor a link any more",) == made.remarks
    assert "# Project\n" == (worktree.path / "README.md").read_text()


def test_a_rename_in_case_only_is_one(project: Project) -> None:
    """And so is a lost executable bit."""
    (project.repo / "run.sh").write_text("#!/bin/sh\n")
    (project.repo / "run.sh").chmod(0o755)
    project.git("add", "run.sh")
    project.git("commit", "--quiet", "-m", "run")
    project.git("config", "core.ignoreCase", "true")
    project.git("config", "core.fileMode", "false")
    workspace = project.workspace()
    worktree = workspace.prepare("i-abc")
    (worktree.path / "README.md").rename(worktree.path / "readme.md")
    (worktree.path / "run.sh").chmod(0o644)
    commit = workspace.commit(worktree, "Work\n").commit

    assert "readme.md" in project.files(commit)
    assert "README.md" not in project.files(commit)
    assert project.git("ls-tree", commit, "run.sh").startswith("100644")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody for whom a folder is shut")
def test_what_an_agent_shut_is_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    """Folders without write or read permission, and a file without: all is committed, changed back and removed."""
    with tempfile.TemporaryDirectory() as folder:
        monkeypatch.setenv("HOME", folder)
        project = Project(Path(folder))
        worktree = project.workspace().prepare("i-abc")
        for path in (Path(folder), *Path(folder).rglob("*")):
            os.chown(path, 65534, 65534, follow_symlinks=False)
        in_a_child(lambda: shut_and_go_on(project, worktree))


def shut_and_go_on(project: Project, worktree: Worktree) -> None:
    os.setgid(65534)
    os.setuid(65534)
    workspace, here = project.workspace(), worktree.path
    for name in ("shut/deep/inside.py", "closed/inside.py", "secret.py"):
        write(name)(project, here)
    shut(here / "secret.py", here / "closed", mode=0)
    shut(here / "shut/deep", here / "shut", mode=0o555)
    commit = workspace.commit(worktree, "Work\n").commit
    assert FILES.keys() | {"shut/deep/inside.py", "closed/inside.py", "secret.py"} == project.files(commit)

    shut(here / "shut/deep", here / "shut", mode=0o555)
    workspace.restore(worktree, project.first)
    assert not (here / "shut").exists()

    write("cache/file")(project, here)
    shut(here / "cache", mode=0o555)
    workspace.drop("i-abc")
    assert not here.exists()


def shut(*paths: Path, mode: int) -> None:
    for path in paths:
        path.chmod(mode)


def in_a_child(do: Callable[[], None]) -> None:
    """Run it in a process that may become somebody else; its failure is ours."""
    child = os.fork()
    if child == 0:
        try:
            do()
        except BaseException as error:
            os.write(2, f"{type(error).__name__}: {error}\n".encode())
            os._exit(1)
        os._exit(0)
    assert 0 == os.waitpid(child, 0)[1]


def test_a_clean_checkout_has_the_commit_and_nothing_else(project: Project) -> None:
    """No ignored file, no change and no mode that is not in it; a sound repository around it; gone afterwards."""
    workspace = project.workspace()
    worktree = workspace.prepare("i-abc")
    (worktree.path / "built.cache").write_text("ignored\n")
    commit = workspace.commit(worktree, "Work\n").commit
    (worktree.path / "later.py").write_text("x\n")
    with workspace.clean("i-abc", commit) as clean:
        files = {str(path.relative_to(clean.path)) for path in clean.path.rglob("*") if path.is_file()}
        assert FILES.keys() == {name for name in files if not name.startswith(".git/")}
        assert commit == project.git("rev-parse", "HEAD", cwd=clean.path)
        assert "" == project.git("status", "--porcelain", cwd=clean.path)

    assert not clean.path.exists()
    assert (worktree.path / "later.py").exists()


# The base


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("its own commit", "main has commit {commit} of i-abc, which nobody could merge yet"),
        ("its own work as another commit", "by nobody known: {top} Agent: Squashed"),
        ("a commit of nobody", "by nobody known: {top} Agent: Add x.py"),
        ("one step back", "by nobody known: {top} does not have what was there"),
    ],
)
def test_a_base_that_an_agent_may_have_moved_is_told(project: Project, how: str, said: str) -> None:
    """What is neither from a remote nor the finished work of another issue."""
    project.commit("later.py")
    workspace = project.workspace()
    worktree = workspace.prepare("i-abc")
    write("work.py")(project, worktree.path)
    commit = workspace.commit(worktree, "Work\n\nSudocode-Issue: i-abc\n").commit
    match how:
        case "its own commit":
            project.git("merge", "--quiet", "--ff-only", commit)
        case "its own work as another commit":
            project.git("merge", "--quiet", "--squash", commit)
            project.git("commit", "--quiet", "-m", "Squashed\n\nSudocode-Issue: i-abc")
        case "a commit of nobody":
            project.commit("x.py")
        case _:
            project.git("reset", "--quiet", "--hard", "HEAD~1")
    top = project.git("rev-parse", "HEAD")
    told = workspace.intrusion(worktree, commit, base_was=worktree.base)

    wanted = said.format(commit=commit[:12], top=top[:12] if "step" in how else top[:7])
    assert told.endswith(wanted), told


@pytest.mark.parametrize("how", ["a merge", "a fast-forward", "a squash", "a pull", "nothing"])
def test_what_people_do_to_the_base_meanwhile_is_no_intrusion(project: Project, how: str) -> None:
    """They merge the finished work of other issues, and pull."""
    workspace = project.workspace()
    other, worktree = workspace.prepare("i-other"), workspace.prepare("i-abc")
    write("other.py")(project, other.path)
    done = workspace.commit(other, "Other\n\nSudocode-Issue: i-other\n").commit
    match how:
        case "a merge":
            project.git("merge", "--quiet", "--no-ff", "--no-edit", "orch/i-other")
        case "a fast-forward":
            project.git("merge", "--quiet", "--ff-only", done)
        case "a squash":
            project.git("merge", "--quiet", "--squash", done)
            project.git("commit", "--quiet", "-m", "Squashed\n\nSudocode-Issue: i-other\n\nCo-authored-by: B <b@c>")
        case "a pull":
            project.commit("theirs.py")
            project.git("update-ref", "refs/remotes/origin/main", "HEAD")
    write("work.py")(project, worktree.path)
    commit = workspace.commit(worktree, "Work\n\nSudocode-Issue: i-abc\n").commit

    assert "" == workspace.intrusion(worktree, commit, base_was=worktree.base)
    assert "" == workspace.intrusion(worktree, worktree.base, base_was=worktree.base)
    assert "" != workspace.intrusion(worktree, commit, fetched=Fetched(base=commit))
