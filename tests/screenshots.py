"""The pictures in docs/images, taken anew from a stack at work: `python -m tests.screenshots`.

Needs chromium and tmux on PATH. The agents follow playbooks; all else is as its user has it.
"""

from __future__ import annotations

import io
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from rich.console import Console
from rich.text import Text

from tests.acceptance.project import GOOD, Project, Running
from tests.support import ROOT, wait_until

IMAGES = ROOT / "docs/images"
WIDTH, HEIGHT = 1280, 760
COLUMNS, LINES = 110, 24
ORCH = (sys.executable, "-P", "-m", "orchestrator.cli")

DONE = (
    "Parse empty input",
    "Name the line of a syntax error",
    "Read settings from stdin",
    "Say which option is unknown",
)
LONG = {"seconds": 600}
NO = {"checks": [{"item": "a refused upload is tested", "run": ["false"], "fix": "test a refused upload"}]}
AT_WORK = {
    "Cache parsed templates": {"implementer": [GOOD | LONG]},
    "Stream large exports": {"spec_reviewer": [LONG]},
    "Drop the old date format": {"quality_reviewer": [LONG]},
    "Retry uploads": {"spec_reviewer": [NO, LONG]},
}
"""By title, the roles of which one's last run is under way."""
QUEUED = ("Colour the diff", "Write a man page", "Sort the index by name")


def main() -> None:
    """Start a stack, wait until four sessions are at work, some are done and some wait, and take its pictures."""
    for program in ("chromium", "tmux"):
        if not shutil.which(program):
            sys.exit(f"{program} is not on PATH; install it")
    with tempfile.TemporaryDirectory(prefix="orch-pictures-") as folder, Project(Path(folder, "textkit")) as project:
        for number, title in enumerate(DONE):
            project.file(title, priority=0, implementer=[GOOD | {"seconds": 2 + number}])
        issues = {project.file(title, priority=1, **roles): roles for title, roles in AT_WORK.items()}
        for title in QUEUED:
            project.file(title)
        with Running(project, [*ORCH, "up"]) as stack:
            stack.says("is up")
            stack.until(lambda: at_work(project, issues), "four sessions should be at work, the others done")
            (url,) = re.findall(r"http://(127\S+)", stack.lines("is up")[0])
            login = f"orch:{(project.state / 'flower-password').read_text().strip()}"
            for page in ("tasks", "workers"):
                shoot(f"http://{login}@{url}/{page}", IMAGES / f"flower-{page}.png")
            watch(project, IMAGES / "status-watch.svg")


def at_work(project: Project, issues: Mapping[str, Mapping[str, list[object]]]) -> bool:
    """Whether what was quick is done, and each of these issues is in the last run of its slow role."""
    ended = [holding for holding in project.leases.holdings() if holding.state == "ended"]
    return len(ended) == len(DONE) and all(
        project.asked(issue, role) == len(runs) for issue, roles in issues.items() for role, runs in roles.items()
    )


def shoot(url: str, to: Path) -> None:
    """A picture of a page, once it has loaded what it shows."""
    subprocess.run(
        [
            "chromium",
            "--headless=new",
            "--no-sandbox",
            "--hide-scrollbars",
            f"--window-size={WIDTH},{HEIGHT}",
            "--virtual-time-budget=10000",
            f"--screenshot={to}",
            url,
        ],
        check=True,
        capture_output=True,
        timeout=60,
    )
    print(f"{to}: {to.stat().st_size / 1000:.0f} kB")


def watch(project: Project, to: Path) -> None:
    """`orch status --watch` as a terminal shows it."""
    tmux = ["tmux", "-L", f"orch-pictures-{os.getpid()}", "-f", os.devnull]
    subprocess.run(
        [*tmux, "new-session", "-d", "-x", str(COLUMNS), "-y", str(LINES), *ORCH, "status", "--watch"],
        env=project.env | {"TERM": "xterm-256color", "LANG": "C.UTF-8"},
        check=True,
    )
    try:
        screen = [*tmux, "capture-pane", "-e", "-p"]

        def shown() -> str:
            return subprocess.run(screen, check=True, capture_output=True, text=True).stdout

        wait_until(lambda: all(title[:12] in shown() for title in AT_WORK), "it should show all that is at work", 30)
        console = Console(record=True, width=COLUMNS, file=io.StringIO())
        console.print(Text.from_ansi(shown().rstrip()))
        console.save_svg(str(to), title="orch status --watch")
    finally:
        subprocess.run([*tmux, "kill-server"], check=False)
    print(f"{to}: {to.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
