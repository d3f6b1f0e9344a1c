"""The tracker's server over MCP."""

from orchestrator.adapters.mcp.tracker import McpTracker, flock, probe

__all__ = [
    "McpTracker",
    "flock",
    "probe",
]
