"""The lock on a file, between real processes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator.adapters.process.lock import holder, locked
from orchestrator.errors import LockTimeout

HOLD = """
import sys
from pathlib import Path
from orchestrator.adapters.process.lock import locked
with locked(Path(sys.argv[1]), wait_s=0):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_lock_has_one_holder_and_a_waiter_is_told_which(tmp_path: Path) -> None:
    """A second open file is refused, also in the same process; afterwards the lock is free."""
    path = tmp_path / "made" / "lock"
    with locked(path, wait_s=0):
        assert str(os.getpid()) == holder(path)
        with pytest.raises(LockTimeout, match=str(path)) as refused, locked(path, wait_s=0):
            pytest.fail("two holders")

    assert str(os.getpid()) == refused.value.holder
    with locked(path, wait_s=0):
        pass


def test_a_killed_holder_leaves_no_lock(tmp_path: Path) -> None:
    """The lock goes with its process, whatever way that ends."""
    path = tmp_path / "lock"
    other = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with other:
        assert other.stdout
        assert "held\n" == other.stdout.readline()
        with pytest.raises(LockTimeout) as refused, locked(path, wait_s=0.02):
            pytest.fail("two holders")
        other.kill()
        other.wait()

    assert str(other.pid) == refused.value.holder
    with locked(path, wait_s=0):
        pass


def test_a_child_forked_meanwhile_does_not_keep_the_lock(tmp_path: Path) -> None:
    """Celery forks its workers at any moment; one that has a copy of the open file must not hold the lock on."""
    path = tmp_path / "lock"
    reading, writing = os.pipe()
    with locked(path, wait_s=0):
        child = os.fork()
        if child == 0:
            os.close(writing)
            os.read(reading, 1)
            os._exit(0)
    try:
        with locked(path, wait_s=0):
            pass
    finally:
        os.close(writing)
        os.close(reading)
        os.waitpid(child, 0)


def test_a_full_disk_costs_the_name_and_not_the_lock(tmp_path: Path) -> None:
    """What needs the lock goes on although its process id cannot be written."""
    code = (
        "import resource, signal, sys\nfrom pathlib import Path\n"
        "from orchestrator.adapters.process.lock import holder, locked\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\nresource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))\n"
        "with locked(Path(sys.argv[1]), wait_s=0):\n    print(repr(holder(Path(sys.argv[1]))))\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "lock")], capture_output=True, text=True)

    assert ("''\n", 0) == (done.stdout, done.returncode), done.stderr
