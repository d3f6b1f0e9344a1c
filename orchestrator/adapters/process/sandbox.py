"""Show a program a part of this machine only: what bubblewrap is told, and whether it works here.

This module alone knows bubblewrap's command line. Which paths a program gets is up to the caller: a `Reach` says it of
each path that is not simply readable, and of nested paths the inner one counts. Processes, /dev and System V IPC are
the program's own; the network is the machine's.
"""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from orchestrator.adapters.process import shim

PROBE_S = 10.0
INSTALL = "install bubblewrap 0.5 or newer (apt install bubblewrap)"
_APPARMOR = Path("/proc/sys/kernel/apparmor_restrict_unprivileged_userns")
_COPIES = "/dev/orch"  # the one folder that every box has as its own

# Root may turn the kernel's knobs without any capability. Not for others: over a /proc that is covered in part, a
# sandbox of an agent's own could not mount one. And it has another number inside, or no such sandbox could be made at
# all: Codex, which makes one, would do nothing and call it done.
_ROOT = (
    *("--uid", "1000", "--gid", "1000"),
    *(
        word
        for name in ("sys", "sysrq-trigger", "irq", "bus", "fs")
        for word in ("--ro-bind-try", *[f"/proc/{name}"] * 2)
    ),
)


class Access(Enum):
    """What a program finds at a path. All but EMPTY and BLANK are of what is there; where nothing is, nothing is."""

    WRITE = "the file or folder, to write to"
    READ = "the file or folder, to read"
    EMPTY = "a folder with nothing in it, to write to; gone with the program"
    BLANK = "a file with nothing in it"
    COPY = "a copy of the file, to write to or replace, in a folder that is EMPTY; gone with the program"


@dataclass(frozen=True)
class Link:
    """A symbolic link at a path, as it is outside."""

    target: str


Reach = dict[Path, Access | Link]
"""Whole paths without a symbolic link on their way, and what is found there."""


def boxed(argv: Sequence[str], reach: Reach, *, cwd: Path) -> list[str]:
    """The argv that runs `argv` in a box, in folder `cwd`.

    It is for a `shim` that is told so. Inside, the shim's exit codes hold, and so does its grace. All ends with it:
    when the first process of the box is gone, the kernel ends the others.
    """
    outer_first = sorted((_ourselves(reach) | reach).items(), key=lambda place: len(place[0].parts))
    copies = [path for path, access in outer_first if access is Access.COPY]
    mounts = [word for path, access in outer_first for word in _mount(path, access)]
    for number, path in enumerate(copies):
        mounts += ["--ro-bind-try", str(path), f"{_COPIES}/{number}"]
    inside = [word for number, path in enumerate(copies) for word in ("--copy", f"{_COPIES}/{number}", str(path))]
    return [
        *(_program() or "bwrap", "--die-with-parent"),
        # No terminal is in reach either: the shim's session has none.
        *("--unshare-user", "--unshare-pid", "--unshare-ipc", "--cap-drop", "ALL"),
        *("--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc"),
        *(_ROOT if os.getuid() == 0 else ()),
        *mounts,
        *("--chdir", str(cwd), "--"),
        *(sys.executable, "-I", "-S", shim.__file__, "--inside", *inside, "--", *argv),
    ]


def _ourselves(reach: Reach) -> Reach:
    """This program, where the box would not have it, as in /tmp: the shim is of it, and an agent that costs nothing."""
    hidden = [path for path, access in reach.items() if access is Access.EMPTY]
    needed = {Path(place).resolve() for place in (sys.prefix, sys.base_prefix, Path(shim.__file__).parents[2])}
    return {place: Access.READ for place in needed if any(place.is_relative_to(path) for path in hidden)}


def _mount(path: Path, access: Access | Link) -> Iterator[str]:
    match access:
        case Access.WRITE:
            yield from ("--bind-try", str(path), str(path))
        case Access.READ:
            yield from ("--ro-bind-try", str(path), str(path))
        case Access.EMPTY:
            yield from ("--perms", "0700", "--tmpfs", str(path))
        case Access.BLANK:
            yield from ("--ro-bind", "/dev/null", str(path))
        case Link(target):
            yield from ("--symlink", target, str(path))


@functools.cache
def why_not() -> str:
    """Why programs cannot be boxed here; empty when they can. Found out once per process, by doing it."""
    if sys.platform != "linux":
        return "bubblewrap needs Linux"
    if not _program():
        return "bubblewrap is not installed"
    probe = boxed(["true"], {Path("/tmp"): Access.EMPTY, Path("/run"): Access.EMPTY}, cwd=Path("/"))  # noqa: S108
    try:
        done = subprocess.run(
            probe, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=PROBE_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"bubblewrap cannot be run: {error}"
    words = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
    return f"bubblewrap does not work here ({words})" if done.returncode else ""


def remedy() -> str:
    """What to do about `why_not`."""
    if sys.platform != "linux":
        return "run sessions in a container or a virtual machine (docs/docker.md)"
    if not _program():
        return INSTALL
    if _APPARMOR.exists() and _APPARMOR.read_text("ascii").strip() == "1":
        return (
            "AppArmor forbids it: apt install apparmor-profiles, and load "
            "/usr/share/apparmor/extra-profiles/bwrap-userns-restrict (docs/threat-model.md)"
        )
    return "allow user namespaces (in a container: docs/threat-model.md)"


@functools.cache
def _program() -> str | None:
    return shutil.which("bwrap")
