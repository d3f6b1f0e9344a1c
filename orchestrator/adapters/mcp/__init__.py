"""The tracker's server over MCP."""

from orchestrator.adapters.mcp.tracker import McpTracker, probe

__all__ = [
    "McpTracker",
    "probe",
]
