"""Another program, run so that it ends when its owner does, and finds this package."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path


def bound_argv(owner: int, command: Sequence[str]) -> list[str]:
    """The argv that runs `command`, a whole path first, and sends it SIGTERM when the process `owner` is gone."""
    return [sys.executable, "-P", "-m", __name__, str(owner), *command]


def bound_env(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment in which a Python finds this package, wherever it is installed."""
    home = str(Path(__file__).parents[3])
    rest = environ.get("PYTHONPATH")
    return {**environ, "PYTHONPATH": f"{home}{os.pathsep}{rest}" if rest else home}


def unreadable() -> None:
    """Have no other process of this user read this one's environment and memory, or trace it; root still may.

    It holds for forks, and ends with an exec: what this process starts is as it was. There is no core dump either.
    """
    if sys.platform == "linux":
        pr_set_dumpable = 4
        ctypes.CDLL(None).prctl(pr_set_dumpable, 0, 0, 0, 0)


def become(owner: int, command: Sequence[str]) -> None:
    """Turn this process into the program, bound to end when its owner does. Never returns.

    Where the kernel has no such bond (macOS), a killed owner leaves its program behind.
    """
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None, use_errno=True).prctl(pr_set_pdeathsig, signal.SIGTERM)
        if os.getppid() != owner:
            sys.exit("the owner ended before its program began")
    os.execv(command[0], list(command))  # noqa: S606 - no shell is the point


if __name__ == "__main__":
    become(int(sys.argv[1]), sys.argv[2:])
