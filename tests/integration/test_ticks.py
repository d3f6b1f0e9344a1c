"""Ticks over a real Redis: a queue holds one at most."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.support import ROOT

ASK = """
from orchestrator import wiring
from orchestrator.celery import app, tick
app.loader.import_default_modules()
here = wiring.here()
for round in range(2):
    for _ in range(3):
        tick("poll")
        tick("publish")
    print([here.client.llen(here.keys(f"celery:{queue}")) for queue in ("poll", "publish")])
    here.client.lpop(here.keys("celery:poll"))
"""


def test_a_tick_is_enqueued_only_when_none_waits(tmp_path: Path) -> None:
    """However many sessions end, one poll and one publish wait; once a worker has taken one, there may be another."""
    (tmp_path / "orch.toml").write_text('project = "ticks"\n')
    own = {"ORCH_PROJECT_ROOT": str(tmp_path), "ORCH_STATE_DIR": str(tmp_path / "state"), "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", ASK], env=os.environ | own, capture_output=True, text=True, check=True)

    assert ["[1, 1]", "[1, 1]"] == done.stdout.splitlines()


DIES = """
from orchestrator import wiring
from orchestrator.celery import app, tick
app.loader.import_default_modules()
here = wiring.here()
for round in range(3):
    tick("poll")
    print(here.client.llen(here.keys("celery:poll")))
    here.client.delete(here.keys("celery:poll"))
    if round == 0:
        with app.producer_pool.acquire() as producer:  # as kombu leaves it when its connection dies under it
            producer.channel.connection = producer.channel._pool = None
"""


def test_a_connection_that_dies_under_kombu_costs_one_tick(tmp_path: Path) -> None:
    """Whoever gives it is not stopped, whatever kombu raises then; the next tick goes out by a new connection."""
    (tmp_path / "orch.toml").write_text('project = "ticks"\n')
    own = {"ORCH_PROJECT_ROOT": str(tmp_path), "ORCH_STATE_DIR": str(tmp_path / "state"), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", DIES], env=os.environ | own, capture_output=True, text=True, check=True
    )

    assert ["1", "0", "1"] == done.stdout.splitlines()
    assert "AttributeError" not in done.stderr
    assert "not_enqueued" in done.stderr
