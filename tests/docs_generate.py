"""The parts of pages that the code says better: `python -m tests.docs_generate` writes them, `--check` compares.

A generated part stands between `<!-- generated: NAME -->` and `<!-- end -->`; the rest is written by hand.
"""

from __future__ import annotations

import argparse
import ast
import re
import sys
import tomllib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import click
from prometheus_client.core import CounterMetricFamily

from orchestrator.cli import main as orch
from orchestrator.local.programs import PROGRAMS
from orchestrator.models import Stage, Verdict
from orchestrator.session_loop import paths
from orchestrator.settings.loading import settings_table
from orchestrator.web.measures import HERE, MEASURES, UP, Durations, Measure

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"

PAGES = sorted([*ROOT.glob("*.md"), *DOCS.rglob("*.md")])

_PART = re.compile(r"(?<=<!-- generated: )(?P<name>[a-z-]+)( -->\n).*?(?=<!-- end -->)", re.DOTALL)
_FIXES = {Stage.SPEC_REVIEW: Stage.SPEC_FIX, Stage.QUALITY_REVIEW: Stage.QUALITY_FIX}


def lifecycle() -> str:
    """Every way through a session, as one diagram. Only a review's "no" depends on the attempt."""
    attempts: dict[tuple[str, str], set[int]] = {}
    ways = list(paths())
    for way in ways:
        afterwards = [*(step.stage for step in way.steps[1:]), way.verdict]
        for step, after in zip(way.steps, afterwards, strict=True):
            attempts.setdefault((step.stage, after), set()).add(step.attempt)
    arrows = [f"    {before} --> {after}{_label(before, after, seen)}" for (before, after), seen in attempts.items()]
    ends = [f"    {verdict} --> [*]" for verdict in dict.fromkeys(way.verdict for way in ways)]
    longest = max(len(way.steps) for way in ways)
    diagram = "\n".join(["stateDiagram-v2", f"    [*] --> {Stage.RUNNING}", *arrows, *ends])
    return f"```mermaid\n{diagram}\n```\n\n{len(ways)} ways through, the longest of {longest} steps.\n"


def _label(before: str, after: str, attempts: set[int]) -> str:
    if before == Stage.VERIFICATION:
        return ": yes" if after == Verdict.DONE else ": no"
    if before not in _FIXES:
        return ""
    if after in (_FIXES[Stage(before)], Verdict.OVERFLOW):
        return f": no, attempt {' or '.join(map(str, sorted(attempts)))}"
    return ": yes"


def modules() -> str:
    """Every module with what it knows, highest first, in the layers that import-linter holds."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["importlinter"]["contracts"]
    layers = next(contract["layers"] for contract in contracts if contract["type"] == "layers")
    rows = [_row(path) for layer in layers for name in layer_modules(layer) for path in _files(name)]
    return "".join(["| module | what it knows |\n| --- | --- |\n", *rows])


def layer_modules(layer: str) -> list[str]:
    """The modules that one layer of the contract names."""
    return re.findall(r"[\w.]+", layer)


def _files(module: str) -> Iterator[Path]:
    """A module's file; a package's own, then those in it. None when it is not there."""
    path = ROOT / module.replace(".", "/")
    if path.with_suffix(".py").is_file():
        yield path.with_suffix(".py")
    yield from sorted(path.rglob("*.py"))


def _row(path: Path) -> str:
    docstring = ast.get_docstring(ast.parse(path.read_text("utf-8"))) or ""
    sentence = " ".join(docstring.partition("\n\n")[0].split()).replace("|", "\\|")
    name = path.relative_to(ROOT)
    return f"| [`{name}`](../{name}) | {sentence} |\n"


def cli() -> str:
    """Every command's help, in the order of `orch --help`."""
    return "\n".join(_help(orch, "orch", None))


def _help(command: click.Command, name: str, parent: click.Context | None) -> Iterator[str]:
    """A command's help as a section, then those of its own commands."""
    ctx = click.Context(command, parent, name, terminal_width=100, max_content_width=100)
    ctx.help_option_names = ["-h", "--help"]
    heading = "##" if parent is None or parent.parent is None else "###"
    yield f"{heading} {ctx.command_path}\n\n```text\n{command.get_help(ctx)}\n```\n"
    if isinstance(command, click.Group):
        for below in command.list_commands(ctx):
            if found := command.get_command(ctx, below):
                yield from _help(found, below, ctx)


def programs() -> str:
    """Every process of a running orchestrator, from its table."""
    rows = (f"| {it.name} | {it.about} | {', '.join(f'`{queue}`' for queue in it.queues)} |\n" for it in PROGRAMS)
    return "".join(["| process | what it is for | queues |\n| --- | --- | --- |\n", *rows])


def metrics() -> str:
    """Every metric that `orch web` serves, in that order."""
    rows = [_metric_row(measure) for measure in (*HERE, UP, *MEASURES)]
    return "".join(["| metric | kind | labels | what it says |\n| --- | --- | --- | --- |\n", *rows])


def _metric_row(measure: Measure[Any] | Durations) -> str:
    labels = ", ".join(f"`{label}`" for label in measure.labels)
    if isinstance(measure, Durations):
        return f"| `{measure.name}` | histogram | {labels} | {measure.says} |\n"
    counter = measure.family is CounterMetricFamily
    kind, suffix = ("counter", "_total") if counter else ("gauge", "")
    return f"| `{measure.name}{suffix}` | {kind} | {labels} | {measure.says} |\n"


PARTS: Mapping[str, Callable[[], str]] = {
    "cli": cli,
    "lifecycle": lifecycle,
    "metrics": metrics,
    "modules": modules,
    "programs": programs,
    "settings": settings_table,
}


def regenerated(page: str) -> str:
    """The page with its generated parts as they should be. KeyError names a part that nobody generates."""
    return _PART.sub(lambda part: f"{part['name']}{part[2]}\n{PARTS[part['name']]()}\n", page)


def stale() -> Iterator[tuple[Path, str]]:
    """Pages that are not as they should be, and how they should be."""
    for path in PAGES:
        page = path.read_text("utf-8")
        if (fresh := regenerated(page)) != page:
            yield path, fresh


def main() -> None:
    """Write what is stale; with --check, name it and exit with 1."""
    parser = argparse.ArgumentParser(prog="python -m tests.docs_generate", description=main.__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing")
    check = parser.parse_args().check
    found = list(stale())
    for path, fresh in found:
        if check:
            print(f"{path.relative_to(ROOT)} is stale: run `make docs`", file=sys.stderr)
        else:
            path.write_text(fresh, "utf-8")
            print(f"{path.relative_to(ROOT)} written")
    sys.exit(1 if check and found else 0)


if __name__ == "__main__":
    main()
