"""Python as an ordinary user: to see what other processes of the same user see, where the tests run as root."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys
from pathlib import Path

# A Python in root's home is shown to the user where it was, in a mount namespace of its own.
SHOWN = """
set -e
if [ "$2" ]; then
    mount -t tmpfs tmpfs /mnt; mkdir /mnt/python; mount --bind "$1" /mnt/python
    mount -t tmpfs -o mode=755 tmpfs "$2"; mkdir -p "$1"; mount --bind /mnt/python "$1"
fi
shift 2
exec setpriv --reuid 65534 --regid 65534 --clear-groups -- "$@"
"""
# Once more by itself: setpriv gives what it runs a last look with the rights of root.
AGAIN = "import subprocess, sys; subprocess.run([sys.executable, '-c', ''], check=True)"


@functools.cache
def python_as_a_user() -> tuple[str, ...]:
    """The argv of this Python that runs as an ordinary user; empty where that cannot be."""
    if os.getuid():
        return (sys.executable,)
    if not (shutil.which("setpriv") and shutil.which("unshare")):
        return ()
    python = Path(sys.base_prefix)
    closed = next((str(folder) for folder in reversed(python.parents) if not folder.stat().st_mode & 0o001), "")
    alone = ("unshare", "--mount", "--propagation", "private")
    argv = (*alone, "sh", "-c", SHOWN, "sh", str(python), closed, sys.executable)
    tried = subprocess.run([*argv, "-c", AGAIN], cwd="/", capture_output=True, check=False)
    return () if tried.returncode else argv
