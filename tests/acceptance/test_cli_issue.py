"""`orch issue`: filing, listing, showing, closing and reopening, with the bundled tracker."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from orchestrator import tracker
from orchestrator.adapters.mcp import McpTracker
from orchestrator.adapters.process.lock import locked
from orchestrator.errors import LockTimeout
from tests.orch import Orch, OrchHere


@pytest.fixture
def orch(tmp_path: Path) -> Orch:
    orch = OrchHere(tmp_path)
    tracker.init(orch.repo)
    return orch


def add(orch: Orch, *words: str, stdin: str = "") -> str:
    return orch.says("issue", "add", *words, stdin=stdin).strip()


def test_the_way_of_a_newcomer(tmp_path: Path) -> None:
    """init makes a place, add prints an id, list has it, show tells it, doctor is content, enqueue takes it."""
    orch = Orch(tmp_path)
    orch.install("claude")
    orch.install("make")

    orch.says("init")
    issue = add(orch, "Greet in French", "--body", "- [ ] bonjour", "--priority", "1", "--tag", "a", "--tag", "b")

    assert f"{issue:<8} open         1  Greet in French\n" == orch.says("issue", "list")
    title, *facts, gap, body = orch.says("issue", "show", issue).splitlines()
    assert f"{issue}  Greet in French" == title
    assert ["status     open", "priority   1", "tags       a, b"] == facts[:3]
    assert ("", "- [ ] bonjour") == (gap, body)
    assert orch.says("doctor").endswith("All that is needed is there.\n")
    assert f"{issue}: queued; no worker runs, `orch up` starts them\n" == orch.says("enqueue", issue)


def test_issues_are_listed_in_the_order_in_which_they_run(orch: Orch) -> None:
    """Priority 0 first; --status picks."""
    later = add(orch, "Later", "--priority", "3")
    first = add(orch, "First", "--priority", "0", "--blocked-by", later)

    rows = json.loads(orch.says("issue", "list", "--json"))
    blocked = json.loads(orch.says("issue", "list", "--json", "--status", "blocked"))

    assert [(first, "blocked", 0), (later, "open", 3)] == [(row["id"], row["status"], row["priority"]) for row in rows]
    assert [first] == [row["id"] for row in blocked]


def test_an_issue_can_wait_for_others(orch: Orch) -> None:
    """It is blocked, and says by what."""
    blockers = [add(orch, "One"), add(orch, "Two")]
    waiting = add(orch, "Three", "--blocked-by", blockers[0], "--blocked-by", blockers[1])

    shown = orch.says("issue", "show", waiting)

    assert "status     blocked" in shown
    [line] = [line for line in shown.splitlines() if line.startswith("blocked by ")]
    assert set(blockers) == set(line.removeprefix("blocked by ").split(", "))


def test_no_poll_comes_between_an_issue_and_what_it_waits_for(orch: Orch, monkeypatch: pytest.MonkeyPatch) -> None:
    """Filed, and not yet linked, it looks ready: nobody else gets a call of the tracker until it is whole."""
    blocker, link, links = add(orch, "One"), McpTracker.link, 0

    def watched(tracker: McpTracker, **words: str) -> object:
        nonlocal links
        links += 1
        (lock,) = orch.state.glob("**/tracker.lock")
        with pytest.raises(LockTimeout), locked(lock, wait_s=0):
            pytest.fail("a poll would have had its turn")
        return link(tracker, **words)

    monkeypatch.setattr(McpTracker, "link", watched)
    waiting = add(orch, "Two", "--blocked-by", blocker)

    assert 1 == links
    assert "status     blocked" in orch.says("issue", "show", waiting)


def test_waiting_for_an_unknown_issue_files_nothing(orch: Orch) -> None:
    """An issue that ran because its blocker was misspelt would be worse than none."""
    done = orch("issue", "add", "Three", "--blocked-by", "i-zzzz")

    assert (1, "") == (done.returncode, done.stdout)
    assert "Issue not found: i-zzzz" in done.stderr
    assert [] == json.loads(orch.says("issue", "list", "--json"))


def test_the_body_may_come_from_a_file_or_from_stdin(orch: Orch) -> None:
    """Long issues are written in an editor, or by a program."""
    (orch.repo / "body.md").write_text("- [ ] Grüße\n", encoding="utf-8")

    from_file = add(orch, "File", "--body-file", "body.md")
    from_stdin = add(orch, "Stdin", "--body-file", "-", stdin="- [ ] hello\n")

    assert orch.says("issue", "show", from_file).endswith("\n- [ ] Grüße\n")
    assert orch.says("issue", "show", from_stdin).endswith("\n- [ ] hello\n")


def test_show_for_programs_is_the_trackers_own_record(orch: Orch) -> None:
    """Nothing is left out."""
    issue = add(orch, "Greet in French")

    shown = json.loads(orch.says("issue", "show", issue, "--json"))

    assert (issue, "Greet in French", "open") == (shown["id"], shown["title"], shown["status"])
    assert {"relationships", "feedback", "tags", "content"} <= set(shown)


def test_a_reopened_issue_is_open(orch: Orch) -> None:
    """Its status is set, and the line says how to run it next."""
    first = add(orch, "First")
    blocked = add(orch, "Second", "--blocked-by", first)

    said = orch.says("issue", "reopen", blocked)

    assert f"{blocked} is open; `orch enqueue {blocked}` runs it next\n" == said
    assert "status     open" in orch.says("issue", "show", blocked)


def test_a_closed_issue_holds_up_nobody(orch: Orch) -> None:
    """Closing it is a person's word, which can be taken back; what waited for it does so no more."""
    first = add(orch, "First")
    waiting = add(orch, "Second", "--blocked-by", first)

    assert f"{first} is closed; `orch issue reopen {first}` undoes that\n" == orch.says("issue", "close", first)
    assert "status     closed" in orch.says("issue", "show", first)
    assert "status     open" in orch.says("issue", "show", waiting)
    assert {"id": waiting, "status": "closed"} == json.loads(orch.says("issue", "close", waiting, "--json"))


