"""What `orch web` serves for those who watch, over a real socket, and what Prometheus makes of it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx2
import pytest
from prometheus_client.parser import text_string_to_metric_families
from starlette.routing import Route

from orchestrator.adapters.redis import connect
from orchestrator.adapters.redis.counts import RedisCounts
from orchestrator.adapters.redis.merges import RedisMerges
from orchestrator.adapters.redis.metrics import RedisMetrics
from orchestrator.cli.web import listen
from orchestrator.local.programs import start_commands
from orchestrator.settings import load
from orchestrator.settings.tables import Settings
from orchestrator.web import metrics, readiness
from orchestrator.web.app import make_app
from orchestrator.web.serving import server
from tests.engine import Engine
from tests.support import ROOT, wait_until

ALERTS = ROOT / "ops/prometheus/alerts.yml"
TARGET = {"job": "orch", "instance": "web:8080"}

needs_promtool = pytest.mark.skipif(not shutil.which("promtool"), reason="promtool is not installed")

Series = Mapping[tuple[str, frozenset[tuple[str, str]]], float]
"""Each series with its value, by name and labels."""


class Served:
    """An application on a port of its own, while it is served."""

    def __init__(self, *routes: Route, names: Iterable[str] = (), host: str = "127.0.0.1") -> None:
        self._socket = listen(host, 0)
        self.address: tuple[str, int] = self._socket.getsockname()
        self.home = "http://{}:{}".format(*self.address)
        self._server = server(make_app(*routes, names=names))
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [self._socket]})

    def __enter__(self) -> Self:
        self._thread.start()
        wait_until(lambda: self._server.started, "it serves")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """It serves no more."""
        self._server.should_exit = True
        self._thread.join()
        self._socket.close()

    def connections(self) -> int:
        """How many there are."""
        return len(self._server.server_state.connections)

    def get(self, path: str) -> httpx2.Response:
        """What is answered."""
        return httpx2.get(self.home + path, timeout=20)


class Watched(Served):
    """A project in which all is well, with four free slots: everybody has just ticked."""

    def __init__(self, engine: Engine, folder: Path) -> None:
        self.engine = engine
        impatient = connect(engine.url, patience_s=0.5)
        self.counts = RedisCounts(impatient, engine.keys)
        self.merges = RedisMerges(engine.client, engine.keys)
        self.settings = settings_of(folder)
        redis = RedisMetrics(impatient, engine.keys, lease_s=self.settings.lease_seconds)
        collector = metrics.Collector(redis, self.settings)
        super().__init__(
            readiness.route(redis, self.settings, start_commands(self.settings.concurrency)), metrics.route(collector)
        )
        engine.slots(4)
        self.merges.looked("")
        for tick in ("poll", "publish", "merge_close", "sweep", "beat"):
            self.counts.ticked(tick)

    def scrape(self) -> Series:
        """What Prometheus has after a scrape, its own `up` included."""
        try:
            answer = self.get("/metrics").raise_for_status().text
        except httpx2.TransportError:
            return {("up", frozenset()): 0.0}
        return {**series_in(answer), ("up", frozenset()): 1.0}

    def value(self, name: str, **labels: str) -> float:
        """What one series says now."""
        return self.scrape()[name, frozenset(labels.items())]

    def ago(self, seconds: float) -> int:
        """A moment in Redis's milliseconds."""
        whole, micros = self.engine.client.time()
        return int(whole * 1000 + micros / 1000 - seconds * 1000)


def settings_of(folder: Path) -> Settings:
    """The defaults, for a project in this folder."""
    return load(folder, {"ORCH_STATE_DIR": str(folder / "state")})


def series_in(text: str) -> Series:
    """What `/metrics` answered."""
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    return {(sample.name, frozenset(sample.labels.items())): sample.value for sample in samples}


def names_in(query: str) -> set[str]:
    """The metrics that a query asks for."""
    return set(re.findall(r"\b(?:orch_\w+|up)\b", query))


def objections(before: Series, after: Series, expected: Iterable[str], folder: Path) -> str:
    """What promtool has to say against this: all series went from `before` to `after`, and seven minutes later these
    alerts fire, and no other. Empty when it is so.
    """
    case = {
        "interval": "1m",
        "input_series": [_input(series, before, after) for series in before.keys() | after.keys()],
        "promql_expr_test": [
            {
                "expr": 'max by (alertname) (ALERTS{alertstate="firing"})',
                "eval_time": "67m",
                "exp_samples": [{"labels": f'{{alertname="{name}"}}', "value": 1} for name in sorted(expected)],
            }
        ],
    }
    test = folder / "alerts.test.json"
    test.write_text(json.dumps({"rule_files": [str(ALERTS)], "evaluation_interval": "1m", "tests": [case]}))
    done = subprocess.run(["promtool", "test", "rules", test], capture_output=True, text=True, check=False)
    return done.stdout + done.stderr if done.returncode else ""


def _input(series: tuple[str, frozenset[tuple[str, str]]], before: Series, after: Series) -> dict[str, str]:
    name, labels = series
    selector = ",".join(f'{label}="{value}"' for label, value in sorted({*labels, *TARGET.items()}))
    old, new = (f"{values[series]:f}x" if series in values else "_x" for values in (before, after))
    return {"series": f"{name}{{{selector}}}", "values": f"{old}60 {new}30".replace("inf", "Inf")}
