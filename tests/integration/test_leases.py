"""Leases over a real Redis: one winner, never too many, and the dead hand on what they had."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from orchestrator.adapters.redis.client import PatientRedis, connect
from orchestrator.adapters.redis.history import RedisOutbox
from orchestrator.adapters.redis.keys import KEPT_S
from orchestrator.adapters.redis.leases import SLOWEST_HAND_ON
from orchestrator.errors import LeaseLost, RedisUnavailable
from orchestrator.models import Claim, IssueStatus, Progress, Refusal, StatusEntry, Untold, Verdict
from orchestrator.publish.entries import About, opening_entries, verdict_entries
from orchestrator.text import redactor
from tests.engine import LEASE_S, Engine, a_record, a_report, about, told_of
from tests.integration.conftest import Fork, OwnRedis
from tests.support import NOON, wait_until

ISSUE = "i-a1b2"


# --- claiming ---


def test_a_claim_has_one_winner_among_racing_processes(engine: Engine, fork: Fork) -> None:
    """Of eight processes that claim one issue at the same moment, exactly one wins."""
    read, write = os.pipe()
    barrier = engine.keys("barrier")

    def race() -> None:
        mine = engine.elsewhere()
        mine.client.incr(barrier)
        wait_until(lambda: mine.client.get(barrier) == "8", "all racers should be at the start")
        os.write(write, b"W" if isinstance(mine.leases.claim(ISSUE), Claim) else b"L")

    for _ in range(8):
        fork(race)
    os.close(write)
    with os.fdopen(read, "rb") as results:
        told = results.read()

    assert b"LLLLLLLW" == bytes(sorted(told))
    assert {ISSUE} == engine.inflight()


def test_a_held_issue_is_refused(engine: Engine) -> None:
    """Nobody claims an issue that is claimed or running."""
    engine.claimed(ISSUE)

    assert Refusal.TAKEN == engine.leases.claim(ISSUE, forced=True)


def test_no_more_is_claimed_than_there_are_slots(engine: Engine) -> None:
    """Capacity is the sum of what live workers announced; the next claim is refused."""
    engine.slots(1, "second@test")
    for number in range(5):
        engine.claimed(f"i-{number}")

    assert 0 == engine.leases.free()
    assert Refusal.FULL == engine.leases.claim(ISSUE, forced=True)


def test_without_workers_nothing_is_claimed(engine: Engine) -> None:
    """An issue stays ready when there is nobody to run it."""
    engine.leases.withdraw("worker@test")

    assert Refusal.FULL == engine.leases.claim(ISSUE)


def test_the_slots_of_a_silent_worker_are_gone(engine: Engine) -> None:
    """A worker that stopped announcing itself has no slots any more; the others keep theirs."""
    engine.leases.announce("dying@test", 8, for_s=0.05)
    wait_until(lambda: engine.leases.free() == 4, "the dying worker's slots should be gone")

    assert {"worker@test": 4} == engine.leases.workers()


def test_an_announcement_replaces_the_last_one(engine: Engine) -> None:
    """A worker that says it again has its slots once."""
    engine.slots(4)
    engine.slots(3)

    assert 3 == engine.leases.free()


def test_an_issue_is_not_claimed_before_the_tracker_knows_its_last_end(engine: Engine) -> None:
    """An issue whose last verdict is not told yet could look open; it is refused, even when it was asked for."""
    lease = engine.running()
    engine.history(lease).close(Verdict.DONE, verdict_entries(about(lease), _progress(), Verdict.DONE, at=NOON))

    assert Refusal.UNTOLD == engine.leases.claim(ISSUE, forced=True)

    engine.tracker.file("One", issue_id=ISSUE)
    engine.publish()

    assert isinstance(engine.leases.claim(ISSUE), Claim)


def test_an_issue_waits_after_an_error_unless_it_is_asked_for(engine: Engine) -> None:
    """After an error an issue is held back; a person who asks for it need not wait."""
    engine.ended(ISSUE, Verdict.ERROR)

    assert Refusal.WAITING == engine.leases.claim(ISSUE)
    assert isinstance(engine.leases.claim(ISSUE, forced=True), Claim)


def test_a_claim_given_back_frees_its_slot(engine: Engine) -> None:
    """An abandoned claim is over, and nothing of it stays for ever."""
    claim = engine.claimed(ISSUE)
    engine.leases.abandon(claim)

    assert 4 == engine.leases.free()
    assert 0 < engine.client.ttl(engine.keys("session", ISSUE)) <= KEPT_S


def test_an_opened_session_is_not_given_back(engine: Engine) -> None:
    """A poll that comes too late with giving up a claim does not take the session from under its worker."""
    claim = engine.opened()
    engine.leases.abandon(claim)

    assert {ISSUE} == engine.inflight()


def test_a_claim_that_another_poll_gave_back_is_not_opened(engine: Engine) -> None:
    """Of two polls that see to the same claim one gives it back: the other must not open a session nobody can run."""
    claim = engine.claimed(ISSUE)
    engine.leases.abandon(claim)

    with pytest.raises(LeaseLost):
        engine.leases.open(claim, a_record(ISSUE), [])


def test_a_stale_claim_neither_opens_nor_gives_back_the_one_that_followed(engine: Engine) -> None:
    """A poll that stood still between its claim and its opening finds the issue claimed anew, and touches nothing."""
    stale = engine.claimed(ISSUE)
    engine.leases.abandon(stale)
    fresh = engine.claimed(ISSUE)

    with pytest.raises(LeaseLost):
        engine.leases.open(stale, a_record(ISSUE, "stale"), [])
    engine.leases.abandon(stale)
    engine.leases.open(fresh, a_record(ISSUE, "fresh"), [])

    assert a_record(ISSUE, "fresh") == engine.acquired().record
    assert [a_record(ISSUE, "fresh").session_id] == engine.leases.runs(ISSUE)


def test_tokens_grow_even_when_the_clock_does_not(engine: Engine) -> None:
    """A clock that was set back, or two claims within a millisecond, give no token away again."""
    ahead = int(engine.client.time()[0] * 1000) + 3_600_000
    engine.client.set(engine.keys("fence"), ahead)
    tokens = [engine.claimed(f"i-{number}").token for number in range(3)]

    assert [ahead + 1, ahead + 2, ahead + 3] == tokens


def test_tokens_grow_even_when_redis_forgot_the_last_one(engine: Engine) -> None:
    """A Redis that lost data gives no token twice, so a holder from before cannot pass for the one after."""
    before = engine.running()
    engine.client.delete(*engine.client.keys(engine.keys("*")))
    engine.slots(4)

    def milliseconds() -> int:
        seconds, micros = engine.client.time()
        return seconds * 1000 + micros // 1000

    wait_until(lambda: milliseconds() > before.token, "no Redis comes back within a millisecond")
    after = engine.running()

    assert before.token < after.token
    assert not engine.leases.renew(before)


# --- running ---


def test_two_messages_for_one_session_run_it_once(engine: Engine) -> None:
    """While a session runs, a second message for it finds nothing to do."""
    engine.opened()
    engine.acquired(owner="first")

    assert engine.elsewhere().leases.acquire(ISSUE, "second") is None
    assert "first" == engine.held(ISSUE).owner


def test_there_is_nothing_to_acquire_before_the_session_is_opened_or_after_its_end(engine: Engine) -> None:
    """A message that comes too early or too late finds nothing to do."""
    assert engine.leases.acquire(ISSUE, "nobody") is None

    claim = engine.claimed(ISSUE)

    assert engine.leases.acquire(ISSUE, "early") is None

    engine.leases.open(claim, a_record(ISSUE), [])
    engine.history(engine.acquired()).close(Verdict.DONE, [])

    assert engine.leases.acquire(ISSUE, "late") is None


def test_a_silent_holder_loses_the_session_and_can_write_nothing_more(engine: Engine) -> None:
    """Once another worker has the session, the zombie's record, close and renewal are refused; its token is older."""
    zombie = engine.running()
    engine.fall_silent(ISSUE)
    (claim,) = engine.leases.expired()
    heir = engine.elsewhere().acquired(owner="heir")

    assert claim.opened
    assert 1 == claim.rescues
    assert zombie.token < heir.token
    assert not engine.leases.renew(zombie)
    with pytest.raises(LeaseLost):
        engine.history(zombie).record(a_report(), told_of(zombie, a_report()))
    with pytest.raises(LeaseLost):
        engine.history(zombie).close(Verdict.DONE, [])
    engine.leases.release(zombie)

    assert [] == engine.leases.expired()
    assert engine.leases.renew(heir)
    assert [] == engine.history(heir).recorded()
    assert 0 == engine.outbox.waiting()


