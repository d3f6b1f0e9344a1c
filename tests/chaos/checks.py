"""What must be true after a run. Each check gives one line for each violation, which begins with what it is about."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

from orchestrator.models import Verdict
from tests.acceptance.project import Project, kill
from tests.chaos.facts import Issue
from tests.chaos.faults import Hit
from tests.chaos.scripts import STATUS, Script

LASTING = (
    "known",  # the issues there were
    "fence",  # the last token
    "installation",  # by which a Redis that forgot is known
    "outbox",  # empty: what waits in it is asked for before
    "celery:_kombu.binding",  # the queues
    "celery:unacked",  # what a worker had in its hand when it was killed; kombu delivers it once more after a day
    "celery:poll",  # a tick that came after the control worker had stopped
    "celery:publish",
    "celery:merge_close",
    "finished",  # the issues whose work waits for a merge
    "merge-look",  # how the last look for merges went
    "counts",  # what is counted for those who watch
    "ticks",  # when each tick was carried out last
)
"""Keys that may stay, by how their names begin."""
ENDING = ("session:", "runs:", "history:", "snapshots:", "answer:")
"""Keys that stay for a time: the records of what ended."""


def ends(issues: Iterable[Issue], scripts: Mapping[str, Script], spoilt: Mapping[str, int]) -> Iterator[str]:
    """Every issue ended as its script implies; in an error only before that, and not oftener than we caused one."""
    for issue in issues:
        verdicts = [session.verdict for session in issue.sessions]
        script = scripts[issue.id]
        if verdicts[-1:] != [script.verdict]:
            yield f"{issue.id}: {script.name} must end as {script.verdict}, its sessions ended as {verdicts}"
        elif issue.status != STATUS[script.verdict]:
            yield f"{issue.id}: ended as {script.verdict}, but the tracker says {issue.status}"
        if issue.holding is None or issue.holding.state != "ended" or issue.holding.verdict != script.verdict:
            yield f"{issue.id}: must have ended as {script.verdict}, Redis has {issue.holding}"
        earlier = verdicts[:-1]
        if any(verdict is not Verdict.ERROR for verdict in earlier) or len(earlier) > spoilt.get(issue.id, 0):
            yield f"{issue.id}: sessions ended as {verdicts}, and {spoilt.get(issue.id, 0)} faults could end one"


def histories(issues: Iterable[Issue]) -> Iterator[str]:
    """Every history is a way through the lifecycle, each step once; no step was begun again unless it was cut off."""
    for issue in issues:
        for session in issue.sessions:
            if wrong := session.wrong():
                yield f"{issue.id}: session {session.id} {wrong}"
            cut_off = len(session.taken_up) - 1 + (session.verdict is Verdict.ERROR)
            if not 0 <= session.repeated <= cut_off:
                yield (
                    f"{issue.id}: session {session.id} began {session.begun} steps and recorded {len(session.reports)},"
                    f" but was cut off {cut_off} times"
                )


def repetitions(issues: Iterable[Issue], hits: Iterable[Hit]) -> Iterator[str]:
    """No more steps were begun again than faults can have cut off."""
    repeated = sum(session.repeated for issue in issues for session in issue.sessions)
    cuts = sum(hit.struck.cuts for hit in hits)
    if repeated > cuts:
        yield f"steps: {repeated} were begun again, and faults can have cut off {cuts}"


def telling(issues: Iterable[Issue]) -> Iterator[str]:
    """The tracker has every snapshot that Redis made, once, in order, and nothing else."""
    for issue in issues:
        if issue.untold or issue.told_twice:
            yield f"{issue.id}: the tracker lacks {issue.untold} snapshots and has {issue.told_twice} too many"
        elif issue.told != list(issue.feedback):
            yield f"{issue.id}: the tracker has the snapshots in another order"


def fix_issues(issues: Collection[Issue]) -> Iterator[str]:
    """Every overflow made one [FIX] issue, linked from the original; nothing else made one."""
    made = {issue.id: issue for issue in issues if issue.title.startswith("[FIX]")}
    owed = {it.id: issue for issue in issues for it in issue.sessions if it.verdict is Verdict.OVERFLOW}
    for session_id, issue in owed.items():
        fixes = {fix_id for fix_id, fix in made.items() if f"Session: {session_id}\n" in fix.content}
        if len(fixes) != 1 or issue.related != fixes:
            yield f"{issue.id}: overflowed once, made {sorted(fixes)}, is related to {sorted(issue.related)}"
    if len(made) != len(owed):
        yield f"[FIX]: {len(owed)} sessions overflowed and {len(made)} [FIX] issues were made"


def branches(issues: Iterable[Issue]) -> Iterator[str]:
    """Every recorded commit can be reached from a ref, and each branch stands on the one that was recorded last."""
    for issue in issues:
        for commit in issue.unreachable:
            yield f"{issue.id}: commit {commit} cannot be reached from any ref"
        last = issue.sessions[-1].reports[-1].commit if issue.sessions and issue.sessions[-1].reports else issue.tip
        if last != issue.tip:
            yield f"{issue.id}: its branch is at {issue.tip or 'nothing'}, recorded last was {last}"


def leftovers(project: Project, allowed: Collection[int]) -> Iterator[str]:
    """No process but these, no key that is not a record or ends by itself. What is left running is ended."""
    for pid, line in project.processes().items():
        if pid not in allowed:
            yield f"process {pid}: left behind: {line}"
            kill(pid)
    client: Any = project.redis
    own = project.keys("")
    for key in sorted(client.scan_iter(count=1000)):
        name = key.removeprefix(own)
        if key == name:
            yield f"key {key}: is not the project's"
        elif name.startswith(LASTING) or (name.startswith(ENDING) and client.ttl(key) > 0):
            continue
        elif client.ttl(key) < 0:
            yield f"key {key}: left over, with {_content(client, key)}"


def _content(client: Any, key: str) -> str:
    readers = {"hash": client.hgetall, "zset": client.zrange, "list": client.lrange, "set": client.smembers}
    kind = client.type(key)
    arguments = (0, -1) if kind in ("zset", "list") else ()
    content = readers[kind](key, *arguments) if kind in readers else kind
    return re.sub(r"\s+", " ", str(content))[:300]
