"""Which files `orch logs` reads, and what it makes of what is in them."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from orchestrator.cli.logs import Growing, Logs, elsewhere_than_here, folder_of, over
from orchestrator.errors import OrchestratorError
from orchestrator.models import Holding, SessionRecord, SessionState
from tests.support import an_issue

HERE = socket.gethostname()


def a_holding(state: SessionState = SessionState.ENDED, host: str = HERE) -> Holding:
    """i-a1b2's last session, session-2."""
    record = SessionRecord("session-2", "orch-main", an_issue(), 3, 2)
    owner = f"sessions@{host}/7" if host else ""
    return Holding("i-a1b2", state, record, owner, "", 0, "", "", 0, 0, 0, None, None, None)


@pytest.fixture
def sessions(tmp_path: Path) -> Path:
    """Where session-1 left its logs, and session-2 nothing yet."""
    (tmp_path / "session-1").mkdir()
    return tmp_path


def left(folder: Path, *names: str) -> Logs:
    for name in names:
        (folder / name).touch()
    return Logs("i-a1b2", folder)


def test_the_last_session_is_meant(sessions: Path) -> None:
    """As Redis knows it, or the youngest folder where Redis is away; or the one that was asked for."""
    (sessions / "session-2").mkdir()

    assert "session-2" == folder_of(sessions, "i-a1b2", a_holding(), None).name
    assert "session-2" == folder_of(sessions, "i-a1b2", None, None).name
    assert "session-1" == folder_of(sessions, "i-a1b2", a_holding(), "session-1").name


def test_a_session_that_begins_has_no_folder_yet(sessions: Path) -> None:
    """It is waited for where it will be."""
    assert sessions / "session-2" == folder_of(sessions, "i-a1b2", a_holding(SessionState.CLAIMED, host=""), None)


@pytest.mark.parametrize(
    ("holding", "wanted", "said"),
    [
        (a_holding(host="box"), None, "i-a1b2: its logs are on box; run `orch logs i-a1b2` there"),
        (
            a_holding(SessionState.RUNNING, host="box"),
            None,
            "i-a1b2: its logs are on box; run `orch logs i-a1b2` there",
        ),
        (a_holding(), "session-9", "i-a1b2: no session whose id begins with session-9 has left logs here"),
    ],
)
def test_where_logs_are_not_it_says_where_they_are(
    sessions: Path, holding: Holding, wanted: str | None, said: str
) -> None:
    """The host of the worker that ran it."""
    with pytest.raises(OrchestratorError, match=said):
        folder_of(sessions, "i-a1b2", holding, wanted)


def test_an_issue_without_logs(tmp_path: Path) -> None:
    """And without Redis to ask."""
    with pytest.raises(OrchestratorError, match="no session has left logs here"):
        folder_of(tmp_path / "none", "i-a1b2", None, None)


def test_a_session_that_moved_is_known_to_go_on_elsewhere() -> None:
    """A host's name may have dashes and dots."""
    assert ("", "", "box-1.example.org") == (
        elsewhere_than_here(a_holding()),
        elsewhere_than_here(a_holding(host="")),
        elsewhere_than_here(a_holding(host="box-1.example.org")),
    )


@pytest.mark.parametrize(
    ("holding", "ended"),
    [
        (a_holding(SessionState.RUNNING), False),
        (a_holding(SessionState.CLAIMED), False),
        (a_holding(SessionState.ENDED), True),
        (None, True),
    ],
)
def test_a_session_is_over(holding: Holding | None, ended: bool) -> None:
    """When it has ended, is forgotten, or another one of the issue has begun."""
    assert ended == over(holding, "session-2")
    assert over(holding, "session-1")


def test_runs_are_in_the_order_in_which_they_were(sessions: Path) -> None:
    """By number, not by name; an agent's stdout before its stderr; what it was asked is not what it said."""
    logs = left(
        sessions / "session-1",
        "10-verification.log",
        "2-spec_reviewer.prompt",
        "2-spec_reviewer.stderr",
        "2-spec_reviewer.stdout",
        "note.txt",
    )

    assert [(2, "spec_review"), (10, "verification")] == [(run.number, run.step) for run in logs.runs()]
    assert ["2-spec_reviewer.stdout", "2-spec_reviewer.stderr"] == [path.name for path in logs.runs()[0].outputs]


def test_a_step_is_picked_by_number_or_name(sessions: Path) -> None:
    """One that is not there is told apart from one that printed nothing."""
    logs = left(sessions / "session-1", "1-implementer.stdout", "2-implementer.stdout", "3-verification.log")

    assert [[2], [1, 2], [1, 2, 3]] == [[run.number for run in logs.picked(step)] for step in ("2", "implement", None)]
    with pytest.raises(OrchestratorError, match="there is no quality_review yet"):
        logs.picked("quality_review")


@pytest.mark.parametrize(
    ("pieces", "lines"),
    [
        ([b"one\ntw", b"o\n"], [["one"], ["two"]]),
        ([b"one\n\n\ntwo\n"], [["one", "", "", "two"]]),
        ([b"no end"], [[], ["no end"]]),
        ([b"\xc3", b"\xa4\n"], [[], ["ä"]]),
        ([b"10%\r20%\r\ndone\n"], [["10%", "20%", "done"]]),
        ([b"\x1b[1;31mred\x1b[0m\x07\xff\n"], [["red\ufffd\ufffd"]]),
    ],
)
def test_a_growing_file_is_read_in_whole_lines(tmp_path: Path, pieces: list[bytes], lines: list[list[str]]) -> None:
    """However it comes, no character is torn; a last line without an end is given when all is asked for."""
    path = tmp_path / "1-implementer.stdout"
    path.touch()
    growing, found = Growing(path), list[list[str]]()
    for piece in pieces:
        with path.open("ab") as file:
            file.write(piece)
        found.append(list(growing.lines(all_of_it=False)))
    rest = list(growing.lines(all_of_it=True))
    growing.close()

    assert lines == [*found, rest] if rest else lines == found