def test_a_silent_holder_that_comes_back_first_goes_on(engine: Engine) -> None:
    """As long as nobody took the session, its holder may resume; the message that was sent finds nothing to do."""
    lease = engine.running()
    engine.fall_silent(ISSUE)
    engine.leases.expired()

    assert engine.leases.renew(lease)
    assert engine.leases.acquire(ISSUE, "heir") is None


def test_what_fell_silent_is_handed_on_once_per_lease(engine: Engine) -> None:
    """Two polls in a row do not hand on the same session twice."""
    engine.running()
    engine.fall_silent(ISSUE)

    assert 1 == len(engine.leases.expired())
    assert [] == engine.leases.expired()


def test_an_expired_session_can_be_acquired_without_a_poll(engine: Engine) -> None:
    """A doubled message that arrives after the holder's time is over takes the session up."""
    zombie = engine.running()
    engine.fall_silent(ISSUE)

    assert engine.acquired().token > zombie.token


def test_a_session_given_back_is_taken_up_at_once_and_not_counted_as_a_rescue(engine: Engine) -> None:
    """A worker that stops costs its sessions no waiting, and brings them no nearer to being given up."""
    engine.leases.release(engine.running())
    (claim,) = engine.leases.expired()

    assert (True, 0) == (claim.opened, claim.rescues)
    assert engine.leases.acquire(ISSUE, "heir") is not None


