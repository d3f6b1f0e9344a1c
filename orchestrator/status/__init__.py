"""The state of each issue and the reason for it: one look, one set of facts, and words about them.

The reason that `orch status` and `orch explain` give is the first answer of the rules in `why.RULES`, whose bodies
are in `why_sessions` and `why_waits`. `read` gathers the `facts`; `board` makes rows of them, `night` and `digest` the
morning report; `told` reads a session from its snapshots.
"""

from orchestrator.status.board import EngineStatus, IssueRow, board_of
from orchestrator.status.digest import Digest, as_markdown, as_object, as_text, digest_of, since_when
from orchestrator.status.explanation import Explanation
from orchestrator.status.facts import Asked, Facts, Policy
from orchestrator.status.night import IssueNight, gaps_of, night_of
from orchestrator.status.read import (
    RedisSources,
    Sources,
    ask_redis,
    ask_tracker,
    collect,
    explained,
    facts_of,
    look_at,
    look_back,
)
from orchestrator.status.told import SessionTold, step_name
from orchestrator.status.why import explain

__all__ = [
    "Asked",
    "Digest",
    "EngineStatus",
    "Explanation",
    "Facts",
    "IssueNight",
    "IssueRow",
    "Policy",
    "RedisSources",
    "SessionTold",
    "Sources",
    "as_markdown",
    "as_object",
    "as_text",
    "ask_redis",
    "ask_tracker",
    "board_of",
    "collect",
    "digest_of",
    "explain",
    "explained",
    "facts_of",
    "gaps_of",
    "look_at",
    "look_back",
    "night_of",
    "since_when",
    "step_name",
]
