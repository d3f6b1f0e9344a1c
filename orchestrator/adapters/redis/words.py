"""The words and numbers that Python and the Lua scripts share. They stand here, and get into Lua as tables."""

from __future__ import annotations

from enum import StrEnum

from orchestrator.models import Refusal, SessionState, Stop, Verdict


class Opening(StrEnum):
    """Answers of `open`."""

    OPEN = "OPEN"  # the session is open, since now or before
    STOPPED = "STOPPED"  # a person stopped the claim; who and why comes with it
    LOST = "LOST"  # the claim is another's, or was given back


class Written(StrEnum):
    """Answers of `record` and `close`."""

    OK = "OK"  # it is written, since now or before
    WAKE = "WAKE"  # it is written, and no publisher is on its way
    KNOWN = "KNOWN"  # a report of that number was there; the first one holds
    GAP = "GAP"  # Redis has fewer reports than were recorded: it lost the last ones
    LOST = "LOST"  # the token is older than the holder's, or the session has ended


STOPPED = "STOPPED"
"""The counters' word for a session that a person stopped: it has no verdict of its own."""

_LONG = (10, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 14400)
BUCKETS: dict[str, tuple[float, ...]] = {
    "session_seconds": _LONG,
    "step_seconds": _LONG,
    "merge_lag_seconds": _LONG,
    "tracker_call_seconds": (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 40),
}
"""The ends of each duration's buckets; one more bucket takes the rest."""

ENUMS: tuple[type[StrEnum], ...] = (SessionState, Refusal, Stop, Verdict, Opening, Written)


def as_lua() -> str:
    """All of them as Lua: `SessionState.RUNNING`, `BUCKETS['step_seconds']`, `STOPPED`."""
    tables = [_table(enum.__name__, {member.name: f"'{member.value}'" for member in enum}) for enum in ENUMS]
    ends = {name: "{" + ", ".join(map(str, bounds)) + "}" for name, bounds in BUCKETS.items()}
    return "\n".join([*tables, _table("BUCKETS", ends), f"local STOPPED = '{STOPPED}'", ""])


def _table(name: str, fields: dict[str, str]) -> str:
    return f"local {name} = {{{', '.join(f'{field} = {value}' for field, value in fields.items())}}}"