def test_a_session_that_nobody_takes_is_not_counted_as_rescued(engine: Engine) -> None:
    """A session that waits for a busy worker is handed on again and again, and is not given up for that."""
    engine.running()
    rescues = []
    for _ in range(6):
        engine.fall_silent(ISSUE)
        (claim,) = engine.leases.expired()
        rescues.append(claim.rescues)

    assert [1] * 6 == rescues


def test_a_session_that_nobody_takes_is_handed_on_ever_less_often(engine: Engine) -> None:
    """Messages for a session that waits for a busy worker do not pile up; taken up, it starts over."""
    engine.running()
    leases_to_wait = [_handed_on(engine) for _ in range(SLOWEST_HAND_ON + 3)]

    assert [*range(1, SLOWEST_HAND_ON + 1), *[SLOWEST_HAND_ON] * 3] == leases_to_wait

    engine.acquired()

    assert 1 == _handed_on(engine)


def test_a_claim_that_the_tracker_holds_up_is_begun_again_every_lease(engine: Engine) -> None:
    """A claim that could not be begun is not waiting for a worker: it is seen to once per lease."""
    engine.claimed(ISSUE)

    assert [1] * 4 == [_handed_on(engine) for _ in range(4)]


def test_a_recorded_step_makes_earlier_rescues_count_no_more(engine: Engine) -> None:
    """Only a session that dies again and again in the same step is given up."""
    engine.running()
    engine.fall_silent(ISSUE)
    engine.leases.expired()
    lease = engine.acquired()
    engine.history(lease).record(a_report(), [])
    engine.fall_silent(ISSUE)
    (claim,) = engine.leases.expired()

    assert 1 == claim.rescues


