"""Submodules of a workspace: filled from what the user's checkout has of them, without a network.

Each gets a throwaway repository of its own, like the workspace. A commit of the issue's repo cannot hold what is
changed inside a submodule, so of each only the commit that it stands on is taken.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path, PurePosixPath

from orchestrator.adapters.git.clone import Clone, head_of
from orchestrator.adapters.git.command import Git
from orchestrator.text import one_line

MODULES = ".gitmodules"


class Submodules:
    """The submodules that `.gitmodules` declares among the files in `path`, which `index` of ours lists."""

    def __init__(self, git: Git, path: Path, index: Path) -> None:
        self._git = git
        self._path = path
        self._index = index

    @cached_property
    def paths(self) -> dict[str, str]:
        """Where they are, with their names, by the files as they are now."""
        declared = self._path / MODULES
        if not declared.is_file() or declared.is_symlink():
            return {}
        return dict(self._declared("--file", str(declared)))

    def _declared(self, *source: str) -> Iterator[tuple[str, str]]:
        listing = ("config", *source, "--no-includes", "--null", "--get-regexp", r"^submodule\..*\.path$")
        for entry in filter(None, (self._git.ask(*listing) or "").split("\0")):
            key, _, path = entry.partition("\n")
            name = key.removeprefix("submodule.").removesuffix(".path")
            if all(_stays_inside(place) for place in (name, path)):
                yield path.rstrip("/"), name

    def _links(self) -> dict[str, str]:
        """The commits of submodules in the index, by their paths."""
        listed = self._git("ls-files", "--stage", "-z", folder=self._path, GIT_INDEX_FILE=self._index)
        rows = (row.partition("\t") for row in listed.split("\0") if row.startswith("160000 "))
        return {path: facts.split()[1] for facts, _, path in rows}

    def take_up(self) -> list[str]:
        """Put into the index the commit that each stands on; a line for each that others cannot see like this."""
        declared = ("rev-parse", "--verify", "--quiet", f":{MODULES}")
        if not self.paths and not self._git.ask(*declared, GIT_INDEX_FILE=self._index):
            return []
        links = self._links()
        for path in links.keys() - self.paths.keys():
            self._git("update-index", "--force-remove", "--", path, folder=self._path, GIT_INDEX_FILE=self._index)
        remarks = (self._took_up(path, name, links.get(path)) for path, name in self.paths.items())
        return [remark for remark in remarks if remark]

    def _took_up(self, path: str, name: str, link: str | None) -> str:
        commit = head_of(self._path / path / ".git")
        if commit is None:
            return ""
        if commit != link:
            entry = f"160000,{commit},{path}"
            self._git("update-index", "--add", "--cacheinfo", entry, folder=self._path, GIT_INDEX_FILE=self._index)
        source = self._source(name)
        if source is None or not source.commit_of(commit):
            return f"{one_line(path)}: submodule on commit {commit[:12]}, which the main checkout does not have of it"
        listing = ("ls-files", "--modified", "--others", "--exclude-standard", "-z")
        scratch = self._index.with_name("submodule")
        source("read-tree", "--reset", commit, folder=self._path / path, GIT_INDEX_FILE=scratch)
        names = source(*listing, folder=self._path / path, GIT_INDEX_FILE=scratch).split("\0")
        # A repo in it, which ends with a slash, is one of its own submodules.
        if any(name and not name.endswith("/") for name in names):
            return f"{one_line(path)}: changes inside a submodule, which only a commit of its own repo can hold"
        return ""

    def fill(self, commit: str) -> None:
        """Put the files of each into its folder, as `commit` has it, where the main checkout has them."""
        links = self._links() if self.paths else {}
        for path, name in self.paths.items():
            source, wanted = self._source(name), links.get(path)
            if source and wanted and source.commit_of(wanted):
                self._fill(path, source, wanted)

    def _fill(self, path: str, source: Git, commit: str) -> None:
        folder, index = self._path / path, self._index.with_name("submodule")
        folder.mkdir(parents=True, exist_ok=True)
        index.unlink(missing_ok=True)
        source("read-tree", "--no-recurse-submodules", "--reset", "-u", commit, folder=folder, GIT_INDEX_FILE=index)
        source("clean", "-ffdq", folder=folder, GIT_INDEX_FILE=index)
        clone = Clone(folder, self._git.own.with_name("theirs"), branch="")
        clone.make_submodule(commit, source.common / "objects", index)
        Submodules(source, folder, index).fill(commit)

    def _source(self, name: str) -> Git | None:
        """The user's repo of a submodule."""
        folder = self._git.common / "modules" / name
        return self._git.beside(folder) if (folder / "objects").is_dir() else None


def _stays_inside(name: str) -> bool:
    parts = PurePosixPath(name).parts
    return bool(parts) and not PurePosixPath(name).is_absolute() and ".." not in parts and ".git" not in parts
