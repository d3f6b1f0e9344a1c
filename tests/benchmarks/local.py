"""The whole local stack, on a repo made for it, with a shell script as agent."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from orchestrator import settings
from orchestrator.adapters.git import create_project
from orchestrator.local.up import Stack
from orchestrator.tracker import init


@contextmanager
def local_stack(folder: Path, agent: Sequence[str], *, poll_interval: float) -> Iterator[Stack]:
    """A stack on `folder/repo`, as `orch up` runs it, once its workers are up."""
    repo = folder / "repo"
    toml = f"""
project = "benchmark"
tracker = "bundled"
poll_interval = {poll_interval}
[verify]
default = ["true"]
[agents.default]
command = {json.dumps(agent)}
"""
    create_project(repo, {"README.md": "# A project\n", "orch.toml": toml})
    init(repo)
    environ = os.environ | {"ORCH_STATE_DIR": str(folder / "state")}
    with (folder / "stack.log").open("w") as log:
        own = settings.load(repo, environ)
        with Stack(own, environ, say=lambda name, line: print(name, line, file=log), flower=False) as stack:
            stack.wait_ready()
            yield stack
            stack.wiring.tracker.close()