# --- asked for ---


def test_wanted_issues_keep_the_order_in_which_they_were_asked_for(engine: Engine) -> None:
    """Who asks first is first, and asking again does not move an issue back."""
    for issue_id in ("i-b", "i-a", "i-b"):
        engine.leases.want(issue_id)
        wait_until(partial(_is_later, engine, _redis_ms(engine)), "a millisecond should have passed")

    assert ["i-b", "i-a"] == engine.leases.wanted()


def test_asking_forgets_the_last_answer_and_what_held_the_issue_back(engine: Engine) -> None:
    """Whoever asks sees the answer to this question, not to the last one."""
    engine.ended(ISSUE, Verdict.ERROR)
    engine.leases.answer(ISSUE, "it waits", done=True)
    engine.leases.want(ISSUE)

    assert engine.leases.answered(ISSUE) is None
    assert engine.held(ISSUE).held_until_ms is None
    assert isinstance(engine.leases.claim(ISSUE), Claim)


# --- what stays ---


def test_what_ended_is_kept_for_a_month_and_no_longer(engine: Engine) -> None:
    """After a session every key of its own expires; only counters and lists that are trimmed stay."""
    engine.ended(ISSUE)
    stay = {engine.keys(name) for name in ("fence", "known", "workers", "finished", "deliveries", "counts")}
    others = set(engine.client.keys(engine.keys("*"))) - stay

    assert {0 < engine.client.ttl(key) <= KEPT_S for key in others} == {True}


def test_what_runs_again_is_kept(engine: Engine) -> None:
    """While an issue has a session, nothing of it expires, however long ago the last one ended."""
    engine.ended(ISSUE)
    engine.running()

    assert [-1, -1] == [engine.client.ttl(engine.keys(name, ISSUE)) for name in ("session", "runs")]


def test_the_list_of_known_issues_does_not_grow_for_ever(engine: Engine) -> None:
    """Opening a session forgets issues that were last heard of more than thirty days ago."""
    month_ago_ms = (time.time() - KEPT_S - 60) * 1000
    engine.client.zadd(engine.keys("known"), {"i-ancient": month_ago_ms, "i-recent": month_ago_ms + 120_000})
    engine.opened()

    assert ["i-recent", ISSUE] == engine.client.zrange(engine.keys("known"), 0, -1)


def test_holdings_tell_what_runs_and_how_the_rest_ended(engine: Engine) -> None:
    """Whoever looks sees each issue's state; the one that changed last is last."""
    engine.running("i-1")
    engine.ended("i-2", Verdict.ERROR)
    engine.opened("i-3")
    engine.history(engine.acquired("i-3")).close(Verdict.DONE, [])
    holdings = engine.leases.holdings()

    assert [("i-1", "running", ""), ("i-2", "ended", "ERROR"), ("i-3", "ended", "DONE")] == [
        (one.issue_id, one.state, one.verdict) for one in holdings
    ]
    assert [True, False, False] == [one.deadline_ms is not None for one in holdings]
    assert [False, True, False] == [one.held_until_ms is not None for one in holdings]


# --- silent retries ---


class Stuttering(PatientRedis):
    """A client whose every first answer is lost, so that it carries out everything twice, as a silent retry does."""

    def execute_command(self, *args: Any, **options: Any) -> Any:
        super().execute_command(*args, **options)
        return super().execute_command(*args, **options)


def test_every_call_may_be_carried_out_twice(engine: Engine) -> None:
    """A client that carries out each call twice leaves the same data as any other, and gets the same answers."""
    once, data_once = _a_life(engine), _contents(engine)
    engine.client.delete(*engine.client.keys(engine.keys("*")))
    engine.slots(4)
    engine.client = Stuttering(engine.client.connection_pool, 5.0)
    twice, data_twice = _a_life(engine), _contents(engine)

    assert once == twice
    assert data_once == data_twice


