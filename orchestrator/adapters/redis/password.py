"""The password of the private Redis: in two files beside its data, for their owner alone, and on no command line.

It keeps out what reaches the socket and cannot read the files, as an agent in a sandbox of its own. A process of the
same user that runs in no sandbox can read them.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from pathlib import Path

PASSWORD, USERS = "password", "users"


def password_in(folder: Path) -> str:
    """The password of the folder's server; empty while it never had one that we could read."""
    try:
        return (folder / PASSWORD).read_text("ascii").strip()
    except OSError:
        return ""


def made_password(folder: Path) -> str:
    """The same, made if need be, and the server's list of users with it. To be called under the server's lock."""
    if not password_in(folder):
        _write(folder / PASSWORD, f"{secrets.token_urlsafe(24)}\n")
    password = password_in(folder)
    # All for us, and nothing for anybody else. There is one user because Flower logs in by a password alone.
    _write(folder / USERS, f"user default on #{hashlib.sha256(password.encode()).hexdigest()} ~* &* +@all\n")
    return password


def _write(path: Path, text: str) -> None:
    """Write a file that is its owner's alone, whole or not at all."""
    draft = path.with_name(f"{path.name}.new")
    draft.unlink(missing_ok=True)
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
