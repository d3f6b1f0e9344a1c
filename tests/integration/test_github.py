"""The GitHub client, against a server that speaks like GitHub."""

from __future__ import annotations

import gzip
import json
import random
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.adapters.github import pulls
from orchestrator.adapters.github.clock import ahead, quiet
from orchestrator.adapters.github.pulls import GitHub
from orchestrator.errors import GitHubRateLimited, GitHubRefused, GitHubUnavailable, NothingToMerge
from orchestrator.merge_close.events import PullRequest, PullText
from tests.github_server import TOKEN, Fault, GitHubServer, error, rate_limit_exceeded, secondary_limit, sign
from tests.merges import pull as a_pull
from tests.support import NOON

HOUR = timedelta(hours=1)
SECOND = timedelta(seconds=1)
LIMIT_HEADERS = ("retry-after", "x-ratelimit-reset", "date")
TEXT = PullText("Parse empty input", "All of it.\n\nSudocode-Issue: i-a1b2\n", ("needs-review",))


@pytest.fixture
def server() -> Iterator[GitHubServer]:
    with GitHubServer() as server:
        yield server


@pytest.fixture(autouse=True, scope="module")
def _warm() -> None:
    """The first call loads an event loop's libraries, for longer than the short limits below on a busy machine."""
    with GitHubServer() as server, GitHub("acme/shop", token=TOKEN, api=server.url) as github:
        github.on_branch("a" * 40, "main")


class Clock:
    def __init__(self) -> None:
        self.now = NOON

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def github(server: GitHubServer, clock: Clock) -> Iterator[GitHub]:
    server.now = clock
    with GitHub("acme/shop", token=TOKEN, api=server.url, timeout_s=1, now=clock) as github:
        yield github


def merged(server: GitHubServer, *, at: datetime = NOON, branch: str = "orch/i-a1b2", body: str = "") -> int:
    number = server.open(branch, body=body)
    server.merge(number, at=at)
    return number


def next_page(home: str) -> dict[str, str]:
    return {"Link": f'<{home}/?page=2>; rel="next"'}


# Listing


def test_a_merged_pull_request_is_read_whole(server: GitHubServer, github: GitHub) -> None:
    """Every field that the rules look at."""
    number = server.open("orch/i-a1b2", body="Sudocode-Issue: i-a1b2", author="lead")
    commit = server.merge(number, at=NOON)

    assert [
        PullRequest(
            repo="acme/shop",
            number=1,
            url="https://github.com/acme/shop/pull/1",
            body="Sudocode-Issue: i-a1b2",
            author="lead",
            head_repo="acme/shop",
            branch="orch/i-a1b2",
            base="main",
            merge_sha=commit,
            merged_at=NOON,
            closed_at=NOON,
            updated_at=NOON,
        )
    ] == github.closed_since(NOON)


def test_what_is_gone_reads_as_empty(server: GitHubServer, github: GitHub) -> None:
    """A deleted fork, a deleted account, no body, closed without being merged."""
    number = server.open("x")
    server.close(number)
    server.pulls[number] |= {"user": None, "body": None, "merge_commit_sha": "f" * 40}
    server.pulls[number]["head"]["repo"] = None
    (pull,) = github.closed_since(NOON)

    assert ("", "", "", "", None) == (pull.author, pull.body, pull.head_repo, pull.merge_sha, pull.merged_at)


def test_hundreds_of_merges_out_of_order_come_sorted_and_once(server: GitHubServer, github: GitHub) -> None:
    """All pages are followed; the oldest merge comes first, whatever was commented on since."""
    moments = [NOON + timedelta(minutes=n) for n in range(301)]
    random.Random(7).shuffle(moments)
    numbers = [merged(server, at=at) for at in moments]
    for number in numbers[::7]:
        server.comment(number, at=NOON + 10 * HOUR)
    found = github.closed_since(NOON + timedelta(minutes=1))

    assert [pull.closed_at for pull in found] == sorted(moments)[1:]
    assert 4 == len(server.asked)


def test_old_pages_are_not_read(server: GitHubServer, github: GitHub) -> None:
    """Newest changes come first, so what is older than asked for ends the reading; an open one is no end."""
    for n in range(250):
        merged(server, at=NOON - n * HOUR)
    server.open("still-open")

    assert 3 == len(github.closed_since(NOON - 2 * HOUR))
    assert 1 == len(server.asked)


