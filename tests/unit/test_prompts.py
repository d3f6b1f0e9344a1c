"""The prompt template: placeholders are replaced, and nothing else happens."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.prompts import PLACEHOLDERS, render_issue_prompt, render_prompt
from tests.support import ROOT, an_issue


def test_placeholders_are_replaced_wherever_they_stand() -> None:
    """A placeholder may stand anywhere, more than once, with or without spaces inside."""
    assert "DEV-1: x (DEV-1)" == render_prompt(
        "{{task_id}}: {{ title }} ({{task_id}})", {"task_id": "DEV-1", "title": "x"}
    )


@pytest.mark.parametrize("value", ["{{title}}", "{{ nobody }}", r"\1 \g<0> \n", "{0} {x} %s $x", "a\r\nb", ""])
def test_a_value_is_inserted_literally(value: str) -> None:
    """A value that looks like a placeholder or an escape is text like any other."""
    assert f"<{value}>" == render_prompt("<{{title}}>", {"title": value})


@given(st.text(), st.text())
def test_any_value_is_inserted_literally(value: str, other: str) -> None:
    """There is no value that the rendering changes or trips over."""
    assert f"{value}|{other}|{value}" == render_prompt("{{a}}|{{b}}|{{a}}", {"a": value, "b": other})


def test_every_missing_value_is_named() -> None:
    """A template that asks for what nobody has is refused, with all the names at once and the known ones."""
    with pytest.raises(ValueError, match=r"no value for \{\{colour\}\}, \{\{size\}\}; known are title"):
        render_prompt("{{size}} {{title}} {{colour}} {{size}}", {"title": "x"})


@pytest.mark.parametrize("value", [None, 7], ids=repr)
def test_a_value_that_is_no_text_is_missing(value: object) -> None:
    """A host that passes None for a value is told so; it does not find a hole in its prompt."""
    with pytest.raises(ValueError, match=r"no value for \{\{title\}\}"):
        render_prompt("{{title}}", {"title": value})  # type: ignore[dict-item] # that is the case


@pytest.mark.parametrize("strange", ["{{}}", "{{ a b }}", "{{task-id}}", "{{a\nb}}", "{{#if x}}"])
def test_what_is_no_name_is_an_unresolved_placeholder(strange: str) -> None:
    """Double braces around something else are refused and shown, rather than sent to an agent."""
    with pytest.raises(ValueError) as refused:
        render_prompt(f"{{{{title}}}} {strange}", {"title": "x"})

    assert strange in str(refused.value)


def test_line_ends_of_the_template_become_newlines() -> None:
    """A template saved with the line ends of Windows or old Macs renders as any other."""
    assert "a\nb\n\nc\nx" == render_prompt("a\r\nb\r\rc\r\n{{title}}", {"title": "x"})


def test_single_braces_are_text() -> None:
    """JSON and code in a template need no escaping as long as their braces are single."""
    template = 'answer {"passed": true} or {x} or }} or {{'

    assert template == render_prompt(template, {})


def test_an_issue_fills_all_seven_placeholders() -> None:
    """The template may use each of the seven, and gets the issue's own words."""
    issue = an_issue()
    template = "\n".join(f"{{{{{name}}}}}" for name in PLACEHOLDERS)

    assert (
        "docs/roadmap.md\nDEV-001\nG1\nEPIC-01\nParse empty input\nDEV-000\n"
        "- [ ] empty input is accepted\n- [ ] `make test` passes"
    ) == render_issue_prompt(template, issue)


def test_the_template_that_we_ship_renders() -> None:
    """docs/prompts/prompt_template.md asks for nothing that an issue does not have."""
    template = (ROOT / "docs/prompts/prompt_template.md").read_text(encoding="utf-8")
    prompt = render_issue_prompt(template, an_issue())

    assert prompt.startswith("# DEV-001: Parse empty input\n")
    assert "- [ ] empty input is accepted\n- [ ] `make test` passes\n" in prompt
    assert "{{" not in prompt
