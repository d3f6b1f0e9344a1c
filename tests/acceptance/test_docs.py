"""Every command that the README and docs/ print is typed here, page by page, top to bottom, as a reader would.

A page is read in a project with a running stack, and an issue in each kind of trouble. Names that stand for a reader's
own are replaced: `i-a1b2` and the like by the issues that the page itself filed, in that order; where it filed none, by
an issue that is in the trouble which the section is about.
"""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TypeVar

import pytest

from orchestrator.adapters.git import create_project
from tests.acceptance.project import Project, Running, up
from tests.doc_pages import PAGES, Command, commands, not_printed
from tests.orch import orch_here
from tests.support import ROOT, wait_until

pytestmark = pytest.mark.timeout(300)

NOT_TYPED = {
    r"make( .*)?": "`make test` is what runs this, and integration/test_pages.py knows the targets",
    r"orch demo( .*)?": "half a minute; test_demo.py types it",
    r"(python3 -m venv|(~\S*/)?pip install) .*": "installs from the network; make does for every test",
    r"ln -sf ~/.local/share/sudocode-orchestrator/bin/orch ~/.local/bin/orch": "of what is not installed",
    r"sudo loginctl enable-linger \S+": "changes the machine",
    r"systemctl --user (daemon-reload|((enable|disable) --now|start|stop|restart|status) \S+)": "needs systemd",
    r"journalctl --user( -f)? -u \S+( .*)?": "needs systemd",
    r"orch issue show i-a1b2 --json \| grep .*": "of a merge on GitHub; test_closing.py makes one",
    r"rm ~/\.config/systemd/user/\S+ ~/\.config/\S+\.env": "of what needs systemd",
    r"orch install-service --remove": "needs systemd; test_install_service.py types it",
    r"docker compose (up|down|build|logs|exec|run)( .*)?|cp \.env\.example \.env|git pull": "`make docker-test` does",
    r"(export ORCH_REDIS_URL=.*|celery -A orchestrator (worker -Q|beat|flower).*)": "test_hosts.py does",
    r"orch web &|curl -s http://127\.0\.0\.1:8080/\w+": "at a port that others may have; test_web.py asks at another",
}
"""What is not typed here, whole, and why."""

KEEPS_RUNNING = {
    "orch up": "is up",
    "orch status --watch": "DONE",
}
"""What a reader leaves running in a terminal of its own, and what that says when it is up."""

FAILS = {"orch merges close i-c3d4": 1}
"""What does not end with exit code 0, as its page says."""

BRING_THEIR_OWN = ("README.md", "quickstart.md")
"""Pages that make a stack of their own, at home."""

TROUBLE = {
    "Symptom: issue stuck at `in_progress`": "stuck",
    "Symptom: nothing to merge": "nothing",
    "Symptom: verification failed": "verify_failed",
    "Symptom: repeated overflow (`OVERFLOW_FIX_CREATED`)": "overflow",
    "Symptom: an issue fails again and again": "error",
    "Symptom: an agent hangs": "hung",
}
"""What is wrong with the issue that a section is about; in any other it is `done`."""

PLACEHOLDERS = ("i-a1b2", "i-c3d4")
CLAUDE = """prompt=$(cat)
nonce=$(echo "$prompt" | grep -o '"nonce": "[a-z]*"' | tail -n 1)
case $prompt in
*"Your role: implementer"*) echo done > work.txt
  echo "{$nonce,"' "code_changed_at": "2026-01-05T12:00:00Z", "notes": "done", "verification": null}' ;;
*) echo "{$nonce,"' "passed": true, "failed_items": [], "fix_list": []}' ;;
esac"""
"""An agent that finds no fault."""

LOOKS = ("doctor", "explain", "gc", "history", "logs", "report", "status")
"""The commands that leave nothing behind in this process, and no worker to be woken."""

SHELL = "|&;<>$`~*?{(\n"
"""What only a shell understands."""

CARRY = """trap 'code=$?; {{ export -p; printf "cd %q\\n" "$PWD"; }} > {}; exit $code' EXIT\n"""

Answer = TypeVar("Answer")