def test_an_old_merge_with_a_new_comment_is_not_new(server: GitHubServer, github: GitHub) -> None:
    """What counts is when it was closed."""
    server.comment(merged(server, at=NOON - HOUR), at=NOON + HOUR)

    assert [] == github.closed_since(NOON)


def test_what_did_not_change_costs_nothing(server: GitHubServer, github: GitHub) -> None:
    """The second look sends the ETag, gets a 304 that GitHub does not count, and gives the same."""
    for n in range(150):
        merged(server, at=NOON + timedelta(minutes=n))
    first = github.closed_since(NOON)
    left = server.remaining
    second = github.closed_since(NOON + HOUR)

    assert [pull for pull in first if pull.closed_at >= NOON + HOUR] == second
    assert left == server.remaining
    assert [200, 200, 304] == [asked.status for asked in server.asked]


def test_a_longer_look_back_is_not_answered_from_memory(server: GitHubServer, github: GitHub) -> None:
    """What was read for a later moment does not have the earlier ones."""
    merged(server, at=NOON - HOUR)
    github.closed_since(NOON)

    assert 1 == len(github.closed_since(NOON - HOUR))


def test_a_reading_that_broke_off_is_not_remembered(server: GitHubServer, github: GitHub) -> None:
    """The second page failed: the next look reads all pages again."""
    for n in range(150):
        merged(server, at=NOON + timedelta(minutes=n))
    one_page = Fault(200, json.dumps([server.pulls[1]]), {"ETag": 'W/"x"', **next_page(server.url)})
    server.fail(one_page, error(502, "Bad Gateway"))
    with pytest.raises(GitHubUnavailable):
        github.closed_since(NOON)

    assert 150 == len(github.closed_since(NOON))


def test_a_commit_is_looked_for_on_its_branch(server: GitHubServer, github: GitHub) -> None:
    """After a force-push it is not there any more; one that GitHub does not know is on no branch."""
    commit = server.merge(server.open("orch/i-a1b2"))
    server.push("release/1.0", "e" * 40)

    assert github.on_branch(commit, "main")
    assert github.on_branch("e" * 40, "release/1.0")
    assert not github.on_branch("e" * 40, "main")
    assert not github.on_branch("d" * 40, "main")


def test_what_took_a_merge_back_is_found_however_much_came_since(server: GitHubServer, github: GitHub) -> None:
    """Over pages, among the commits since the merge only."""
    pull = closed(github, merged(server))
    server.commit("d" * 40, "Revert it\n\nReverts acme/shop#1", at=NOON + HOUR)
    for n in range(150):
        server.commit(f"{n:040x}", "More", at=NOON + 2 * HOUR)

    assert f"it was taken back by commit {'d' * 12}" == github.undone(pull)
    assert [{"1", "2"}, {"2026-01-05T12:00:00Z"}, {"main"}] == [
        {call.query[name] for call in server.asked if call.path.endswith("/commits")}
        for name in ("page", "since", "sha")
    ]


def test_a_merge_commit_that_changes_nothing_took_nothing(server: GitHubServer, github: GitHub) -> None:
    """A squash or rebase may end in an empty commit."""
    numbers = [server.open("orch/i-a1b2") for _ in range(3)]
    for number, (parents, files) in zip(numbers, ((2, 0), (2, 1), (1, 0)), strict=True):
        server.merge(number, parents=parents, files=files)

    assert [True, False, False] == [
        github.undone(closed(github, number)).endswith("took nothing of it") for number in numbers
    ]


def test_of_a_commit_that_github_does_not_know_nothing_is_said(server: GitHubServer, github: GitHub) -> None:
    """That it is not there is for `on_branch` to say."""
    pull = closed(github, merged(server))
    server.commits.clear()

    assert "" == github.undone(pull)


def closed(github: GitHub, number: int) -> PullRequest:
    """The pull request as a poll gets it."""
    (pull,) = (pull for pull in github.closed_since(NOON - HOUR) if pull.number == number)
    return pull


# Delivering


