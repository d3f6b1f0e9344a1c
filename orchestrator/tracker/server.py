"""The tools as an MCP server: every answer is one text block, every failure a result marked as an error."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import mcp_types as types
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel import Server
from mcp.server.stdio import stdio_server

from orchestrator.tracker.tools import TrackerTools

_TOOLS = Path(__file__).with_name("tools.json")

Context = ServerRequestContext[dict[str, Any]]


def server(tools: TrackerTools) -> Server[dict[str, Any]]:
    """An MCP server over the tools. Calls are taken up in the order in which they arrive, one at a time."""
    one_at_a_time = anyio.CapacityLimiter(1)
    listed = [types.Tool.model_validate(tool) for tool in json.loads(_TOOLS.read_text(encoding="utf-8"))]

    async def list_tools(_: Context, __: types.PaginatedRequestParams | None) -> types.ListToolsResult:
        return types.ListToolsResult(tools=listed)

    async def call_tool(_: Context, params: types.CallToolRequestParams) -> types.CallToolResult:
        call = partial(tools.call, params.name, params.arguments or {})
        # In a thread, because a call may wait for another process's write; pings are answered meanwhile.
        answer = await anyio.to_thread.run_sync(call, limiter=one_at_a_time)
        content: list[types.ContentBlock] = [types.TextContent(type="text", text=answer.text)]
        return types.CallToolResult(content=content, is_error=answer.is_error)

    return Server("sudocode-orchestrator-tracker", on_list_tools=list_tools, on_call_tool=call_tool)


async def serve(tools: TrackerTools) -> None:
    """Serve over stdin and stdout until stdin is closed; a call under way is finished first."""
    running = server(tools)
    try:
        async with stdio_server() as (incoming, outgoing):
            await running.run(incoming, outgoing, running.create_initialization_options())
    finally:
        tools.close()
