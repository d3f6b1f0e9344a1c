"""Every knob, once."""

from orchestrator.settings.load import FILE, checkout_name, from_environment, load, project_name
from orchestrator.settings.tables import ROLES, AgentSettings, Settings

__all__ = [
    "FILE",
    "ROLES",
    "AgentSettings",
    "Settings",
    "checkout_name",
    "from_environment",
    "load",
    "project_name",
]