def test_a_branch_gets_one_pull_request(server: GitHubServer, github: GitHub) -> None:
    """Delivered again, nothing is written; delivered with other words, they are brought up to date."""
    server.push("orch/i-a1b2", "b" * 40)
    first = github.deliver("orch/i-a1b2", base="main", text=TEXT)
    written = len(server.calls("POST"))
    again = github.deliver("orch/i-a1b2", base="main", text=TEXT)
    other = github.deliver("orch/i-a1b2", base="main", text=PullText("Parse it", TEXT.body))

    assert {"https://github.com/acme/shop/pull/1"} == {first, again, other}
    assert written == len(server.calls("POST"))
    assert 1 == len(server.calls("PATCH"))
    assert ("Parse it", TEXT.body, [{"name": "needs-review"}]) == tuple(
        server.pulls[1][key] for key in ("title", "body", "labels")
    )


def test_a_branch_that_was_turned_down_gets_a_new_one(server: GitHubServer, github: GitHub) -> None:
    """A closed pull request is history; the next session's work is another."""
    server.push("orch/i-a1b2", "b" * 40)
    server.close(server.open("orch/i-a1b2"))

    assert github.deliver("orch/i-a1b2", base="main", text=TEXT).endswith("/pull/2")


def test_a_pull_request_that_was_made_meanwhile_is_taken(server: GitHubServer, github: GitHub) -> None:
    """GitHub refuses a second one for a branch; the first is looked for once more, and brought up to date."""
    server.push("orch/i-a1b2", "b" * 40)
    server.open("orch/i-a1b2")
    server.fail(Fault(200, "[]"))

    assert github.deliver("orch/i-a1b2", base="main", text=TEXT).endswith("/pull/1")
    assert TEXT.body == server.pulls[1]["body"]


def test_an_answer_that_got_lost_makes_no_second_pull_request(server: GitHubServer, github: GitHub) -> None:
    """It was made, but nobody heard so: the next try finds it."""
    server.push("orch/i-a1b2", "b" * 40)
    server.fail(Fault(200, "[]"), Fault(hangs=True))
    with pytest.raises(GitHubUnavailable):
        github.deliver("orch/i-a1b2", base="main", text=TEXT)
    server.open("orch/i-a1b2", body=TEXT.body, title=TEXT.title)
    github.deliver("orch/i-a1b2", base="main", text=TEXT)

    assert 1 == len(server.pulls)


@pytest.mark.parametrize(
    ("branch", "words"),
    [
        ("orch/i-none", "Validation Failed: head is invalid"),
        ("orch/i-empty", "No commits between main and orch/i-empty"),
    ],
)
def test_a_refused_pull_request_says_why(server: GitHubServer, github: GitHub, branch: str, words: str) -> None:
    """GitHub's own words for what is wrong with it."""
    server.push("orch/i-empty")

    with pytest.raises(GitHubRefused, match=words) as refused:
        github.deliver(branch, base="main", text=TEXT)
    assert (branch == "orch/i-empty") == isinstance(refused.value, NothingToMerge)


# Without end, and elsewhere


def test_a_list_that_says_the_same_for_ever_is_an_error(server: GitHubServer, github: GitHub) -> None:
    """The second page is the first again, and says that there is another: two calls, one line."""
    merged(server)
    server.fail(*[Fault(200, json.dumps([server.pulls[1]]), next_page(server.url))] * 5)
    with pytest.raises(GitHubUnavailable, match=r"no end: after page 2 of acme/shop .* nothing new"):
        github.closed_since(NOON)

    assert 2 == len(server.asked)


def endless(server: GitHubServer, count: int) -> list[Fault]:
    """Pages of one pull request each, always another, and never the last."""
    one = server.pulls[merged(server)]
    return [Fault(200, json.dumps([one | {"number": n}]), next_page(server.url)) for n in range(count)]


def test_a_list_of_ever_more_is_an_error(server: GitHubServer, github: GitHub, monkeypatch: pytest.MonkeyPatch) -> None:
    """After so many pages, however new each is."""
    monkeypatch.setattr(pulls, "MOST_PAGES", 7)
    server.fail(*endless(server, 20))
    with pytest.raises(GitHubUnavailable, match="no end: after page 7 of"):
        github.closed_since(NOON)

    assert 8 == len(server.asked)


