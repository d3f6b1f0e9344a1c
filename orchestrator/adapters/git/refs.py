"""The names of an issue's refs.

    refs/heads/orch/<issue>        the branch: the truth, and what is delivered
    refs/orch/start/<issue>        the commit the running step started from, so the parent of its commit
    refs/orch/wip/<issue>/<sha>    put aside: interrupted work, an agent's own commits. Kept until `orch gc`
    refs/orch/<issue>              on the remote only: the branch for other hosts, see `remote`

No other module spells them.
"""

from __future__ import annotations

from orchestrator.models import branch_of

BRANCHES = f"refs/heads/{branch_of('')}"
REMOTE = f"refs/{branch_of('')}"
STARTS = f"{REMOTE}start/"
ASIDE = f"{REMOTE}wip/"


def branch_ref(issue_id: str) -> str:
    """The issue's branch."""
    return BRANCHES + issue_id


def start_ref(issue_id: str) -> str:
    """The start of the step that runs."""
    return STARTS + issue_id


def aside_ref(issue_id: str, commit: str) -> str:
    """A commit that was put aside."""
    return f"{ASIDE}{issue_id}/{commit[:12]}"


def remote_ref(branch: str) -> str:
    """On the remote, the ref for other hosts of an issue's branch."""
    return f"refs/{branch}"
