"""A night with one stack: what its log tells, what agents printed, the screen that stays open, and the report."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.project import GOOD, Project, Running, up
from tests.orch import orch_here
from tests.support import wait_until

ORCH = (sys.executable, "-P", "-m", "orchestrator.cli")
COLOURED = {**GOOD, "run": [["printf", "\x1b[31mred\x1b[0m, \x07and a bell\\n"]]}
ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Night:
    """A stack, an issue whose session was clean, and one whose work did not pass the verification."""

    def __init__(self, project: Project, stack: Running) -> None:
        self.project, self.stack = project, stack
        stack.says("is up: ")
        self.clean = project.file("Go well", implementer=[COLOURED])
        self.failed = project.file("Go wrong", implementer=[{**GOOD, "write": {"other.txt": "not what was asked\n"}}])
        stack.until(lambda: project.over(self.clean, self.failed), "both sessions over", timeout=90)
        stack.says("delivered", self.clean)

    def orch(self, *words: str) -> subprocess.CompletedProcess[str]:
        """`orch words...`, run to its end."""
        env = {**self.project.env, "COLUMNS": "200"}
        return orch_here(*words, cwd=Path.cwd(), env=env)

    def says(self, *words: str) -> str:
        """What a command prints that does its work without complaint."""
        done = self.orch(*words)
        assert (0, "") == (done.returncode, done.stderr), done
        return done.stdout

    def json(self, *words: str) -> Any:
        """The same, read."""
        return json.loads(self.says(*words, "--json"))

    def events(self, issue_id: str) -> dict[str, list[str]]:
        """What each part of the stack logged of an issue, at INFO or above, in order."""
        told: dict[str, list[str]] = {}
        for text in self.stack.lines(issue_id):
            if found := re.match(r" *(\w+) \S+ \[\w+\] +(\w+)", text):
                told.setdefault(found[1], []).append(found[2])
        return told


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Night]:
    """One stack for all tests here; each looks at sessions of its own, or at what stays as it is."""
    with Project(tmp_path_factory.mktemp("night")) as project, up(project) as stack:
        yield Night(project, stack)


def test_a_clean_session_is_a_story_of_eight_lines(night: Night) -> None:
    """From the claim to the delivery, a line for each step; all processes counted, that is under fifteen."""
    story = night.events(night.clean)

    assert {
        "control": ["issue_claimed"],
        "worker": ["session_started", *["step_done"] * 4, "session_ended"],
        "merges": ["delivered"],
    } == story


def test_a_step_is_told_with_its_result(night: Night) -> None:
    """Which step of which session, how it came out, how long it took; the verification with what was run."""
    *_, verified = night.stack.lines("step_done", night.clean)
    *_, failed = night.stack.lines("step_done", night.failed)
    (session,) = night.project.leases.runs(night.clean)

    for fact in ("stage=VERIFICATION", "attempt=1", "result=PASS", "exit_code=0", "seconds=", f"session={session}"):
        assert fact in verified
    assert "result=FAIL" in failed
    assert "exit_code=1" in failed


def test_logs_lists_every_run_and_shows_the_end_of_the_last(night: Night) -> None:
    """With its number, name, size and file; what was red was run again."""
    text = night.says("logs", night.failed)
    found = night.json("logs", night.failed)

    steps = ["implement", "spec_review", "quality_review", "verification", "verification"]
    assert steps == [run["step"] for run in found["runs"]]
    assert [1, 2, 3, 4, 5] == [run["number"] for run in found["runs"]]
    assert all(Path(path).is_file() for run in found["runs"] for path in run["files"])
    assert re.search(r"^  1  implement .* 1-implementer.stdout$", text, re.MULTILINE)
    assert "==> 5 verification <==" in text


def test_logs_of_a_step_are_whole_and_harmless(night: Night) -> None:
    """Colours are dropped, and what else could steer a terminal is replaced."""
    text = night.says("logs", night.clean, "--step", "implement")

    assert "\nred, \ufffdand a bell\n" in text
    assert '"notes": "wrote work.txt"' in text
    assert "\x1b" not in text


def test_logs_follows_a_session_to_its_end(night: Night) -> None:
    """From one step to the next as they are done, and then it ends by itself."""
    issue_id = night.project.file("Take a while", implementer=[{**GOOD, "seconds": 2}])
    night.stack.until(lambda: night.project.asked(issue_id), "its implementer at work")
    text = night.says("logs", issue_id, "-f")

    assert "ended" == night.project.holding(issue_id).state
    steps = ["1 implement", "2 spec_review", "3 quality_review", "4 verification"]
    assert steps == re.findall(r"^==> (.*) <==$", text, re.MULTILINE)
    assert "thinking, 2.0 s to go" in text
    assert '"notes": "wrote work.txt"' in text


def test_the_report_has_what_is_ready_and_what_needs_a_person(night: Night) -> None:
    """With its evidence, and with what to type."""
    text = night.says("report")
    commit = night.project.git("rev-parse", f"orch/{night.clean}")

    assert f"  {night.clean}  Go well\n" in text.partition("Ready for review")[2]
    touched = "  # the work touched the verification itself: work.txt"
    assert f"`test -s work.txt{touched}` passed at {commit[:12]}; 2 reviews" in text
    assert f"\nNeeds a person\n  {night.failed}  Go wrong\n" in text
    assert f"`orch logs {night.failed} --step verification`; `orch enqueue {night.failed}`" in text
    assert "verification failed: `test -s work.txt` exited with 1" in text


def test_a_report_of_nothing_is_short(night: Night) -> None:
    """What ended before is no news."""
    found = night.json("report", "--since", "0m")

    assert [] == [issue["id"] for issue in found["issues"] if issue["id"] in (night.clean, night.failed)]


class Terminal:
    """A program on a terminal of its own."""

    def __init__(self, master: int, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        self._master = master
        self.printed = ""

    def resize(self, columns: int, lines: int) -> None:
        """Make the terminal as large as this; the program is told, as by any terminal."""
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def shows(self, *texts: str, since: int = 0) -> bool:
        """Whether all of these were printed, read together with what is new."""
        try:
            while piece := os.read(self._master, 65_536):
                self.printed += piece.decode(errors="replace")
        except BlockingIOError:
            pass
        except OSError:  # how Linux says that nobody has the other side open any more
            pass
        seen = ESCAPE.sub("", self.printed[since:])
        return all(text in seen for text in texts)

    def widths(self, *, since: int) -> set[int]:
        """How long the lines are that were printed since then."""
        self.shows()
        return set(map(len, ESCAPE.sub("", self.printed[since:]).splitlines()))


def _hears_ctrl_c() -> None:
    """Where these tests run in a shell's background, Ctrl-C is ignored, and children inherit that."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def _in_the_foreground() -> None:
    """What a terminal starts belongs to it: so it is told when that is resized."""
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    _hears_ctrl_c()


