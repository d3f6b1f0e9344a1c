"""Foreign programs, run for real: limits, streams, and above all that nothing of them survives."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from threading import Event, Thread, Timer

import pytest

from orchestrator.adapters.process import foreign, marked, shim
from orchestrator.adapters.process.foreign import Bounds, Ended, Ran
from orchestrator.errors import SettingsError, WorkspaceError
from tests.support import wait_until

ROOT = Path(__file__).resolve().parents[2]

# A child, a grandchild in a session of its own, and a daemon that forked twice; each touches a file when it is up.
FAMILY = """
import os, pathlib, signal, time
def stay(name):
    pathlib.Path(name).touch()
    while True:
        signal.pause()
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        stay("daemon")
    os._exit(0)
if os.fork() == 0:
    os.setsid()
    stay("grandchild")
"""
FAMILY_STAYS = FAMILY + 'stay("child")\n'

FORK_LOOPS = {
    "children ignoring SIGTERM": "trap '' TERM; while :; do sleep 1000 & done",
    "children in sessions of their own": "trap '' TERM; while :; do setsid sleep 1000 & done",
    "a chain of orphans, each in its own session": (
        # For a minute at most: nothing else ends it when the test is killed.
        f"exec {shlex.quote(sys.executable)} -S -c 'import os, signal, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "until = time.monotonic() + 60\n"
        "if os.fork() == 0:\n"
        "    while time.monotonic() < until:\n"
        "        if os.fork(): os._exit(0)\n"
        "        os.setsid()\n"
        "signal.pause()'"
    ),
}


def living(session: str) -> list[int]:
    """The processes that were started with this ORCH_SESSION and have not ended."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if f"ORCH_SESSION={session}".encode() in (entry / "environ").read_bytes().split(b"\0"):
                found.append(int(entry.name))
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue
    return found


@pytest.fixture
def session(tmp_path: Path) -> Iterator[str]:
    """A session id of this test alone; afterwards, none of its processes is left."""
    yield str(tmp_path)

    left = living(str(tmp_path))
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    assert [] == left


@pytest.fixture
def run(tmp_path: Path, session: str) -> Callable[..., Ran]:
    """`foreign.run` with everything but argv and limits filled in; a string is Python code."""

    def started(program: str | list[str], *, merged: bool = False, **options: object) -> Ran:
        argv = [sys.executable, "-S", "-c", program] if isinstance(program, str) else program
        defaults: dict[str, object] = {
            "cwd": tmp_path,
            "env": foreign.clean_env(
                os.environ, extra={"ORCH_ISSUE": "i-0001", "ORCH_SESSION": session, "ORCH_STATE": "s"}
            ),
            "bounds": Bounds(wall_s=20),
            "stdout": tmp_path / "stdout",
            "stderr": None if merged else tmp_path / "stderr",
            "redact": str,
        }
        return foreign.run(argv, **(defaults | options))  # type: ignore[arg-type]

    return started


def stopwatch() -> Callable[[], float]:
    start = time.monotonic()
    return lambda: time.monotonic() - start


# Output and input


def test_streams_and_exit_code(run: Callable[..., Ran]) -> None:
    """Each stream is in its own file, and the exit code is the program's."""
    finished = run("import sys; print('out'); print('err', file=sys.stderr); sys.exit(7)")

    assert (Ended.EXITED, 7) == (finished.ended, finished.exit_code)
    assert (b"out\n", b"err\n") == (finished.stdout.read_bytes(), finished.stderr.read_bytes())


def test_a_program_gives_way_to_us(run: Callable[..., Ran]) -> None:
    """One that takes all of the CPU holds up no lease, and no stop of a person who has had enough of it."""
    finished = run("import os; print(os.nice(0))")

    assert min(os.nice(0) + shim.NICENESS, 19) == int(finished.stdout.read_text())


def test_merged_streams_keep_their_order(run: Callable[..., Ran]) -> None:
    """With stderr=None both streams are in one file, in the order in which they were printed."""
    finished = run("import os\nfor n in range(200): os.write(1 + n % 2, b'%d\\n' % n)", merged=True)

    assert "".join(f"{n}\n" for n in range(200)) == finished.stdout.read_text()
    assert finished.stdout == finished.stderr


