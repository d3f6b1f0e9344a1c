"""Which merge closes which issue: every rule, their order, and what is done, once, wherever it is cut off."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.errors import TrackerUnavailable, TransientMCPError
from orchestrator.gateway import SudocodeGateway
from orchestrator.issue import Issue, feedback_of, shown
from orchestrator.merge_close.events import (
    Commit,
    Delivered,
    PullRequest,
    issue_of_message,
    merge_identity,
    taken_back,
)
from orchestrator.merge_close.record import (
    NAMED_BADLY,
    Marker,
    MergeMarker,
    MergeRecord,
    markers_of,
    read_record,
    tell_marker,
)
from orchestrator.merge_close.rules import (
    CLOSED_ALREADY,
    CLOSED_BEFORE,
    NOT_FINISHED,
    NOT_IN_REVIEW,
    NOT_MERGED,
    RUNS_AGAIN,
    TOO_EARLY,
    MergeCloseResult,
    Ruling,
    apply_closed_unmerged,
    apply_merge_close,
    judge,
    merge_of,
    parse_issue_line,
)
from orchestrator.models import IssueStatus, Verdict
from orchestrator.snapshot import emit_snapshot_json, read_snapshot
from tests.merges import SHA, TRUST, Tracked, payload, pull
from tests.support import NOON, gateway_to

EVIDENCE = Marker.MERGE_EVIDENCE_RECORDED
APPLIED = Marker.MERGE_CLOSE_APPLIED
SKIPPED = Marker.MERGE_CLOSE_SKIPPED_ALREADY_CLOSED
REJECTED = Marker.MERGE_CLOSE_REJECTED
PARENT_CLOSED = Marker.OVERFLOW_PARENT_CLOSED_BY_FIX


@dataclass(frozen=True)
class World:
    """What is around an event: what the issue's sessions came to, with merges after the first, and what is known."""

    verdicts: tuple[Verdict | None, ...] = (Verdict.DONE,)
    status: str = ""
    on_base: bool = True
    undone: str = ""
    delivered: Delivered | None = None
    merged_before: tuple[PullRequest, ...] = ()

    def tracker(self) -> Tracked:
        tracker = Tracked()
        for verdict in self.verdicts[:1]:
            tracker.session(verdict)
        for earlier in self.merged_before:
            happens(earlier, tracker, World())
        for verdict in self.verdicts[1:]:
            tracker.session(verdict)
        if not self.verdicts:
            tracker.file("Parse empty input", issue_id="i-a1b2")
        if self.status:
            tracker.issues["i-a1b2"]["status"] = self.status
        return tracker


def happens(event: PullRequest, tracker: Tracked, world: World) -> MergeCloseResult:
    """What becomes of a pull request that was closed, from its body to the tracker."""
    try:
        merge = merge_of(
            event,
            TRUST,
            delivered=lambda _issue: world.delivered,
            on_base=lambda _commit: world.on_base,
            undone=lambda _pull: world.undone,
        )
    except ValueError as reason:
        return MergeCloseResult(False, str(reason))
    return apply_merge_close(gateway=gateway_to(tracker), payload=merge)


def says(*lines: str) -> PullRequest:
    return pull(body="\r\n".join(("Parse empty input.", "", *lines)))


LINE = "Sudocode-Issue: i-a1b2"
BRANCH_REF = "refs/heads/orch/i-a1b2"
EARLIER = NOON - timedelta(seconds=1)
NOTHING = Delivered("i-a1b2", SHA, base=SHA)

