"""Programs in the sandbox: what `foreign` promises holds there too, and what a reach says is what is found."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Event

import pytest

from orchestrator.adapters.agents import reach_of_programs
from orchestrator.adapters.process import foreign, marked, sandbox, shim
from orchestrator.adapters.process.foreign import Bounds, Ended, Ran
from orchestrator.adapters.process.sandbox import Access, Link, Reach
from tests.support import ROOT
from tests.unpriv import python_as_a_user

pytestmark = pytest.mark.skipif(bool(sandbox.why_not()), reason=f"no sandbox: {sandbox.why_not()}")
AS_A_USER = pytest.mark.skipif(not python_as_a_user(), reason="no setpriv, or no Python that others may run")

DEAF = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
FAMILY = (
    "import os, signal\nfor _ in range(3):\n"
    "    if os.fork() == 0:\n        os.setsid(); signal.signal(signal.SIGTERM, signal.SIG_IGN); signal.pause()\n"
    "print('up', flush=True)\nsignal.pause()\n"
)


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that is not in the way of the tests' own: its own /tmp is what a box has first."""
    with tempfile.TemporaryDirectory(prefix="orch-") as name:
        yield Path(name)


@pytest.fixture
def run(folder: Path) -> Iterator[Callable[..., Ran]]:
    """`foreign.run` in a box that has this folder; a string is Python code. Afterwards, nothing of it is left."""
    mark = {"ORCH_SESSION": str(folder)}

    def started(program: str | list[str], reach: Reach | None = None, **options: object) -> Ran:
        argv = [sys.executable, "-S", "-c", program] if isinstance(program, str) else program
        defaults: dict[str, object] = {
            "cwd": folder,
            "env": foreign.clean_env(os.environ, extra=mark),
            "bounds": Bounds(wall_s=20),
            "stdout": folder / "stdout",
            "stderr": folder / "stderr",
            "redact": str,
            "reach": {Path("/tmp"): Access.EMPTY, folder: Access.WRITE} | (reach or {}),
        }
        return foreign.run(argv, **(defaults | options))  # type: ignore[arg-type]

    yield started

    assert 0 == marked.sweep(mark)


def said(ran: Ran) -> str:
    return ran.stdout.read_text()


@pytest.mark.parametrize(
    ("argv", "code", "words"),
    [
        (["sh", "-c", "exit 7"], 7, ""),
        (["sh", "-c", "kill -9 $$"], 137, ""),
        (["no-such-program"], 127, "orch: cannot run no-such-program: command not found\n"),
        (["/etc"], 126, "orch: cannot run /etc: Permission denied\n"),
    ],
)
def test_exit_codes(run: Callable[..., Ran], argv: list[str], code: int, words: str) -> None:
    """They are the program's, or say why there was none to run, as without a sandbox."""
    ran = run(argv)

    assert (Ended.EXITED, code, words) == (ran.ended, ran.exit_code, ran.stderr.read_text())


def test_input_folder_and_environment(run: Callable[..., Ran], folder: Path) -> None:
    """They reach the program as they would without."""
    ran = run(["sh", "-c", 'cat; pwd; echo "$ORCH_SESSION"'], stdin=b"typed\n")

    assert f"typed\n{folder}\n{folder}\n" == said(ran)


def test_a_program_may_say_goodbye(run: Callable[..., Ran]) -> None:
    """What it prints after SIGTERM, in its grace, is kept."""
    ran = run(
        "import os, signal\nsignal.signal(signal.SIGTERM, lambda *_: (os.write(1, b'bye\\n'), os._exit(3)))\n"
        "os.write(1, b'up\\n')\nwhile True: signal.pause()",
        bounds=Bounds(1.0),
    )

    assert (Ended.WALL, 3, "up\nbye\n") == (ran.ended, ran.exit_code, said(ran))


@pytest.mark.parametrize("program", [DEAF + "print('up', flush=True); signal.pause()", FAMILY], ids=["deaf", "family"])
def test_a_limit_and_a_cancel_end_all(run: Callable[..., Ran], program: str) -> None:
    """Also what ignores SIGTERM, and what is in a session of its own."""
    cancel = Event()

    assert Ended.WALL == run(program, bounds=Bounds(0.5)).ended
    assert Ended.CANCELLED == run(program, cancel=cancel, on_output=cancel.set).ended


@pytest.mark.parametrize("whom", ["shim", "sandbox"])
def test_nothing_outlives_what_holds_it(run: Callable[..., Ran], folder: Path, whom: str) -> None:
    """The shim is killed, or bubblewrap itself: all that was in the box is gone with it, before the run returns."""

    def kill() -> None:
        shim = next(pid for pid in children(os.getpid()) if b"shim.py" in cmdline(pid))
        os.kill(shim if whom == "shim" else next(iter(children(shim))), signal.SIGKILL)

    ran = run(FAMILY, on_output=kill)

    assert 137 == ran.exit_code


STARTER = """
import json, sys
from pathlib import Path
from threading import Event
from orchestrator.adapters.process import foreign, marked, sandbox
assert not sandbox.why_not(), sandbox.why_not()
folder = Path(sys.argv[1])
def sweep():
    print(json.dumps(["swept", marked.sweep({"ORCH_SESSION": str(folder)})]), flush=True)
ran = foreign.run(
    [sys.executable, "-S", "-c", sys.argv[2]], cwd=folder, bounds=foreign.Bounds(20), stdout=folder / "out",
    stderr=None, env={"PATH": "/usr/bin:/bin", "ORCH_SESSION": str(folder)}, on_output=sweep, redact=str,
    reach={Path("/tmp"): sandbox.Access.EMPTY, folder: sandbox.Access.WRITE},
)
print(json.dumps(["ran", ran.exit_code]))
"""


