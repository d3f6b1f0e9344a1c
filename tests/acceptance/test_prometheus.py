"""`orch web` beside a running stack, and a real Prometheus over both: what the dashboard asks for is there."""

from __future__ import annotations

import json
import shutil
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest
import yaml

from tests.acceptance.project import ORCH_UP, Project, Running, up
from tests.support import ROOT
from tests.watched import series_in

pytestmark = pytest.mark.timeout(300)
needs_prometheus = pytest.mark.skipif(not shutil.which("prometheus"), reason="prometheus is not installed")

WEB = (*ORCH_UP[:4], "web", "--port", "0")
DASHBOARD = json.loads((ROOT / "ops/grafana/dashboards/orch.json").read_text("utf-8"))
PANELS = {panel["title"]: panel for panel in DASHBOARD["panels"] if panel["type"] != "row"}
QUERIES = {
    f"{title}: {target['expr']}": target["expr"] for title, panel in PANELS.items() for target in panel["targets"]
}

Ask = Callable[..., Any]
TICK_AGE = "orch_tick_age_seconds"


@dataclass(frozen=True)
class Evening:
    """A stack that has done all there was to do, and the address of its `orch web`."""

    project: Project
    web: str


@pytest.fixture(scope="module")
def evening(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Evening]:
    """One issue that nobody finds fault with."""
    with Project(tmp_path_factory.mktemp("watched")) as project, up(project) as stack, Running(project, WEB) as web:
        issue = project.file("Watch this")
        web.says("listening on http://")
        stack.until(lambda: project.over(issue), "the issue should have been done")
        yield Evening(project, web.lines("listening on")[0].partition("http://")[2])


@pytest.fixture(scope="module")
def ask(evening: Evening) -> Iterator[Ask]:
    """Asks a Prometheus that has our configuration, but for the address and how often it looks."""
    home = f"127.0.0.1:{_free_port()}"
    with Running(evening.project, _prometheus(evening.project.folder, evening.web, home)) as prometheus:

        def asked(path: str, **query: str) -> Any:
            answer = httpx2.get(f"http://{home}/api/v1/{path}", params=query, timeout=30)
            return answer.raise_for_status().json()["data"]

        def looked_often_enough() -> bool:
            try:
                return bool(asked("query", query="count_over_time(orch_redis_up[1m]) > 2")["result"])
            except httpx2.HTTPError:  # it does not listen, or not serve yet
                return False

        prometheus.until(looked_often_enough, "Prometheus should have looked at what it takes rates of")
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


@needs_prometheus
@pytest.mark.parametrize("query", QUERIES.values(), ids=QUERIES)
def test_a_panel_shows_data(query: str, ask: Ask) -> None:
    """Nobody has to touch the dashboard for that."""
    assert [] != ask("query", query=query)["result"]


@needs_prometheus
def test_no_rule_fails_and_what_is_well_fires_nothing(ask: Ask) -> None:
    """All of them are evaluated over what a real stack says."""
    [group] = ask("rules")["groups"]

    assert {"ok"} == {rule["health"] for rule in group["rules"]}
    assert [] == [rule["name"] for rule in group["rules"] if rule["state"] == "firing"]


def test_what_the_stack_did_is_counted(evening: Evening) -> None:
    """The session and its steps, the tracker's calls, the ticks of all who tick."""
    series = series_in(httpx2.get(f"http://{evening.web}/metrics", timeout=30).text)

    def total(name: str, **labels: str) -> float:
        return sum(n for (of, said), n in series.items() if of == name and said >= set(labels.items()))

    ticks = {dict(labels)["tick"] for (name, labels), age in series.items() if name == TICK_AGE and age < 3600}
    assert 1 == total("orch_sessions_ended_total", verdict="DONE")
    assert 4 == total("orch_step_duration_seconds_count")
    assert 0 < total("orch_tracker_calls_total", outcome="ok")
    assert 0 < total("orch_tracker_call_duration_seconds_count", tool="ready")
    assert {"poll", "publish", "merge_close", "sweep", "beat"} == ticks


def test_a_stack_is_ready(evening: Evening) -> None:
    """And says so to whoever starts something that waits for it."""
    answer = httpx2.get(f"http://{evening.web}/readyz", timeout=30)

    assert (200, True) == (answer.status_code, answer.json()["ready"])