# name: the event, the world around it, the marker it leaves, a part of the reason
WRONG: dict[str, tuple[PullRequest, World, Marker | None, str]] = {
    "no line": (says("Parse empty input"), World(), REJECTED, "no line"),
    "the body is empty": (pull(body=""), World(), REJECTED, "no line"),
    "the line stands in a comment of the template": (says(f"<!-- {LINE} -->"), World(), REJECTED, "no line"),
    "a revert, as the forge words it": (says("Reverts acme/shop#12"), World(), REJECTED, "no line"),
    "two lines, two issues": (says(LINE, "Sudocode-Issue: i-c3d4"), World(), REJECTED, "2 lines"),
    "two lines, one issue": (says(LINE, LINE), World(), REJECTED, "2 lines"),
    "a second line, quoted": (says(LINE, "> Sudocode-Issue: i-c3d4"), World(), REJECTED, "2 lines"),
    "a second line, in bold": (says(LINE, "**Sudocode-Issue**: i-c3d4"), World(), REJECTED, "2 lines"),
    "a squash of three sessions": (says(*(f"* {LINE}" for _ in range(3))), World(), REJECTED, "3 lines"),
    "a malformed id": (says("Sudocode-Issue: 17"), World(), REJECTED, "malformed line 'Sudocode-Issue: 17'"),
    "an id in capitals": (says("Sudocode-Issue: I-A1B2"), World(), REJECTED, "malformed line"),
    "two ids in a line": (says("Sudocode-Issue: i-a1b2, i-c3d4"), World(), REJECTED, "malformed line"),
    "no id": (says("Sudocode-Issue:"), World(), REJECTED, "malformed line"),
    "a spec's id": (says("Sudocode-Issue: s-a1b2"), World(), REJECTED, "malformed line"),
    "no line, and somebody's own branch": (pull(branch="fix-typo", body="x"), World(), None, "no line"),
    "no line, and a fork's namesake": (pull(head_repo="eve/shop", body="x"), World(), None, "no line"),
    "two lines, and another base": (pull(base="release", body=f"{LINE}\n{LINE}"), World(), None, "2 lines"),
    "an issue that nobody filed": (pull("i-zzzz"), World(), None, "Issue not found: i-zzzz"),
    "closed without being merged": (pull(merged_at=None), World(), None, NOT_MERGED),
    "another repo": (pull(repo="acme/other"), World(), REJECTED, "of acme/other, not of acme/shop"),
    "another base": (pull(base="release"), World(), REJECTED, "its base is release, not main"),
    "another issue's branch": (pull(branch="orch/i-c3d4"), World(), REJECTED, "not from orch/i-a1b2"),
    "somebody's own branch": (pull(branch="fix-typo"), World(), REJECTED, "acme/shop:fix-typo"),
    "a fork's branch of the same name": (pull(head_repo="eve/shop"), World(), REJECTED, "from eve/shop:orch/i-a1b2"),
    "a deleted fork's": (pull(head_repo=""), World(), REJECTED, "from a deleted fork:orch/i-a1b2"),
    "a deleted account's": (pull(branch="x", author=""), World(), REJECTED, "not on the allow-list"),
    "merged before the session ended": (pull(merged_at=EARLIER), World(), REJECTED, TOO_EARLY),
    "a session that changed nothing": (pull(), World(delivered=NOTHING), REJECTED, "changed nothing"),
    "taken back since": (pull(), World(undone="it was taken back by commit c0ffee"), REJECTED, "taken back"),
    "force-pushed away from base": (pull(), World(on_base=False), REJECTED, "main does not hold its merge commit"),
    "the issue is open": (pull(), World(status="open"), REJECTED, NOT_IN_REVIEW),
    "the issue is in progress": (pull(), World((Verdict.DONE, None)), REJECTED, NOT_IN_REVIEW),
    "the issue is blocked": (pull(), World(status="blocked"), REJECTED, NOT_IN_REVIEW),
    "its verification failed": (pull(), World((Verdict.VERIFY_FAILED,)), REJECTED, NOT_IN_REVIEW),
    "no session, review by hand": (pull(), World((), "needs_review"), REJECTED, NOT_FINISHED),
    "an error since, review by hand": (
        pull(),
        World((Verdict.DONE, Verdict.ERROR), "needs_review"),
        REJECTED,
        NOT_FINISHED,
    ),
    "a session since, review by hand": (pull(), World((Verdict.DONE, None), "needs_review"), REJECTED, NOT_FINISHED),
    "merged, reopened since, another merge": (
        pull(number=13, merge_sha="b" * 40),
        World(merged_before=(pull(),), status="needs_review"),
        REJECTED,
        NOT_FINISHED,
    ),
    "merged, reopened since, a replay": (
        pull(),
        World(merged_before=(pull(),), status="needs_review"),
        REJECTED,
        CLOSED_BEFORE,
    ),
    "merged, done anew since, a replay": (
        pull(),
        World((Verdict.DONE, Verdict.DONE), merged_before=(pull(),)),
        REJECTED,
        CLOSED_BEFORE,
    ),
    "a replayed delivery": (pull(), World(merged_before=(pull(),)), SKIPPED, CLOSED_ALREADY),
    "closed by hand before": (pull(), World(status="closed"), SKIPPED, CLOSED_ALREADY),
}


@pytest.mark.parametrize(("event", "world", "marker", "reason"), WRONG.values(), ids=WRONG.keys())
def test_a_wrong_event_closes_nothing(event: PullRequest, world: World, marker: Marker | None, reason: str) -> None:
    """It leaves every status as it was, says why, and what names an issue that exists says so in its feedback."""
    tracker = world.tracker()
    before, updates = tracker.everything(), len(tracker.status_updates)
    result = happens(event, tracker, world)

    assert not result.applied
    assert reason in result.reason
    assert marker is result.feedback_marker
    assert updates == len(tracker.status_updates)
    if marker:
        assert marker == tracker.markers()[-1]
    else:
        assert before == tracker.everything()


