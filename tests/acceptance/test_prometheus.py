"""A real Prometheus over a running stack: what the dashboard asks for is there, and no rule fails."""

from __future__ import annotations

import json
import shutil
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
import yaml

from tests.acceptance.project import ORCH_UP, Project, Running, up
from tests.support import ROOT

pytestmark = [
    pytest.mark.timeout(300),
    pytest.mark.skipif(not shutil.which("prometheus"), reason="prometheus is not installed"),
]

WEB = (*ORCH_UP[:4], "web", "--port", "0")
DASHBOARD = json.loads((ROOT / "ops/grafana/dashboards/orch.json").read_text("utf-8"))
PANELS = {panel["title"]: panel for panel in DASHBOARD["panels"] if panel["type"] != "row"}
QUERIES = {
    f"{title}: {target['expr']}": target["expr"] for title, panel in PANELS.items() for target in panel["targets"]
}

Ask = Callable[..., Any]


@pytest.fixture(scope="module")
def ask(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ask]:
    """Asks a Prometheus that has our configuration, but for the address and how often it looks."""
    with (
        Project(tmp_path_factory.mktemp("prometheus")) as project,
        up(project) as stack,
        Running(project, WEB) as web,
    ):
        issue = project.file("Watch this")
        stack.until(lambda: project.over(issue), "the issue should have been done")
        web.says("listening on http://")
        address = web.lines("listening on")[0].partition("http://")[2]
        home = f"127.0.0.1:{_free_port()}"
        with Running(project, _prometheus(project.folder, address, home)) as prometheus:

            def asked(path: str, **query: str) -> Any:
                answer = httpx2.get(f"http://{home}/api/v1/{path}", params=query, timeout=30)
                return answer.raise_for_status().json()["data"]

            def looked_twice() -> bool:
                try:
                    # What is rated needs two looks; that a session ended, the last one must have seen.
                    found = asked("query", query="count_over_time(orch_redis_up[1m]) > 2")["result"]
                except httpx2.TransportError:
                    return False
                return bool(found)

            prometheus.until(looked_twice, "Prometheus should have looked twice")
            yield asked


def _prometheus(folder: Path, target: str, home: str) -> list[str]:
    config = yaml.safe_load((ROOT / "ops/prometheus/prometheus.yml").read_text("utf-8"))
    config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    config["rule_files"] = [str(ROOT / "ops/prometheus/alerts.yml")]
    config["scrape_configs"][0]["static_configs"][0]["targets"] = [target]
    path = folder / "prometheus.yml"
    path.write_text(yaml.safe_dump(config))
    storage = f"--storage.tsdb.path={folder / 'tsdb'}"
    return ["prometheus", f"--config.file={path}", storage, f"--web.listen-address={home}"]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.mark.parametrize("query", QUERIES.values(), ids=QUERIES)
def test_a_panel_shows_data(query: str, ask: Ask) -> None:
    """Nobody has to touch the dashboard for that."""
    assert [] != ask("query", query=query)["result"]


def test_no_rule_fails_and_what_is_well_fires_nothing(ask: Ask) -> None:
    """All of them are evaluated over what a real stack says."""
    [group] = ask("rules")["groups"]

    assert {"ok"} == {rule["health"] for rule in group["rules"]}
    assert [] == [rule["name"] for rule in group["rules"] if rule["state"] == "firing"]


def test_what_the_stack_did_is_counted(ask: Ask) -> None:
    """The session and its steps, the tracker's calls, the ticks of all who tick."""

    def value(query: str) -> float:
        [only] = ask("query", query=query)["result"]
        return float(only["value"][1])

    assert 1 == value('sum(orch_sessions_ended_total{verdict="DONE"})')
    assert 4 == value("sum(orch_step_duration_seconds_count)")
    assert 0 < value('sum(orch_tracker_calls_total{outcome="ok"})')
    assert 5 == value("count(orch_tick_age_seconds < 60)")
