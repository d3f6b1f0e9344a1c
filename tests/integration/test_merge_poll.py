"""Merges polled from a GitHub that fails, forgets and comes back: none missed, none settled twice."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import pytest

from orchestrator.adapters.github.pulls import GitHub
from orchestrator.errors import CheckpointUnreadable, GitHubUnavailable, RedisUnavailable
from orchestrator.gateway import SudocodeGateway
from orchestrator.merge_close.poll import LOOKBACK, Checkpoint, MergePoll, Settled, fresh_checkpoint
from orchestrator.merge_close.record import Marker
from orchestrator.merge_close.rules import NOT_IN_REVIEW, Trust
from orchestrator.models import Verdict
from tests.github_server import TOKEN, Fault, GitHubServer, error
from tests.merges import Tracked
from tests.support import NOON, gateway_to

MINUTE = timedelta(minutes=1)
CLOSED_ONCE = [Marker.MERGE_EVIDENCE_RECORDED, Marker.MERGE_CLOSE_APPLIED]


@dataclass
class Memory:
    """A checkpoint store in this process, that dies at its `dies_at`th write."""

    text: str | None = None
    dies_at: int = 0
    writes: list[str] = field(default_factory=list)

    def read(self) -> str | None:
        return self.text

    def write(self, text: str) -> None:
        self.writes.append(text)
        if self.dies_at == len(self.writes):
            raise RedisUnavailable("gone")
        self.text = text


def noon_tomorrow() -> datetime:
    return NOON + timedelta(days=1)


@dataclass
class World:
    """A GitHub, a tracker, and polls between them. Each poll is a new process, so nothing is remembered but `store`."""

    server: GitHubServer
    tracker: Tracked = field(default_factory=Tracked)
    store: Memory = field(default_factory=Memory)

    def poll(self, *, gateway: SudocodeGateway | None = None) -> list[Settled]:
        with GitHub("acme/shop", token=TOKEN, api=self.server.url, timeout_s=2, now=noon_tomorrow) as feed:
            return MergePoll(
                feed=feed,
                tracker=gateway or gateway_to(self.tracker),
                store=self.store,
                trust=Trust("acme/shop", "main"),
                delivered=lambda _issue: None,
                now=noon_tomorrow,
            )()

    def delivered(self, issue_id: str) -> int:
        """An issue that waits for its pull request; gives the number."""
        self.tracker.session(Verdict.DONE, issue_id)
        return self.server.open(f"orch/{issue_id}", body=f"Sudocode-Issue: {issue_id}")

    def closings(self) -> list[str]:
        return [issue_id for issue_id, status in self.tracker.status_updates if status == "closed"]


@pytest.fixture
def world() -> Iterator[World]:
    with GitHubServer() as server:
        server.now = noon_tomorrow
        yield World(server)


def test_a_merge_closes_its_issue(world: World) -> None:
    """From the pull request's body to the tracker; the next poll has nothing to do, and writes nothing."""
    world.server.merge(world.delivered("i-a1b2"))
    (settled,) = world.poll()
    writes = len(world.store.writes)

    assert settled.result.applied
    assert CLOSED_ONCE == world.tracker.markers()
    assert [] == world.poll()
    assert writes == len(world.store.writes)


def test_what_github_turned_down_is_open_again(world: World) -> None:
    """Closed without being merged, and told why."""
    world.server.close(world.delivered("i-a1b2"))
    world.poll()

    assert ("open", [Marker.PULL_REQUEST_CLOSED_UNMERGED]) == (world.tracker.status(), world.tracker.markers())


def test_after_an_outage_all_are_found_once(world: World) -> None:
    """GitHub fails every look for five minutes, then has 300 merges, over pages, in another order than merged."""
    numbers = [world.delivered(f"i-{n:03d}") for n in range(300)]
    random.Random(7).shuffle(numbers)
    for _ in range(5):
        world.server.fail(error(503, "Service Unavailable"))
        with pytest.raises(GitHubUnavailable):
            world.poll()
    for n, number in enumerate(numbers):
        world.server.merge(number, at=NOON + n * timedelta(seconds=1))
    settled = world.poll() + world.poll()

    assert numbers == [done.pull.number for done in settled]
    assert 300 == len(set(world.closings())) == len(world.closings())


def test_a_page_that_fails_halfway_settles_nothing_yet(world: World) -> None:
    """Only a whole listing is in order; the next poll has it."""
    for n in range(150):
        world.server.merge(world.delivered(f"i-{n:03d}"))
    first_page = Fault(
        200, json.dumps([world.server.pulls[150]]), {"Link": f'<{world.server.url}/?page=2>; rel="next"'}
    )
    world.server.fail(first_page, error(500, "Oops"))
    with pytest.raises(GitHubUnavailable):
        world.poll()

    assert [] == world.closings()
    assert 150 == len(world.poll())


def test_a_forge_of_the_future_hides_nothing(world: World) -> None:
    """A pull request that says it was changed in the year 9999 closes its issue; so do those that come after it."""
    number = world.delivered("i-0001")
    world.server.merge(number)
    world.server.comment(number, at=datetime(9999, 1, 1, tzinfo=UTC))
    first = world.poll()
    world.server.merge(world.delivered("i-0002"), at=NOON + timedelta(days=1))
    second = world.poll()

    assert [True, True] == [done.result.applied for done in first + second]
    assert ["i-0001", "i-0002"] == world.closings()