def test_the_table_of_wrong_events(capsys: pytest.CaptureFixture[str]) -> None:
    """What becomes of each wrong event, for people to read; there are at least 25 of them."""
    rows = []
    for name, (event, world, _, _) in WRONG.items():
        result = happens(event, world.tracker(), world)
        outcome = result.feedback_marker or "nothing changed"
        rows.append(f"{name:<46} {outcome:<36} {result.reason}")
    with capsys.disabled():
        print(f"\n{len(rows)} wrong events", *rows, sep="\n  ")

    assert 25 <= len(rows)
    assert len(rows) == len(set(rows))


RIGHT = {
    "as delivered": pull(),
    "its branch is deleted by now": pull(body=f"{LINE}\n"),
    "Windows line ends": pull(body=f"x\r\n{LINE}\r\n"),
    "by an allowed author from another branch": pull(branch="fix-typo", head_repo="lead/shop", author="lead"),
    "a repo in other capitals": pull(repo="Acme/Shop", head_repo="ACME/shop"),
}


@pytest.mark.parametrize("event", RIGHT.values(), ids=RIGHT.keys())
def test_a_merge_closes_its_issue(event: PullRequest) -> None:
    """Evidence is on record first, then the issue is closed, then that is on record."""
    tracker = World().tracker()
    result = happens(event, tracker, World())

    assert MergeCloseResult(True, "merged", APPLIED, ("i-a1b2",)) == result
    assert "closed" == tracker.status()
    assert [EVIDENCE, APPLIED] == tracker.markers()


@pytest.mark.parametrize("verdict", [Verdict.DONE, Verdict.OVERFLOW])
def test_both_ends_of_a_session_may_be_merged(verdict: Verdict) -> None:
    """SESSION_DONE and OVERFLOW_FIX_CREATED are what a merge needs on record."""
    tracker = World((verdict,)).tracker()

    assert happens(pull(), tracker, World()).applied


def test_an_old_gate_marker_is_an_end_too() -> None:
    """Records of older sessions have stage REVIEW_GATE where new ones have SESSION_DONE."""
    tracker = World((None,), "needs_review").tracker()
    started = next(filter(None, map(read_snapshot, feedback_of(tracker.show_issue("i-a1b2")))))
    old = {**started.model_dump(mode="json"), "stage": "REVIEW_GATE", "status": "NEEDS_REVIEW"}
    gateway_to(tracker).add_feedback("i-a1b2", emit_snapshot_json(old))

    assert happens(pull(), tracker, World()).applied


def a_marker(marker: Marker) -> MergeMarker:
    """What the feedback says of the merge of `payload`."""
    tracker = World().tracker()
    tell_marker(gateway_to(tracker), record_of(tracker), marker, payload=payload(), reason="because")
    return markers_of(feedback_of(tracker.show_issue("i-a1b2")))[-1]


def record_of(tracker: Tracked) -> MergeRecord:
    return read_record(shown(tracker.show_issue, "i-a1b2"))


def an_issue_in(status: IssueStatus) -> Issue:
    return Issue("i-a1b2", "One", status, status.value)


# In the order of the rules: what breaks each of them, as a change of a payload or of the world.
BROKEN: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "objection": ({"objection": "it is forged"}, {}, "it is forged"),
    "closed": ({}, {"issue": an_issue_in(IssueStatus.CLOSED)}, CLOSED_ALREADY),
    "not in needs_review": ({}, {"issue": an_issue_in(IssueStatus.OPEN)}, NOT_IN_REVIEW),
    "closed before": ({}, {"before": (a_marker(APPLIED),)}, CLOSED_BEFORE),
    "not finished": ({}, {"last": None}, NOT_FINISHED),
}


@pytest.mark.parametrize(("first", "second"), list(itertools.combinations(BROKEN, 2)))
def test_of_two_broken_rules_the_first_gives_the_reason(first: str, second: str) -> None:
    """The rules have one order, so that an event always gets the same answer."""
    issue = shown(World().tracker().show_issue, "i-a1b2")
    merge, record = payload(), read_record(issue)
    for in_payload, in_record, _ in (BROKEN[second], BROKEN[first]):
        merge, record = replace(merge, **in_payload), replace(record, **in_record)

    assert BROKEN[first][2] == judge(record, merge)[1]


FORGED: dict[str, dict[str, Any]] = {
    "another repo": {"repo": "eve/shop"},
    "another base": {"base": "x"},
    "another branch": {"branch": "x"},
}


