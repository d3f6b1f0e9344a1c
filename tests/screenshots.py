"""The pictures in docs/images, taken anew from a stack at work: `python -m tests.screenshots`.

Needs chromium, tmux and prometheus on PATH. The agents follow playbooks; all else is as its user has it. Of the Grafana
dashboard there is what Prometheus answers to its panels.
"""

from __future__ import annotations

import io
import json
import math
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

import httpx2
from rich.console import Console
from rich.text import Text

from orchestrator.models import Verdict
from tests.acceptance.project import GOOD, Project, Running
from tests.support import ROOT, wait_until

IMAGES = ROOT / "docs/images"
WIDTH, HEIGHT = 1280, 760
LINES = 24
ORCH = (sys.executable, "-P", "-m", "orchestrator.cli")

DONE = (
    "Parse empty input",
    "Name the line of a syntax error",
    "Read settings from stdin",
    "Say which option is unknown",
)
LONG = {"seconds": 600}
NO = {"checks": [{"item": "a refused upload is tested", "run": ["false"], "fix": "test a refused upload"}]}
AT_WORK: dict[str, dict[str, Any]] = {
    "Cache parsed templates": {"implementer": [GOOD | LONG]},
    "Stream large exports": {"spec_reviewer": [LONG]},
    "Drop the old date format": {"quality_reviewer": [LONG]},
    "Retry uploads": {"spec_reviewer": [NO, LONG]},
}
"""By title, the roles of which one's last run is under way."""
HEAD = """\
# What the Grafana dashboard shows

Each panel's question, and what Prometheus answered while [this](status-watch.svg) was going on. Written by
`python -m tests.screenshots`, as all here.

| panel | it asks Prometheus | and is told |
| --- | --- | --- |"""
SURE = ('sum(increase(orch_sessions_ended_total{verdict="DONE"}[12h])) > 0', "sum(orch_slots_used) == 4")
"""What Prometheus must have seen before it is asked for the rest."""
DASHBOARD = ROOT / "ops/grafana/dashboards/orch.json"
PROMETHEUS = """\
global: {{scrape_interval: 1s, evaluation_interval: 1s}}
rule_files: [{rules}]
scrape_configs: [{{job_name: orch, static_configs: [{{targets: ["127.0.0.1:{port}"]}}]}}]
"""
QUEUED = ("Colour the diff", "Write a man page", "Sort the index by name")


def main() -> None:
    """Start a stack, wait until four sessions are at work, some are done and some wait, and take its pictures."""
    for program in ("chromium", "tmux", "prometheus"):
        if not shutil.which(program):
            sys.exit(f"{program} is not on PATH; install it")
    terminal(
        [*ORCH, "demo"],
        IMAGES / "demo.svg",
        title="make demo",
        columns=124,
        env=os.environ,
        shows=[*(verdict for verdict in Verdict), "blocked", "implement "],
    )
    with tempfile.TemporaryDirectory(prefix="orch-pictures-") as folder, Project(Path(folder, "textkit")) as project:
        for number, title in enumerate(DONE):
            project.file(title, priority=0, implementer=[GOOD | {"seconds": 2 + number}])
        issues = {project.file(title, priority=1, **roles): roles for title, roles in AT_WORK.items()}
        for title in QUEUED:
            project.file(title)
        with Running(project, [*ORCH, "up"]) as stack, ExitStack() as watching:
            stack.says("is up")
            prometheus = watching.enter_context(Prometheus(project))
            stack.until(lambda: at_work(project, issues), "four sessions should be at work, the others done")
            (url,) = re.findall(r"http://(127\S+)", stack.lines("is up")[0])
            login = f"orch:{(project.state / 'flower-password').read_text().strip()}"
            for page in ("tasks", "workers"):
                shoot(f"http://{login}@{url}/{page}", IMAGES / f"flower-{page}.png")
            terminal(
                [*ORCH, "status", "--watch"],
                IMAGES / "status-watch.svg",
                title="orch status --watch",
                columns=110,
                env=project.env,
                shows=[name[:12] for name in (*AT_WORK, *QUEUED)],
            )
            stack.until(lambda: all(map(prometheus.answer, SURE)), "Prometheus should have an answer")
            wrote(IMAGES / "dashboard.md", prometheus.table())


class Prometheus:
    """`orch web` and a Prometheus that asks it each second, as a context manager."""

    def __init__(self, project: Project) -> None:
        config, web, own = project.folder / "prometheus.yml", free_port(), free_port()
        config.write_text(PROMETHEUS.format(port=web, rules=ROOT / "ops/prometheus/alerts.yml"))
        data, listen = f"--storage.tsdb.path={project.folder}/tsdb", f"--web.listen-address=127.0.0.1:{own}"
        self._programs = (
            Running(project, [*ORCH, "web", "--port", web]),
            Running(project, ["prometheus", f"--config.file={config}", data, listen]),
        )
        self._url = f"http://127.0.0.1:{own}/api/v1/query"
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        for program in self._programs:
            self._stack.enter_context(program)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def answer(self, query: str) -> list[tuple[dict[str, str], float]]:
        """Each series' labels and value; none while it does not answer."""
        try:
            found = httpx2.get(self._url, params={"query": query}).raise_for_status().json()["data"]["result"]
        except httpx2.TransportError:
            return []
        return [(series["metric"], float(series["value"][1])) for series in found]

    def table(self) -> str:
        """What Grafana's dashboard would show, panel by panel."""
        rows = [HEAD]
        for panel in json.loads(DASHBOARD.read_text("utf-8"))["panels"]:
            for target in panel.get("targets", ()):
                told = ", ".join(
                    f"{', '.join(metric.values())} {value:.4g}".strip()
                    for metric, value in self.answer(target["expr"])
                    if not math.isnan(value)  # a quantile of nothing
                )
                rows.append(f"| {panel['title']} | `{target['expr']}` | {told or 'nothing yet'} |")
        return "\n".join(rows) + "\n"


def free_port() -> str:
    """A port that nobody has."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


def wrote(path: Path, text: str) -> None:
    """Write it and say so."""
    path.write_text(text, "utf-8")
    print(f"{path}: {path.stat().st_size / 1000:.0f} kB")


def at_work(project: Project, issues: Mapping[str, Mapping[str, Any]]) -> bool:
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


def terminal(
    command: Sequence[str], to: Path, *, title: str, columns: int, env: Mapping[str, str], shows: Sequence[str]
) -> None:
    """What a command shows in a terminal, once each word of `shows` stands there."""
    tmux = ["tmux", "-L", f"orch-pictures-{os.getpid()}", "-f", os.devnull]
    subprocess.run(
        [*tmux, "new-session", "-d", "-x", str(columns), "-y", str(LINES), *command],
        env={**env, "TERM": "xterm-256color", "LANG": "C.UTF-8"},
        check=True,
    )
    try:
        screen = [*tmux, "capture-pane", "-e", "-p"]
        pictured = ""

        def shown() -> bool:
            nonlocal pictured
            pictured = subprocess.run(screen, check=True, capture_output=True, text=True).stdout
            return all(word in pictured for word in shows)

        wait_until(shown, f"{title} should show {', '.join(shows)}", 60)
        console = Console(record=True, width=columns, file=io.StringIO())
        console.print(Text.from_ansi(pictured.rstrip()))
        wrote(to, console.export_svg(title=title))
    finally:
        subprocess.run([*tmux, "kill-server"], check=False)


if __name__ == "__main__":
    main()
