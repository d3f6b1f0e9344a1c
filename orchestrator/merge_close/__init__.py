"""From finished work to closed issues: deliveries, merge events, and the rules of closing.

Adapters import the facts of `events`; all others import what they need from here.
"""

from orchestrator.merge_close.audit import Audit, audit_merge
from orchestrator.merge_close.events import NEVER, LastLook, MergeClosePayload, PullRequest, PullText
from orchestrator.merge_close.look import Delivery, Health, MergeLook, health
from orchestrator.merge_close.poll import MergePoll, fresh_checkpoint
from orchestrator.merge_close.record import Marker, MergeMarker, markers_of
from orchestrator.merge_close.rules import MergeCloseResult, Ruling, Trust, apply_merge_close, parse_issue_line

__all__ = [
    "NEVER",
    "Audit",
    "Delivery",
    "Health",
    "LastLook",
    "Marker",
    "MergeClosePayload",
    "MergeCloseResult",
    "MergeLook",
    "MergeMarker",
    "MergePoll",
    "PullRequest",
    "PullText",
    "Ruling",
    "Trust",
    "apply_merge_close",
    "audit_merge",
    "fresh_checkpoint",
    "health",
    "markers_of",
    "parse_issue_line",
]
