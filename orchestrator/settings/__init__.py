"""Every setting: `tables` has them with their defaults, `loading` reads them."""

from orchestrator.settings.loading import FILE, checkout_name, from_environment, load, project_name
from orchestrator.settings.tables import AgentSettings, Settings

__all__ = [
    "FILE",
    "AgentSettings",
    "Settings",
    "checkout_name",
    "from_environment",
    "load",
    "project_name",
]