def test_what_a_lost_answer_of_expired_held_is_handed_on_a_lease_later(engine: Engine) -> None:
    """The one answer that a silent retry can lose costs waiting, and nothing else."""
    engine.running()
    engine.fall_silent(ISSUE)
    engine.client = Stuttering(engine.client.connection_pool, 5.0)

    assert [] == engine.leases.expired()

    engine.client = connect(engine.url)
    engine.fall_silent(ISSUE)

    assert [1] == [claim.rescues for claim in engine.leases.expired()]


def _a_life(engine: Engine) -> list[object]:
    """One session that is rescued, one given back, one that ends in an error, one abandoned: every call there is."""
    leases, outbox = engine.leases, engine.outbox
    answers: list[object] = []
    leases.announce("other@test", 2, for_s=600)
    leases.want("i-1")
    answers += [leases.free(), leases.wanted()]
    for name in ("i-1", "i-2", "i-3"):
        claim = engine.claimed(name)
        record = a_record(name)
        answers.append(leases.claim(name))
        leases.open(claim, record, opening_entries(_about_issue(name), at=NOON))
    leases.abandon(engine.claimed("i-4"))
    leases.answer("i-1", "it is running", done=True)
    first, second, third = (engine.acquired(name) for name in ("i-1", "i-2", "i-3"))
    answers += [leases.renew(first), leases.acquire("i-1", "another")]
    leases.release(second)
    history = engine.history(first)
    answers.append(list(history.recorded()))
    history.record(a_report(), told_of(first, a_report()))
    history.close(Verdict.DONE, verdict_entries(about(first), _progress(), Verdict.DONE, at=NOON))
    engine.history(third).close(Verdict.ERROR, [StatusEntry("i-3", IssueStatus.OPEN)], reason="no")
    answers.append([(untold.issue_id, untold.entry) for untold in _all_told(outbox)])
    leases.withdraw("other@test")
    answers += [leases.free(), leases.wanted(), leases.answered("i-1"), leases.runs("i-1"), leases.workers()]
    answers += [leases.snapshots(first.record.session_id), outbox.waiting(), outbox.refused()]
    return answers


def _all_told(outbox: RedisOutbox) -> Iterator[Untold]:
    while (untold := outbox.next()) is not None:
        outbox.told(untold, refusal="no" if untold.issue_id == "i-3" else "")
        yield untold


def _contents(engine: Engine) -> dict[str, object]:
    """All data of a project, with times, tokens and nonces masked."""
    client = engine.client
    contents: dict[str, object] = {}
    for key in sorted(client.keys(engine.keys("*"))):
        kind, name = client.type(key), key.removeprefix(engine.keys(""))
        if kind == "hash":
            row = client.hgetall(key)
            # How long something took differs, how often it happened must not.
            contents[name] = {field: "*" if field.endswith("|ms") else _masked(row[field]) for field in row}
        elif kind == "zset":
            contents[name] = sorted(client.zrange(key, 0, -1))
        elif kind == "set":
            contents[name] = sorted(client.smembers(key))
        elif kind == "list":
            contents[name] = client.lrange(key, 0, -1)
        elif kind == "stream":
            contents[name] = [fields for _, fields in client.xrange(key)]
        else:
            contents[name] = _masked(client.get(key))
    return contents


def _masked(value: str) -> str:
    words = ("*" if len(word) > 11 and set(word) <= set("0123456789abcdef") else word for word in value.split())
    return " ".join(words)


