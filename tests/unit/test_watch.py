"""The screen that an operator keeps open."""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest
from rich.console import Console

from orchestrator.cli.issue_row import brief
from orchestrator.cli.watch import Asking, picture, problems_of, shares
from orchestrator.models import Paused, Verdict
from orchestrator.status import Asked, EngineStatus, IssueRow
from tests.support import NOON, wait_until

RUNNING = IssueRow(
    "i-a1b2",
    "Parse empty input",
    "in_progress",
    state="running",
    stage="SPEC_REVIEW",
    attempt=2,
    limit=3,
    age_s=720.0,
    heard_s=2.0,
    worker="sessions@box/7",
)
ENDED = IssueRow("i-d0d0", "Done", "needs_review", state="ended", verdict=Verdict.DONE, stage="VERIFICATION", age_s=9)
WAITING = IssueRow("i-w0w0", "Wait", "open", reason="it is ready and a slot is free")
GOOD = EngineStatus("demo", (RUNNING, WAITING, ENDED), slots_used=1, slots_total=2, complete=True)


def drawn(found: EngineStatus, *, width: int = 80, height: int | None = 24) -> list[str]:
    """The picture's lines."""
    console = Console(width=width, highlight=False, color_system=None)
    with console.capture() as captured:
        console.print(picture(found, now=NOON, height=height))
    return [text.rstrip() for text in captured.get().splitlines()]


def many(count: int, issue: IssueRow) -> tuple[IssueRow, ...]:
    return tuple(replace(issue, id=f"{issue.id[:4]}{n:02}") for n in range(count))


def test_one_picture_has_all() -> None:
    """Slots, who runs what, how far, since when, when heard of and where; what waits; what ended; no problems."""
    text = drawn(GOOD)

    assert "demo   sessions 1 of 2   to tell 0   12:00:00" == text[0]
    assert "none" == text[text.index("Problems") + 1]
    (running,) = [row for row in text if row.startswith("i-a1b2")]
    assert ["i-a1b2", "●◐○○", "spec", "review", "2/3", "12", "min", "2", "s", "ago", "box", "Parse"] == running.split()[
        :12
    ]
    assert any(row.startswith("i-w0w0") and "it is ready" in row for row in text)
    assert any(row.startswith("i-d0d0") and "DONE" in row and "9 s ago" in row for row in text)


@pytest.mark.parametrize(("width", "height"), [(80, 24), (40, 10), (200, 60), (20, 5)])
def test_it_fits_whatever_screen_there_is(width: int, height: int) -> None:
    """Never a line too many nor one too long, however much goes on."""
    busy = replace(GOOD, issues=(*many(30, RUNNING), *many(30, WAITING), *many(30, ENDED)), problems=("x" * 300,) * 9)
    text = drawn(busy, width=width, height=height)

    assert len(text) <= max(height, 9)
    assert max(map(len, text)) <= width


def test_a_reason_leaves_out_the_log_s_path() -> None:
    """What is to be done would else be cut off, or be folded into a tower of lines."""
    reason = "the agent exited with code 7: no key; log: /a/b c/1.stderr; held back until `orch enqueue`"

    assert "the agent exited with code 7: no key; held back until `orch enqueue`" == brief(reason)


def test_what_does_not_fit_is_counted() -> None:
    """In the section's title."""
    assert any("Queue (and " in row for row in drawn(replace(GOOD, issues=many(30, WAITING))))


def test_a_file_gets_all_of_it() -> None:
    """Without a screen there is nothing to fit into."""
    assert 30 == sum(row.startswith("i-w0") for row in drawn(replace(GOOD, issues=many(30, WAITING)), height=None))


@pytest.mark.parametrize(
    ("wanted", "room", "given"),
    [
        ([1, 4, 4, 4], 13, [1, 4, 4, 4]),
        ([1, 9, 9, 9], 12, [1, 5, 3, 3]),
        ([9, 9, 9, 9], 4, [1, 1, 1, 1]),
        ([9, 0, 9, 9], 2, [1, 0, 1, 0]),
        ([9, 9], 0, [0, 0]),
        ([9, 9], None, [9, 9]),
    ],
)
def test_lines_are_shared(wanted: list[int], room: int | None, given: list[int]) -> None:
    """A few for each section, then the first ones first; none is given that nobody wants."""
    assert given == shares(wanted, room)


def test_a_pause_is_in_the_first_line() -> None:
    """With who asked for it, and why."""
    text = drawn(replace(GOOD, paused=Paused("anna@box", "disk", 0)))

    assert "paused by anna@box (disk)" in text[0]


@pytest.mark.parametrize(
    ("issue", "problem"),
    [
        (replace(RUNNING, trouble="its worker fell silent"), "`orch explain i-a1b2`: its worker fell silent"),
        (replace(ENDED, trouble="it broke; log: /a/1.stderr"), "`orch explain i-d0d0`: it broke"),
    ],
)
def test_a_problem_is_what_a_person_should_see_to(issue: IssueRow, problem: str) -> None:
    """With the command first, as the end of a long line is cut off."""
    assert [problem] == list(problems_of(replace(GOOD, issues=(issue,))))


def test_a_good_night_has_no_problems() -> None:
    """Nor is an error that is tried again, an overflow with its [FIX] issue, or a blocked issue one."""
    again = replace(ENDED, id="i-e0e0", status="open", verdict=Verdict.ERROR, reason="broke; is tried again in 9 s")
    over = replace(ENDED, verdict=Verdict.OVERFLOW, reason="a box; goes on as i-f1x1")

    assert [] == list(problems_of(replace(GOOD, issues=(RUNNING, WAITING, ENDED, again, over))))


def test_a_look_that_fails_keeps_the_last_answer_and_says_how_old_it_is() -> None:
    """The picture stays, and nobody takes it for news."""
    answers = [Asked("all is well"), Asked(None, "refused")]
    go_on, asked = threading.Event(), threading.Event()

    def ask() -> Asked[str]:
        if len(answers) == 1:
            asked.set()
            go_on.wait()
        return answers.pop(0) if len(answers) > 1 else answers[0]

    asking = Asking(ask, rest_s=lambda _: 0.01)
    asking.start()
    asking.wait()
    asked.wait()

    assert Asked("all is well") == asking.asked()
    go_on.set()
    wait_until(lambda: asking.asked().away, "the failed look")
    assert Asked("all is well", "refused (the answer shown is 0 s old)") == asking.asked()


def test_a_bug_in_a_look_is_raised_where_a_person_sees_it() -> None:
    """A frozen picture would be worse."""

    def ask() -> Asked[str]:
        raise KeyError("bug")

    asking = Asking(ask, rest_s=lambda _: 0.01)
    asking.start()
    asking.wait()

    with pytest.raises(KeyError):
        asking.asked()
