"""loop_snapshot.v1: what is valid, what is named when it is not, and what it looks like on the wire."""

from __future__ import annotations

import json
import shlex
from copy import deepcopy
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.models import Stage
from orchestrator.snapshot import (
    SCHEMA_VERSION,
    Event,
    Status,
    emit_snapshot_json,
    read_snapshot,
    validate_snapshot,
    verify_block,
)
from orchestrator.text import MAX_ITEM_CHARS, MAX_ITEMS, bounded, bounded_text
from tests.support import evidence

VALID: dict[str, Any] = {
    "schema_version": "loop_snapshot.v1",
    "session_id": "6b0d0f5e",
    "orchestrator_id": "orch-main",
    "issue_id": "i-a1b2",
    "task_id": "DEV-001",
    "event_type": "SPEC_REVIEW_FAIL",
    "stage": "SPEC_REVIEW",
    "status": "FAIL",
    "attempts": {"spec": 1, "quality": 0},
    "failed_items": ["empty input"],
    "fix_list": ["accept it"],
    "verify": {"command": "make test", "exit_code": 0, "produced_at": "2026-01-05T12:00:00Z", "output_ref": "runs/1"},
    "timestamp": "2026-01-05T12:00:01+00:00",
}
FIELDS = [
    *((name,) for name in VALID),
    ("attempts", "spec"),
    ("attempts", "quality"),
    ("verify", "command"),
    ("verify", "exit_code"),
    ("verify", "produced_at"),
]

utc_texts = st.builds(lambda moment, zone: moment.isoformat() + zone, st.datetimes(), st.sampled_from(["Z", "+00:00"]))
counts = st.integers(min_value=0, max_value=10**6)
verifications = st.fixed_dictionaries(
    {"command": st.text(), "exit_code": counts, "produced_at": utc_texts}, optional={"output_ref": st.text()}
)
snapshots = st.fixed_dictionaries(
    {
        "schema_version": st.just(SCHEMA_VERSION),
        "session_id": st.text(),
        "orchestrator_id": st.text(),
        "issue_id": st.text(),
        "task_id": st.text(),
        "event_type": st.sampled_from([event.value for event in Event]),
        "stage": st.sampled_from([stage.value for stage in Stage]),
        "status": st.sampled_from([status.value for status in Status]),
        "attempts": st.fixed_dictionaries({"spec": counts, "quality": counts}),
        "failed_items": st.lists(st.text(), max_size=3),
        "fix_list": st.lists(st.text(), max_size=3),
        "verify": st.none() | verifications,
        "timestamp": utc_texts,
    }
)


def _holder(snapshot: dict[str, Any], path: tuple[str, ...]) -> dict[str, Any]:
    """The mapping that holds the last name of the path."""
    for name in path[:-1]:
        snapshot = snapshot[name]
    return snapshot


@given(snapshots)
def test_a_valid_snapshot_comes_back_as_it_was(snapshot: dict[str, Any]) -> None:
    """Validated, emitted and read back, a valid snapshot says what it said, and no more."""
    emitted = emit_snapshot_json(snapshot)
    read = read_snapshot(emitted)

    assert snapshot == validate_snapshot(snapshot)
    assert snapshot == json.loads(emitted)
    assert read is not None
    assert snapshot == read.model_dump(mode="json", exclude_unset=True)


@given(snapshots)
def test_emitted_json_is_one_sorted_line_of_ascii(snapshot: dict[str, Any]) -> None:
    """What is emitted has its keys sorted at every level and is ASCII on one line."""
    emitted = emit_snapshot_json(snapshot)

    assert json.dumps(json.loads(emitted), sort_keys=True) == emitted
    assert emitted.isascii()
    assert "\n" not in emitted


def test_the_words_of_the_schema() -> None:
    """Events, stages and statuses are exactly the schema's, with the two words that are only read."""
    assert {
        "SESSION_START", "IMPLEMENT_DONE", "SPEC_REVIEW_PASS", "SPEC_REVIEW_FAIL", "SPEC_FIX_APPLIED",
        "QUALITY_REVIEW_PASS", "QUALITY_REVIEW_FAIL", "QUALITY_FIX_APPLIED", "VERIFY_FAILED",
        "OVERFLOW_FIX_CREATED", "SESSION_DONE", "SESSION_ERROR",
    } == set(Event)  # fmt: skip
    assert {
        "RUNNING", "SPEC_REVIEW", "SPEC_FIX", "QUALITY_REVIEW", "QUALITY_FIX", "VERIFICATION", "OVERFLOW", "DONE",
        "REVIEW_GATE",
    } == set(Stage)  # fmt: skip
    assert {"START", "PASS", "FAIL", "FIX_CREATED", "VERIFY_FAILED", "NEEDS_REVIEW"} == set(Status)


@pytest.mark.parametrize("path", FIELDS, ids=".".join)
def test_a_missing_field_is_named(path: tuple[str, ...]) -> None:
    """Each field is required; the one that is missing is named."""
    snapshot = deepcopy(VALID)
    del _holder(snapshot, path)[path[-1]]

    with pytest.raises(ValueError, match=rf"{'.'.join(path)}: Field required"):
        validate_snapshot(snapshot)


@pytest.mark.parametrize("wrong", [7.5, True, ["a", 1], {"a": "b"}], ids=repr)
@pytest.mark.parametrize("path", [*FIELDS, ("verify", "output_ref")], ids=".".join)
def test_a_field_of_a_wrong_type_is_named(path: tuple[str, ...], wrong: object) -> None:
    """Each field has one type; the one whose value is something else is named."""
    snapshot = deepcopy(VALID)
    _holder(snapshot, path)[path[-1]] = wrong

    with pytest.raises(ValueError, match=rf"(: |; ){'.'.join(path)}[.:]"):
        validate_snapshot(snapshot)


