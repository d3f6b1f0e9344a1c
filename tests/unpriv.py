"""Python as an ordinary user: to see what other processes of the same user see, where the tests run as root."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys

NOBODY = ("setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups")
# Once more by itself: setpriv gives what it runs a last look with the rights of root.
AGAIN = (
    "import subprocess, sys; assert sys.version_info >= (3, 11); subprocess.run([sys.executable, '-c', ''], check=True)"
)


@functools.cache
def python_as_a_user() -> tuple[str, ...]:
    """The argv of a Python that runs as an ordinary user; empty where there is none for it."""
    if os.getuid():
        return (sys.executable,)
    if not shutil.which("setpriv"):
        return ()
    for program in (sys.executable, "/usr/bin/python3"):
        asked = [*NOBODY, program, "-c", AGAIN]
        if not subprocess.run(asked, cwd="/", capture_output=True, check=False).returncode:
            return (*NOBODY, program)
    return ()
