"""From finished work to closed issues: deliveries, merge events, and the rules of closing."""

from orchestrator.merge_close.audit import Audit, audit_merge
from orchestrator.merge_close.events import MergeClosePayload
from orchestrator.merge_close.look import Delivery, Health, MergeLook, health
from orchestrator.merge_close.poll import MergePoll, fresh_checkpoint
from orchestrator.merge_close.rules import MergeCloseResult, Ruling, Trust, apply_merge_close, parse_issue_line

__all__ = [
    "Audit",
    "Delivery",
    "Health",
    "MergeClosePayload",
    "MergeCloseResult",
    "MergeLook",
    "MergePoll",
    "Ruling",
    "Trust",
    "apply_merge_close",
    "audit_merge",
    "fresh_checkpoint",
    "health",
    "parse_issue_line",
]