def test_output_is_in_the_file_as_soon_as_it_is_printed(run: Callable[..., Ran], tmp_path: Path) -> None:
    """A program that waits for a reaction to its first line gets it, since the line is already on disk."""

    def answer() -> None:
        if b"ready\n" in (tmp_path / "stdout").read_bytes():
            (tmp_path / "answer").touch()

    finished = run(
        "import os, time\nprint('ready', flush=True)\nwhile not os.path.exists('answer'): time.sleep(0.01)",
        on_output=answer,
    )

    assert (Ended.EXITED, 0) == (finished.ended, finished.exit_code)


def test_fifty_megabytes_cost_no_memory(run: Callable[..., Ran]) -> None:
    """50 MB of output are all on disk, within seconds, and less than 1 MB of them was ever in memory."""
    elapsed = stopwatch()
    tracemalloc.start()
    finished = run("import os\nfor _ in range(500): os.write(1, b'x' * 100_000)")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert 50_000_000 == finished.stdout.stat().st_size
    assert 1_000_000 > peak
    assert 10 > elapsed()


def test_output_without_end_is_cut_at_the_limit(run: Callable[..., Ran]) -> None:
    """A program that prints more than it may is ended, and the file holds exactly what it may."""
    finished = run("import os\nwhile True: os.write(1, b'x' * 100_000)", bounds=Bounds(20, output_bytes=1_234_567))

    assert Ended.OUTPUT == finished.ended
    assert 1_234_567 == finished.stdout.stat().st_size


def test_input_is_read_in_full(run: Callable[..., Ran]) -> None:
    """5 MB of input reach a program that reads."""
    finished = run("import sys; print(len(sys.stdin.buffer.read()))", stdin=b"x" * 5_000_000)

    assert "5000000\n" == finished.stdout.read_text()


def test_input_that_nobody_reads_holds_nothing_up(run: Callable[..., Ran]) -> None:
    """5 MB of input for a program that never reads: it runs to its end all the same."""
    elapsed = stopwatch()
    finished = run("print('done')", stdin=b"x" * 5_000_000)

    assert "done\n" == finished.stdout.read_text()
    assert 10 > elapsed()


def test_a_program_that_closes_its_streams_goes_on(run: Callable[..., Ran], tmp_path: Path) -> None:
    """Closing stdout and stderr is no end: the run lasts until the program exits, and has its exit code."""
    finished = run("import os, time\nos.close(1); os.close(2); time.sleep(0.3); open('late', 'w'); os._exit(5)")

    assert (Ended.EXITED, 5) == (finished.ended, finished.exit_code)
    assert (tmp_path / "late").exists()


# Limits


def test_wall_limit(run: Callable[..., Ran]) -> None:
    """A program that talks but does not end is ended at its wall-clock limit."""
    finished = run("import time\nwhile True: print('.', flush=True); time.sleep(0.05)", bounds=Bounds(0.5, 0.4))

    assert Ended.WALL == finished.ended
    assert 0.5 <= finished.duration_s < 2


def test_silence_limit(run: Callable[..., Ran]) -> None:
    """A program that stops talking is ended after its silence limit, counted from its last byte."""
    finished = run("import time; time.sleep(0.4); print('.', flush=True); time.sleep(60)", bounds=Bounds(20, 0.6))

    assert Ended.SILENCE == finished.ended
    assert 1.0 <= finished.duration_s < 3


def test_either_stream_breaks_the_silence(run: Callable[..., Ran]) -> None:
    """A program that prints on stderr alone is not silent."""
    finished = run(
        "import sys, time\nfor _ in range(8): print('.', file=sys.stderr, flush=True); time.sleep(0.1)",
        bounds=Bounds(20, 0.6),
    )

    assert Ended.EXITED == finished.ended


def test_cancel(run: Callable[..., Ran]) -> None:
    """A cancelled run is over at once, also when the program ignores SIGTERM: it is not asked."""
    cancel = Event()
    elapsed = stopwatch()
    deaf = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); signal.pause()"
    finished = run(deaf, cancel=cancel, on_output=cancel.set)

    assert (Ended.CANCELLED, 128 + signal.SIGKILL) == (finished.ended, finished.exit_code)
    assert 10 > elapsed()


