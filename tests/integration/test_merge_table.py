"""The table of merges: what closes an issue and what does not, by three doors, over real git and a forge's API.

A row is what happens to one issue whose session has ended, seen by the webhook, by a poll of the forge or in the local
repo. All looks are whole ones: what one door saw, the others see again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from orchestrator.merge_close.record import Marker, markers_of
from orchestrator.models import Verdict
from tests.merge_world import BRANCH, ISSUE, LINE, MergeWorld

Happens = Callable[[MergeWorld], object]

OURS = "def add(a, b):\n    return sum((a, b))\n"
POLISHED = "def add(a, b):\n    return sum((a, b), 0)\n"
THEIRS = "def add(a, b):\n    return b + a\n"
BOTH = "def add(a, b):\n    return sum((b, a))\n"
RESIGNED = "def add(a, b):\n    raise NotImplementedError\n"


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[MergeWorld]:
    with MergeWorld(tmp_path, monkeypatch) as world:
        yield world


# --- local git ---


def merge(world: MergeWorld) -> None:
    world.session(OURS, POLISHED)
    world.merge()


def fast_forward(world: MergeWorld) -> None:
    world.session(OURS, POLISHED)
    world.merge("--ff-only")


def fast_forward_with_a_persons_commit_on_top(world: MergeWorld) -> None:
    world.session(OURS)
    world.merge("--ff-only")
    world.commit("polish.py")


def squash(world: MergeWorld) -> None:
    world.session(OURS, POLISHED)
    world.squash()


def squash_with_co_authors(world: MergeWorld) -> None:
    world.session(OURS)
    world.squash(LINE, "Co-authored-by: Ada <ada@example.org>")


def squash_in_githubs_words(world: MergeWorld) -> None:
    world.session(OURS, POLISHED)
    step = f"{LINE}\nOrch-Session: s-1"
    world.squash(f"* Step 0\n\n{step}\n\n* Step 1\n\n{step}", "---------\n\nCo-authored-by: Ada <ada@example.org>")


def squash_in_gits_words(world: MergeWorld) -> None:
    world.session(OURS, POLISHED)
    world.project.git("merge", "--quiet", "--squash", BRANCH)
    world.git("commit", "--quiet", "--no-edit")


def squash_with_conflicts_solved_by_hand(world: MergeWorld) -> None:
    world.session(OURS, POLISHED)
    world.commit("src/calc.py", THEIRS)
    world.conflicts("merge", "--squash", BRANCH)
    world.solve(BOTH)
    world.git("commit", "--quiet", "-m", "Add numbers", "-m", LINE, "-m", "Co-authored-by: Ada <a@example.org>")


def rebase(world: MergeWorld) -> None:
    world.session(OURS, POLISHED)
    rebased(world)


def rebase_with_conflicts_solved_by_hand(world: MergeWorld) -> None:
    world.session(OURS, POLISHED)
    world.commit("src/calc.py", THEIRS)
    for step, text in ((f"{BRANCH}~1", BOTH), (BRANCH, POLISHED)):
        world.conflicts("cherry-pick", step)
        world.solve(text)
        world.git("-c", "core.editor=true", "cherry-pick", "--continue")


def rebase_and_others_go_back_to_its_first_step(world: MergeWorld) -> None:
    world.session(OURS, POLISHED, beside=False)
    rebased(world)
    world.commit("src/calc.py", OURS)


def rebased(world: MergeWorld) -> None:
    world.commit("other.py")
    world.git("cherry-pick", f"main..{BRANCH}")


def fast_forward_and_others_go_back_to_its_first_step(world: MergeWorld) -> None:
    world.session(OURS, POLISHED, beside=False)
    world.merge("--ff-only")
    world.commit("src/calc.py", OURS)


def merge_with_conflicts_solved_by_hand(world: MergeWorld) -> None:
    world.session(OURS, POLISHED)
    world.commit("src/calc.py", THEIRS)
    world.conflicts("merge", "--no-ff", BRANCH)
    world.solve(BOTH)
    world.git("commit", "--quiet", "--no-edit")


def merge_and_others_change_it(world: MergeWorld) -> None:
    world.session(OURS)
    world.merge()
    world.commit("src/calc.py", RESIGNED)


def squash_and_others_change_it(world: MergeWorld) -> None:
    world.session(OURS)
    world.squash()
    world.commit("src/calc.py", RESIGNED)


def merge_what_was_squashed_without_a_word(world: MergeWorld) -> None:
    world.session(OURS)
    world.squash("No trailer.")
    world.merge()


def merge_revert_and_revert_that(world: MergeWorld) -> None:
    world.session(OURS)
    merged = world.merge()
    world.git("revert", "--no-edit", "-m", "1", merged)
    world.git("revert", "--no-edit", "HEAD")


def squash_revert_and_squash_again(world: MergeWorld) -> None:
    world.session(OURS)
    squashed = world.squash()
    world.git("revert", "--no-edit", squashed)
    world.commit("other.py")
    world.git("cherry-pick", squashed)


def merge_after_a_session_that_failed(world: MergeWorld) -> None:
    """The second session finds the work of the first on its branch, and has nothing to add."""
    world.session(OURS, verdict=Verdict.VERIFY_FAILED)
    world.session()
    world.merge("--ff-only")


def reopened_done_anew_and_merged(world: MergeWorld) -> None:
    world.session(OURS)
    world.squash()
    world.look()
    world.reopen()
    world.session(OURS, POLISHED)
    world.merge("-X", "theirs")


def nothing_yet(world: MergeWorld) -> None:
    world.session(OURS)
    world.commit("other.py")


def a_session_that_changed_nothing(world: MergeWorld) -> None:
    world.session()
    world.commit("other.py")


def a_session_that_changed_nothing_since_its_work_was_merged(world: MergeWorld) -> None:
    """Merged and closed by hand while nobody looked; reopened, and the new session has nothing to add."""
    world.session(OURS)
    world.merge("--ff-only")
    world.reopen()
    world.session()


def reopened_after_a_squash_and_nothing_new(world: MergeWorld) -> None:
    """The branch still has what was squashed, so the new session hands over the very same commit."""
    world.session(OURS)
    world.squash()
    world.look()
    world.reopen()
    world.session()


def the_same_while_nobody_looked(world: MergeWorld) -> None:
    world.session(OURS)
    world.squash()
    world.reopen()
    world.session()


def merge_with_ours(world: MergeWorld) -> None:
    world.session(OURS)
    world.commit("other.py")
    world.merge("-s", "ours", "--no-ff")


def merge_with_ours_and_a_change_beside_it(world: MergeWorld) -> None:
    world.session(OURS)
    world.merge("-s", "ours", "--no-ff")
    world.project.commit("beside.py")
    world.git("reset", "--quiet", "--soft", "HEAD~1")
    world.git("commit", "--quiet", "--amend", "--no-edit")


def merge_with_ours_elsewhere_first(world: MergeWorld) -> None:
    world.session(OURS)
    world.git("switch", "--quiet", "-c", "integration")
    world.commit("other.py")
    world.merge("-s", "ours", "--no-ff")
    world.git("switch", "--quiet", "main")
    world.merge("--no-ff", what="integration")


def merge_and_revert(world: MergeWorld) -> None:
    world.session(OURS, POLISHED)
    world.git("revert", "--no-edit", "-m", "1", world.merge())


def merge_revert_and_more(world: MergeWorld) -> None:
    world.session(OURS)
    world.git("revert", "--no-edit", "-m", "1", world.merge())
    world.commit("src/calc.py", RESIGNED)


def squash_and_revert(world: MergeWorld) -> None:
    world.session(OURS, POLISHED)
    world.git("revert", "--no-edit", world.squash())


def fast_forward_and_take_all_back_without_a_word(world: MergeWorld) -> None:
    world.session(OURS, POLISHED)
    world.merge("--ff-only")
    world.git("revert", "--no-commit", f"{world.project.first}..HEAD")
    world.git("commit", "--quiet", "-m", "Not yet")
    world.commit("other.py")


def squash_revert_and_revert_twice_more(world: MergeWorld) -> None:
    world.session(OURS)
    world.git("revert", "--no-edit", world.squash())
    for _ in range(2):
        world.git("revert", "--no-edit", "HEAD")


def squash_without_the_trailer(world: MergeWorld) -> None:
    world.session(OURS)
    world.squash("No trailer.")


def squash_for_two_issues(world: MergeWorld) -> None:
    world.session(OURS)
    world.squash(LINE, "Sudocode-Issue: i-c3d4")


def one_step_of_two(world: MergeWorld) -> None:
    world.session(OURS, POLISHED)
    world.git("cherry-pick", f"{BRANCH}~1")


def one_step_of_two_with_conflicts_solved(world: MergeWorld) -> None:
    world.session(OURS, POLISHED, beside=False)
    world.commit("src/calc.py", THEIRS)
    world.conflicts("cherry-pick", f"{BRANCH}~1")
    world.solve(BOTH)
    world.git("-c", "core.editor=true", "cherry-pick", "--continue")


def squash_with_conflicts_that_leaves_a_file_out(world: MergeWorld) -> None:
    world.session(OURS, POLISHED)
    world.commit("src/calc.py", THEIRS)
    world.conflicts("merge", "--squash", BRANCH)
    world.solve(BOTH)
    world.git("rm", "--quiet", "--force", "step1.py")
    world.git("commit", "--quiet", "-m", "Add numbers", "-m", LINE)


def the_trailer_alone(world: MergeWorld) -> None:
    world.session(OURS)
    world.git("commit", "--quiet", "--allow-empty", "-m", "I did it all", "-m", LINE)


def the_trailer_alone_where_the_work_conflicts(world: MergeWorld) -> None:
    world.session(OURS, beside=False)
    world.commit("src/calc.py", THEIRS)
    world.git("commit", "--quiet", "--allow-empty", "-m", "I did it all", "-m", LINE)


def the_trailer_on_other_files_where_the_work_conflicts(world: MergeWorld) -> None:
    world.session(OURS, beside=False)
    world.commit("src/calc.py", THEIRS)
    world.project.commit("other.py")
    world.git("commit", "--quiet", "--amend", "-m", "I did it all", "-m", LINE)


# --- polls of the forge ---


def pulled(world: MergeWorld) -> None:
    world.session(OURS)
    world.merged()


def pulled_and_reverted_and_that_reverted(world: MergeWorld) -> None:
    world.session(OURS)
    number = world.merged()
    for sha, undoes in (("d" * 40, world.sha(number)), ("e" * 40, "d" * 40)):
        world.github.commit(sha, f'Revert "x"\n\nThis reverts commit {undoes}.', at=world.tick())


def pulled_and_something_else_reverted(world: MergeWorld) -> None:
    world.session(OURS)
    world.merged()
    world.github.commit("d" * 40, "Revert it\n\nReverts acme/shop#99", at=world.tick())


def squashed_without_files_of_its_own(world: MergeWorld) -> None:
    """A rebase may end in an empty commit: only a merge commit without a change took nothing."""
    world.session(OURS)
    number = world.pull()
    world.github.merge(number, at=world.tick(), parents=1, files=0)


def turned_down_then_merged(world: MergeWorld) -> None:
    world.session(OURS)
    number = world.pull()
    world.github.close(number, at=world.tick())
    world.look()
    world.github.reopen(number, at=world.tick())
    world.look()
    world.github.merge(number, at=world.tick())


def pulled_by_a_trusted_author_from_another_branch(world: MergeWorld) -> None:
    world.session(OURS)
    world.merged(branch="rework", author="Lead")


def pulled_in_the_second_the_session_ended(world: MergeWorld) -> None:
    world.session(OURS)
    number = world.pull()
    world.github.merge(number, at=world.now)


def turned_down(world: MergeWorld) -> None:
    world.session(OURS)
    world.github.close(world.pull(), at=world.tick())


def turned_down_and_merged_while_a_session_runs(world: MergeWorld) -> None:
    world.session(OURS)
    number = world.pull()
    world.github.close(number, at=world.tick())
    world.look()
    world.session(POLISHED, verdict=None)
    world.github.reopen(number, at=world.tick())
    world.github.merge(number, at=world.tick())


def turned_down_merged_while_a_session_ran_and_forgotten(world: MergeWorld) -> None:
    turned_down_and_merged_while_a_session_runs(world)
    world.look()
    world.session(POLISHED)
    world.forget()


def pulled_and_reopened_since(world: MergeWorld) -> None:
    pulled(world)
    world.look()
    world.reopen()
    world.session(POLISHED)
    world.forget()


def pulled_with_two_lines(world: MergeWorld) -> None:
    world.session(OURS)
    world.merged(f"{LINE}\n{LINE}")


def pulled_with_a_quoted_line(world: MergeWorld) -> None:
    world.session(OURS)
    world.merged(f"> {LINE}")


def pulled_with_a_line_in_capitals(world: MergeWorld) -> None:
    world.session(OURS)
    world.merged(LINE.upper())


def pulled_with_the_line_edited_away(world: MergeWorld) -> None:
    world.session(OURS)
    world.merged("Looks good.")


def pulled_from_a_fork(world: MergeWorld) -> None:
    world.session(OURS)
    number = world.pull()
    world.github.pulls[number]["head"]["repo"] = {"full_name": "eve/shop"}
    world.github.merge(number, at=world.tick())


def pulled_from_somebodys_branch(world: MergeWorld) -> None:
    world.session(OURS)
    world.merged(branch="fix-typo")


def pulled_into_another_base(world: MergeWorld) -> None:
    world.session(OURS)
    world.merged(base="release")


def pulled_and_pushed_away(world: MergeWorld) -> None:
    world.session(OURS)
    sha = world.sha(world.merged())
    world.github.branches["main"].remove(sha)
    world.github.push("lost", sha)


def pulled_before_the_session_ended(world: MergeWorld) -> None:
    number = world.pull()
    world.github.merge(number, at=world.now)
    world.session(OURS)


def pulled_with_ours(world: MergeWorld) -> None:
    world.session(OURS)
    number = world.pull()
    world.github.merge(number, at=world.tick(), parents=2, files=0)


def pulled_and_reverted(world: MergeWorld) -> None:
    world.session(OURS)
    world.github.commit("d" * 40, f"Revert it\n\nThis reverts commit {world.sha(world.merged())}.", at=world.tick())


def pulled_and_reverted_in_githubs_words(world: MergeWorld) -> None:
    world.session(OURS)
    number = world.pull()
    world.github.merge(number, at=world.tick(), message="Add numbers", parents=1)
    world.github.commit("d" * 40, f'Revert "x" (#77)\n\nReverts acme/shop#{number}', at=world.tick())


def pulled_though_the_session_changed_nothing(world: MergeWorld) -> None:
    world.session()
    world.merged()


# --- the webhook ---


def hooked(world: MergeWorld) -> None:
    world.session(OURS)
    assert 202 == world.hook(world.merged())


def hooked_ten_times(world: MergeWorld) -> None:
    world.session(OURS)
    number = world.merged()
    for delivery in ("one", "two", "one", "three", "two") * 2:
        world.hook(number, delivery=delivery)


def hooked_late(world: MergeWorld) -> None:
    """The poll has seen it long ago."""
    world.session(OURS)
    number = world.merged()
    world.look()
    world.hook(number)


def hooked_in_the_wrong_order(world: MergeWorld) -> None:
    """That it was merged comes before that it was closed, and before it was opened again."""
    turned_down_then_merged(world)
    for action in ("closed", "reopened", "closed"):
        world.hook(1, action=action, delivery=f"{action} {len(world.remembered)}".replace(" ", "-"))


def hooked_with_a_lie_in_it_about_what_was_merged(world: MergeWorld) -> None:
    """Its content is not believed, also where it speaks against the merge."""
    world.session(OURS)
    world.hook(world.merged(), body="nothing to see", merged=False, merged_at=None)


def hooked_with_a_forged_signature(world: MergeWorld) -> None:
    world.session(OURS)
    assert 401 == world.hook(world.pull(), signature="sha256=" + "0" * 64, merged_at="2026-01-05T20:00:00Z")


def hooked_with_a_merge_that_is_none(world: MergeWorld) -> None:
    """Signed, and a lie: the forge itself says that it is open."""
    world.session(OURS)
    at = "2026-01-05T20:00:00Z"
    lie: dict[str, Any] = {"merged": True, "merged_at": at, "closed_at": at, "merge_commit_sha": "f" * 40}

    assert 202 == world.hook(world.pull(), **lie)


def hooked_when_it_was_opened(world: MergeWorld) -> None:
    world.session(OURS)
    assert 204 == world.hook(world.pull(), action="opened")


def hooked_when_it_was_turned_down(world: MergeWorld) -> None:
    world.session(OURS)
    number = world.pull()
    world.github.close(number, at=world.tick())
    world.hook(number)


# --- several doors ---


def squashed_on_the_forge(world: MergeWorld) -> str:
    """One squash: a pull request of the forge, and a commit that this repo has not fetched yet; gives the commit."""
    world.session(OURS)
    number, sha = world.pull(), world.squash()
    world.git("reset", "--quiet", "--hard", "HEAD~1")
    world.github.commit(sha, f"Add numbers (#{number})\n\n{LINE}", at=world.now)
    world.github.close(number, at=world.now)
    world.github.pulls[number] |= {"merged_at": f"{world.now:%Y-%m-%dT%H:%M:%SZ}", "merge_commit_sha": sha}
    return sha


def one_squash_seen_by_all(world: MergeWorld) -> None:
    world.merge("--ff-only", what=squashed_on_the_forge(world))
    for n in range(3):
        world.hook(1, delivery=f"number-{n}")
        world.forget()


def one_squash_and_the_issue_reopened_by_a_person(world: MergeWorld) -> None:
    """Closed as the forge has it; what the repo has to say of the same merge closes it no more."""
    sha = squashed_on_the_forge(world)
    world.hook(1)
    world.merge("--ff-only", what=sha)
    world.reopen("needs_review")
    world.finished.waiting.add(ISSUE)
    world.forget()


def one_squash_and_a_session_since_with_nothing_new(world: MergeWorld) -> None:
    sha = squashed_on_the_forge(world)
    world.hook(1)
    world.merge("--ff-only", what=sha)
    world.reopen()
    world.session()
    world.forget()


def one_squash_and_a_session_of_an_earlier_version_with_nothing_new(world: MergeWorld) -> None:
    """Where and when that session began is not on record: the name of the merge alone tells."""
    one_squash_and_a_session_since_with_nothing_new(world)
    session = world.finished.sessions[ISSUE]
    world.finished.sessions[ISSUE] = replace(session, base="", since=None)


def named_badly_on_the_forge_and_proved_by_git(world: MergeWorld) -> None:
    world.session(OURS)
    world.merged("no line")
    world.look()
    world.merge()


RIGHT: dict[str, list[Happens]] = {
    "local git": [
        merge,
        fast_forward,
        fast_forward_with_a_persons_commit_on_top,
        squash,
        squash_with_co_authors,
        squash_in_githubs_words,
        squash_in_gits_words,
        squash_with_conflicts_solved_by_hand,
        rebase,
        rebase_with_conflicts_solved_by_hand,
        rebase_and_others_go_back_to_its_first_step,
        fast_forward_and_others_go_back_to_its_first_step,
        merge_with_conflicts_solved_by_hand,
        merge_and_others_change_it,
        squash_and_others_change_it,
        merge_what_was_squashed_without_a_word,
        merge_revert_and_revert_that,
        squash_revert_and_squash_again,
        merge_after_a_session_that_failed,
        reopened_done_anew_and_merged,
    ],
    "forge": [
        pulled,
        pulled_and_reverted_and_that_reverted,
        pulled_and_something_else_reverted,
        squashed_without_files_of_its_own,
        turned_down_then_merged,
        pulled_by_a_trusted_author_from_another_branch,
        pulled_in_the_second_the_session_ended,
    ],
    "webhook": [
        hooked,
        hooked_ten_times,
        hooked_late,
        hooked_in_the_wrong_order,
        hooked_with_a_lie_in_it_about_what_was_merged,
    ],
    "several": [one_squash_seen_by_all, named_badly_on_the_forge_and_proved_by_git],
}
WRONG: dict[str, list[Happens]] = {
    "local git": [
        nothing_yet,
        a_session_that_changed_nothing,
        a_session_that_changed_nothing_since_its_work_was_merged,
        reopened_after_a_squash_and_nothing_new,
        the_same_while_nobody_looked,
        merge_with_ours,
        merge_with_ours_and_a_change_beside_it,
        merge_with_ours_elsewhere_first,
        merge_and_revert,
        merge_revert_and_more,
        squash_and_revert,
        fast_forward_and_take_all_back_without_a_word,
        squash_revert_and_revert_twice_more,
        squash_without_the_trailer,
        squash_for_two_issues,
        one_step_of_two,
        one_step_of_two_with_conflicts_solved,
        squash_with_conflicts_that_leaves_a_file_out,
        the_trailer_alone,
        the_trailer_alone_where_the_work_conflicts,
        the_trailer_on_other_files_where_the_work_conflicts,
    ],
    "forge": [
        turned_down,
        turned_down_and_merged_while_a_session_runs,
        turned_down_merged_while_a_session_ran_and_forgotten,
        pulled_and_reopened_since,
        pulled_with_two_lines,
        pulled_with_a_quoted_line,
        pulled_with_a_line_in_capitals,
        pulled_with_the_line_edited_away,
        pulled_from_a_fork,
        pulled_from_somebodys_branch,
        pulled_into_another_base,
        pulled_and_pushed_away,
        pulled_before_the_session_ended,
        pulled_with_ours,
        pulled_and_reverted,
        pulled_and_reverted_in_githubs_words,
        pulled_though_the_session_changed_nothing,
    ],
    "webhook": [
        hooked_with_a_forged_signature,
        hooked_with_a_merge_that_is_none,
        hooked_when_it_was_opened,
        hooked_when_it_was_turned_down,
    ],
    "several": [
        one_squash_and_the_issue_reopened_by_a_person,
        one_squash_and_a_session_since_with_nothing_new,
        one_squash_and_a_session_of_an_earlier_version_with_nothing_new,
    ],
}


def rows(table: dict[str, list[Happens]]) -> list[object]:
    return [
        pytest.param(happens, id=f"{door}: {happens.__name__}") for door, events in table.items() for happens in events
    ]


@pytest.mark.parametrize("happens", rows(RIGHT))
def test_a_merge_closes_its_issue_once(world: MergeWorld, happens: Happens) -> None:
    """However often it is looked for since, also when the record of settled ones is made anew."""
    happens(world)
    for _ in range(2):
        world.look()
        world.forget()
    closed_by = [it for it in markers(world) if it is Marker.MERGE_CLOSE_APPLIED]

    assert "closed" == world.status
    assert len(world.closings) == len(closed_by) == 1 + (happens is reopened_done_anew_and_merged)


@pytest.mark.parametrize("happens", rows(WRONG))
def test_what_is_no_merge_closes_nothing(world: MergeWorld, happens: Happens) -> None:
    """However often it is looked for since: no close beyond those that were right before the issue was reopened."""
    happens(world)
    before, status = list(world.closings), world.status
    for _ in range(2):
        world.look()
        world.forget()

    assert before == world.closings
    assert world.status == ("open" if happens is turned_down else status)
    assert "closed" != world.status


BADLY = [
    pulled_with_two_lines,
    pulled_with_a_quoted_line,
    pulled_with_a_line_in_capitals,
    pulled_with_the_line_edited_away,
]


@pytest.mark.parametrize("happens", BADLY)
def test_a_sessions_pull_request_that_names_its_issue_badly_says_so(world: MergeWorld, happens: Happens) -> None:
    """The marker is on the issue of the branch, once."""
    happens(world)
    for _ in range(2):
        world.look()
        world.forget()

    assert [Marker.MERGE_CLOSE_REJECTED] == markers(world)


def test_the_table_has_forty_events_and_three_doors() -> None:
    """As many as were promised, none twice."""
    events = [happens for table in (RIGHT, WRONG) for listed in table.values() for happens in listed]

    assert 40 <= len(events) == len(set(events))
    assert {"local git", "forge", "webhook", "several"} == set(RIGHT) == set(WRONG)


def markers(world: MergeWorld) -> list[Marker]:
    feedback = world.tracker.show_issue(ISSUE)["feedback"]
    assert isinstance(feedback, list)
    return [marker.marker for marker in markers_of(row["content"] for row in feedback)]