def test_what_github_shows_late_is_still_found(world: World) -> None:
    """A merge that appears after younger ones were settled, within the lookback."""
    late, early = world.delivered("i-late"), world.delivered("i-early")
    world.server.merge(early, at=NOON + timedelta(hours=2))
    world.poll()
    world.server.merge(late, at=NOON + timedelta(hours=2) - LOOKBACK)
    world.poll()

    assert ["i-early", "i-late"] == world.closings()


@pytest.mark.parametrize("write", range(1, 6))
def test_a_poll_may_be_cut_off_at_any_write(world: World, write: int) -> None:
    """Four merges are five writes: after any of them the next poll goes on there, and every issue is closed once."""
    for n in range(4):
        world.server.merge(world.delivered(f"i-{n}"), at=NOON + n * MINUTE)
    world.store.dies_at = write
    with pytest.raises(RedisUnavailable):
        world.poll()
    again = world.poll()

    assert 5 - write == len(again)
    assert ["i-0", "i-1", "i-2", "i-3"] == world.closings()


def test_the_watermark_moves_last(world: World) -> None:
    """Every settled one is recorded while the watermark stands; only then it moves, in GitHub's own time."""
    for n in range(3):
        world.server.merge(world.delivered(f"i-{n}"), at=NOON + n * MINUTE)
    before = fresh_checkpoint(now=NOON + timedelta(days=1)).watermark
    world.poll()
    written = [Checkpoint.model_validate_json(text) for text in world.store.writes]

    assert [before] * 3 + [NOON + 2 * MINUTE] == [checkpoint.watermark for checkpoint in written]
    assert [1, 2, 3, 3] == [len(checkpoint.settled) for checkpoint in written]


def test_the_record_of_settled_ones_does_not_grow(world: World) -> None:
    """What is too old to be listed again is forgotten."""
    for n in range(10):
        world.server.merge(world.delivered(f"i-{n}"), at=NOON + n * timedelta(minutes=40))
        world.poll()
    kept = Checkpoint.model_validate_json(world.store.text or "")

    assert ["acme/shop#9", "acme/shop#10"] == [identity.rpartition("#")[0] for identity in kept.settled]


UNREADABLE = {
    "empty": "",
    "cut off": '{"watermark": "2026-01-05T12:0',
    "somebody else's": "[]",
    "without a watermark": '{"settled": {}}',
    "a naive watermark": '{"watermark": "2026-01-05T12:00:00", "settled": {}}',
    "of another version": '{"watermark": "2026-01-05T12:00:00Z", "cursor": 7}',
    "of a time to come": '{"watermark": "2126-01-05T12:00:00Z", "settled": {}}',
}


@pytest.mark.parametrize("text", UNREADABLE.values(), ids=UNREADABLE.keys())
def test_an_unreadable_checkpoint_is_safe_mode(world: World, text: str) -> None:
    """Nothing is asked, closed or written; the error says what to do; made anew, nothing is closed twice."""
    world.server.merge(world.delivered("i-a1b2"))
    world.poll()
    world.server.merge(world.delivered("i-c3d4"), at=NOON + MINUTE)
    asked, world.store = len(world.server.asked), Memory(text)
    with pytest.raises(CheckpointUnreadable, match="made anew with `orch merges repair`"):
        world.poll()

    assert (asked, text) == (len(world.server.asked), world.store.text)
    assert ["i-a1b2"] == world.closings()

    world.store.text = fresh_checkpoint(now=NOON + timedelta(days=1)).model_dump_json()
    world.poll()

    assert ["i-a1b2", "i-c3d4"] == world.closings()


def test_one_that_cannot_be_settled_does_not_hold_up_the_others(world: World) -> None:
    """An issue that the tracker does not know, one that runs, one that nobody names, a forced push: all rejected."""
    events = [world.delivered(f"i-{n}") for n in range(4)]
    del world.tracker.issues["i-0"]
    world.tracker.issues["i-1"]["status"] = "in_progress"
    events.append(world.server.open("fix-typo", body="no line"))
    events.append(world.delivered("i-forced"))
    for n, number in enumerate(events):
        commit = world.server.merge(number, at=NOON + n * MINUTE)
    world.server.branches["main"].remove(commit)
    world.server.push("lost", commit)
    reasons = [settled.result.reason for settled in world.poll()]

    assert ["i-2", "i-3"] == world.closings()
    assert [
        "Issue not found: i-0",
        NOT_IN_REVIEW,
        "merged",
        "merged",
        "no line `Sudocode-Issue: i-xxxx`",
        "main does not hold its merge commit",
    ] == reasons


def test_a_commit_is_looked_for_only_when_all_else_is_well(world: World) -> None:
    """Pull requests of others cost no call each."""
    for n in range(20):
        world.server.merge(world.server.open(f"feature-{n}", body="Sudocode-Issue: i-a1b2"))
    world.poll()

    assert 1 == len(world.server.asked)