@pytest.mark.parametrize("path", [("comment",), ("attempts", "total"), ("verify", "output")], ids=".".join)
def test_an_unknown_field_is_named(path: tuple[str, ...]) -> None:
    """Nothing but the schema's fields is allowed, at any level; the one too many is named."""
    snapshot = deepcopy(VALID)
    _holder(snapshot, path)[path[-1]] = "x"

    with pytest.raises(ValueError, match=rf"{'.'.join(path)}: Extra inputs"):
        validate_snapshot(snapshot)


@pytest.mark.parametrize("path", [("attempts", "spec"), ("attempts", "quality"), ("verify", "exit_code")], ids=".".join)
def test_counts_and_exit_codes_are_not_negative(path: tuple[str, ...]) -> None:
    """A negative number is refused by name."""
    snapshot = deepcopy(VALID)
    _holder(snapshot, path)[path[-1]] = -1

    with pytest.raises(ValueError, match=".".join(path)):
        validate_snapshot(snapshot)


@pytest.mark.parametrize(
    "time", ["2026-01-05T12:00:00", "2026-01-05", "2026-01-05T21:00:00+09:00", "noon", ""], ids=repr
)
@pytest.mark.parametrize("path", [("timestamp",), ("verify", "produced_at")], ids=".".join)
def test_times_are_in_utc(path: tuple[str, ...], time: str) -> None:
    """A time without a zone, in another zone, or no time at all is refused by name."""
    snapshot = deepcopy(VALID)
    _holder(snapshot, path)[path[-1]] = time

    with pytest.raises(ValueError, match=".".join(path)):
        validate_snapshot(snapshot)


def test_every_problem_is_named_at_once() -> None:
    """Who repairs a snapshot sees everything that is wrong with it, not the first thing only."""
    with pytest.raises(ValueError, match=r"not a loop_snapshot\.v1: .*stage: .*; timestamp: "):
        validate_snapshot(VALID | {"stage": "LUNCH", "timestamp": "noon"})


def test_the_snapshot_that_is_validated_is_left_alone() -> None:
    """Validation gives a new dict and changes nothing in the old one."""
    snapshot = deepcopy(VALID)
    validated = validate_snapshot(snapshot)
    validated["attempts"] = None

    assert VALID == snapshot


@given(st.text() | st.text().map(lambda text: SCHEMA_VERSION + text))
def test_other_feedback_is_not_a_snapshot(content: str) -> None:
    """People and agents write feedback too; whatever it is, it is not taken for a snapshot and breaks nothing."""
    assert read_snapshot(content) is None


def test_feedback_that_looks_like_a_snapshot_is_not_taken_for_one() -> None:
    """JSON with the schema's name but not its fields is somebody else's."""
    assert read_snapshot(json.dumps({"schema_version": SCHEMA_VERSION})) is None
    assert read_snapshot('{"schema_version":"loop_snapshot.v1","a":' + "[" * 100_000) is None


def test_evidence_of_any_zone_is_valid() -> None:
    """An implementer may say its time in its own zone; the snapshot says the same moment in UTC."""
    tokyo = datetime(2026, 1, 5, 21, 0, tzinfo=timezone(timedelta(hours=9)))
    block = verify_block(evidence(produced_at=tokyo))

    assert block is not None
    assert "2026-01-05T12:00:00+00:00" == block["produced_at"]
    assert block == validate_snapshot(VALID | {"verify": block})["verify"]


def test_death_by_signal_reads_as_in_a_shell() -> None:
    """A command killed by signal 9 exited with 137; exit codes of a snapshot are not negative."""
    blocks = [verify_block(evidence(exit_code)) for exit_code in (0, 2, -9)]

    assert [0, 2, 137] == [block["exit_code"] for block in blocks if block]


def test_remarks_follow_the_command_as_a_comment() -> None:
    """The schema has no field for them; a shell that gets the command pasted skips them."""
    remarkable = replace(evidence(), chosen_by_agent=True, red_before=(1, 2), touched=("Makefile",))
    block = verify_block(remarkable) or {}

    said = (
        "make test  # chosen by the agent; flaky: exited with 1, 2 before, on the same commit; "
        "the work touched the verification itself: Makefile"
    )
    assert said == block["command"]
    assert ["make", "test"] == shlex.split(said, comments=True)


def test_many_touched_files_are_counted() -> None:
    """A remark stays short."""
    (remark,) = replace(evidence(), touched=tuple("abcdefgh")).remarks

    assert remark.endswith(": a, b, c, d, e and 3 more")


def test_no_evidence_is_null() -> None:
    """Without a verification the field is null."""
    assert verify_block(None) is None


@given(st.lists(st.text(), max_size=3 * MAX_ITEMS))
def test_lists_are_bounded_and_say_what_was_cut(items: list[str]) -> None:
    """A list keeps its first items; how many more there were is its last line."""
    shown = bounded(items)
    more = len(items) - MAX_ITEMS

    assert [bounded_text(item) for item in items[:MAX_ITEMS]] == shown[:MAX_ITEMS]
    assert shown[MAX_ITEMS:] == ([f"... and {more} more"] if more > 0 else [])


@pytest.mark.parametrize("length", [0, MAX_ITEM_CHARS, MAX_ITEM_CHARS + 1, 10 * MAX_ITEM_CHARS])
def test_texts_are_bounded_and_show_the_cut(length: int) -> None:
    """A text that fits is whole; a longer one ends in an ellipsis and is exactly as long as allowed."""
    shown = bounded_text("x" * length)

    assert min(length, MAX_ITEM_CHARS) == len(shown)
    assert (length > MAX_ITEM_CHARS) == shown.endswith("...")