def test_a_program_may_say_goodbye(run: Callable[..., Ran]) -> None:
    """What a program prints after SIGTERM, in its grace, is kept."""
    finished = run(
        "import os, signal\nsignal.signal(signal.SIGTERM, lambda *_: (os.write(1, b'bye\\n'), os._exit(3)))\n"
        "os.write(1, b'up\\n')\nwhile True: signal.pause()",
        bounds=Bounds(1.0),
    )

    assert 3 == finished.exit_code
    assert "up\nbye\n" == finished.stdout.read_text()


@pytest.mark.parametrize("stance", ["signal.signal(signal.SIGTERM, signal.SIG_IGN)", "os.kill(0, signal.SIGSTOP)"])
def test_whoever_does_not_listen_is_killed(run: Callable[..., Ran], stance: str) -> None:
    """A program that ignores SIGTERM, or is stopped, is gone within 2 s of its limit."""
    finished = run(f"import os, signal\n{stance}\nwhile True: signal.pause()", bounds=Bounds(0.3))

    assert Ended.WALL == finished.ended
    assert 10 > finished.duration_s


# Nothing survives


@pytest.mark.parametrize("loop", FORK_LOOPS.values(), ids=FORK_LOOPS.keys())
def test_fork_loops_are_gone_at_once(run: Callable[..., Ran], session: str, tmp_path: Path, loop: str) -> None:
    """An agent in a tight loop of child processes is gone, with all of them, soon after the cancel."""
    cancel, since = Event(), []
    timer = Timer(0.3, lambda: (since.append(time.monotonic()), cancel.set()))
    timer.start()
    finished = run(["bash", "-c", loop], cancel=cancel)
    took = time.monotonic() - since[0]

    assert Ended.CANCELLED == finished.ended
    assert [] == living(session)
    assert 10 > took  # it takes about 1 s; the bound only says that nothing waits for the wall clock limit


def test_left_overs_end_with_the_program(run: Callable[..., Ran], session: str, tmp_path: Path) -> None:
    """When the program exits, its daemons go too, though they hold its output open; the exit code stays."""
    waits = "while not all(map(os.path.exists, ('daemon', 'grandchild'))): time.sleep(0.01)\n"
    finished = run(FAMILY + waits + "os._exit(4)")

    assert (Ended.EXITED, 4) == (finished.ended, finished.exit_code)
    assert [] == living(session)
    assert 10 > finished.duration_s


def test_an_exception_ends_the_program(run: Callable[..., Ran], session: str) -> None:
    """When on_output raises, the error comes through and nobody is left running."""

    def lost() -> None:
        raise RuntimeError("lease lost")

    with pytest.raises(RuntimeError, match="lease lost"):
        run("import signal; print('up', flush=True); signal.pause()", on_output=lost)

    assert [] == living(session)


def test_a_killed_runner_takes_its_programs_along(tmp_path: Path, session: str) -> None:
    """kill -9 of the process that called run(): child, grandchild in its own session and daemon are gone in seconds."""
    code = (
        "import os, sys; from pathlib import Path; from orchestrator.adapters.process.foreign import Bounds, run\n"
        "run([sys.executable, '-S', '-c', sys.argv[1]], cwd=Path.cwd(), env=dict(os.environ), bounds=Bounds(60),"
        " stdout=Path('stdout'), stderr=Path('stderr'), redact=str)"
    )
    environment = dict(os.environ) | {"PYTHONPATH": str(ROOT), "ORCH_SESSION": session}
    with subprocess.Popen([sys.executable, "-c", code, FAMILY_STAYS], cwd=tmp_path, env=environment) as runner:
        wait_until(lambda: _family_is_up(tmp_path), "the family is up")
        family = living(session)
        runner.kill()

    assert 5 == len(family)  # runner, shim, child, grandchild, daemon
    wait_until(lambda: not living(session), "the whole family is gone")


def test_a_killed_shim_is_swept_after(run: Callable[..., Ran], tmp_path: Path, session: str) -> None:
    """kill -9 of the shim itself: run() returns with nobody left, and says that it was killed."""
    killer = Thread(target=_send_to_shim, args=(tmp_path, session, signal.SIGKILL))
    killer.start()
    finished = run(FAMILY_STAYS)
    killer.join()

    assert (Ended.EXITED, 128 + signal.SIGKILL) == (finished.ended, finished.exit_code)
    assert [] == living(session)


