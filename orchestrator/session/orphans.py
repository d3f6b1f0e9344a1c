"""End the processes of sessions whose worker is gone."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from orchestrator.models import Holding
from orchestrator.session.keeper import log

Families = Mapping[tuple[str, str, int], set[int]]
"""The processes above those of a session, up to the first process, for each issue, session id and holder's token."""


def end_orphans(
    families: Families, holding: Callable[[str], Holding | None], sweep: Callable[[str, int, str], int]
) -> None:
    """End what is left of sessions on this host whose worker is gone, or whose session another worker has by now.

    For a worker that starts. A session is left alone while its worker, by Redis, is above its processes.
    A session that is taken over after we asked Redis has a newer token, which the sweep leaves alone.
    Raises RedisUnavailable, before anything is touched of a session that Redis was not asked about.
    """
    for (issue_id, session_id, token), above in families.items():
        held = holding(issue_id)
        if held and held.record and held.record.session_id == session_id and _runs(held, above):
            continue
        killed = sweep(issue_id, token, session_id)
        log.warning("orphans_ended", issue=issue_id, session=session_id, processes=killed)


def _runs(held: Holding, above: set[int]) -> bool:
    return any(held.owner.endswith(f"/{pid}") for pid in above)
