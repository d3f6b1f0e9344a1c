"""The documents say what is so: what they name exists, and what the code says better is generated from it."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from orchestrator.models import Stage, Verdict
from orchestrator.session_loop import paths
from orchestrator.settings.loading import settings_table
from orchestrator.settings.tables import RepoSettings
from tests import docs_generate
from tests.doc_pages import commands, not_printed
from tests.docs_generate import DOCS, PAGES, ROOT

DECISIONS = sorted(DOCS.glob("adr/0*.md"))
MAKEFILE = (ROOT / "Makefile").read_text("utf-8")
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
A_PAGE = 70

SYMPTOMS = (
    "Symptom: no work is dispatched",
    "Symptom: issue stuck at `in_progress`",
    "Symptom: repeated overflow (`OVERFLOW_FIX_CREATED`)",
    "Symptom: snapshot validation errors",
)
"""Those of the runbook that operators know."""

every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def code_of(page: Path) -> str:
    """What stands between backticks, whole blocks and single words."""
    return "\n".join(re.findall(r"```.*?```|`[^`\n]+`", page.read_text("utf-8"), re.DOTALL))


def test_generated_parts_are_fresh() -> None:
    """`make docs` would change nothing."""
    assert [] == [path for path, _ in docs_generate.stale()]


def test_a_stale_part_is_found_and_what_is_written_by_hand_stays() -> None:
    """Only what stands between the marks is replaced."""
    page = "by hand\n<!-- generated: settings -->\nold\n<!-- end -->\nby hand, too\n"

    expected = f"by hand\n<!-- generated: settings -->\n\n{settings_table()}\n<!-- end -->\nby hand, too\n"
    assert expected == docs_generate.regenerated(page)


def test_the_diagram_has_every_stage_and_every_end() -> None:
    """No path of the lifecycle goes through a state that is not drawn."""
    drawn = set(re.findall(r"\b[A-Z_]{2,}\b", docs_generate.lifecycle()))
    walked = {step.stage for path in paths() for step in path.steps} | {path.verdict for path in paths()}

    assert walked == drawn
    assert set(Stage) - {Stage.REVIEW_GATE} | set(Verdict) - {Verdict.ERROR} == drawn


def test_every_module_has_its_layer() -> None:
    """A new module is put into the import contract, and so into the architecture."""
    contracts = PYPROJECT["tool"]["importlinter"]["contracts"]
    layers = [layer for contract in contracts for layer in contract.get("layers", ())]
    named = {name for layer in layers for name in docs_generate.layer_modules(layer)}
    there = {f"orchestrator.{path.stem}" for path in (ROOT / "orchestrator").iterdir() if _is_module(path)}

    assert set() == there - named


def _is_module(path: Path) -> bool:
    return (path.suffix == ".py" and path.stem != "__init__") or (path / "__init__.py").is_file()


@every_page
def test_links_lead_somewhere(page: Path) -> None:
    """A relative link in a page names a file that exists."""
    links = re.findall(r"\]\(([^)#:]+?)(?:#[^)]*)?\)", page.read_text("utf-8"))

    assert [] == [link for link in links if not (page.parent / link).exists()]


@every_page
def test_files_and_targets_that_a_page_names_exist(page: Path) -> None:
    """Paths of the repo, and `make` targets."""
    code = code_of(page)
    files = re.findall(r"(?<![\w./-])(?:orchestrator|tasks|beat|tests|docs)/[\w./-]*\w(?![\w*<{])", code)
    targets = re.findall(r"\bmake ([a-z-]{2,})\b", code)

    assert [] == [file for file in files if not (ROOT / file).exists()]
    assert [] == [target for target in targets if not re.search(rf"^{target}:", MAKEFILE, re.MULTILINE)]


def test_every_make_target_is_in_its_help() -> None:
    """What .PHONY names is explained at the top of the Makefile."""
    [targets] = re.findall(r"^\.PHONY: (.*)$", MAKEFILE, re.MULTILINE)

    assert [] == [target for target in targets.split() if target != "help" and f"#   make {target} " not in MAKEFILE]


def test_the_example_of_the_settings_is_valid() -> None:
    """What one copies from the page, the program takes."""
    examples = re.findall(r"```toml\n(.*?)```", (DOCS / "configuration.md").read_text("utf-8"), re.DOTALL)

    assert examples
    assert all(RepoSettings.model_validate(tomllib.loads(example)) for example in examples)


@pytest.mark.parametrize("decision", DECISIONS, ids=lambda path: path.stem)
def test_a_decision_is_one_page_and_says_what_it_costs(decision: Path) -> None:
    """Its number and title are those in the list of decisions."""
    text = decision.read_text("utf-8")
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    number, title = headings[0].split(maxsplit=1)

    assert ["Context", "Decision", "What it costs"] == headings[1:]
    assert decision.name.startswith(f"{number}-")
    assert f"| [{number}]({decision.name}) | {title} |" in (DOCS / "adr/README.md").read_text("utf-8")
    assert len(text.splitlines()) <= A_PAGE


def test_constraints_pin_every_dependency() -> None:
    """constraints.txt is plain `name==version` lines, and has each package that pyproject.toml asks for."""
    lines = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    project = PYPROJECT["project"]
    asked = [*project["dependencies"], *project["optional-dependencies"]["dev"]]

    assert [] == [line for line in lines if not re.fullmatch(r"[\w.-]+==[\w.]+", line)]
    assert set() == {_name(text) for text in asked} - {_name(line) for line in lines}


def _name(requirement: str) -> str:
    found = re.match(r"[\w.-]+", requirement)
    return found[0].lower().replace("_", "-") if found else requirement


def test_each_symptom_has_a_command_to_try() -> None:
    """Whoever knows a symptom finds its heading in operations.md, and below it what to type."""
    sections = {command.section for command in commands(DOCS / "operations.md")}

    assert [] == [symptom for symptom in SYMPTOMS if symptom not in sections]


def test_commands_are_cut_where_they_end(tmp_path: Path) -> None:
    """Quotes, continued lines and here-texts belong to their command; comments alone are none."""
    page = tmp_path / "page.md"
    page.write_text("# One\n```sh\na 'b\nc' \\\n  d\n# no more\ncat <<'E'\n$x\nE\n```\n```text\nrm\n```\n")

    assert ["a 'b\nc' \\\n  d", "cat <<'E'\n$x\nE"] == [command.text for command in commands(page)]
    assert [3, 7] == [command.line for command in commands(page)]


def test_what_a_page_shows_is_compared_by_the_words_that_last() -> None:
    """Numbers and paths may differ, other words and their order may not."""
    printed = "ok   redis   7.2.4, running\n"

    assert [] == not_printed(("ok redis 8.0, running",), printed)
    assert ["running redis", "ok git"] == not_printed(("running redis", "ok git"), printed)
