"""Issues as users write them: fact lines, checklists, tags, in any language, or nothing of all that."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.errors import InvalidMCPResponseError
from orchestrator.issue import committed, context, listed, read, shown
from orchestrator.models import IssueContext, IssueStatus, branch_of, issue_of
from tests.support import NOON

BODY = """\
Some words before.

Roadmap Task ID: DEV-001
Gate: G1
Epic: EPIC-01 - Foundations
Verify: L1
Approval: auto
Source Doc: docs/roadmap.md
Depends On: DEV-002, DEV-003

DoD Checklist:
- [ ] the parser accepts empty input
  and says so
- [x] `make test` passes

Thank you.
"""


def written(content: str = "", **record: Any) -> IssueContext:
    """An issue with this content, as the tracker shows it."""
    return context(read({"id": "i-a1b2", "title": "DEV-001: Parse empty input", "content": content} | record))


def test_a_complete_issue() -> None:
    """Every fact line and the whole checklist find their field."""
    assert IssueContext(
        issue_id="i-a1b2",
        manifest_id="docs/roadmap.md",
        task_id="DEV-001",
        gate_id="G1",
        epic_id="EPIC-01 - Foundations",
        title="DEV-001: Parse empty input",
        depends_on="DEV-002, DEV-003",
        dod_checklist_full="- [ ] the parser accepts empty input\n  and says so\n- [x] `make test` passes",
        verify_level="L1",
        approval="auto",
        source_doc="docs/roadmap.md",
        description="Some words before.\n\n\nThank you.",
    ) == written(BODY)


def test_an_empty_issue_has_documented_defaults() -> None:
    """What is not said: the task is the issue, the checklist is the title, nobody approved, the rest is `-`."""
    assert IssueContext("i-a1b2", "-", "i-a1b2", "-", "-", "-", "-", "-") == context(read({"id": "i-a1b2"}))
    assert "Parse" == context(read({"id": "i-a1b2", "title": "Parse"})).dod_checklist_full


def test_an_issue_without_a_checklist_is_still_runnable() -> None:
    """Its whole body is the checklist, and its fact lines count all the same."""
    issue = written("\nVerify: L2\n\nMake it fast.\n")

    assert ("Verify: L2\n\nMake it fast.", "L2") == (issue.dod_checklist_full, issue.verify_level)


def test_tags_say_the_same_facts() -> None:
    """Facts may come as tags; other tags, and whatever is not text, are the user's own."""
    issue = written(
        tags=["task:DEV-7", "gate:G2", "epic:EPIC-2", "verify:l2", "approval:auto", "urgent", "a:b", "gate:", 7]
    )

    assert ("DEV-7", "G2", "EPIC-2", "L2", "auto") == (
        issue.task_id,
        issue.gate_id,
        issue.epic_id,
        issue.verify_level,
        issue.approval,
    )


def test_a_line_outdoes_a_tag_and_a_field_outdoes_both() -> None:
    """The text is nearer to its writer than a tag; a host that gives the field itself has the last word."""
    tags = ["task:DEV-7", "gate:G7"]
    issue = written("Roadmap Task ID: DEV-8\nGate: G8", tags=tags, gate_id="G9")

    assert ("DEV-8", "G9") == (issue.task_id, issue.gate_id)


@pytest.mark.parametrize(
    "line", ["**Gate:** G1", "- Gate: G1", "> gate:   G1  ", "* **Gate**: G1", "GATE :G1", "\tGate: G1"]
)
def test_fact_lines_may_be_dressed_up_in_markdown(line: str) -> None:
    """Bold, bullets, quotes, case and spaces do not hide a fact."""
    assert "G1" == written(f"{line}\n- [ ] x").gate_id


def test_facts_stand_before_the_checklist_and_the_first_one_holds() -> None:
    """A checklist that talks about a gate does not move the issue to it."""
    issue = written("Gate: G1\nGate: G2\nEpic:\n- [ ] x\nEpic: EPIC-9\n- [ ] y")

    assert ("G1", "-") == (issue.gate_id, issue.epic_id)


@pytest.mark.parametrize(
    ("said", "level", "approval"),
    [("l0", "L0", "manual"), ("L3", "-", "manual"), ("", "-", "manual"), ("AUTO", "-", "auto"), ("yes", "-", "manual")],
)
def test_levels_and_approvals_are_closed_sets(said: str, level: str, approval: str) -> None:
    """What is no level is `-`, and what is not plainly auto waits for a person."""
    issue = written(f"Verify: {said}\nApproval: {said}")

    assert (level, approval) == (issue.verify_level, issue.approval)