@pytest.mark.parametrize(("first", "second"), list(itertools.combinations(FORGED, 2)))
def test_of_two_objections_the_first_is_told(first: str, second: str) -> None:
    """Where it was merged comes before who wrote it, and both before a look at sessions and commits."""

    def never(_asked: object) -> Any:
        raise AssertionError("nothing more may be asked about a pull request that is not trusted")

    both = pull(**FORGED[second] | FORGED[first])

    assert TRUST.objection(pull(**FORGED[first]), "i-a1b2") == TRUST.objection(both, "i-a1b2")
    assert merge_of(both, TRUST, delivered=never, on_base=never, undone=never).objection


def test_unmerged_and_malformed_payloads_do_not_reach_the_tracker() -> None:
    """A host's own payload is checked before anything is asked of the tracker."""
    gateway = gateway_to(Tracked())

    assert MergeCloseResult(False, NOT_MERGED) == apply_merge_close(gateway=gateway, payload=payload(merged=False))
    assert "no issue id" in apply_merge_close(gateway=gateway, payload=payload("../etc")).reason


@pytest.mark.parametrize("source", ["daemon", "workflow", "operator"])
def test_a_payload_is_read_from_text(source: Any) -> None:
    """Whoever reads a payload from a file or a command line gives times as text; a naive one is refused."""
    text: Any = "2026-01-05T12:00:00Z"
    naive: Any = "2026-01-05T12:00:00"

    assert NOON == payload(merged_at=text, source=source).merged_at
    with pytest.raises(ValueError, match="merged_at"):
        payload(merged_at=naive, source=source)


def test_a_marker_says_all_there_is_to_say() -> None:
    """The markers of the contract, word for word, in ASCII."""
    tracker = World().tracker()
    apply_merge_close(gateway=gateway_to(tracker), payload=payload(objection="not by Zoë"))
    told = next(feedback_of(tracker.show_issue("i-a1b2")))

    assert told.isascii()
    assert {
        "marker": "MERGE_CLOSE_REJECTED",
        "reason": "not by Zoë",
        "issue_id": "i-a1b2",
        "pr_url": "https://github.com/acme/shop/pull/12",
        "merge_sha": "a" * 40,
        "merged_at": "2026-01-05T12:00:00+00:00",
        "merged": True,
        "source": "daemon",
    } == json.loads(told)


def test_one_merge_seen_by_everybody_a_hundred_times_closes_once() -> None:
    """Daemon, workflow and operator tell of it, each over and over: one transition, one of each marker."""
    tracker = World().tracker()
    sources: Any = itertools.islice(itertools.cycle(("daemon", "workflow", "operator")), 100)
    urls = itertools.cycle(("https://github.com/acme/shop/pull/12", "https://github.com/Acme/shop/pull/12/files"))
    for source, url in zip(sources, urls, strict=False):
        apply_merge_close(gateway=gateway_to(tracker), payload=payload(source=source, pr_url=url))

    assert [EVIDENCE, APPLIED, SKIPPED] == tracker.markers()
    assert 1 == tracker.status_updates.count(("i-a1b2", "closed"))


def test_an_event_that_comes_too_early_may_come_again() -> None:
    """Rejected while the session ran, closed by the same event once it is done, however often each came."""
    tracker = World((None,)).tracker()
    early = [happens(pull(), tracker, World()) for _ in range(3)]
    tracker.session(Verdict.DONE)
    late = [happens(pull(), tracker, World()) for _ in range(3)]

    assert [REJECTED] * 3 == [result.feedback_marker for result in early]
    assert [True, False, False] == [result.applied for result in late]
    assert [REJECTED, EVIDENCE, APPLIED, SKIPPED] == tracker.markers()


def test_an_issue_closed_by_hand_gets_its_marker_once() -> None:
    """MERGE_CLOSE_APPLIED is filled in by the first merge that is seen, and nothing else is done to it."""
    tracker = World(status="closed").tracker()
    for number, sha in ((12, SHA), (12, SHA), (13, "b" * 40)):
        happens(pull(number=number, merge_sha=sha), tracker, World())

    assert [APPLIED, SKIPPED, SKIPPED] == tracker.markers()
    assert ("i-a1b2", "closed") not in tracker.status_updates


def test_a_second_life_of_an_issue_is_closed_by_its_own_merge() -> None:
    """Reopened, done anew and merged again: each merge closes it once."""
    tracker = World((Verdict.DONE, Verdict.DONE), merged_before=(pull(),)).tracker()
    result = happens(pull(number=13, merge_sha="b" * 40), tracker, World())

    assert result.applied
    assert [EVIDENCE, APPLIED, EVIDENCE, APPLIED] == tracker.markers()