@contextmanager
def terminal(night: Night, *words: str) -> Iterator[Terminal]:
    """`orch words...` on a terminal of 80 by 24."""
    master, slave = pty.openpty()
    os.set_blocking(master, False)
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    process = subprocess.Popen(
        [*ORCH, *words],
        env={**night.project.env, "TERM": "xterm-256color"},
        stdin=slave,
        stdout=slave,
        stderr=slave,
        start_new_session=True,
        preexec_fn=_in_the_foreground,
    )
    os.close(slave)
    try:
        yield Terminal(master, process)
    finally:
        process.kill()
        process.wait()
        os.close(master)


def test_the_screen_shows_a_session_as_it_goes_and_leaves_a_clean_terminal(night: Night) -> None:
    """Who runs and how far, what needs a person; it takes the size that the terminal has, and Ctrl-C is exit code 0."""
    with terminal(night, "status", "--watch", "0.2") as screen:
        wait_until(lambda: screen.shows("Problems", f"`orch explain {night.failed}`"), "the picture", 60)
        issue_id = night.project.file("Be watched", implementer=[{**GOOD, "seconds": 2}])
        wait_until(lambda: screen.shows(issue_id, "implement", "sessions 1 of"), "the session on the screen", 60)
        wait_until(lambda: night.project.status(issue_id) == "needs_review", "the session over", 60)
        so_far = len(screen.printed)
        screen.resize(132, 40)
        wait_until(lambda: 132 in screen.widths(since=so_far), "a wide picture", 60)
        screen.process.send_signal(signal.SIGINT)
        code = screen.process.wait(30)
        screen.shows()

    assert 0 == code
    assert "Traceback" not in screen.printed
    assert screen.printed.rindex("\x1b[?25h") > screen.printed.rindex("\x1b[?25l"), "the cursor is back"
    assert "" == screen.printed.rpartition("\x1b[?1049l")[2], "and all that was there before"


def test_without_a_terminal_there_is_one_picture_after_another(night: Night) -> None:
    """Plain text, for a file or a pipe."""
    env = {**night.project.env, "COLUMNS": "100"}
    watching = subprocess.Popen(
        [*ORCH, "status", "--watch", "0.2"],
        env=env,
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=_hears_ctrl_c,
    )
    assert watching.stdout
    try:
        titles: list[str] = []
        while titles.count("Problems") < 2:
            titles.append(watching.stdout.readline().strip())
        watching.send_signal(signal.SIGINT)
        rest, _ = watching.communicate(timeout=30)
    finally:
        watching.kill()

    assert 0 == watching.returncode
    assert "\x1b" not in "".join(titles) + rest
