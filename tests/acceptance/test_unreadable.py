"""The processes of a stack keep their environment to themselves: an agent of the same user cannot read it there."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.acceptance.project import Project, Running
from tests.unpriv import python_as_a_user

pytestmark = [
    pytest.mark.timeout(300),
    pytest.mark.skipif(not python_as_a_user(), reason="root reads all, and no Python runs as another user here"),
    pytest.mark.skipif(not Path("/proc/self").exists(), reason="there is no /proc"),
]

TOKEN = "the-token-of-this-test-alone"


# As often as an agent could: what is started in between is looked into, too.
READER = """
import json, os, sys
token, read, kept = sys.argv[1].encode(), set(), set()
for _ in range(int(sys.argv[2])):
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as file:
                line = file.read().replace(b"\\0", b" ").decode()
            try:
                with open(f"/proc/{pid}/environ", "rb") as file:
                    if token in file.read() and int(pid) != os.getpid():
                        read.add(line)
            except PermissionError:
                kept.add(line)
        except (FileNotFoundError, ProcessLookupError):
            pass
print(json.dumps([sorted(read), sorted(kept)]))
"""


@pytest.fixture
def project() -> Iterator[Project]:
    """A project of that user's."""
    with tempfile.TemporaryDirectory(prefix="orch-") as name:
        folder = Path(name)
        with Project(folder / "p") as project:
            if os.getuid() == 0:
                for path in (folder, *folder.rglob("*")):
                    shutil.chown(path, 65534, 65534)
            yield project


def readers(times: int = 1) -> tuple[list[str], list[str]]:
    """Which processes the user can read the token from, and which it can read nothing from."""
    done = subprocess.run(
        [*python_as_a_user(), "-c", READER, TOKEN, str(times)], cwd="/", capture_output=True, text=True, check=True
    )
    read, kept = json.loads(done.stdout)
    return read, kept


def test_no_process_of_the_stack_can_be_read(project: Project) -> None:
    """Not `orch up`, its workers and their children, beat and web; and what they start does not have the token."""
    environment = {"ORCH_GITHUB_TOKEN": TOKEN, "ORCH_GITHUB_WEBHOOK_SECRET": TOKEN}
    orch = [*python_as_a_user(), "-P", "-m", "orchestrator.cli"]
    with ExitStack() as running:
        stack = running.enter_context(Running(project, [*orch, "up"], environment))
        stack.says("is up")
        web = running.enter_context(Running(project, [*orch, "web", "--port", "0"], environment))
        web.says("listening")
        read, kept = readers(30)

        assert [] == read
        for words in (
            "cli up",
            "cli web",
            "-n sessions@",
            "-n control@",
            "-n merges@",
            "orchestrator beat",
            " flower ",
        ):
            assert [line for line in kept if words in line], (words, kept)


def test_what_is_not_ours_is_read(tmp_path: Path) -> None:
    """Or the test above would show nothing: the token stands in the environment of an ordinary process."""
    argv = [*python_as_a_user(), "-c", "import sys; print(flush=True); sys.stdin.read()", "an-ordinary-process"]
    with subprocess.Popen(
        argv, env={"TOKEN": TOKEN}, cwd="/", stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as ordinary:
        assert ordinary.stdout
        ordinary.stdout.readline()
        read, _ = readers()
        ordinary.communicate()

    assert [line for line in read if "an-ordinary-process" in line]