# [FIX] issues


def overflowed(tracker: Tracked, issue_id: str) -> str:
    """The [FIX] issue of an issue, with a session of its own that is done."""
    fix_id = tracker.session(Verdict.OVERFLOW, issue_id)
    tracker.session(Verdict.DONE, fix_id)
    return fix_id


@pytest.mark.parametrize("relation", ["related", "depends-on"])
def test_a_fix_closes_the_issue_it_was_made_for(relation: str) -> None:
    """Its original is closed with it, by the link made at overflow or an older one."""
    tracker = Tracked()
    fix_id = overflowed(tracker, "i-a1b2")
    tracker.links[0]["type"] = relation
    happens(pull(fix_id), tracker, World())

    assert ("closed", "closed") == (tracker.status(fix_id), tracker.status("i-a1b2"))
    assert [PARENT_CLOSED] == tracker.markers("i-a1b2")
    assert [EVIDENCE, APPLIED] == tracker.markers(fix_id)


def test_a_fix_of_a_fix_closes_all_that_led_to_it() -> None:
    """The branch of a second [FIX] holds the work of the first and of the original, so all three are merged."""
    tracker = Tracked()
    first = tracker.session(Verdict.OVERFLOW, "i-a1b2")
    second = tracker.session(Verdict.OVERFLOW, first)
    tracker.session(Verdict.DONE, second)
    tracker.link(from_id=second, to_id="i-a1b2", type="related")  # a ring, which the tracker accepts
    happens(pull(second), tracker, World())

    assert ["closed"] * 3 == [tracker.status(issue_id) for issue_id in ("i-a1b2", first, second)]


def test_a_fix_closes_nothing_else() -> None:
    """Linked issues that wait for a merge of their own, run, never overflowed, or are open again, stay as they are."""
    tracker = Tracked()
    fix_id = overflowed(tracker, "i-a1b2")
    for issue_id, verdict in {"i-done": Verdict.DONE, "i-runs": None, "i-again": Verdict.OVERFLOW}.items():
        tracker.session(verdict, issue_id)
    tracker.issues["i-again"]["status"] = "open"  # a person reopened it
    tracker.file("reviewed by hand", issue_id="i-hand")
    tracker.issues["i-hand"]["status"] = "needs_review"
    before = {issue_id: tracker.status(issue_id) for issue_id in ("i-done", "i-runs", "i-hand", "i-again")}
    for issue_id in before:
        tracker.link(from_id=issue_id, to_id=fix_id, type="related")
    happens(pull(fix_id), tracker, World())

    assert before == {issue_id: tracker.status(issue_id) for issue_id in before}
    assert "closed" == tracker.status("i-a1b2")


def test_a_fix_does_not_close_an_original_that_was_reopened() -> None:
    """A person who reopens an issue has more to be done in it than its [FIX] brings."""
    tracker = Tracked()
    fix_id = overflowed(tracker, "i-a1b2")
    tracker.upsert_issue(issue_id="i-a1b2", status="open")
    happens(pull(fix_id), tracker, World())

    assert ("closed", "open") == (tracker.status(fix_id), tracker.status("i-a1b2"))
    assert [] == tracker.markers("i-a1b2")


def test_only_a_fix_closes_what_is_related_to_it() -> None:
    """An ordinary issue does not close the one that overflowed, whatever links it."""
    tracker = Tracked()
    overflowed(tracker, "i-a1b2")
    tracker.session(Verdict.DONE, "i-c3d4")
    tracker.link(from_id="i-a1b2", to_id="i-c3d4", type="related")
    happens(pull("i-c3d4"), tracker, World())

    assert ("closed", "needs_review") == (tracker.status("i-c3d4"), tracker.status("i-a1b2"))


class Cut(Exception):
    """The power goes."""


def cut_after(tracker: Tracked, writes: int) -> SudocodeGateway:
    """A gateway whose power goes after so many writes."""
    left = [writes]

    def or_die(write: Callable[..., object]) -> Callable[..., object]:
        def written(**kwargs: object) -> object:
            if not left[0]:
                raise Cut
            left[0] -= 1
            return write(**kwargs)

        return written

    return SudocodeGateway(
        mcp_ready=tracker.ready,
        mcp_show_issue=tracker.show_issue,
        mcp_upsert_issue=or_die(tracker.upsert_issue),
        mcp_add_feedback=or_die(tracker.add_feedback),
        mcp_link=tracker.link,
    )