def test_sweeping_after_a_killed_shim_spares_the_same_session_elsewhere(
    run: Callable[..., Ran], tmp_path: Path, session: str
) -> None:
    """A worker that was frozen and has lost its session must not end the agent of the one that runs it now."""
    environment = dict(os.environ) | {"ORCH_ISSUE": "i-0001", "ORCH_SESSION": session}
    with subprocess.Popen(["sleep", "60"], env=environment) as elsewhere:
        killer = Thread(target=_send_to_shim, args=(tmp_path, session, signal.SIGKILL))
        killer.start()
        run(FAMILY_STAYS)
        killer.join()
        left = living(session)
        elsewhere.kill()

    assert [elsewhere.pid] == left


def test_a_frozen_shim_is_helped_out(run: Callable[..., Ran], tmp_path: Path, session: str) -> None:
    """A shim that cannot act any more does not keep run() from ending everything in a few seconds, markers or not."""
    cancel = Event()
    freezer = Thread(target=lambda: (_send_to_shim(tmp_path, session, signal.SIGSTOP), cancel.set()))
    freezer.start()
    finished = run(FAMILY_STAYS, cancel=cancel, env={"ORCH_SESSION": session})
    freezer.join()

    assert Ended.CANCELLED == finished.ended
    wait_until(lambda: not living(session), "init has reaped them")


def _family_is_up(where: Path) -> bool:
    return all((where / name).exists() for name in ("child", "grandchild", "daemon"))


def _send_to_shim(where: Path, session: str, number: int) -> None:
    wait_until(lambda: _family_is_up(where), "the family is up")
    (pid,) = [pid for pid in living(session) if b"shim.py" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    os.kill(pid, number)


# The shim alone


@pytest.mark.parametrize(
    ("argv", "exit_code", "stderr"),
    [
        (["sh", "-c", "exit 9"], 9, ""),
        (["sh", "-c", "kill -9 $$"], 137, ""),
        (["--", "--parent"], 127, "orch: cannot run --parent: command not found\n"),
        (["/dev/null/x"], 127, "orch: cannot run /dev/null/x: Not a directory\n"),
        (["/dev/null"], 126, "orch: cannot run /dev/null: Permission denied\n"),
        ([], 2, "orch: usage: python -m orchestrator.adapters.process.shim [--parent PID] [--box] [--] argv...\n"),
    ],
)
def test_exit_codes(argv: list[str], exit_code: int, stderr: str) -> None:
    """The shim gives the command's exit code as a shell does, and one line when it could not be started."""
    command = [sys.executable, "-m", "orchestrator.adapters.process.shim", *argv]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)

    assert (exit_code, stderr) == (done.returncode, done.stderr)


def test_a_shim_whose_parent_is_already_gone_starts_nothing(tmp_path: Path) -> None:
    """The parent that died before the shim could ask to be told is noticed."""
    with subprocess.Popen(["true"]) as gone:
        gone.wait()
    shim_argv = [sys.executable, "-I", "-S", shim.__file__, "--parent", str(gone.pid), "--", "touch", "started"]
    done = subprocess.run(shim_argv, cwd=tmp_path, check=False)

    assert 143 == done.returncode
    assert not (tmp_path / "started").exists()


def test_a_program_starts_with_default_signals(run: Callable[..., Ran]) -> None:
    """Nothing of the shim's own signal handling is passed on to the program."""
    before = signal.signal(signal.SIGQUIT, signal.SIG_DFL)  # who runs the tests in the background has it ignored
    try:
        finished = run(["grep", "-E", "^Sig(Blk|Ign)", "/proc/self/status"])
    finally:
        signal.signal(signal.SIGQUIT, before)
    c_librarys_own = 0b11 << 31  # 32 and 33: whoever was started by posix_spawn, as make does, has them ignored
    masks = [int(mask, 16) & ~c_librarys_own for mask in finished.stdout.read_text().split()[1::2]]

    assert [0, 0] == masks


