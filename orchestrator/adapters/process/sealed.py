"""Secrets out of the environment, which /proc shows to every process of the same user.

A process keeps the environment it was started with, whatever it does later; so one that got a secret there starts
itself anew without it.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Mapping

from orchestrator.settings import IN_FILE, SECRETS

_HANDED = re.compile(r"/proc/self/fd/(\d+)")


def start_anew_without(names: Iterable[str] = SECRETS) -> None:
    """Start this very program anew without these variables, if it has any: then this never returns.

    Each secret comes along in an open file without a name, in memory; NAME_FILE says which. It is nowhere on disk, and
    only this process and those that it hands the file to can read it, and whoever may look into them. Call it before
    anything is begun. Where the kernel has no such files (macOS), and no /proc, nothing is done.
    """
    held = {name: value for name in names if (value := os.environ.get(name)) and not os.environ.get(name + IN_FILE)}
    if not held or sys.platform != "linux":
        return
    environ = {name: value for name, value in os.environ.items() if name not in held}
    for name, value in held.items():
        file = os.memfd_create(name, 0)
        os.write(file, os.fsencode(value))
        environ[name + IN_FILE] = f"/proc/self/fd/{file}"
    sys.stdout.flush()
    sys.stderr.flush()
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environ)  # noqa: S606 - no shell is the point


def handed_on(environ: Mapping[str, str]) -> tuple[int, ...]:
    """The open files in which a process with this environment finds its secrets, to be handed on to it."""
    files = (_HANDED.fullmatch(environ.get(name + IN_FILE, "")) for name in SECRETS)
    return tuple(int(file[1]) for file in files if file)