def test_closing_a_fix_may_be_cut_off_anywhere() -> None:
    """After every number of writes: the next try brings it to the very same end, and a third changes nothing."""
    ends = []
    for writes in range(6):
        tracker = Tracked()
        first = tracker.session(Verdict.OVERFLOW, "i-a1b2")
        fix_id = overflowed(tracker, first)
        merge = payload(fix_id)
        with pytest.raises(Cut):
            apply_merge_close(gateway=cut_after(tracker, writes), payload=merge)
        assert apply_merge_close(gateway=gateway_to(tracker), payload=merge).applied
        ids = ("i-a1b2", first, fix_id)
        ends.append([(tracker.status(issue_id), tracker.markers(issue_id)) for issue_id in ids])

    parent = ("closed", [PARENT_CLOSED])
    assert [[parent, parent, ("closed", [EVIDENCE, APPLIED])]] * 6 == ends


def test_a_tracker_that_is_away_is_not_a_rejection() -> None:
    """The merge is told again later; nothing was decided."""

    class Away(Tracked):
        def show_issue(self, issue_id: str) -> Any:
            raise TransientMCPError("gone")

    with pytest.raises(TrackerUnavailable):
        apply_merge_close(gateway=gateway_to(Away()), payload=payload())


# Turned down


def unmerged(**changes: Any) -> PullRequest:
    return pull(**{"merged_at": None, **changes})


def test_a_pull_request_that_is_turned_down_reopens_its_issue() -> None:
    """The issue is open again, its feedback says why, and the same news a second time changes nothing."""
    tracker = World().tracker()
    for _ in range(2):
        apply_closed_unmerged(gateway=gateway_to(tracker), pull=unmerged(), trust=TRUST)

    assert "open" == tracker.status()
    assert [Marker.PULL_REQUEST_CLOSED_UNMERGED] == tracker.markers()
    assert "#12 was closed without being merged" in next(feedback_of(tracker.show_issue("i-a1b2")))


@pytest.mark.parametrize(
    ("event", "world"),
    [
        (unmerged(branch="x"), World()),
        (unmerged(head_repo="eve/shop"), World()),
        (unmerged(repo="acme/other"), World()),
        (unmerged(base="release"), World()),
        (unmerged(), World(merged_before=(pull(),))),
        (unmerged(), World((Verdict.DONE, None))),
        (unmerged(), World((), "needs_review")),
    ],
)
def test_what_else_is_turned_down_changes_nothing(event: PullRequest, world: World) -> None:
    """Somebody else's branch, another base, or an issue that does not wait for this pull request."""
    tracker = world.tracker()
    before = tracker.everything()
    result = apply_closed_unmerged(gateway=gateway_to(tracker), pull=event, trust=TRUST)

    assert result.feedback_marker is None
    assert before == tracker.everything()


def test_reopening_may_be_cut_off() -> None:
    """Between the reason and the status: the next look sets the status, and the reason is there once."""
    tracker = World().tracker()
    with pytest.raises(Cut):
        apply_closed_unmerged(gateway=cut_after(tracker, 1), pull=unmerged(), trust=TRUST)
    apply_closed_unmerged(gateway=gateway_to(tracker), pull=unmerged(), trust=TRUST)

    assert ("open", [Marker.PULL_REQUEST_CLOSED_UNMERGED]) == (tracker.status(), tracker.markers())


@pytest.mark.parametrize("status", ["open", "needs_review"])
@pytest.mark.parametrize("seen_in", ["https://github.com/acme/shop/pull/12", BRANCH_REF])
def test_what_was_turned_down_and_merged_after_all_closes(status: str, seen_in: str) -> None:
    """A person opened the pull request again and merged it, before a session began anew: by any door, once."""
    tracker = World().tracker()
    apply_closed_unmerged(gateway=gateway_to(tracker), pull=unmerged(), trust=TRUST)
    tracker.issues["i-a1b2"]["status"] = status
    results = [apply_merge_close(gateway=gateway_to(tracker), payload=payload(pr_url=seen_in)) for _ in range(2)]

    assert [True, False] == [result.applied for result in results]
    assert [Marker.PULL_REQUEST_CLOSED_UNMERGED, EVIDENCE, APPLIED, SKIPPED] == tracker.markers()


@pytest.mark.parametrize(("number", "status"), [(13, "open"), (12, "blocked"), (12, "in_progress")])
def test_what_was_turned_down_is_closed_by_nothing_else(number: int, status: str) -> None:
    """Not by another pull request, and not where a person has done something else with it since."""
    tracker = World().tracker()
    apply_closed_unmerged(gateway=gateway_to(tracker), pull=unmerged(), trust=TRUST)
    tracker.issues["i-a1b2"]["status"] = status

    assert NOT_IN_REVIEW == happens(pull(number=number), tracker, World()).reason


