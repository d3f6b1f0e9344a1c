"""Which of the files that the work changed decide what its verification checks. Pure: paths and words alone."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import PurePosixPath

from orchestrator.text import one_line


def touched(commands: Iterable[Sequence[str]], changed: Iterable[str]) -> list[str]:
    """Those of the changed paths that decide what these commands check: their scripts, test settings, CI, orch.toml.

    Tests themselves are not among them: to change those is most often the work.
    """
    named = {path for command in commands for path in _named(command)}
    programs = {PurePosixPath(word).name for command in commands for word in _words(command)}
    return [one_line(path) for path in changed if path in named or _decides(path, programs)]


def _decides(path: str, programs: set[str]) -> bool:
    name = PurePosixPath(path).name
    if _ALWAYS.fullmatch(path) or _SETTINGS.fullmatch(name):
        return True
    return any(tool in programs and re.fullmatch(files, name, re.DOTALL) for tool, files in _OF_TOOL.items())


_ALWAYS = re.compile(
    r"orch\.toml|\.github/(workflows|actions)/.*|\.circleci/.*|\.buildkite/.*|\.gitlab(-ci\.yml|/.*)|\.travis\.yml"
    r"|\.woodpecker(\.ya?ml|/.*)|\.drone\.yml|\.cirrus\.yml|\.?appveyor\.yml|azure-pipelines.*\.ya?ml"
    r"|bitbucket-pipelines\.yml|Jenkinsfile",
    re.DOTALL,
)
_SETTINGS = re.compile(
    r"conftest\.py|sitecustomize\.py|\.?pytest\.(ini|toml)|tox\.(ini|toml)|noxfile\.py|setup\.cfg|pyproject\.toml"
    r"|\.coveragerc|package\.json|\.(mocha|nyc)rc(\..*)?|karma\.conf\..*|\.rspec|(spec|rails|test)_helper\.rb"
    r"|(jest|vitest|vite|ava|playwright|cypress|babel|wdio)\.(config|setup|workspace)\..*|phpunit\.xml(\.dist)?",
    re.DOTALL,
)
_MAKE = r"GNUmakefile|[Mm]akefile|.*\.(mk|mak)"
_GRADLE = r".*\.gradle(\.kts)?|gradlew|gradle(-wrapper)?\.properties|gradle-wrapper\.jar"
_MAVEN = r"pom\.xml|mvnw|maven\.config|jvm\.config|maven-wrapper\..*"
_OF_TOOL = {
    "make": _MAKE,
    "gmake": _MAKE,
    "just": r"\.?[Jj]ustfile",
    "task": r"[Tt]askfile(\..*)?\.ya?ml",
    "rake": r"Rakefile|.*\.rake",
    "cargo": r"Cargo\.toml|build\.rs|nextest\.toml",
    "gradle": _GRADLE,
    "gradlew": _GRADLE,
    "mvn": _MAVEN,
    "mvnw": _MAVEN,
    "deno": r"deno\.jsonc?",
    "composer": r"composer\.json",
    "mix": r"mix\.exs|test_helper\.exs",
    "dotnet": r".*\.(csproj|fsproj|sln|slnx|runsettings)|Directory\.Build\..*",
}


def _named(command: Sequence[str]) -> Iterator[str]:
    """The paths that a command may stand for: its words as files, and what `-m` has Python run."""
    words = list(_words(command))
    for before, word in zip(["", *words], words, strict=False):
        yield str(PurePosixPath(word))
        if before == "-m":
            module = word.replace(".", "/")
            yield from (f"{module}.py", f"{module}/__init__.py", f"{module}/__main__.py")


def _words(command: Sequence[str]) -> Iterator[str]:
    """The words of a command, and those within one that a shell would run."""
    for word in command:
        yield word
        if re.search(r"\s", word):
            yield from filter(None, re.split(r"[\s;&|()<>\"'=]+", word))
