"""The repository that an issue's agents get, and the git directory by which we look at their files.

An agent's `.git` is a throwaway clone: it borrows the objects of the user's repo, has no remote, and is made anew
before each step. So what one agent sets, hooks or hides in it reaches neither the next agent nor the user. No git of
ours is ever started in it: the little that we want to know of it is read from its files.

    <worktrees>/.orch/<issue>/ours/      our git directory, with the user's settings of before the agents began
    <worktrees>/.orch/<issue>/theirs/    a `.git` as agents get it, but for HEAD, their branch and the index
"""

from __future__ import annotations

import os
import re
import shutil
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path

from orchestrator.adapters.git.command import Git, question, reason
from orchestrator.errors import WorkspaceError
from orchestrator.text import redacted

MAX_REFS_BYTES = 8_000_000
"""As much is read of one of the agents' files."""

_ID = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")

_THEIRS = re.compile(r"user\.(name|email)|core\.(autocrlf|eol)|filter\..*")
"""The settings of the user's that agents need to see the same files as we; others may hold secrets."""

_OURS = re.compile(
    rf"{_THEIRS.pattern}|core\.(excludesfile|attributesfile|sshcommand|gitproxy)"
    r"|(lfs|http|credential|url|remote|ssh|protocol|author|committer)\..*|extensions\.partialclone"
)
"""And those by which missing objects, of partial clones or of LFS, are fetched: with secrets only where some are."""

_HEADER = re.compile(r"http\.(.*\.)?extraheader")
_PROXY = re.compile(r"http\.(.*\.)?proxy|remote\..*\.proxy")
_PROMISOR = re.compile(r"remote\..*\.promisor")


def make_folders(git: Git, state: Path, *, branch: str, base: tuple[str, str], shown: str) -> None:
    """Make `ours` and `theirs` in an issue's `state` folder, by today's settings; `base` is a branch and its commit.

    They will do to show the files of commit `shown`, or of base.
    Running it again makes them anew: agents must not be at work meanwhile.
    """
    settings = _settings(git)
    empty = _empty_repo(git, state / "new", branch, kind=dict(settings).get("extensions.objectformat", "sha1"))
    if not _fetches(git, dict(settings), base[1], shown):
        settings = [pair for pair in settings if _THEIRS.fullmatch(pair[0]) or not _may_log_in(*pair)]
    for name, carried in (("ours", _OURS), ("theirs", _THEIRS)):
        made = state / "new" / name
        shutil.copytree(empty, made)
        with (made / "config").open("a", encoding="utf-8", errors="surrogateescape") as config:
            config.writelines(_config_line(key, value) for key, value in settings if carried.fullmatch(key))
        for of_the_user in ("info/exclude", "info/attributes", "shallow"):
            if (git.common / of_the_user).is_file():
                (made / of_the_user).parent.mkdir(exist_ok=True)
                shutil.copyfile(git.common / of_the_user, made / of_the_user)
    _borrow(state / "new/theirs", git.common / "objects")
    if "filter.lfs.clean" in dict(settings):
        _share_large_files(state / "new/ours", large_files(git))
    tags = git("for-each-ref", "--format=%(objectname) %(refname)", "refs/tags")
    named, commit = base
    known = (f"{commit} refs/heads/{named}", f"{commit} refs/remotes/origin/{named}", tags)
    _write(state / "new/theirs/packed-refs", "\n".join(filter(None, known)))
    for name in ("ours", "theirs"):
        remove(state / name)
        (state / "new" / name).rename(state / name)
    remove(state / "new")


def _settings(git: Git) -> list[tuple[str, str]]:
    """The user's settings for this repo, from all files that git reads; later ones count more."""
    entries = git("config", "--list", "--includes", "--null").split("\0")
    pairs = (entry.partition("\n") for entry in entries if entry)
    return [(key, value if given else "true") for key, given, value in pairs if key != "lfs.storage"]


