"""`python -m orchestrator.tracker -w DIR`: the bundled tracker as an MCP server over stdin and stdout."""

from __future__ import annotations

import argparse
import logging
import os
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import anyio

from orchestrator.tracker.jsonl import init
from orchestrator.tracker.server import serve
from orchestrator.tracker.tools import TrackerTools


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until stdin is closed, or make `.sudocode` and leave."""
    parser = argparse.ArgumentParser(prog="python -m orchestrator.tracker", description=__doc__)
    parser.add_argument(
        "-w",
        "--working-dir",
        type=Path,
        default=Path(os.environ.get("SUDOCODE_WORKING_DIR") or "."),
        help="the repo whose .sudocode holds the issues (default: $SUDOCODE_WORKING_DIR, else the current directory)",
    )
    parser.add_argument("--init", action="store_true", help="make DIR/.sudocode and leave; what is there stays")
    options = parser.parse_args(argv)
    root: Path = options.working_dir.absolute()
    if options.init:
        print(init(root))
        return 0
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s %(message)s")  # to stderr
    tools = TrackerTools(root, agent=os.environ.get("USER") or "cli", clock=lambda: datetime.now(UTC))
    anyio.run(serve, tools)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