@AS_A_USER
def test_an_ordinary_user_sweeps_what_is_in_a_box(folder: Path) -> None:
    """By the marks in the environments of its processes, which are in namespaces of their own."""
    folder.chmod(0o777)
    argv = [*python_as_a_user(), "-c", STARTER, str(folder), FAMILY]
    done = subprocess.run(
        argv,
        cwd=folder,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert "" == done.stderr
    (_, swept), (_, code) = map(json.loads, done.stdout.splitlines())
    assert (True, 137) == (swept >= 1, code)


def test_what_is_found_at_a_path(run: Callable[..., Ran], folder: Path) -> None:
    """To write, to read, nothing, a copy, a link; and of nested paths the inner counts."""
    for name in (
        "write/file",
        "write/read/file",
        "write/read/write/file",
        "empty/file",
        "empty/read/file",
        "blank",
        "empty/copy",
    ):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("text\n")
    reach: Reach = {
        folder: Access.READ,
        folder / "write": Access.WRITE,
        folder / "write/read": Access.READ,
        folder / "write/read/write": Access.WRITE,
        folder / "empty": Access.EMPTY,
        folder / "empty/read": Access.READ,
        folder / "blank": Access.BLANK,
        folder / "empty/copy": Access.COPY,
        folder / "empty/link": Link("read/file"),
        folder / "not there": Access.WRITE,
    }
    for name in (
        "file",
        "write/file",
        "write/read/file",
        "write/read/write/file",
        "empty/file",
        "empty/read/file",
        "blank",
        "empty/copy",
    ):
        run(["sh", "-c", f"echo more >> {name}"], reach)
    ran = run(["sh", "-c", "cat write/read/file empty/link blank empty/copy; ls empty; readlink empty/link"], reach)

    assert "text\ntext\ntext\ncopy\nlink\nread\nread/file\n" == said(ran)
    changed = {
        str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file() and "more" in path.read_text()
    }
    assert {"write/file", "write/read/write/file"} == changed


def test_a_copy_can_be_replaced(run: Callable[..., Ran], folder: Path) -> None:
    """As programs do that write a file anew beside it, and rename it: a file that is mounted would refuse."""
    (folder / "home").mkdir()
    (folder / "home/settings").write_text("ours\n")
    reach: Reach = {folder / "home": Access.EMPTY, folder / "home/settings": Access.COPY}

    ran = run(
        ["sh", "-c", "cat home/settings; echo new > home/new; mv home/new home/settings; cat home/settings"], reach
    )

    assert ("ours\nnew\n", "ours\n") == (said(ran), (folder / "home/settings").read_text())


@pytest.mark.parametrize("who", ["we", pytest.param("an ordinary user", marks=AS_A_USER)])
def test_an_agents_own_sandbox_works_within_ours(who: str) -> None:
    """Codex and Claude box their commands themselves; root's have the /proc of ours then, ordinary users' their own."""
    python = python_as_a_user() if who != "we" else (sys.executable,)
    proc = ("--unshare-pid", "--proc", "/proc") if who != "we" or os.getuid() else ()
    inner = ("bwrap", "--unshare-user", "--ro-bind", "/", "/", "--dev", "/dev", *proc, "true")
    code = (
        "import os, sys; from pathlib import Path; from orchestrator.adapters.process.sandbox import *\n"
        "argv = boxed(sys.argv[1:], {Path('/tmp'): Access.EMPTY}, cwd=Path('/')); os.execvp(argv[0], argv)"
    )
    done = subprocess.run(
        [*python, "-c", code, *inner],
        cwd="/",
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )

    assert (0, "") == (done.returncode, done.stderr)


def children(pid: int) -> list[int]:
    return [
        int(child) for task in Path(f"/proc/{pid}/task").iterdir() for child in (task / "children").read_text().split()
    ]


def cmdline(pid: int) -> bytes:
    return Path(f"/proc/{pid}/cmdline").read_bytes()


def test_what_a_command_starts_is_there(tmp_path: Path) -> None:
    """Folders on PATH and that of a program named by its path, wherever they are; not what lies beside it in /tmp."""
    for name in ("bin/tool", "agents/agent.sh", "agents/part.sh"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    shared = Path("/tmp/orch-agent-of-a-test")
    shared.touch()
    try:
        commands = (("sh", "-c", "x"), (str(tmp_path / "agents/agent.sh"), "{role}"), (str(shared),), ())
        reach = reach_of_programs({"PATH": f"{tmp_path / 'bin'}::relative:/tmp", "HOME": str(tmp_path)}, commands)
    finally:
        shared.unlink()

    assert {tmp_path / "bin", tmp_path / "agents", shared} == reach.keys()
    assert {Access.READ} == set(reach.values())


def test_an_installation_in_a_folder_that_is_hidden_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of /tmp a box has nothing; what starts programs in it may be installed there all the same."""
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "venv"))
    monkeypatch.setattr(shim, "__file__", str(tmp_path / "clone/orchestrator/adapters/process/shim.py"))
    words = sandbox.boxed(["true"], {tmp_path: Access.EMPTY}, cwd=Path("/"))
    places = [words.index(str(tmp_path / name)) for name in ("venv", "clone/orchestrator")]

    assert ["--ro-bind-try"] * 2 == [words[place - 1] for place in places]
    assert words.index(str(tmp_path)) < min(places)
