"""Every setting: `tables` has them with their defaults, `loading` reads them."""

from orchestrator.settings.kinds import toml
from orchestrator.settings.loading import FILE, checkout_name, from_environment, load, project_name, secret
from orchestrator.settings.redis_url import celery_broker_url, client_url
from orchestrator.settings.tables import FLOWER_LOGIN, IN_FILE, SECRETS, AgentSettings, Settings

__all__ = [
    "FILE",
    "FLOWER_LOGIN",
    "IN_FILE",
    "SECRETS",
    "AgentSettings",
    "Settings",
    "celery_broker_url",
    "checkout_name",
    "client_url",
    "from_environment",
    "load",
    "project_name",
    "secret",
    "toml",
]