def test_files_in_the_worktree_are_not_imported(run: Callable[..., Ran], tmp_path: Path) -> None:
    """Modules named like ours or the standard library's change nothing for the shim, even on PYTHONPATH."""
    for name in ("ctypes.py", "signal.py", "orchestrator.py", "sitecustomize.py"):
        (tmp_path / name).write_text("raise SystemExit('imported from the worktree')")
    finished = run(["echo", "fine"], env={"PATH": os.environ["PATH"], "PYTHONPATH": str(tmp_path)})

    assert ("fine\n", "") == (finished.stdout.read_text(), finished.stderr.read_text())


def test_descendants_are_found_without_the_children_file(run: Callable[..., Ran], tmp_path: Path) -> None:
    """The scan for kernels without /proc/.../children finds the same children."""
    with subprocess.Popen(["sleep", "60"]) as child:
        by_scan, by_file = shim._children_by_scan(os.getpid()), shim._children(os.getpid())
        child.kill()

    assert child.pid in by_scan
    assert by_scan == by_file


# The rest of the module


def test_a_missing_directory_is_named(run: Callable[..., Ran], tmp_path: Path) -> None:
    """Running in a directory that is not there says so."""
    with pytest.raises(WorkspaceError, match="gone"):
        run(["true"], cwd=tmp_path / "gone")


def test_clean_env() -> None:
    """A program sees the usual names, what is allowed by name, and what is given on top; nothing else."""
    source = {
        "PATH": "/bin",
        "LC_ALL": "C",
        "XDG_CACHE_HOME": "/c",
        "PATHS": "no",
        "AWS_SECRET_ACCESS_KEY": "no",
        "GITHUB_TOKEN": "no",
        "ORCH_REDIS_URL": "no",
        "ORCH_ISSUE": "no",
        "MODEL_KEY": "yes",
    }
    env = foreign.clean_env(source, allow=["MODEL_KEY", "NOT_SET"], extra={"ORCH_ISSUE": "i-0001"})

    assert {
        "PATH": "/bin",
        "LC_ALL": "C",
        "XDG_CACHE_HOME": "/c",
        "MODEL_KEY": "yes",
        "ORCH_ISSUE": "i-0001",
    } == env


@pytest.mark.parametrize("name", ["GITHUB_TOKEN", "GH_TOKEN", "GH_ENTERPRISE_TOKEN", "SUDOCODE_KEY", "ORCH_REDIS_URL"])
def test_our_own_secrets_cannot_be_allowed(name: str) -> None:
    """Allowing one of our secrets is a mistake in the settings, and named as such."""
    with pytest.raises(SettingsError, match=name):
        foreign.clean_env({name: "secret"}, allow=[name])


def test_sweep_needs_a_marker() -> None:
    """Without a marker, sweep refuses: it would mean everything."""
    with pytest.raises(ValueError, match="marker"):
        marked.sweep({})


def test_sweep_spares_itself_and_those_above(tmp_path: Path, session: str) -> None:
    """A process that bears the markers itself sweeps the others, of its own group too, and lives on."""
    code = (
        "import os, subprocess; from orchestrator.adapters.process.marked import sweep\n"
        "others = [subprocess.Popen(['sleep', '60'], start_new_session=alone) for alone in (True, False)]\n"
        "print(sweep({'ORCH_SESSION': os.environ['ORCH_SESSION']}), *(other.wait() for other in others))"
    )
    environment = dict(os.environ) | {"PYTHONPATH": str(ROOT), "ORCH_SESSION": session}
    done = subprocess.run(
        ["sh", "-c", '"$0" -c "$1"; exit $?', sys.executable, code],
        env=environment,
        start_new_session=True,
        capture_output=True,
        text=True,
        check=False,
    )

    assert (0, "2 -9 -9\n") == (done.returncode, done.stdout)


@pytest.mark.parametrize("loop", FORK_LOOPS)
def test_sweep_catches_a_fork_loop_that_lost_its_shim(tmp_path: Path, session: str, loop: str) -> None:
    """Whoever forks its way on, also from process to process and session to session, is gone when sweep returns."""
    environment = dict(os.environ) | {"ORCH_SESSION": session}
    argv = [sys.executable, "-I", "-S", shim.__file__, "--", "sh", "-c", FORK_LOOPS[loop]]
    with subprocess.Popen(argv, env=environment, start_new_session=True) as started:
        wait_until(lambda: len(living(session)) > 2, "the loop is at work")
        started.kill()
        started.wait()
        marked.sweep({"ORCH_SESSION": session})

        assert [] == living(session)
        assert 0 == marked.sweep({"ORCH_SESSION": session})


