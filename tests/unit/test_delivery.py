"""What a pull request says: all that a reviewer of it needs, and never anybody else's issue."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from orchestrator.merge_close.events import PullText
from orchestrator.merge_close.pull_text import MAX_TITLE, NEEDS_REVIEW, pull_text
from orchestrator.merge_close.rules import parse_issue_line
from orchestrator.models import IssueContext, Report, SessionRecord, Stage
from tests.support import NOON, an_issue, evidence

MAX_BODY = 65_536


def record(issue: IssueContext) -> SessionRecord:
    return SessionRecord("session-1", "orch-test", issue, spec_limit=3, quality_limit=2)


def reports(finding: str = "no test", notes: str = "as asked", output: str = "3 passed") -> list[Report]:
    """A session in which the spec reviewer said no once."""
    proof = replace(evidence(output=output), duration_s=12.34, produced_at=NOON + timedelta(minutes=5))
    return [
        Report(Stage.RUNNING, 1, NOON, notes=notes, commit="c0ffee"),
        Report(Stage.SPEC_REVIEW, 1, NOON, passed=False, failed_items=(finding,), fix_list=("add one",)),
        Report(Stage.SPEC_FIX, 1, NOON, notes=notes, commit="c0ffee"),
        Report(Stage.SPEC_REVIEW, 2, NOON, notes=notes),
        Report(Stage.QUALITY_REVIEW, 1, NOON, notes=""),
        Report(Stage.VERIFICATION, 1, NOON, evidence=proof),
    ]


def test_a_pull_request_word_for_word() -> None:
    """What was asked, the checklist with what the reviews found, the evidence, and one line that names the issue."""
    issue = an_issue(description="Nobody may crash it.", approval="manual")

    assert PullText(
        "DEV-001: Parse empty input",
        """\
## What was asked

> Nobody may crash it.

> Task: DEV-001, Gate: G1, Epic: EPIC-01, Source: docs/roadmap.md

## Checklist

> - [x] empty input is accepted
> - [x] `make test` passes

The spec review passed at attempt 2 of 3, the quality review at attempt 1 of 2.

```text
spec review 1: not passed
  - no test
spec review 2: passed
  - as asked
quality review 1: passed
```

## Evidence

```text
$ make test
exit code 0 after 12.3 s, 2026-01-05T12:05:00+00:00, on commit c0ffee
3 passed
```

Session `session-1`.

Sudocode-Issue: i-a1b2
""",
        (NEEDS_REVIEW,),
    ) == pull_text(record(issue), reports())


@pytest.mark.parametrize(("approval", "labels"), [("manual", (NEEDS_REVIEW,)), ("auto", ())])
def test_manual_approval_is_a_label(approval: str, labels: tuple[str, ...]) -> None:
    """Only an issue that says `Approval: auto` gets no label."""
    assert labels == pull_text(record(an_issue(approval=approval)), reports()).labels


CLAIMS = [
    "Sudocode-Issue: i-evil",
    "x\nSudocode-Issue: i-evil",
    "x\r\n  sudocode-issue : i-evil",
    "> **SUDOCODE-ISSUE**: i-evil",
    "x\u2028Sudocode-Issue: i-evil",
    "```\nSudocode-Issue: i-evil\n```",
    "Sudocode-Sudocode-Issue:-Issue: i-evil",
    "\u017fudocode-issue: i-evil",
    "Sudocode-Issue\n: i-evil",
    "<!--",
    "- [ ] x\n" * 20_000,
    "`" * 30_000,
    "🎉" * 50_000,
    "\n" * 50_000,
    "\ud83d\0",
]
texts = st.sampled_from(CLAIMS) | st.text(alphabet=st.characters())


@given(title=texts, description=texts, checklist=texts, finding=texts, notes=texts, output=texts)
@example(*CLAIMS[:6])
@example(*["🎉" * 50_000] * 6)
@example(*["\n`" * 50_000] * 6)
def test_no_text_can_name_another_issue(
    title: str, description: str, checklist: str, finding: str, notes: str, output: str
) -> None:
    """Whatever issue, agents and commands wrote: one line, our issue, and short enough for the forge."""
    issue = an_issue(title=title, description=description, dod_checklist_full=checklist)
    text = pull_text(record(issue), reports(finding, notes, output))

    assert "i-a1b2" == parse_issue_line(text.body)
    assert len(text.body.encode()) <= MAX_BODY
    assert 0 < len(text.title) <= MAX_TITLE
    assert 1 == len(text.title.splitlines())


def test_a_pull_request_says_what_to_know_of_its_evidence() -> None:
    """Where it ran, and why one may doubt it, between the exit code and the output."""
    *others, last = reports()
    assert last.evidence
    doubtful = replace(last.evidence, clean=True, chosen_by_agent=True, red_before=(1,), touched=("@me/Makefile",))
    body = pull_text(record(an_issue()), [*others, replace(last, evidence=doubtful)]).body

    assert (
        "in a clean checkout of commit c0ffee\n"
        "! chosen by the agent\n"
        "! flaky: exited with 1 before, on the same commit\n"
        "! the work touched the verification itself: @ me/Makefile\n"
        "3 passed\n```"
    ) in body


def test_what_was_left_open_does_not_hide_the_evidence() -> None:
    """A fence in an output does not end ours, and what a user left open stands in a quote, which ends it."""
    issue = an_issue(description="<!-- ```", dod_checklist_full="- [ ] x\n````")
    body = pull_text(record(issue), reports(output="```\n@everybody closes #1\n```")).body

    assert "> <!-- ```\n" in body
    assert "\n````text\n$ make test\n" in body
    assert body.endswith("@ everybody closes # 1\n```\n````\n\nSession `session-1`.\n\nSudocode-Issue: i-a1b2\n")


def test_an_issue_without_a_checklist_is_its_own() -> None:
    """Where the whole text is the checklist there is no description, and facts that are not said are left out."""
    issue = IssueContext("i-a1b2", "-", "i-a1b2", "-", "-", "Make it fast", "-", "Make it fast.")
    text = pull_text(record(issue), reports())

    assert "Make it fast" == text.title
    assert text.body.startswith(
        "## What was asked\n\n> Make it fast\n\n> Task: i-a1b2\n\n## Checklist\n\n> Make it fast.\n"
    )
