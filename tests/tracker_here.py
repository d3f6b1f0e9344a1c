"""The bundled tracker without a process of its own, which takes half a second to start. Its wire has its own tests."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from unittest.mock import patch

import mcp_types as types

from orchestrator.adapters import mcp
from orchestrator.adapters.mcp import McpTracker
from orchestrator.tracker.tools import TrackerTools


class ToolsHere:
    """What stands for a connection to the tracker's server: its tools."""

    def __init__(self, root: Path) -> None:
        self._tools = TrackerTools(root, agent="orchestrator", clock=lambda: datetime.now(UTC))

    def call(self, tool: str, arguments: dict[str, object]) -> types.CallToolResult:
        answer = self._tools.call(tool, arguments)
        text = types.TextContent(type="text", text=answer.text)
        return types.CallToolResult(content=[text], is_error=answer.is_error)

    def close(self) -> None:
        self._tools.close()


class TrackerHere(McpTracker):
    """The client as it is, with its locks and what it makes of answers."""

    def _connected(self) -> Any:
        here: Any = self._connection or ToolsHere(self._cwd)
        self._connection = here
        return here


@contextmanager
def trackers_here() -> Iterator[None]:
    """Every bundled tracker that is asked for meanwhile is one in this process."""
    with ExitStack() as made:

        def make(command: Sequence[str], **options: Any) -> McpTracker:
            kind = TrackerHere if "orchestrator.tracker" in command else McpTracker
            return made.enter_context(kind(command, **options))

        with patch.object(mcp, "McpTracker", make):
            yield
