"""Flower's login: FLOWER_BASIC_AUTH or its file, else a password that is made once and kept in the state folder."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Mapping
from pathlib import Path

from orchestrator.settings import FLOWER_LOGIN, secret

USER = "orch"


def login(state_dir: Path) -> str:
    """`user:password`. The first call makes the password, in a file that only its owner may read."""
    if given := secret(FLOWER_LOGIN, os.environ):
        return given
    path = _file(state_dir)
    with contextlib.suppress(FileNotFoundError):
        return f"{USER}:{path.read_text('ascii').strip()}"
    draft = path.with_name(f"{path.name}.{os.getpid()}")
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="ascii") as file:
        file.write(f"{secrets.token_urlsafe(18)}\n")
        file.flush()
        os.fsync(file.fileno())  # after a power cut, an empty file would be an empty password
    # Two may be here at once: the first link stands, and both read that.
    with contextlib.suppress(FileExistsError):
        path.hardlink_to(draft)
    draft.unlink()
    return login(state_dir)


def hint(state_dir: Path, environ: Mapping[str, str]) -> str:
    """A hint for logging in, without the password itself."""
    if secret(FLOWER_LOGIN, environ):
        return f"login: {FLOWER_LOGIN}"
    return f"user {USER}, password in {_file(state_dir)}"


def _file(state_dir: Path) -> Path:
    return state_dir / "flower-password"