def test_a_pull_request_merged_after_all_does_not_close_a_session_that_began_since() -> None:
    """The session goes on; the reason says what will close the issue. Done, it still waits for a merge of its own."""
    tracker = World().tracker()
    apply_closed_unmerged(gateway=gateway_to(tracker), pull=unmerged(), trust=TRUST)
    tracker.session(None, at=NOON + timedelta(hours=1))
    while_it_runs = happens(pull(merged_at=NOON + timedelta(hours=2)), tracker, World())
    status = tracker.status()
    tracker.session(Verdict.DONE, at=NOON + timedelta(hours=3))
    replayed = happens(pull(merged_at=NOON + timedelta(hours=2)), tracker, World())

    assert (RUNS_AGAIN, REJECTED, "in_progress") == (while_it_runs.reason, while_it_runs.feedback_marker, status)
    assert (TOO_EARLY, "needs_review") == (replayed.reason, tracker.status())


def test_late_news_of_being_turned_down_does_not_reopen_what_was_done_since() -> None:
    """As when the record of settled ones is made anew."""
    tracker = World().tracker()
    apply_closed_unmerged(gateway=gateway_to(tracker), pull=unmerged(), trust=TRUST)
    tracker.session(Verdict.DONE, at=NOON + timedelta(hours=1))
    apply_closed_unmerged(gateway=gateway_to(tracker), pull=unmerged(), trust=TRUST)

    assert "needs_review" == tracker.status()


def test_a_merge_after_being_turned_down_needs_a_new_session() -> None:
    """What was turned down was reopened; set to needs_review by hand, it is still not closed by that branch."""
    tracker = World().tracker()
    apply_closed_unmerged(gateway=gateway_to(tracker), pull=unmerged(), trust=TRUST)
    tracker.issues["i-a1b2"]["status"] = "needs_review"

    assert NOT_FINISHED == happens(pull(number=13), tracker, World()).reason


# The line


@given(st.text(), st.text())
def test_a_body_with_one_line_names_its_issue(before: str, after: str) -> None:
    """Whatever else a body says, its one line is found; with any second one, none is believed."""
    body = f"{before}\n{LINE}\n{after}"
    if "sudocode-issue" not in (before + after).lower():
        assert "i-a1b2" == parse_issue_line(body)
    with pytest.raises(ValueError, match="lines begin with"):
        parse_issue_line(f"{body}\n{LINE}")


def test_one_merge_has_one_identity() -> None:
    """The commit on the base, whichever door it was seen through, and in git's short form too."""
    places = ("https://github.com/acme/shop/pull/12", "http://ghe.acme.org/sub/Acme/Shop/pull/12/files", BRANCH_REF)
    commits = ("C0FFEE1" + "a" * 33, "c0ffee1", "c0ffee1aaaa")

    assert {"c0ffee1"} == {merge_identity(place, commit) for place in places for commit in commits}
    assert {"acme/shop#12"} == {merge_identity(place, "") for place in places[:2]}


DOORS = ("https://github.com/acme/shop/pull/12", BRANCH_REF, "https://ghe.acme.org/acme/shop/pull/12/commits")


@pytest.mark.parametrize(("first", "second"), list(itertools.permutations(DOORS, 2)))
def test_a_reopened_issue_is_not_closed_by_its_old_merge(first: str, second: str) -> None:
    """Whichever door saw it first, and whichever sees it again; also once a session was done anew."""
    tracker = World().tracker()
    apply_merge_close(gateway=gateway_to(tracker), payload=payload(pr_url=first))
    tracker.issues["i-a1b2"]["status"] = "needs_review"
    again = apply_merge_close(gateway=gateway_to(tracker), payload=payload(pr_url=second))
    tracker.session(Verdict.DONE)
    done_anew = apply_merge_close(gateway=gateway_to(tracker), payload=payload(pr_url=second))

    assert [CLOSED_BEFORE, CLOSED_BEFORE] == [again.reason, done_anew.reason]
    assert "needs_review" == tracker.status()


@pytest.mark.parametrize(("first", "second"), list(itertools.permutations(DOORS, 2)))
def test_what_one_door_began_another_brings_to_its_end(first: str, second: str) -> None:
    """Cut off after the status, before the marker that says so: it is one merge."""
    tracker = World().tracker()
    with pytest.raises(Cut):
        apply_merge_close(gateway=cut_after(tracker, 2), payload=payload(pr_url=first))
    assert apply_merge_close(gateway=gateway_to(tracker), payload=payload(pr_url=second)).applied

    assert [EVIDENCE, APPLIED] == tracker.markers()