@pytest.mark.parametrize(
    ("title", "body", "checklist"),
    [
        (
            "空の入力",
            "Gate: G1\n\n完了条件:\n- [ ] 空でもよい\n- [ ] 試験が通る\n",
            "- [ ] 空でもよい\n- [ ] 試験が通る",
        ),
        ("اقرأ المدخل", "Gate: G1\n* [ ] يقبل المدخل الفارغ", "* [ ] يقبل المدخل الفارغ"),
        ("Пустой ввод 🎉", "Gate: G1\r\n+ [X] готово 🎉\r\n", "+ [X] готово 🎉"),
    ],
)
def test_text_may_be_in_any_language(title: str, body: str, checklist: str) -> None:
    """Only the fact names and the boxes are fixed; everything else is whatever the team speaks."""
    issue = written(body, title=title)

    assert (title, "G1", checklist) == (issue.title, issue.gate_id, issue.dod_checklist_full)


def test_a_checklist_keeps_what_stands_between_its_boxes() -> None:
    """Headings and paragraphs between boxes belong to the checklist; what follows the last box does not."""
    assert (
        "- [ ] a\n\n### Later\ntext\n- [ ] b\n\tmore"
        == written("- [ ] a\n\n### Later\ntext\n- [ ] b\n\tmore\nend").dod_checklist_full
    )


@given(st.text(alphabet=st.characters()), st.text(alphabet=st.characters()), st.lists(st.text()))
def test_no_text_is_too_strange(title: str, body: str, tags: list[str]) -> None:
    """Any title, body and tags give an issue that says something in every field."""
    issue = written(body, title=title, tags=tags)

    assert all(vars(replace(issue, description="any")).values())


@given(
    st.lists(st.sampled_from(["Gate:", "Verify: L1", "- [ ] ", "x", " ", "\t", "\n", "*", ":", "Epic", "🎉"])).map(
        "".join
    )
)
def test_no_mix_of_the_marks_is_too_strange(body: str) -> None:
    """Half-written facts and boxes are text."""
    assert all(vars(replace(written(body), description="any")).values())


@pytest.mark.timeout(20)
@pytest.mark.parametrize("line", ["Gate: a{}b", "Gate{}", "{}Gate: a", "Gate:{}a", "- {}x", "- [ ]{}"])
def test_a_line_full_of_spaces_is_read_in_no_time(line: str) -> None:
    """A hostile body of the tracker's full size costs one pass over it, not one for each of its characters."""
    body = line.format(" " * 131_000)

    assert "i-a1b2" == written(body).issue_id


@pytest.mark.parametrize("tags", [None, "task:DEV-7", {"task:DEV-7": 1}, 7])
def test_tags_that_are_no_list_are_no_tags(tags: object) -> None:
    """A tracker without tags leaves the default."""
    assert "i-a1b2" == written(tags=tags).task_id


@pytest.mark.parametrize("bad", [{}, {"id": None}, {"id": "I-A"}, {"id": "i-a\n"}, {"id": "s-a1b2"}, {"id": "i-../x"}])
def test_an_issue_without_a_usable_id_is_refused(bad: dict[str, object]) -> None:
    """Ids become branch and directory names; what is not `i-<id>` is not the tracker's contract."""
    with pytest.raises(InvalidMCPResponseError, match="whose id is"):
        context(read(bad))


def test_a_host_may_call_the_id_issue_id() -> None:
    """Both names of the id are read, and both names of the body."""
    issue = context(read({"issue_id": "i-a1b2", "description": "- [ ] x"}))

    assert ("i-a1b2", "- [ ] x") == (issue.issue_id, issue.dod_checklist_full)


def _edge(relation: str, from_id: object, to_id: object) -> dict[str, object]:
    return {"relationship_type": relation, "from_id": from_id, "to_id": to_id}


def test_other_relations_and_specs_block_nothing() -> None:
    """Related issues, specs and edges without an id are no reason to wait; a doubled edge counts once."""
    record = {
        "id": "i-a",
        "relationships": {
            "outgoing": [
                _edge("related", "i-a", "i-b"),
                _edge("depends-on", "i-a", "s-spec"),
                _edge("blocks", "i-a", "i-c"),
            ],
            "incoming": [
                _edge("depends-on", "i-d", "i-a"),
                _edge("blocks", None, "i-a"),
                _edge("blocks", "i-e", "i-a"),
                "?",
            ],
        },
    }
    doubled = {
        "id": "i-a",
        "relationships": {"outgoing": [_edge("depends-on", "i-a", "i-e")], "incoming": [_edge("blocks", "i-e", "i-a")]},
    }

    assert ("i-e",) == read(record).blockers
    assert ("i-e",) == read(doubled).blockers


