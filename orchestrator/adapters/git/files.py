"""The files of a folder as trees, read and written by a git directory that no agent's git knows."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from orchestrator.adapters.git.clone import is_clone, is_linked, open_up
from orchestrator.adapters.git.command import Git
from orchestrator.adapters.git.submodules import Submodules
from orchestrator.errors import WorkspaceError
from orchestrator.text import one_line

TRACKER_FOLDER = ".sudocode"

_NO_FILE = re.compile(r"error: (.*): can only add regular files, symbolic links or git-directories")
_CLOSED = re.compile(r"""error: open\("(.*)"\): Permission denied|warning: could not open directory '(.*)': Perm""")
_ECHO = re.compile(r"(error: unable to index file|fatal: (adding|updating) files failed|warning: ).*")


@dataclass(frozen=True)
class Tree:
    """The files as a tree, and a line for each thing that is there and could not be in it."""

    id: str
    left_out: tuple[str, ...] = ()


class Files:
    """The files in `path`, with an index of ours."""

    def __init__(self, git: Git, path: Path, index: Path) -> None:
        self._git = git
        self._path = path
        self.index = index

    def write(self, onto: str | None, *, without: str = "") -> Tree:
        """The files as a tree: those of commit `onto` with all that was changed, added or deleted since.

        Ignored files are not in it; of the folder `without` it has what `onto` has. Leaves the same in our index.
        """
        self._read(onto)
        submodules = Submodules(self._git, self._path, self.index)
        left_out = submodules.take_up()
        spared = [name for name in (without, *submodules.paths) if name]
        left_out += self._add(self._path, self.index, spared)
        return Tree(self._git("write-tree", folder=self._path, GIT_INDEX_FILE=self.index), tuple(left_out))

    def _add(self, folder: Path, index: Path, spared: Sequence[str]) -> list[str]:
        """Add all that is in the folder. Of repos in it those that an agent only works with are left out.

        Files of any other become ordinary files: a link to a repo that none can fetch loses them.
        """
        embedded = self._embedded(folder, index, spared)
        foreign = [name for name in embedded if is_linked(folder / name) or is_clone(folder / name)]
        left_out = [f"{one_line(name)}: a repository of its own, which is not a part of this one" for name in foreign]
        left_out += self._add_files(folder, index, [*spared, *embedded])
        for name in (name for name in embedded if name not in foreign):
            scratch = index.with_name(f"{index.name}+")
            self._git("read-tree", "--empty", folder=folder / name, GIT_INDEX_FILE=scratch)
            left_out += self._add(folder / name, scratch, ())
            tree = self._git("write-tree", folder=folder / name, GIT_INDEX_FILE=scratch)
            self._git("update-index", "--force-remove", "--", name, folder=folder, GIT_INDEX_FILE=index)
            self._git("read-tree", f"--prefix={name}/", tree, folder=folder, GIT_INDEX_FILE=index)
        return left_out

    def _add_files(self, folder: Path, index: Path, spared: Sequence[str]) -> list[str]:
        """What cannot be read as a file stays as it was in the index. WorkspaceError for any trouble of ours."""
        adding = ("add", "--all", "--ignore-errors", "--", ".", *_excluding(spared))
        done = self._git.attempt(*adding, folder=folder, GIT_INDEX_FILE=index)
        if _CLOSED.search(done.stderr):
            open_up(folder)
            for name in _CLOSED.findall(done.stderr):
                _let_us_read(folder / (name[0] or name[1]))
            done = self._git.attempt(*adding, folder=folder, GIT_INDEX_FILE=index)
        said = done.stderr.splitlines()
        if done.returncode and not all(_NO_FILE.fullmatch(row) or _ECHO.fullmatch(row) for row in said):
            raise self._git.refused(adding, done.stderr)
        strange = filter(None, map(_NO_FILE.fullmatch, said))
        return [f"{one_line(found[1])}: neither a file nor a link any more" for found in strange]

    def _read(self, commit: str | None) -> None:
        source = ("--reset", commit) if commit else ("--empty",)
        self._git("read-tree", "--no-recurse-submodules", *source, folder=self._path, GIT_INDEX_FILE=self.index)

    def _embedded(self, folder: Path, index: Path, spared: Sequence[str]) -> list[str]:
        """Folders with a git repo of their own: the only ones that `ls-files` names, with a slash at the end."""
        listing = ("ls-files", "--others", "--killed", "--exclude-standard", "-z", "--", ".", *_excluding(spared))
        names = self._git(*listing, folder=folder, GIT_INDEX_FILE=index).split("\0")
        return [name.rstrip("/") for name in names if name.endswith("/")]

    def show(self, commit: str) -> None:
        """Files and index as in `commit`, where they differ; `.sudocode` to the last ignored file."""
        try:
            self._show(commit)
        except WorkspaceError:
            open_up(self._path)  # folders that an agent made read-only
            self._show(commit)
        Submodules(self._git, self._path, self.index).fill(commit)

    def _show(self, commit: str) -> None:
        reset = ("read-tree", "--no-recurse-submodules", "--reset", "-u", commit)
        self._git(*reset, folder=self._path, GIT_INDEX_FILE=self.index)
        if os.path.lexists(self._path / TRACKER_FOLDER):
            clean = ("clean", "-ffdxq", "--", f":(top,literal){TRACKER_FOLDER}")
            self._git(*clean, folder=self._path, GIT_INDEX_FILE=self.index)

    def sweep(self) -> None:
        """Remove what is neither in the index nor ignored: empty folders, git folders of embedded repos."""
        try:
            self._git("clean", "-ffdq", folder=self._path, GIT_INDEX_FILE=self.index)
        except WorkspaceError:
            open_up(self._path)
            self._git("clean", "-ffdq", folder=self._path, GIT_INDEX_FILE=self.index)


def _excluding(names: Sequence[str]) -> Sequence[str]:
    return [f":(top,exclude,literal){name}" for name in names]


def _let_us_read(path: Path) -> None:
    if path.is_file() and not path.is_symlink():
        path.chmod(path.stat().st_mode | 0o400)
