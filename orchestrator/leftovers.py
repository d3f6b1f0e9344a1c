"""What of the leftovers of issues may go: those of closed issues that no session has, where nothing is lost by it."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass

from orchestrator.ports import Leftover, LeftoverKind

CLOSED = "closed"
_ORDER = list(LeftoverKind)


@dataclass(frozen=True)
class Kept:
    """A leftover that stays, why, and what to do about it."""

    leftover: Leftover
    why: str


@dataclass(frozen=True)
class Plan:
    """What goes and what stays, in order; the leftovers of issues that are not closed are not mentioned."""

    remove: tuple[Leftover, ...]
    keep: tuple[Kept, ...]


def plan(found: Iterable[Leftover], *, status: Mapping[str, str], live: Container[str]) -> Plan:
    """What is to be done by each issue's `status` in the tracker, and by the issues that are `live`: some session's."""
    remove: list[Leftover] = []
    keep: list[Kept] = []
    for leftover in sorted(found, key=lambda found: (found.issue_id, _ORDER.index(found.kind), found.name)):
        issue_id = leftover.issue_id
        if issue_id in live:
            keep.append(Kept(leftover, "its session is in flight; see `orch status`"))
        elif issue_id not in status:
            keep.append(Kept(leftover, "the tracker does not know its issue; remove it by hand if nobody needs it"))
        elif status[issue_id] != CLOSED:
            continue
        elif leftover.may_go:
            remove.append(leftover)
        else:
            keep.append(Kept(leftover, leftover.why))
    return Plan(tuple(remove), tuple(keep))