class Reader:
    """Somebody at a terminal, who leaves what keeps running in terminals of its own.

    With `here`, a command that only looks and needs no shell is run in this process, in a tenth of the time.
    """

    def __init__(
        self,
        project: Project,
        terminals: ExitStack,
        *,
        issues: Mapping[str, str],
        names: Mapping[str, str],
        here: bool,
    ) -> None:
        self._here = here
        self._project, self._terminals, self._issues, self._names = project, terminals, issues, names
        self._filed: list[str] = []
        self._carried = project.folder / "home/.carried"
        self._carried.write_text(f"cd {project.env.get('ORCH_PROJECT_ROOT', '~')}\n")

    def types(self, command: Command) -> None:
        """Type it, and see that it does, and prints, what the page says."""
        opened, text = f"set -eo pipefail; . {self._carried}\n", self._meant(command)
        if says := known_of(command, KEEPS_RUNNING):
            running = self._terminals.enter_context(Running(self._project, ["bash", "-c", f"{opened}exec {text}"]))
            running.says(says)
            return
        argv = ["bash", "-c", f"{opened}{CARRY.format(self._carried)}{text}"]
        if not command.prints:
            self._runs(command, argv)
            return
        # Who reads on looks again if what is shown is not there yet: not everything is done at once.
        wait_until(lambda: not not_printed(command.prints, self._runs(command, argv)), f"{command}", 45)

    def _runs(self, command: Command, argv: list[str]) -> str:
        """What it prints, if it ends as it should."""
        words = shlex.split(self._meant(command), comments=True)
        if self._here and words[0] == "orch" and words[1] in LOOKS and not set(SHELL) & set("".join(words)):
            done = orch_here(*words[1:], cwd=self._project.repo, env=self._project.env)
        else:
            done = subprocess.run(argv, env=self._project.env, capture_output=True, text=True, timeout=90, check=False)
        assert (known_of(command, FAILS) or 0) == done.returncode, f"{command}\n{done.stdout}{done.stderr}"
        self._filed += re.findall(r"^i-[a-z0-9]+$", done.stdout, re.MULTILINE)
        return done.stdout + done.stderr

    def _meant(self, command: Command) -> str:
        """The command with the reader's own names in it."""
        text = command.text
        for name, own in self._names.items():
            text = text.replace(name, own)
        other = self._issues.get(TROUBLE.get(command.section, "done"), "i-none")
        mine = dict(zip(PLACEHOLDERS, self._filed, strict=False))
        return re.sub("|".join(PLACEHOLDERS), lambda name: mine.get(name[0], other), text)


def known_of(command: Command, known: Mapping[str, Answer]) -> Answer | None:
    """What is known of a command, by the words that it begins with."""
    return next((answer for words, answer in known.items() if f"{command.text} ".startswith(f"{words} ")), None)


def typed(page: Path) -> list[Command]:
    """The page's commands, without those that are not typed."""
    return [c for c in commands(page) if not any(re.fullmatch(known, bare(c)) for known in NOT_TYPED)]


def moves_nowhere(page: Path) -> bool:
    """Whether a page's reader stays in one folder and environment, so that `orch` is as good in this process."""
    return not any(command.text.startswith(("cd ", "export ")) for command in typed(page))


def bare(command: Command) -> str:
    """The command without its comment."""
    return re.split(r"\s+#\s", command.text)[0].strip()


def at_home(project: Project) -> None:
    """A home with `orch`, `python` and a `claude` on its PATH, and a git identity."""
    programs = project.folder / "bin"
    programs.mkdir()
    for name, does in {
        "orch": f'exec {sys.executable} -P -m orchestrator.cli "$@"',
        "python": f'exec {sys.executable} "$@"',
        "claude": CLAUDE,
    }.items():
        (programs / name).write_text(f"#!/bin/sh\n{does}\n")
        (programs / name).chmod(0o755)
    (project.folder / "home/.gitconfig").write_text("[user]\nname = Somebody\nemail = somebody@example.org\n")
    project.env |= {"PATH": f"{programs}:{project.env['PATH']}", "EDITOR": "true", "USER": "somebody"}


def is_in(project: Project, issue: str, state: str) -> bool:
    """Whether Redis knows the issue's session, and in this state."""
    return project.known(issue) and project.holding(issue).state == state


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Project, dict[str, str]]]:
    """A stack that runs, and an issue in each trouble."""
    folder = tmp_path_factory.mktemp("night")
    refused = {"checks": [{"item": "dates are parsed", "run": ["false"], "fix": "parse dates"}]}
    failing = 'default = ["true"]\nL1 = ["sh", "-c", "echo 1 failed; exit 1"]'
    with Project(folder, top="concurrency = 8", limits="errors_in_a_row = 1", verify=failing) as project:
        at_home(project)
        issues = {
            "done": project.file("Add two numbers"),
            "nothing": project.file("Subtract", verify="L0", implementer=[{}, {"already_done": True}]),
            "overflow": project.file("Parse dates", spec_reviewer=[refused]),
            "verify_failed": project.file("Round up", verify="L1"),
            "stuck": project.file("Round down", verify="L1"),
            "error": project.file("Greet", implementer=[{"misbehave": "exit3"}]),
            "hung": project.file("Wait", implementer=[{"misbehave": "hang"}]),
        }
        with up(project) as stack:
            stack.says("is up")
            for trouble, issue in issues.items():
                state = "running" if trouble == "hung" else "ended"
                stack.until(partial(is_in, project, issue, state), trouble)
            yield project, issues


@pytest.fixture
def read(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Reader]:
    """A reader of the page that the test is about."""
    with ExitStack() as terminals:
        page: Path = request.getfixturevalue("page")
        if page.name not in BRING_THEIR_OWN:
            project, issues = request.getfixturevalue("night")
            names = {" ops/": f" {ROOT}/ops/"}
            yield Reader(project, terminals, issues=issues, names=names, here=moves_nowhere(page))
            return
        project = terminals.enter_context(Project(tmp_path))
        at_home(project)
        create_project(tmp_path / "home/my-repo", {"Makefile": "test:\n\ttrue\n"})
        del project.env["ORCH_PROJECT_ROOT"], project.env["ORCH_STATE_DIR"]
        yield Reader(project, terminals, issues={}, names={}, here=False)


@pytest.mark.parametrize("page", [page for page in PAGES if typed(page)], ids=lambda page: page.stem)
def test_what_a_page_prints_can_be_typed(page: Path, read: Reader) -> None:
    """Each command ends as the page says, and prints what it shows."""
    for command in typed(page):
        read.types(command)
