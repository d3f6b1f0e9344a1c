"""docker-compose.yml, read without Compose: for tests where there is no engine."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import yaml

from tests.support import ROOT

FILE = ROOT / "docker-compose.yml"
VARIABLE = re.compile(r"\$\$|\$\{(?P<name>\w+)(?::-(?P<default>[^}]*))?\}")


def variables() -> dict[str, str]:
    """Every variable that the file asks for, with its default; empty where it has none."""
    found = (match for match in VARIABLE.finditer(FILE.read_text()) if match["name"])
    passed = (name for service in document()["services"].values() for name in passed_on(service))
    return dict.fromkeys(passed, "") | {match["name"]: match["default"] or "" for match in found}


def passed_on(service: Mapping[str, Any]) -> list[str]:
    """The variables that a service has as they are outside."""
    return [name for name, value in service.get("environment", {}).items() if value is None]


def document(given: Mapping[str, str] | None = None, places: Mapping[str, str] | None = None) -> dict[str, Any]:
    """The file with these variables given, and `places` (parts of its text) replaced."""
    given = given or {}

    def value(match: re.Match[str]) -> str:
        return "$" if match["name"] is None else given.get(match["name"]) or match["default"] or ""

    text = VARIABLE.sub(value, FILE.read_text())
    if places:
        text = re.sub("|".join(map(re.escape, places)), lambda match: places[match[0]], text)
    loaded: dict[str, Any] = yaml.safe_load(text)
    return loaded