def test_sweep_spares_what_a_newer_holder_started(session: str) -> None:
    """A worker that stood still past its lease, and sweeps when it wakes, ends older processes and its own only."""
    with ExitStack() as running:
        started = {}
        for token in ("", "17", "18", "19"):
            environment = dict(os.environ) | {"ORCH_SESSION": session} | ({"ORCH_LEASE": token} if token else {})
            child = subprocess.Popen(["sleep", "60"], env=environment, start_new_session=True)
            started[token] = running.enter_context(child)
            running.callback(child.kill)
        wait_until(lambda: len(living(session)) == len(started), "all should bear their marks")

        assert 3 == marked.sweep({"ORCH_SESSION": session}, newest=18)
        assert [started["19"].pid] == living(session)


def looks(monkeypatch: pytest.MonkeyPatch, *lists: list[int]) -> Callable[[], int]:
    """Have each look of a sweep find these processes, the last list from then on; gives how many looks there were."""
    taken = 0

    def newest_first() -> list[int]:
        nonlocal taken
        taken += 1
        return lists[min(taken, len(lists)) - 1]

    monkeypatch.setattr(marked, "_newest_first", newest_first)
    return lambda: taken


@contextmanager
def asleep(env: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """A process in a session of its own that was started with these variables, ended with the block."""
    with subprocess.Popen(["sleep", "60"], env=env, start_new_session=True) as child:
        try:
            wait_until(lambda: marked._first_environment(child.pid), "it should have become sleep")
            yield child
        finally:
            child.kill()


@pytest.fixture
def ended() -> Iterator[int]:
    """A process that has ended and that nobody has asked for its exit code: it is still listed."""
    with subprocess.Popen(["true"]) as child:
        wait_until(lambda: marked.stat(child.pid)[0] == "Z", "it should have ended")
        yield child.pid


@pytest.fixture
def vanished() -> int:
    """A process that ended so long ago that it is not even listed: only a look that is slower than it has it."""
    with subprocess.Popen(["true"]) as child:
        return child.pid


def test_sweep_waits_for_nothing_that_has_ended(session: str, ended: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """What stays listed without an environment, as the kernel's own threads do, costs a second look and no wait."""
    looked = looks(monkeypatch, [ended])

    assert 0 == marked.sweep({"ORCH_SESSION": session})
    assert 2 == looked()


def test_sweep_reads_once_what_is_not_wanted(session: str, ended: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Looks are quick, so that on a busy machine there soon is one in which nothing ends."""
    first_environment, read = marked._first_environment, list[int]()
    with asleep({"ORCH_SESSION": "another"}) as child:
        monkeypatch.setattr(marked, "_first_environment", lambda pid: read.append(pid) or first_environment(pid))
        looks(monkeypatch, [child.pid, ended])

        assert 0 == marked.sweep({"ORCH_SESSION": session})
        assert [child.pid, ended] == read


def test_sweep_has_no_doubt_of_what_others_run(session: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it may not see is another user's."""
    with asleep({"ORCH_SESSION": session}) as child:
        looked = looks(monkeypatch, [child.pid])
        answers(monkeypatch, f"/proc/{child.pid}/environ", *[PermissionError()] * 4)

        assert 0 == marked.sweep({"ORCH_SESSION": session})
        assert 1 == looked()


def test_sweep_reads_anew_who_has_the_number_of_one_that_was(session: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is known of a process says nothing of the one that is given its number later."""
    environments = iter([{b"A=1"}, {os.fsencode(f"ORCH_SESSION={session}")}])
    with asleep({}) as child, asleep({}) as other:
        read = {child.pid: environments, other.pid: iter([set[bytes](), set[bytes](), {b"A=1"}])}
        monkeypatch.setattr(marked, "_first_environment", lambda pid: next(read[pid]))
        monkeypatch.setattr(marked, "_DOUBT_S", 60.0)
        looks(monkeypatch, [child.pid, other.pid], [other.pid], [child.pid, other.pid], [])

        assert 1 == marked.sweep({"ORCH_SESSION": session})


def test_sweep_that_ended_nothing_does_not_look_for_long(
    session: str, vanished: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where processes come and go all the time no look may prove anything: a session does not wait for one."""
    looked = looks(monkeypatch, [vanished])
    monkeypatch.setattr(marked, "_DOUBT_S", 0.0)
    monkeypatch.setattr(marked, "_STOP_S", 60.0)

    assert 0 == marked.sweep({"ORCH_SESSION": session})
    assert 2 == looked()


def test_sweep_that_ended_some_looks_for_longer(session: str, vanished: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was found once may well have more: it looks on until one look is beyond doubt."""
    with asleep({"ORCH_SESSION": session}) as child:
        looked = looks(monkeypatch, [child.pid], [vanished], [vanished], [vanished], [])
        monkeypatch.setattr(marked, "_DOUBT_S", 0.0)

        assert 1 == marked.sweep({"ORCH_SESSION": session})
        assert 5 == looked()


def test_sweep_finds_the_children_of_one_that_ended(session: str, ended: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who ended while a sweep looked may have left a child that this look did not list: the next one does."""
    with asleep({"ORCH_SESSION": session}) as child:
        looks(monkeypatch, [ended], [child.pid, ended])
        monkeypatch.setattr(marked, "_DOUBT_S", 0.0)  # one look that proves nothing is too few, however long it took

        assert 1 == marked.sweep({"ORCH_SESSION": session})
        assert -signal.SIGKILL == child.wait()


def test_sweep_kills_no_group_that_means_all(session: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A group of another namespace is shown as 0, and a signal to 0 or to 1 goes to far more than a group."""
    groups = list[int]()
    monkeypatch.setattr(os, "killpg", lambda group, _: groups.append(group))
    monkeypatch.setattr(marked, "_above", lambda pid: {pid})
    for group in (0, 1):
        with asleep({"ORCH_SESSION": session}) as child:
            monkeypatch.setattr(
                os, "getpgid", lambda pid, group=group, pids=(child.pid,): group if pid in pids else pid
            )

            assert 1 == marked.sweep({"ORCH_SESSION": session})
            assert [] == groups
            assert -signal.SIGKILL == child.wait()


def test_sweep_counts_one_that_ended_before_the_signal(
    session: str, vanished: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A chain of forks is often a step ahead: having seen one of it is a reason to look for longer."""
    monkeypatch.setattr(marked, "_first_environment", lambda _: {os.fsencode(f"ORCH_SESSION={session}")})
    looks(monkeypatch, [vanished], [])

    assert 1 == marked.sweep({"ORCH_SESSION": session})


def test_sweep_goes_on_when_one_above_it_has_ended(
    session: str, vanished: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who started it may end while it looks."""
    monkeypatch.setattr(marked, "_above", lambda pid: {pid, vanished})
    with asleep({"ORCH_SESSION": session}) as child:
        assert 1 == marked.sweep({"ORCH_SESSION": session})
        assert -signal.SIGKILL == child.wait()


def test_sweep_reads_long_environments_to_their_end(session: str) -> None:
    """The markers may be the last ones of many variables."""
    with asleep({f"A{n}": "a" * 1000 for n in range(200)} | {"ORCH_SESSION": session}) as child:
        assert 1 == marked.sweep({"ORCH_SESSION": session})
        assert -signal.SIGKILL == child.wait()


def test_sweep_looks_again_at_what_becomes_another_program(session: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """For a moment it lives and shows no environment: that may be the one it had."""
    with asleep({"ORCH_SESSION": session}) as child:
        first_environment, glimpses = marked._first_environment, iter([set[bytes](), set[bytes]()])
        monkeypatch.setattr(marked, "_first_environment", lambda pid: next(glimpses, first_environment(pid)))
        looks(monkeypatch, [child.pid])

        assert 1 == marked.sweep({"ORCH_SESSION": session})
        assert -signal.SIGKILL == child.wait()


def answers(monkeypatch: pytest.MonkeyPatch, path: str, *given: bytes | OSError) -> None:
    """Have the first reads of this file be answered so, whatever is in it."""
    answer, real = iter(given), marked._read

    def read(asked: str) -> bytes:
        said = next(answer, None) if asked == path else None
        if isinstance(said, OSError):
            raise said
        return real(asked) if said is None else said

    monkeypatch.setattr(marked, "_read", read)


@pytest.mark.parametrize("answer", [ProcessLookupError(), PermissionError(), b""], ids=repr)
def test_an_ended_process_is_known_by_its_memory(
    answer: bytes | OSError, ended: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kernels differ in what they say of its environment, and without root it may not be asked for."""
    answers(monkeypatch, f"/proc/{ended}/environ", answer)

    with pytest.raises(ProcessLookupError):
        marked._first_environment(ended)


@pytest.mark.parametrize("answer", [ProcessLookupError(), PermissionError()], ids=repr)
def test_a_refusal_is_asked_once_more(answer: OSError, monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread that becomes another program takes over the number of the first one, which may have ended by then."""
    with asleep({"A": "1"}) as child:
        answers(monkeypatch, f"/proc/{child.pid}/environ", answer)
        assert {b"A=1", b""} == marked._first_environment(child.pid)

        answers(monkeypatch, f"/proc/{child.pid}/environ", answer, answer)
        with pytest.raises(type(answer)):
            marked._first_environment(child.pid)


@pytest.mark.parametrize(("code", "end"), [(b"0", b"7"), (b"1", b"9")])
def test_a_program_that_shows_no_variables_may_be_becoming_one(
    code: bytes, end: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel notes where variables begin and end before it has copied them, and what code there is after that."""
    with asleep({}) as child:
        fields = [b"0"] * 50
        fields[20 - 3], fields[23 - 3], fields[26 - 3], fields[50 - 3], fields[51 - 3] = b"1", b"4096", code, b"7", end
        monkeypatch.setattr(marked, "_fields", lambda _: fields)

        assert set() == marked._first_environment(child.pid)


def test_a_process_without_variables_leaves_no_doubt() -> None:
    """It shows none because it was started without any: no look at it would find more."""
    with asleep({}) as child:
        assert {b""} == marked._first_environment(child.pid)


def test_threads_that_outlive_the_first_one_are_found(session: str) -> None:
    """What is known of a process by its number is what its first thread leaves, which may be nothing."""
    code = (
        "import ctypes, threading, time; threading.Thread(target=time.sleep, args=[60]).start()\n"
        "ctypes.CDLL(None).pthread_exit(None)"
    )
    with subprocess.Popen(
        [sys.executable, "-S", "-c", code], env={"ORCH_SESSION": session}, start_new_session=True
    ) as child:
        try:
            wait_until(lambda: marked.stat(child.pid)[0] == "Z", "its first thread should have ended")
            assert child.poll() is None

            assert 1 == marked.sweep({"ORCH_SESSION": session})
        finally:
            child.kill()
        assert -signal.SIGKILL == child.wait()


def test_families_are_told_apart_by_state_folder(tmp_path: Path, session: str) -> None:
    """A project sees the sessions of its own state folder, and who is above their processes."""
    marks = {"ORCH_ISSUE": "i-0001", "ORCH_SESSION": session, "ORCH_LEASE": "17"}
    with ExitStack() as running:
        for state in ("/mine", "/others"):
            environment = dict(os.environ) | marks | {"ORCH_STATE": state}
            child = running.enter_context(subprocess.Popen(["sleep", "60"], env=environment))
            running.callback(child.kill)
        found = marked.families("/mine")

    assert [("i-0001", session, 17)] == list(found)
    assert os.getpid() in found["i-0001", session, 17]
    assert child.pid not in found["i-0001", session, 17]


def test_logs_are_numbered_on(tmp_path: Path) -> None:
    """A new log counts on from the highest number that is there, whatever bears it."""
    (tmp_path / "logs").mkdir()
    for name in ("9-implementer.prompt", "12-spec_reviewer.stdout", "notes-1"):
        (tmp_path / "logs" / name).touch()

    assert "13-implementer.prompt" == foreign.new_log(tmp_path / "logs", "implementer", ".prompt").name
    assert "14-implementer.prompt" == foreign.new_log(tmp_path / "logs", "implementer", ".prompt").name


def test_tail(tmp_path: Path) -> None:
    """The end of a file, with what is not UTF-8 replaced."""
    (tmp_path / "file").write_bytes(b"abc\xff\xc3\xa9")

    assert "c\ufffdé" == foreign.tail(tmp_path / "file", 4)
    assert "abc\ufffdé" == foreign.tail(tmp_path / "file", 400)