def test_a_title_cannot_steer_the_terminal(orch: Orch) -> None:
    """Issues are written by strangers: escape sequences are shown as what they are, not obeyed."""
    add(orch, "red \x1b[31m\x9b1m alert\u202e", "--body", "\x1b]0;owned\x07 text")

    shown = orch.says("issue", "list") + orch.says("issue", "show", orch.says("issue", "list").split()[0])

    assert not set("\x1b\x9b\x07\u202e") & set(shown)
    assert "alert" in shown


def test_the_empty_tracker_says_how_to_begin(orch: Orch) -> None:
    """On stderr: a program that reads the list finds it empty."""
    done = orch("issue", "list")

    assert (0, "") == (done.returncode, done.stdout)
    assert 'There are none; `orch issue add "What to do"` files one.\n' == done.stderr


@pytest.mark.parametrize("verb", ["show", "reopen", "close"])
def test_an_unknown_issue_is_one_line(orch: Orch, verb: str) -> None:
    """What the tracker said, and where to look."""
    done = orch("issue", verb, "i-zzzz")

    assert (1, "") == (done.returncode, done.stdout)
    assert "Error: show_issue: Issue not found: i-zzzz; `orch issue list` shows what there is\n" == done.stderr


def test_a_body_that_is_not_text_is_refused(orch: Orch) -> None:
    """The line names the byte."""
    (orch.repo / "body").write_bytes(b"caf\xe9")

    done = orch("issue", "add", "x", "--body-file", "body")

    assert 2 == done.returncode
    assert "Invalid value for --body-file: byte 4 is not UTF-8" in done.stderr


def test_before_init_the_way_to_go_is_init(tmp_path: Path) -> None:
    """A repo without a tracker: one line with the command that makes one."""
    orch = OrchHere(tmp_path)

    done = orch("issue", "list")

    assert (1, "") == (done.returncode, done.stdout)
    assert f"Error: there is no tracker in {orch.repo}: run `orch init` there\n" == done.stderr


def test_the_project_may_be_named_from_anywhere(orch: Orch, tmp_path: Path) -> None:
    """`-C DIR` works on the repo in DIR, whatever folder one stands in."""
    issue = add(orch, "Greet in French")

    done = orch("-C", "repo", "issue", "list", cwd=tmp_path)

    assert 0 == done.returncode
    assert done.stdout.startswith(issue)


def test_outside_a_repo_the_way_to_go_is_init(orch: Orch, tmp_path: Path) -> None:
    """One line, no traceback."""
    done = orch("issue", "list", cwd=tmp_path)

    assert (1, "") == (done.returncode, done.stdout)
    assert done.stderr.endswith("; run `orch init` in your repo\n")
    assert 1 == done.stderr.count("\n")