def _fetches(git: Git, settings: Mapping[str, str], *commits: str) -> bool:
    """Whether files of the commits may have to be fetched: those of a partial clone, and large ones."""
    if "extensions.partialclone" in settings or any(_PROMISOR.fullmatch(key) for key in settings):
        return True
    asked = ("grep", "--quiet", "--fixed-strings", "filter=lfs", *commits, "--", ":(glob)**/.gitattributes")
    return "filter.lfs.clean" in settings and git.ask(*asked) is not None


def _may_log_in(key: str, value: str) -> bool:
    """Whether a setting has what looks like a secret; a header or a proxy's user may be one that looks like nothing."""
    line = f"{key}={value}"
    return redacted(line) != line or bool(_HEADER.fullmatch(key) or (_PROXY.fullmatch(key) and "@" in value))


def _config_line(key: str, value: str) -> str:
    section, _, rest = key.partition(".")
    sub, _, name = rest.rpartition(".")
    head = f"[{section} {_quoted(sub)}]" if sub else f"[{section}]"
    return f"{head}\n\t{name} = {_quoted(value)}\n"


def _quoted(value: str) -> str:
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\t", "\\t") + '"'


def large_files(git: Git) -> Path:
    """Where the user's repo keeps its large files, if it has any; git-lfs takes a relative path from the git folder."""
    return git.common / (git.ask("config", "lfs.storage") or "lfs")


def _share_large_files(ours: Path, store: Path) -> None:
    """A link, as the setting for it would hold for a remote on this disk too."""
    store.mkdir(parents=True, exist_ok=True)
    (ours / "lfs").symlink_to(store)


def _empty_repo(git: Git, folder: Path, branch: str, *, kind: str) -> Path:
    """The git directory of a repo with nothing in it, as git makes it for this disk."""
    remove(folder)
    folder.mkdir(parents=True)
    chosen = ("-c", "init.defaultRefFormat=files", "init", "--quiet", "--template=", f"--object-format={kind}")
    done = question(folder, *chosen, f"--initial-branch={branch}")
    if done.returncode:
        raise WorkspaceError(f"{git.about}: no repository could be made in {folder}: {reason(done.stderr)}")
    return folder / ".git"


def _borrow(folder: Path, objects: Path) -> None:
    (folder / "objects/info").mkdir(parents=True, exist_ok=True)
    (folder / "objects/info/alternates").write_text(f"{objects}\n", encoding="utf-8", errors="surrogateescape")


class Clone:
    """The agents' repository around the files in `path`, made from `theirs`."""

    def __init__(self, path: Path, theirs: Path, *, branch: str) -> None:
        self._path = path
        self._git = path / ".git"
        self._theirs = theirs
        self._branch_ref = f"refs/heads/{branch}"

    def make(self, commit: str, index: Path) -> None:
        """A repository on the branch, which stands on `commit`, with nothing in progress and no change to the files.

        What the agents had in theirs is gone, but for the objects of submodules that they added.
        """
        new = self._fresh(index)
        _write(new / self._branch_ref, commit)
        _write(new / "HEAD", f"ref: {self._branch_ref}")
        added = self._git / "modules"
        if added.is_dir() and not (self._git.is_symlink() or added.is_symlink()):
            added.rename(new / "modules")
        remove(self._git)
        new.rename(self._git)

    def make_submodule(self, commit: str, objects: Path, index: Path) -> None:
        """The same for a submodule in `path`: detached on `commit`, with the objects of another repo."""
        new = self._fresh(index)
        (new / "packed-refs").unlink()
        _borrow(new, objects)
        _write(new / "HEAD", commit)
        remove(self._git)
        new.rename(self._git)

    def _fresh(self, index: Path) -> Path:
        new = self._theirs.with_name("new")
        remove(new)
        shutil.copytree(self._theirs, new)
        # With its times: git tells by them whether a file changed after the index was written.
        shutil.copy2(index, new / "index")
        return new

    @property
    def objects(self) -> Path:
        """The objects that agents made."""
        return self._git / "objects"

    def head(self) -> str | None:
        """The commit that HEAD stands on."""
        return head_of(self._git)

    def tips(self) -> set[str]:
        """The commits that HEAD, branches and the stash stand on, without those that we put there."""
        ours = {commit for _, commit in _refs(self._theirs)}
        return {commit for commit in (self.head(), *_tips(self._git)) if commit} - ours

    def settings_changed(self) -> list[str]:
        """The names of settings that differ from those that we made it with."""
        before, after = self._theirs / "config", self._git / "config"
        if not self._git.is_dir() or content(before) == content(after):
            return []
        return sorted({name for name, _ in listed_settings(before) ^ listed_settings(after)})