def test_a_list_that_takes_for_ever_is_an_error(
    server: GitHubServer, github: GitHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After so much time, however few pages there were."""
    monkeypatch.setattr(pulls, "LIST_WITHIN_S", -1.0)
    server.fail(*endless(server, 20))

    with pytest.raises(GitHubUnavailable, match="no end: after page 1 of"):
        github.closed_since(NOON)


@pytest.mark.parametrize("status", [200, 301, 302, 307, 308])
def test_the_token_goes_to_no_other_host(server: GitHubServer, github: GitHub, status: int) -> None:
    """Neither a next page nor a redirect leads it there."""
    number = merged(server)
    with GitHubServer() as other:
        away = {"Location": f"{other.url}/", **next_page(other.url)}
        server.fail(Fault(status, json.dumps([server.pulls[number]]), away))
        with suppress(GitHubUnavailable, GitHubRefused):
            github.closed_since(NOON)
        with suppress(GitHubUnavailable, GitHubRefused):
            github.on_branch("a" * 40, "main")

        assert [] == other.asked


def test_a_small_parcel_with_much_in_it_is_not_unpacked(server: GitHubServer) -> None:
    """200 MB of a valid answer in 1 MB: what counts is what it comes to."""
    server.fail(Fault(200, gzip.compress(b"[" + b" " * 200_000_000 + b"]", 1), {"Content-Encoding": "gzip"}))

    with (
        GitHub("acme/shop", token=TOKEN, api=server.url, timeout_s=60) as github,
        pytest.raises(GitHubUnavailable, match="longer than 32 MB"),
    ):
        github.closed_since(NOON)


def test_an_etag_that_cannot_be_sent_back_is_not(server: GitHubServer, github: GitHub) -> None:
    """The next look reads all of it again."""
    merged(server)
    server.fail(Fault(200, "[]", {"ETag": "\u00e9"}))
    github.closed_since(NOON)

    assert 1 == len(github.closed_since(NOON))


# Later, and no

TRANSIENT = {
    "500": error(500, "Server Error"),
    "502, a page of a proxy": Fault(502, "<html>Bad Gateway</html>"),
    "503": error(503, "Service Unavailable"),
    "cut off": Fault(200, '[{"number": 1}, {"number": 2}]', truncated=True),
    "cut off, and of the right length": Fault(200, '[{"number": 1'),
    "no answer": Fault(hangs=True),
    "an answer without end": Fault(200, "[" + " " * 1000 + "]", drips=True),
    "somebody else's page": Fault(200, "<html>Log in to the hotel's network</html>"),
    "another shape": Fault(200, '{"message": "hello"}'),
    "a pull request without its number": Fault(200, '[{"title": "x"}]'),
    "an answer to nothing that was asked": Fault(304),
    "nothing": Fault(200, ""),
    "a page of nothing that is not the last": Fault(200, "[]", next_page("https://api.github.com")),
    "JSON without a bottom": Fault(200, "[" * 200_000 + "]" * 200_000),
    "a number without end": Fault(200, f'[{{"number": {"9" * 100_000}}}]'),
    "parcels in parcels": Fault(200, "[]", {"Content-Encoding": ", ".join(["gzip"] * 50)}),
    "a parcel that is none": Fault(200, "[]", {"Content-Encoding": "gzip"}),
    "a flood of headers": Fault(200, "[]", {f"X-{n}": "y" * 60 for n in range(2000)}),
    "a header without end": Fault(body=b"HTTP/1.1 200 OK\r\nX-Slow: ", again=b"x"),
    "news of an answer without end": Fault(again=b"HTTP/1.1 103 Early Hints\r\n\r\n"),
    "no HTTP": Fault(body=b"\x15\x03\x01\x00\x02\x02\x16\r\n\r\n", again=b"\r\n"),
    "a login page elsewhere": Fault(302, "", {"Location": "https://login.hotel.example/"}),
    "a way to nowhere": Fault(302, "", {"Location": "http://["}),
    "an error of many lines": Fault(500, json.dumps({"message": "one\ntwo\x1b[2J" * 10_000})),
    "an error without a bottom": Fault(502, "[" * 200_000),
    "an error of another shape": Fault(500, '{"message": {"a": 1}, "errors": [1, {"message": []}]}'),
}


@pytest.mark.parametrize("fault", TRANSIENT.values(), ids=TRANSIENT.keys())
def test_a_failure_that_may_pass_is_told_as_such(server: GitHubServer, github: GitHub, fault: Fault) -> None:
    """One call, no retry of its own, an error in one line; the next look finds everything."""
    merged(server)
    server.fail(fault)
    started = time.monotonic()
    with pytest.raises(GitHubUnavailable) as raised:
        github.closed_since(NOON)

    assert time.monotonic() - started < 7
    assert str(raised.value).isprintable()
    assert len(str(raised.value)) < 500
    assert 1 == len(github.closed_since(NOON))


def test_nobody_there() -> None:
    """A closed port is a failure that may pass."""
    nowhere = GitHub("acme/shop", token=TOKEN, api="http://127.0.0.1:1", timeout_s=0.5)

    with nowhere, pytest.raises(GitHubUnavailable, match="Connect call failed"):
        nowhere.closed_since(NOON)


def test_an_address_that_is_none_is_told() -> None:
    """In one line that names the setting."""
    with pytest.raises(GitHubRefused, match=r"'http://\xe9\.\.x' is no address .*\[github\] api"):
        GitHub("acme/shop", token=TOKEN, api="http://\xe9..x")


LIMITS: dict[str, tuple[Fault, timedelta]] = {
    "so many an hour": (rate_limit_exceeded(NOON + timedelta(minutes=7)), timedelta(minutes=7)),
    "a burst, with a time": (secondary_limit(retry_after="90"), timedelta(seconds=90)),
    "a burst, without": (secondary_limit(), timedelta(seconds=60)),
    "429": (error(429, "Too Many Requests"), timedelta(seconds=60)),
    "a date": (secondary_limit(retry_after=format_datetime(NOON + timedelta(seconds=90), usegmt=True)), 90 * SECOND),
    "a date that is over": (secondary_limit(retry_after=format_datetime(NOON - HOUR, usegmt=True)), 60 * SECOND),
    "a date that never comes": (secondary_limit(retry_after="Fri, 31 Dec 9999 23:59:59 GMT"), HOUR),
    "less than nothing": (secondary_limit(retry_after="-5"), 60 * SECOND),
    "nothing at all": (secondary_limit(retry_after="0"), 60 * SECOND),
    "words": (secondary_limit(retry_after="soon"), 60 * SECOND),
    "a trillion seconds": (secondary_limit(retry_after=f"{10**12}"), HOUR),
    "5000 digits": (secondary_limit(retry_after="9" * 5000), HOUR),
    "a reset that is over": (rate_limit_exceeded(NOON - 3 * HOUR), 60 * SECOND),
    "a reset that never comes": (error(403, "x", x_ratelimit_remaining="0", x_ratelimit_reset=f"{10**12}"), HOUR),
    "a reset in words": (error(403, "x", x_ratelimit_remaining="0", x_ratelimit_reset="soon"), 60 * SECOND),
}


@pytest.mark.parametrize(("limit", "wait"), LIMITS.values(), ids=LIMITS.keys())
def test_while_github_asks_for_quiet_there_is_quiet(
    server: GitHubServer, github: GitHub, clock: Clock, limit: Fault, wait: timedelta
) -> None:
    """The error says until when; until then no call is made, and then all is well."""
    server.fail(limit)
    errors = []
    for _ in range(3):
        with pytest.raises(GitHubRateLimited) as raised:
            github.closed_since(NOON)
        errors.append(raised.value.until)
    clock.now += wait

    assert [NOON + wait] * 3 == errors
    assert 1 == len(server.asked)
    assert [] == github.closed_since(NOON)


@pytest.mark.parametrize("off", [-50 * 60 * SECOND, 50 * 60 * SECOND], ids=["behind", "ahead"])
def test_a_wait_is_as_long_by_any_clock(server: GitHubServer, github: GitHub, clock: Clock, off: timedelta) -> None:
    """GitHub's reset is a moment of its own clock; ours may be ahead of it, or behind."""
    server.now = lambda: clock.now - off
    server.fail(rate_limit_exceeded(server.now() + 7 * 60 * SECOND))
    with pytest.raises(GitHubRateLimited) as raised:
        github.closed_since(NOON)

    assert clock.now + 7 * 60 * SECOND == raised.value.until


def test_a_clock_that_is_set_back_makes_no_longer_wait(server: GitHubServer, github: GitHub, clock: Clock) -> None:
    """It was a day ahead when GitHub asked for quiet; now it is right, and GitHub is asked."""
    clock.now += 24 * HOUR
    server.fail(secondary_limit(retry_after="90"))
    with pytest.raises(GitHubRateLimited):
        github.closed_since(NOON)
    clock.now = NOON

    assert [] == github.closed_since(NOON)


@pytest.mark.parametrize(("off", "words"), [(2 * HOUR, "120 min ahead of"), (-30 * HOUR, "1800 min behind")])
def test_a_clock_that_is_far_off_is_told(
    server: GitHubServer, github: GitHub, clock: Clock, off: timedelta, words: str
) -> None:
    """Nothing is judged by it, and one line says what to do."""
    merged(server)
    server.now = lambda: clock.now - off

    with pytest.raises(GitHubUnavailable, match=f"this host is {words} GitHub's: set it right.*timedatectl"):
        github.closed_since(NOON)


@pytest.mark.parametrize("off", [-40 * 60 * SECOND, 40 * 60 * SECOND], ids=["behind", "ahead"])
def test_a_merge_is_told_in_our_time(server: GitHubServer, github: GitHub, clock: Clock, off: timedelta) -> None:
    """It is compared with when a session began, by our clock; what was closed and changed stays in GitHub's time."""
    merged(server, at=NOON)
    server.now = lambda: clock.now - off
    (pull,) = github.closed_since(NOON)

    assert (NOON + off, NOON, NOON) == (pull.merged_at, pull.closed_at, pull.updated_at)


@given(st.text(st.characters(codec="latin-1", exclude_categories=["Cc"])), st.sampled_from(LIMIT_HEADERS))
def test_whatever_a_limit_says_the_wait_is_bounded(text: str, header: str) -> None:
    """No error, no wait below a second's fraction or above an hour."""
    headers = {"x-ratelimit-remaining": "0", header: text}

    assert timedelta() < quiet(403, headers, "", NOON) <= HOUR
    assert isinstance(ahead(headers, NOON), timedelta)


def test_the_last_allowed_call_is_the_last(server: GitHubServer, github: GitHub) -> None:
    """Its answer counts; the next one would be refused, and is not made."""
    server.remaining = 1
    merged(server)

    assert 1 == len(github.closed_since(NOON))
    with pytest.raises(GitHubRateLimited):
        github.closed_since(NOON)
    assert 1 == len(server.asked)


REFUSALS: dict[str, tuple[Fault, str]] = {
    "a wrong token": (error(401, "Bad credentials"), "Bad credentials.*give a token"),
    "a weak token": (error(403, "Resource not accessible by personal access token"), "permissions"),
    "a wrong repo": (error(404, "Not Found"), "spelled right"),
    "a moved repo": (error(301, "Moved Permanently", location="/repositories/1"), "another name"),
    "nonsense": (error(422, "Validation Failed"), "Validation Failed"),
}


@pytest.mark.parametrize(("fault", "words"), REFUSALS.values(), ids=REFUSALS.keys())
def test_a_no_says_what_to_do(server: GitHubServer, github: GitHub, fault: Fault, words: str) -> None:
    """Asking again cannot help; the error says what can, and never shows the token."""
    server.fail(fault)
    with pytest.raises(GitHubRefused, match=words) as raised:
        github.closed_since(NOON)

    assert TOKEN not in str(raised.value)


def test_a_wrong_token_is_refused_by_the_real_rule(server: GitHubServer) -> None:
    """Every call bears the token, and GitHub's version and kind of answer."""
    stranger = GitHub("acme/shop", token="guess", api=server.url)
    with stranger, pytest.raises(GitHubRefused, match="401"):
        stranger.closed_since(NOON)
    sent = server.asked[0].headers

    assert "Bearer guess" == sent["authorization"]
    assert ("application/vnd.github+json", "2022-11-28") == (sent["accept"], sent["x-github-api-version"])


CALLS: dict[str, Callable[[GitHub], object]] = {
    "list": lambda github: github.closed_since(datetime(2026, 1, 1, tzinfo=UTC)),
    "compare": lambda github: github.on_branch("a" * 40, "main"),
    "undone": lambda github: github.undone(a_pull()),
    "deliver": lambda github: github.deliver("orch/i-a1b2", base="main", text=TEXT),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS.keys())
def test_every_call_ends(server: GitHubServer, github: GitHub, call: Callable[[GitHub], object]) -> None:
    """A server that never answers holds nobody up."""
    server.fail(Fault(hangs=True))

    with pytest.raises(GitHubUnavailable):
        call(github)


def test_the_servers_signature_is_githubs() -> None:
    """The example of GitHub's own documentation, so that a receiver that passes our tests passes there."""
    signature = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"

    assert signature == sign(b"Hello, World!", "It's a Secret to Everybody")