def test_nothing_secret_is_stored(engine: Engine) -> None:
    """Whoever stores it: an answer to a person here, in which a tracker's error is quoted; keys and ids stay."""
    engine.client = connect(engine.url, redact=redactor({}, "our-own-secret"))
    engine.leases.answer("i-a1b2", f"the tracker said: token ghp_{'a1' * 18}, our-own-secret", done=True)

    assert "the tracker said: token [redacted], [redacted]" == engine.leases.answered("i-a1b2")


# --- Redis away ---


def test_a_redis_that_is_not_there_is_unavailable_in_time(tmp_path: Path) -> None:
    """Whoever cannot reach Redis is told so, in our words, once its patience is over."""
    begun = time.monotonic()
    with pytest.raises(RedisUnavailable, match="orch doctor"):
        connect(f"unix://{tmp_path}/nobody.sock", patience_s=0.3).ping()

    assert 0.1 < time.monotonic() - begun < 20


def test_a_silent_redis_is_unavailable_in_time(own_redis: OwnRedis) -> None:
    """A Redis that takes the call and never answers is given up in time too, not once per retry."""
    client = connect(own_redis.url, patience_s=0.3)
    client.ping()
    own_redis.freeze()
    begun = time.monotonic()
    with pytest.raises(RedisUnavailable):
        client.ping()
    own_redis.thaw()

    assert time.monotonic() - begun < 20
    assert client.ping()


def test_a_write_outlasts_a_restart_of_redis(own_redis: OwnRedis) -> None:
    """A patient client's write is carried out once Redis is back, once, and finds all that was written before."""
    engine = Engine(own_redis.url, "restarted", client=connect(own_redis.url, patience_s=LEASE_S))
    engine.slots(4)
    history = engine.history(engine.running())
    history.record(a_report(), [])
    own_redis.kill()
    writer = threading.Thread(target=history.record, args=(a_report(attempt=2), []))
    writer.start()
    own_redis.start()
    writer.join(20)

    assert not writer.is_alive()
    assert [1, 2] == [report.attempt for report in history.recorded()]


def test_a_redis_without_room_is_unavailable_not_an_error_of_the_session(own_redis: OwnRedis) -> None:
    """A full Redis refuses writes until somebody makes room; that must not end a session in SESSION_ERROR."""
    engine = Engine(own_redis.url, "full", client=connect(own_redis.url, patience_s=0.2))
    engine.slots(4)
    history = engine.history(engine.running())
    engine.client.config_set("maxmemory", 1)
    with pytest.raises(RedisUnavailable, match="maxmemory"):
        history.record(a_report(), [])
    engine.client.config_set("maxmemory", 0)
    history.record(a_report(), [])

    assert 1 == len(history.recorded())


@pytest.mark.parametrize("said", ["wrong", ""])
def test_a_redis_that_wants_another_password_is_unavailable(own_redis: OwnRedis, said: str) -> None:
    """Whoever has the wrong password, or none, may have the right one once it is put right: no session ends of it."""
    connect(own_redis.url).config_set("requirepass", "right")
    url = f"{own_redis.url}&password={said}" if said else own_redis.url

    with pytest.raises(RedisUnavailable, match="it wants a password, or another one than ORCH_REDIS_URL has"):
        connect(url, patience_s=0.2).ping()


def _handed_on(engine: Engine) -> int:
    """How many leases pass before the session is handed on again, once it was now."""
    engine.fall_silent(ISSUE)
    engine.leases.expired()
    deadline = engine.client.zscore(engine.keys("inflight"), ISSUE)
    return round((deadline - _redis_ms(engine)) / 1000 / LEASE_S)


def _redis_ms(engine: Engine) -> int:
    seconds, micros = engine.client.time()
    return int(seconds * 1000 + micros // 1000)


def _is_later(engine: Engine, than_ms: int) -> bool:
    return _redis_ms(engine) > than_ms


def _progress() -> Progress:
    return Progress().after(a_report())


def _about_issue(issue_id: str) -> About:
    record = a_record(issue_id)
    return About(record.issue, record.session_id, record.orchestrator_id)