def test_an_operator_is_believed_about_the_time() -> None:
    """A merge told by hand, or seen in git, may bear an earlier time than the session's end; a pull request may not."""
    told = payload(merged_at=EARLIER)

    assert apply_merge_close(gateway=gateway_to(World().tracker()), payload=told).applied
    assert TOO_EARLY == happens(pull(merged_at=EARLIER), World().tracker(), World()).reason


def test_a_forge_counts_in_whole_seconds() -> None:
    """A merge in the very second in which the session ended came after it."""
    tracker = World((None,)).tracker()
    tracker.session(Verdict.DONE, at=NOON + timedelta(milliseconds=900))

    assert happens(pull(), tracker, World()).applied


def test_a_pull_request_that_names_its_issue_badly_says_so_and_may_be_told_by_hand() -> None:
    """The marker is on the issue of the branch it came from; what an operator then says of the same merge closes it."""
    tracker = World().tracker()
    result = happens(says(f"> {LINE}"), tracker, World())

    assert (REJECTED, True) == (result.feedback_marker, result.reason.startswith(f"{NAMED_BADLY}: malformed line"))
    assert apply_merge_close(gateway=gateway_to(tracker), payload=payload(source="operator")).applied


MESSAGES = {
    LINE: "i-a1b2",
    f"Add it (#12)\n\n* Step 0\n\n{LINE}\nOrch-Step: RUNNING/1\n\n* Step 1\n\n{LINE}\n": "i-a1b2",
    f"Add it\n\n{LINE}\n\nCo-authored-by: Ada <ada@example.org>\n": "i-a1b2",
    f"Squashed commit of the following:\n\ncommit c0ffee\n\n    Step 0\n\n    {LINE}\n": "i-a1b2",
    "Add it\r\n\r\nsudocode-issue: i-a1b2\r\n": "i-a1b2",
    f"{LINE} is what this is about": "",
    f"{LINE}\nSudocode-Issue: i-c3d4": "",
    f"{LINE}\n> Sudocode-Issue: i-c3d4": "",
    f"> {LINE}": "",
    f"{LINE}, i-c3d4": "",
    "Sudocode-Issue: I-A1B2": "",
    "Add it": "",
}


@pytest.mark.parametrize(("message", "issue_id"), MESSAGES.items())
def test_a_commits_message_names_one_issue_anywhere(message: str, issue_id: str) -> None:
    """In its last block or not, once or more; never when a line names another, or nothing that is an id."""
    assert issue_id == issue_of_message(message)


REVERT = 'Revert "Add it"\n\nThis reverts commit {}{}.'
A, B, C, D = ("a" * 40, "b" * 40, "c" * 40, "d" * 40)
# What came after the merge A of #12, oldest first, and the commit that took it back, if one did.
LATER_COMMITS: list[tuple[list[Commit], str]] = [
    ([], ""),
    ([Commit(B, "Reverts are fun, and so is " + A)], ""),
    ([Commit(B, REVERT.format(A, ""))], B),
    ([Commit(B, REVERT.format(A[:9], ""))], B),
    ([Commit(B, REVERT.format(A, ", reversing\nchanges made to " + D))], B),
    ([Commit(B, 'Revert "Add it (#12)" (#13)\n\nReverts acme/shop#12')], B),
    ([Commit(B, "Squashed\n\n    This reverts commit " + A)], B),
    ([Commit(B, REVERT.format(D, ""))], ""),
    ([Commit(B, REVERT.format(A, "")), Commit(C, REVERT.format(B, ""))], ""),
    ([Commit(B, 'Revert "Add it" (#13)\n\nReverts #12'), Commit(C, 'Revert "Revert" (#14)\n\nReverts #13')], ""),
    ([Commit(B, REVERT.format(A, "")), Commit(C, REVERT.format(B, "")), Commit(D, REVERT.format(C, ""))], B),
    ([Commit(B, REVERT.format(A, "")), Commit(C, REVERT.format(B, "")), Commit(D, REVERT.format(A, ""))], D),
]


@pytest.mark.parametrize(("later", "by"), LATER_COMMITS)
def test_a_commit_that_says_it_takes_a_merge_back(later: list[Commit], by: str) -> None:
    """By its id or its number, in git's words or GitHub's; one that was itself taken back does not count."""
    assert by == taken_back(Commit(A, "Add it (#12)").names, reversed(later))


def test_a_ruling_changes_nothing() -> None:
    """`judge` is all that an audit needs: it cannot close anything."""
    record = read_record(shown(World().tracker().show_issue, "i-a1b2"))

    assert (Ruling.CLOSE, "merged") == judge(record, payload())
