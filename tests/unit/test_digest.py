"""What a night comes to, in a minute's reading."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest

from orchestrator.models import Progress, Report, SnapshotEntry, Stage, Verdict
from orchestrator.publish.entries import About, error_entries, opening_entries, step_entries, verdict_entries
from orchestrator.status.digest import Digest, as_markdown, as_object, as_text, cause_of, digest_of, since_when
from orchestrator.status.explanation import Explanation, Kind, State
from orchestrator.status.night import IssueNight
from orchestrator.status.told import SessionTold, StepTold, sessions_told
from tests.support import NOON, an_issue, evidence

ABOUT = About(an_issue(), "session-1", "orch-main")
BERLIN = timezone(timedelta(hours=1))
MORNING = datetime(2026, 1, 6, 8, 30, tzinfo=BERLIN)


def a_session(verdict: Verdict | None = Verdict.DONE, **changes: object) -> SessionTold:
    """A session of ten minutes."""
    facts: dict[str, object] = {
        "session_id": "session-1",
        "started_at": NOON,
        "heard_at": NOON + timedelta(minutes=10),
        "steps": (StepTold("implement", 500.0), StepTold("spec review 1", 60.0)),
        "verdict": verdict,
        "reason": "",
        "spec": 1,
        "quality": 1,
        "said_no": 0,
        "command": "make test",
    }
    return SessionTold(**(facts | changes))  # type: ignore[arg-type] # a test's shorthand


def an_issues_night(issue_id: str = "i-a1b2", *sessions: SessionTold, **changes: object) -> IssueNight:
    facts: dict[str, object] = {
        "title": "Parse empty input",
        "status": "needs_review",
        "place": f"orch/{issue_id}",
        "now": Explanation(Kind.DONE, State.TO_REVIEW, "verified, and to be reviewed and merged"),
    }
    return IssueNight(issue_id, sessions=sessions or (a_session(),), **(facts | changes))  # type: ignore[arg-type]


def of(*issues: IssueNight, gaps: tuple[str, ...] = ()) -> Digest:
    return digest_of("demo", issues, since=MORNING - timedelta(hours=16), until=MORNING, gaps=gaps)


def titles(found: Digest) -> dict[str, list[str]]:
    return {section.title: [item.about for item in section.items] for section in found.sections}


def items(title: str, *issues: IssueNight) -> list[tuple[str, str]]:
    """One section of the digest of these issues."""
    (section,) = [section for section in of(*issues).sections if section.title == title]
    return [(item.about, item.says) for item in section.items]


FAILED = a_session(Verdict.VERIFY_FAILED, reason="`make test` exited with 1: 2 failed")
OVERFLOWED = a_session(Verdict.OVERFLOW, reason="spec review 3 of 3: empty input gives null")
BROKEN = a_session(Verdict.ERROR, reason="i-a1b2: the implementer agent (claude) exited with code 3: no; log: x")

MENDED = ("orch history i-a1b2", "orch enqueue i-a1b2")
HELD = Explanation(Kind.STOPPED, State.HELD, "3 sessions in a row", next="held back until `orch enqueue`", do=MENDED)
UNVERIFIED = Explanation(Kind.STOPPED, State.VERIFY_FAILED, f"its verification failed: {FAILED.reason}", do=MENDED)
AGAIN = Explanation(Kind.WAITS, State.BACKOFF, "its last session ended in an error", do=MENDED)
OVER = Explanation(Kind.STOPPED, State.OVERFLOW, "its reviews failed too often; it goes on as [FIX] i-f1x1")
FIX = Explanation(Kind.STOPPED, State.HELD, "the reviews said no to 4 sessions in a row", do=("orch enqueue i-f1x1",))


@pytest.mark.parametrize(
    ("issue", "section"),
    [
        (an_issues_night(), "Ready for review"),
        (an_issues_night(status=None), "Ready for review"),
        (an_issues_night(status="closed"), "Merged and closed"),
        (an_issues_night("i-a1b2", FAILED, status="in_progress", now=UNVERIFIED), "Needs a person"),
        (an_issues_night("i-a1b2", FAILED, status=None), "Needs a person"),
        (an_issues_night("i-a1b2", BROKEN, status="open", held=True, now=HELD), "Needs a person"),
        (an_issues_night("i-a1b2", OVERFLOWED, fix_issue_id="i-f1x1", now=OVER, fix=FIX), "Needs a person"),
        (an_issues_night("i-a1b2", a_session(None), status="in_progress", live=True), "Still running"),
    ],
)
def test_an_issue_is_where_a_lead_looks_for_it(issue: IssueNight, section: str) -> None:
    """In exactly one of the four lists."""
    places = {"Ready for review", "Merged and closed", "Needs a person", "Still running"}

    assert {section} == places & titles(of(issue)).keys()


@pytest.mark.parametrize(
    "issue",
    [
        an_issues_night("i-a1b2", BROKEN, status="open", now=AGAIN),
        an_issues_night("i-a1b2", OVERFLOWED, fix_issue_id="i-f1x1", now=OVER),
        an_issues_night(status="open"),
    ],
)
def test_what_goes_on_by_itself_asks_nobody(issue: IssueNight) -> None:
    """An error that is tried again, an overflow that has its [FIX] issue, work that was turned down and starts anew."""
    assert set() == titles(of(issue)).keys() - {"Failures by cause", "Slowest"}


def test_what_is_ready_comes_with_its_evidence() -> None:
    """Where it is, what verified it, on which commit, and what the reviews said."""
    ready = an_issues_night("i-a1b2", a_session(spec=2, said_no=1), commit="c0ffeec0ffeec0ffee")
    text = as_text(of(ready))

    assert "\n  i-a1b2  Parse empty input\n          orch/i-a1b2\n" in text
    assert "`make test` passed at c0ffeec0ffee; 3 reviews, 1 of them said no" in text


def test_what_needs_a_person_says_what_to_type() -> None:
    """The explanation and its commands: for an overflow, those of the issue it goes on as."""
    text = as_text(of(an_issues_night("i-a1b2", BROKEN, status="open", held=True, now=HELD)))
    unverified = as_text(of(an_issues_night("i-a1b2", FAILED, status="in_progress", now=UNVERIFIED)))
    fix = as_text(of(an_issues_night("i-c3d4", OVERFLOWED, fix_issue_id="i-f1x1", now=OVER, fix=FIX)))

    assert "the implementer agent (claude) exited with code 3: no; log: x\n" in text
    assert "3 sessions in a row; held back until `orch enqueue`\n" in text
    assert "`orch history i-a1b2`; `orch enqueue i-a1b2`\n" in text
    assert 1 == unverified.partition("Failures")[0].count(FAILED.reason)
    assert "empty input gives null" in fix
    assert "i-f1x1: the reviews said no to 4 sessions in a row" in fix
    assert "`orch enqueue i-f1x1`" in fix


def test_failures_with_one_cause_are_one_line() -> None:
    """However the ids and the rest of their reasons differ; earlier sessions of an issue count too."""
    other = a_session(Verdict.ERROR, reason="i-c3d4: the implementer agent (claude) exited with code 3: not either")
    found = items(
        "Failures by cause", an_issues_night("i-a1b2", BROKEN, BROKEN, a_session()), an_issues_night("i-c3d4", other)
    )

    assert [("3 x", "the implementer agent (claude) exited with code 3: i-a1b2, i-c3d4")] == found


def test_causes() -> None:
    """A verification's is its command and exit code, an overflow's is the reviews."""
    assert "verification failed: `make test` exited with 1" == cause_of(FAILED)
    assert "the reviews said no to the last attempt" == cause_of(a_session(Verdict.OVERFLOW, reason="a box"))


def test_the_totals_count_sessions_and_retries() -> None:
    """Sessions of an issue beyond its first are retries."""
    found = of(an_issues_night("i-a1b2", BROKEN, a_session()), an_issues_night("i-c3d4", status="closed"))

    assert as_text(found).splitlines()[:2] == [
        "demo: Mon 05 Jan 16:30 to Tue 06 Jan 08:30",
        "1 merged, 1 ready for review, 0 need a person, 0 running. 3 sessions, 1 of them retries; "
        "0 of 6 reviews said no.",
    ]


def test_the_slowest_are_named() -> None:
    """Sessions, then steps, the slowest first."""
    slow = a_session(heard_at=NOON + timedelta(hours=3))
    first, second, third, *_ = items("Slowest", an_issues_night(), an_issues_night("i-c3d4", slow))

    assert ("3 h", "session of i-c3d4, Parse empty input") == first
    assert ("10 min", "session of i-a1b2, Parse empty input") == second
    assert ("8 min", "implement of i-a1b2, Parse empty input") == third


def test_markdown_shows_what_strangers_wrote_as_they_wrote_it() -> None:
    """A title is no markup."""
    text = as_markdown(of(an_issues_night(title="[FIX] *all* <b>"), gaps=("the tracker\ndoes not answer",)))

    assert "- **i-a1b2** \\[FIX\\] \\*all\\* \\<b\\>\n" in text
    assert "> the tracker does not answer" in text


def test_json_has_the_facts_behind_it() -> None:
    """With counts by name."""
    issue = an_issues_night()
    found = as_object(of(issue), [issue])

    assert ({"sessions": 1, "ready": 1}, ["i-a1b2"]) == (
        {name: found["counts"][name] for name in ("sessions", "ready")},  # type: ignore[index] # JSON
        [row["id"] for row in found["issues"]],  # type: ignore[attr-defined] # JSON
    )


@pytest.mark.parametrize(
    ("text", "since"),
    [
        ("12h", "2026-01-05T20:30:00+01:00"),
        ("90m", "2026-01-06T07:00:00+01:00"),
        ("2d", "2026-01-04T08:30:00+01:00"),
        ("today", "2026-01-06T00:00:00+01:00"),
        ("yesterday", "2026-01-05T00:00:00+01:00"),
        ("2026-01-02", "2026-01-02T00:00:00+01:00"),
        ("2026-01-02T18:00", "2026-01-02T18:00:00+01:00"),
        ("2026-01-02T18:00:00+00:00", "2026-01-02T18:00:00+00:00"),
    ],
)
def test_since(text: str, since: str) -> None:
    """As people say it, in their own zone unless they name one."""
    assert since == since_when(text, now=MORNING).isoformat()


@pytest.mark.parametrize("text", ["", "h", "12", "12w", "tomorrow", "2026-13-01"])
def test_what_is_no_time_is_refused(text: str) -> None:
    """Rather than taken for another one."""
    with pytest.raises(ValueError):
        since_when(text, now=MORNING)


def told(*reports: Report, verdict: Verdict | None = None, error: Exception | None = None) -> SessionTold:
    """A session, by its snapshots, with these reports; the verdict comes a minute after the last."""
    entries, progress = opening_entries(ABOUT, at=NOON), Progress()
    for report in reports:
        progress = progress.after(report)
        entries += step_entries(ABOUT, progress, report)
    end = (reports[-1].at if reports else NOON) + timedelta(minutes=1)
    if verdict:
        entries += verdict_entries(ABOUT, progress, verdict, at=end)
    if error:
        entries += error_entries(ABOUT, progress, error, at=end)
    (session,) = sessions_told(entry.content for entry in entries if isinstance(entry, SnapshotEntry))
    return session


def at(minutes: int) -> datetime:
    return NOON + timedelta(minutes=minutes)


def test_a_session_is_read_from_its_snapshots() -> None:
    """Its steps with their times, what the reviews said, what verified it."""
    session = told(
        Report(Stage.RUNNING, 1, at(5)),
        Report(Stage.SPEC_REVIEW, 1, at(6), passed=False, failed_items=("a box",)),
        Report(Stage.SPEC_FIX, 1, at(8)),
        Report(Stage.SPEC_REVIEW, 2, at(9)),
        Report(Stage.QUALITY_REVIEW, 1, at(10)),
        Report(Stage.VERIFICATION, 1, at(11), evidence=evidence(produced_at=at(11))),
        verdict=Verdict.DONE,
    )

    assert [
        ("implement", 300.0),
        ("spec review 1", 60.0),
        ("spec fix 1", 120.0),
        ("spec review 2", 60.0),
        ("quality review 1", 60.0),
        ("verification", 120.0),
    ] == [(step.name, step.seconds) for step in session.steps]
    assert (Verdict.DONE, 3, 1, "make test", 720.0) == (
        session.verdict,
        session.reviews,
        session.said_no,
        session.command,
        session.seconds,
    )


def test_a_session_that_broke_says_why() -> None:
    """In one line; the time until then is no step's."""
    session = told(Report(Stage.RUNNING, 1, at(5)), error=RuntimeError("it\nbroke"))

    assert (Verdict.ERROR, "it broke", ["implement"]) == (
        session.verdict,
        session.reason,
        [step.name for step in session.steps],
    )


def test_a_session_under_way_has_no_verdict() -> None:
    """It has just begun."""
    assert (None, ()) == (told().verdict, told().steps)
