"""From a merge event to a closed issue, while every slot is taken by a session that goes on and on.

The clock starts just before the event's message is sent, as `orch web` sends it, and stops when the issue is closed and
says why. In it: Celery's delivery, the look at the repo, the rules, and four calls of the tracker. The event is a merge
commit of the issue's branch in the repo itself, made before the clock starts.

The baseline is what it cannot do without: the same four calls of the tracker, by hand.
"""

from __future__ import annotations

import subprocess
import time
from pathlib import Path
from statistics import median

from celery import Celery

from orchestrator.adapters.redis.merges import RedisMerges
from orchestrator.local.up import Stack
from orchestrator.settings.redis_url import celery_broker_url
from tests.benchmarks.figures import Figure, percentile
from tests.benchmarks.local import local_stack
from tests.support import wait_until

SLOTS = 4
CLOSED_UNDER_MS = 1000

AGENT = """\
# Works until it is told to stop if there is such a file, and answers as its role owes.
issue=$1 role=$2 busy=$3
while [ "$role" = implementer ] && [ -e "$busy" ]; do sleep 0.2; done
nonce=$(grep -o '"nonce": "[a-z]*"' | tail -n 1)
case $role in
implementer)
  echo "$issue" >"$issue.txt"
  echo "{$nonce,"' "code_changed_at": "2026-01-05T12:00:00Z", "notes": "", "verification": null}' ;;
*) echo "{$nonce,"' "passed": true, "failed_items": [], "fix_list": [], "notes": "fine"}' ;;
esac
"""


def measure(folder: Path, *, samples: int) -> list[Figure]:
    """The time from event to closed issue for so many merges, one after another."""
    agent = folder / "agent.sh"
    agent.write_text(AGENT)
    with local_stack(folder, ["sh", str(agent), "{issue}", "{role}", str(folder / "busy")], poll_interval=5) as stack:
        done = [_file(stack, f"Issue {number}") for number in range(samples + 1)]
        merges = RedisMerges(stack.wiring.client, stack.wiring.keys)
        wait_until(lambda: len(list(merges.finished())) == len(done), "all sessions are done", timeout=600)
        wait_until(lambda: not stack.wiring.outbox.waiting() and not merges.due(), "all is told", timeout=60)
        (folder / "busy").touch()
        for number in range(SLOTS):
            _file(stack, f"Busy {number}")
        wait_until(lambda: stack.wiring.leases.free() == 0, "every slot is taken", timeout=60)
        # The first one starts the tracker's server of the worker, and is not counted.
        took = [_merged(stack, folder / "repo", issue_id) for issue_id in done][1:]
        bare = [_by_hand(stack, number) for number in range(samples + 1)][1:]
        (folder / "busy").unlink()
    return [
        Figure(
            f"merge event to closed, {name} of {samples}",
            "ms",
            of(took),
            of(bare),
            "the same calls of the tracker",
            of(took) / of(bare),
            under=CLOSED_UNDER_MS,
        )
        for name, of in (("p50", median), ("p99", lambda values: percentile(values, 99)))
    ]


def _file(stack: Stack, title: str) -> str:
    made = stack.wiring.tracker.upsert_issue(title=title, description="- [ ] it is done\n")
    return str(made["id"])


def _merged(stack: Stack, repo: Path, issue_id: str) -> float:
    """Milliseconds from the event to the closed issue."""
    who = ("-c", "user.name=Ada", "-c", "user.email=ada@example.org")
    subprocess.run(["git", "-C", str(repo), *who, "merge", "--quiet", "--no-ff", f"orch/{issue_id}"], check=True)
    wiring = stack.wiring
    app = Celery("benchmark", broker=celery_broker_url(wiring.redis_url), set_as_current=False)
    app.conf.broker_transport_options = {"global_keyprefix": wiring.keys("celery:")}
    before = time.monotonic()
    app.send_task("tasks.merge_close.merge_close", queue="merge_close")
    wait_until(lambda: not wiring.client.sismember(wiring.keys("finished"), issue_id), f"{issue_id} is closed")
    return (time.monotonic() - before) * 1000


def _by_hand(stack: Stack, number: int) -> float:
    """Milliseconds for the calls that closing an issue takes."""
    tracker = stack.wiring.tracker
    issue_id = _file(stack, f"By hand {number}")
    before = time.monotonic()
    tracker.show_issue(issue_id)
    tracker.add_feedback(issue_id=issue_id, to_id=issue_id, content='{"marker": "MERGE_EVIDENCE_RECORDED"}')
    tracker.upsert_issue(issue_id=issue_id, status="closed")
    tracker.add_feedback(issue_id=issue_id, to_id=issue_id, content='{"marker": "MERGE_CLOSE_APPLIED"}')
    return (time.monotonic() - before) * 1000
