"""The screen that an operator keeps open."""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest
from rich.console import Console

from orchestrator.cli.issue_row import why
from orchestrator.cli.watch import Look, picture, problems_of, shares
from orchestrator.leases import Paused
from orchestrator.models import Verdict
from orchestrator.status.board import LOST, EngineStatus, IssueStatus, Seen
from tests.support import NOON, wait_until

RUNNING = IssueStatus(
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
ENDED = IssueStatus(
    "i-d0d0", "Done", "needs_review", state="ended", verdict=Verdict.DONE, stage="VERIFICATION", age_s=9
)
WAITING = IssueStatus("i-w0w0", "Wait", "open")
GOOD = EngineStatus("demo", (RUNNING, WAITING, ENDED), slots_used=1, slots_total=2, complete=True)


def drawn(found: EngineStatus, *, width: int = 80, height: int | None = 24) -> list[str]:
    """The picture's lines."""
    console = Console(width=width, highlight=False, color_system=None)
    with console.capture() as captured:
        console.print(picture(found, now=NOON, height=height))
    return [text.rstrip() for text in captured.get().splitlines()]


def many(count: int, issue: IssueStatus) -> tuple[IssueStatus, ...]:
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
    assert any(row.startswith("i-w0w0") and "is next" in row for row in text)
    assert any(row.startswith("i-d0d0") and "DONE" in row and "9 s ago" in row for row in text)


@pytest.mark.parametrize(("width", "height"), [(80, 24), (40, 10), (200, 60), (20, 5)])
def test_it_fits_whatever_screen_there_is(width: int, height: int) -> None:
    """Never a line too many nor one too long, however much goes on."""
    busy = replace(GOOD, issues=(*many(30, RUNNING), *many(30, WAITING), *many(30, ENDED)), problems=("x" * 300,) * 9)
    text = drawn(busy, width=width, height=height)

    assert len(text) <= max(height, 9)
    assert max(map(len, text)) <= width


def test_without_a_worker_nothing_is_said_to_wait_for_a_slot() -> None:
    """There is none, and a free one would not help."""
    text = drawn(replace(GOOD, slots_used=0, slots_total=0))

    assert any(row.startswith("i-w0w0") and "waits for a worker" in row for row in text)


def test_a_reason_leaves_out_what_the_row_says_and_the_log_s_path() -> None:
    """What is to be done would else be cut off, or be folded into a tower of lines."""
    reason = f"{ENDED.id}: the agent exited with code 7: no key; log: /a/b c/1.stderr; held back until `orch enqueue`"

    assert "the agent exited with code 7: no key; held back until `orch enqueue`" == why(replace(ENDED, reason=reason))


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


def test_a_pause_is_in_the_first_line_and_in_the_queue() -> None:
    """With who asked for it, and why."""
    text = drawn(replace(GOOD, paused=Paused("anna@box", "disk", 0)))

    assert "paused by anna@box (disk)" in text[0]
    assert any(row.startswith("i-w0w0") and "waits for `orch resume`" in row for row in text)


@pytest.mark.parametrize(
    ("issue", "problem"),
    [
        (replace(RUNNING, heard_s=90.0), "`orch explain i-a1b2`: its worker has not been heard of for 90 s"),
        (replace(WAITING, status="in_progress", trouble=LOST), f"`orch explain i-w0w0`: {LOST}"),
        (replace(ENDED, trouble="i-d0d0: broke"), "`orch explain i-d0d0`: broke"),
    ],
)
def test_a_problem_is_what_a_person_should_see_to(issue: IssueStatus, problem: str) -> None:
    """With the command first, as the end of a long line is cut off."""
    assert [problem] == list(problems_of(replace(GOOD, issues=(issue,))))


def test_an_issue_that_was_reopened_is_next() -> None:
    """What its last session came to is not why it waits; an error that it is tried again after is."""
    again = replace(ENDED, status="open", verdict=Verdict.ERROR, reason="broke; is tried again in 9 s")
    reopened = [replace(ENDED, id=f"i-{n}", status="open", reason="orch/i-d0d0") for n in range(2)]
    text = drawn(replace(GOOD, issues=(*reopened, again)), height=None)
    queue = text[next(n for n, row in enumerate(text) if row.startswith("Queue")) :][:4]

    assert ["is next", "is next", "broke; is"] == [row.partition("  ")[2].strip()[:9].rstrip() for row in queue[1:]]


def test_a_good_night_has_no_problems() -> None:
    """Nor is an error that is tried again, an overflow with its [FIX] issue, or a blocked issue one."""
    again = replace(ENDED, id="i-e0e0", status="open", verdict=Verdict.ERROR, reason="broke; is tried again in 9 s")
    over = replace(ENDED, verdict=Verdict.OVERFLOW, reason="a box; goes on as i-f1x1")

    assert [] == list(problems_of(replace(GOOD, issues=(RUNNING, WAITING, ENDED, again, over))))


def test_a_look_that_fails_keeps_the_last_answer_and_says_how_old_it_is() -> None:
    """The picture stays, and nobody takes it for news."""
    answers = [Seen("all is well"), Seen(None, ("Redis does not answer",))]
    go_on, asked = threading.Event(), threading.Event()

    def ask() -> Seen[str]:
        if len(answers) == 1:
            asked.set()
            go_on.wait()
        return answers.pop(0) if len(answers) > 1 else answers[0]

    look = Look(ask, "Redis", rest_s=lambda _: 0.01)
    look.start()
    look.wait()
    asked.wait()

    assert Seen("all is well") == look.seen()
    go_on.set()
    wait_until(lambda: look.seen().problems, "the failed look")
    assert "all is well" == look.seen().answer
    assert ("Redis does not answer", "what is shown of Redis is 0 s old") == look.seen().problems


def test_a_bug_in_a_look_is_raised_where_a_person_sees_it() -> None:
    """A frozen picture would be worse."""

    def ask() -> Seen[str]:
        raise KeyError("bug")

    look = Look(ask, "Redis", rest_s=lambda _: 0.01)
    look.start()
    look.wait()

    with pytest.raises(KeyError):
        look.seen()