def head_of(folder: Path) -> str | None:
    """The commit that HEAD stands on in a git folder, or in the one that a file in its place names."""
    folder = _pointed(folder)
    head = content(folder / "HEAD")
    if head.startswith("ref: refs/"):
        ref = head.removeprefix("ref: ")
        head = dict(_refs(folder)).get(ref, "")
    return head if _ID.fullmatch(head) else None


def is_linked(folder: Path) -> bool:
    """True for a linked worktree, and for anything else whose git folder is elsewhere."""
    return not (folder / ".git").is_dir() or (folder / ".git").is_symlink()


def is_clone(folder: Path) -> bool:
    """True for a repo that came from another one."""
    return any(name.startswith("remote.") for name, _ in listed_settings(folder / ".git/config"))


def _tips(folder: Path) -> Iterator[str]:
    for ref, commit in _refs(_pointed(folder)):
        if ref.startswith("refs/heads/") or ref == "refs/stash":
            yield commit


def _refs(folder: Path) -> Iterator[tuple[str, str]]:
    """The refs of a repo, read from its files; loose ones, which count, come last."""
    packed = (line.partition(" ") for line in content(folder / "packed-refs").splitlines())
    yield from ((ref, commit) for commit, _, ref in packed if _ID.fullmatch(commit))
    for top, _, names in os.walk(folder / "refs"):
        for path in (Path(top, name) for name in names):
            if _ID.fullmatch(commit := content(path)):
                yield str(path.relative_to(folder)), commit


def _pointed(folder: Path) -> Path:
    pointer = content(folder)
    return folder.parent / pointer.removeprefix("gitdir: ") if pointer else folder


def listed_settings(config: Path) -> set[tuple[str, str]]:
    """The settings in a file, and in no file that it includes."""
    if not _is_file(config):
        return set()
    done = question(config.parent.parent, "config", "--file", str(config), "--no-includes", "--null", "--list")
    if done.returncode:
        return {("(a file that git cannot read)", "")}
    pairs = (entry.partition("\n") for entry in done.stdout.split("\0") if entry)
    return {(key, value) for key, _, value in pairs}


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{text}\n", encoding="utf-8", errors="surrogateescape")


def _is_file(path: Path) -> bool:
    """A regular file: a pipe in its place would keep us waiting, a link lead anywhere."""
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except OSError:
        return False


def content(path: Path) -> str:
    """A small file of git's; empty when there is none, or something else in its place."""
    if not _is_file(path):
        return ""
    try:
        with path.open(encoding="utf-8", errors="surrogateescape") as file:
            return file.read(MAX_REFS_BYTES).strip()
    except OSError:
        return ""


def remove(path: Path) -> None:
    """Remove a file or a whole folder; a link, never what it points to; nothing when nothing is there."""
    if not path.is_dir() or path.is_symlink():
        path.unlink(missing_ok=True)
        return
    open_up(path)
    shutil.rmtree(path)


def open_up(path: Path) -> None:
    """Let us into every folder below: module caches, and what agents shut, could not be read, changed or removed."""
    _open(path)
    for top, folders, _ in os.walk(path):
        for name in folders:
            _open(Path(top, name))


def _open(folder: Path) -> None:
    if not folder.is_symlink():
        folder.chmod(stat.S_IMODE(folder.stat().st_mode) | stat.S_IRWXU)