@pytest.mark.parametrize("relationships", [None, [], "x", {}, {"incoming": None, "outgoing": 7}])
def test_no_relationships_no_blockers(relationships: object) -> None:
    """A tracker that shows none, or something else, shows no blockers."""
    assert () == read({"id": "i-a", "relationships": relationships}).blockers


def test_a_record_is_read_once_into_its_type() -> None:
    """Status, priority, times and tags get their types; a word that is no status is kept for people."""
    issue = read({"id": "i-a", "status": "closed", "priority": 0, "closed_at": "2026-01-05 12:00:00", "tags": ["x", 7]})
    odd = read({"id": "i-a", "status": "paused", "priority": True, "closed_at": "soon"})

    assert (IssueStatus.CLOSED, "closed", 0, NOON, ("x",)) == (
        issue.status,
        issue.status_said,
        issue.priority,
        issue.closed_at,
        issue.tags,
    )
    assert (None, "paused", None, None) == (odd.status, odd.status_said, odd.priority, odd.closed_at)


@pytest.mark.parametrize("answer", [None, [], "i-a1b2", 7])
def test_an_answer_that_is_no_issue_is_refused(answer: Any) -> None:
    """A host's tracker that answers something else breaks the contract; it is not an error of ours."""
    with pytest.raises(InvalidMCPResponseError, match="which is no issue"):
        shown(lambda _issue_id: answer, "i-a1b2")


def test_a_shown_issue_has_the_id_that_was_asked_for() -> None:
    """A tracker need not repeat it."""
    assert "i-a1b2" == shown(lambda _issue_id: {"title": "One"}, "i-a1b2").id


def test_rows_without_an_id_are_passed_over() -> None:
    """One odd row hides none of the others."""
    assert ["i-a", "i-b"] == [issue.id for issue in listed([{"id": "i-a"}, {}, None, "?", {"issue_id": "i-b"}])]


def test_the_claiming_order_is_priority_then_age_then_id() -> None:
    """What is not said comes last."""
    rows = [
        {"id": "i-5"},
        {"id": "i-4", "priority": 1},
        {"id": "i-3", "priority": 1, "created_at": "2026-01-05 12:00:01"},
        {"id": "i-2", "priority": 1, "created_at": "2026-01-05 12:00:00"},
        {"id": "i-1", "priority": 1, "created_at": "2026-01-05 12:00:00"},
        {"id": "i-0", "priority": 0},
    ]

    ordered = sorted(listed(rows), key=lambda issue: issue.claiming_order)
    assert ["i-0", "i-1", "i-2", "i-3", "i-4", "i-5"] == [issue.id for issue in ordered]


def test_of_two_lines_of_a_file_the_later_update_holds() -> None:
    """A union merge leaves both; the feedback comes newest first, in whatever order it was written."""
    given = [{"content": "old", "created_at": "2026-01-05T12:00:00Z"}, {"content": "new", "created_at": "2026-01-06"}]
    later: dict[str, object] = {"id": "i-a", "title": "Later", "updated_at": "2026-01-06 12:00:00", "feedback": given}
    rows: list[dict[str, object]] = [
        later,
        {"id": "i-a", "title": "Earlier", "updated_at": "2026-01-05 12:00:00"},
        {"id": "i-b"},
    ]

    found = committed(rows, "i-a")

    assert found is not None
    assert ("Later", ("new", "old")) == (found.title, found.feedback)
    assert committed(rows, "i-c") is None


@pytest.mark.parametrize(
    ("title", "body", "original"),
    [
        ("[FIX] DEV-1: One", "Original issue: i-a1b2\nSession: x", "i-a1b2"),
        ("[FIX] DEV-1: One", "> Original issue: i-a1b2", ""),
        ("[FIX] DEV-1: One", "Original issue: i-a1b2 and more", ""),
        ("DEV-1: One", "Original issue: i-a1b2", ""),
    ],
)
def test_only_a_fix_goes_on_with_an_original(title: str, body: str, original: str) -> None:
    """Title and line together say so; a quoted line is a text of others."""
    assert original == read({"id": "i-b", "title": title, "content": body}).original


def test_a_branch_leads_back_to_its_issue() -> None:
    """Every other branch gives nothing, also one that only looks alike."""
    assert "i-a1b2" == issue_of(branch_of("i-a1b2"))
    assert {""} == {issue_of(name) for name in ("main", "i-a1b2", branch_of(""), branch_of("s-a1"), branch_of("i-a/b"))}
