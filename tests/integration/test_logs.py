"""What is logged when nobody can take it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import ROOT

LOGS = """
import structlog
from orchestrator import logs
logs.configure("info", "text")
for n in range(3):
    structlog.get_logger().warning("something", n=n)
print("went on")
"""


def log_to(stderr: int) -> subprocess.CompletedProcess[str]:
    environ = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, "-c", LOGS], stdout=subprocess.PIPE, stderr=stderr, text=True, env=environ, check=False
    )


def test_a_reader_that_is_gone_stops_nobody() -> None:
    """Lines that nobody takes any more are lost; who wrote them goes on."""
    reader, writer = os.pipe()
    os.close(reader)
    done = log_to(writer)
    os.close(writer)

    assert "went on\n" == done.stdout


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
def test_a_full_disk_stops_nobody() -> None:
    """Nor does a log file that takes no more."""
    full = os.open("/dev/full", os.O_WRONLY)
    done = log_to(full)
    os.close(full)

    assert "went on\n" == done.stdout


ANOTHERS = """
import logging, structlog
from orchestrator import logs
logger = logging.getLogger("celery.worker")
logger.addHandler(logging.StreamHandler())
logs.configure("info", "auto", redact=lambda text: text.replace("hunter2", "[redacted]"))
logs.adopt(logger, brief=ConnectionError)
try:
    raise ConnectionError("as hunter2: refused")
except ConnectionError:
    logger.exception("cannot %s", "ack")
try:
    raise KeyError("hunter2")
except KeyError:
    logger.exception("cannot %s", "connect")
structlog.get_logger().warning("refused", url="redis://:hunter2@box", tried=["hunter2", 7], token=12)
"""


def test_what_a_library_says_looks_like_our_own_lines() -> None:
    """Where no terminal reads them, all lines are JSON objects, with the tracebacks that say more than a line does.

    No secret is in any.
    """
    environ = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", ANOTHERS], capture_output=True, text=True, env=environ, check=True)
    brief, theirs, ours = map(json.loads, done.stderr.splitlines())

    assert ("cannot ack: as [redacted]: refused", False) == (brief["event"], "exception" in brief)
    assert ("cannot connect", "error", "celery.worker") == (theirs["event"], theirs["level"], theirs["logger"])
    assert "KeyError: '[redacted]'" in theirs["exception"]
    assert ("redis://:[redacted]@box", ["[redacted]", 7], 12) == (ours["url"], ours["tried"], ours["token"])
