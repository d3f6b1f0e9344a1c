"""Every key of a project in Redis: its name, what it holds, and how long it stays."""

from __future__ import annotations

from dataclasses import dataclass

KEPT_S = 30 * 24 * 3600
"""For how long ended sessions are kept."""

PER_PROJECT = {
    "inflight": "sorted set: issues that are claimed or running, by when their lease is over (ms)",
    "fence": "number: the last fencing token",
    "workers": "hash: each session worker's slots, and until when they count",
    "known": "sorted set: issues with a session, by when it began or ended; 30 days",
    "wanted": "sorted set: issues that a person asked for, in order",
    "held": "sorted set: issues that are not claimed, by until when; +inf until a person asks for them",
    "errors": "hash: sessions in a row that ended in an error, by issue",
    "paused": "hash: who paused the project, why, when",
    "base": "JSON: the last verification of the base branch",
    "base-held": "text: why nothing starts from the base or is closed by it, until a person resumes",
    "base-under-way": "text: the verification of the base that is under way; 15 s",
    "installation": "text: whose control side this Redis served last",
    "outbox": "stream: what the tracker has still to be told, in order",
    "begun": "text: the outbox entry that a publisher began last",
    "pending": "hash: entries in the outbox, by issue",
    "refused": "list: what the tracker refused to be told; the last 1000",
    "wake": "flag: a publisher is on its way; 10 s",
    "finished": "set: issues that ended DONE and whose work is not merged yet",
    "deliveries": "sorted set: issues whose work is to be delivered, by when",
    "merge-checkpoint": "JSON: how far polling for merges got",
    "merge-look": "hash: when merges were looked for, and how that went",
    "counts": "hash: counters and durations for the metrics",
    "ticks": "hash: when each tick came to its end",
    "writable": "flag: a check wrote it; 60 s",
}
PER_ISSUE = {
    "session": "hash: the issue's last session: token, state, stage, verdict and so on; 30 days after its end",
    "runs": "list: the ids of the issue's sessions; 30 days after the last one's end",
    "answer": "text: what became of a wanted issue; 60 s",
}
PER_SESSION = {
    "history": "list: reports, in order; 30 days after the end",
    "snapshots": "list: snapshots, in order; 30 days after the end",
}
OTHERS = {
    "webhook": "flag per GitHub delivery: it was taken; 4 days",
    "celery": "what Celery keeps: a list per queue, and its own",
}


@dataclass(frozen=True)
class Keys:
    """The names of one project's keys. The braces keep a project on one cluster node."""

    project: str

    def __call__(self, name: str, of: str = "") -> str:
        """`orch:{project}:name` or `orch:{project}:name:of`."""
        return f"orch:{{{self.project}}}:{name}" + (f":{of}" if of else "")

    def named(self, name: str, *, issue: str = "", session_id: str = "") -> str:
        """The key of this name, of the issue or the session where there is one for each.

        Raises KeyError when there is no such key, ValueError when its issue or session is missing.
        """
        if name in PER_PROJECT:
            return self(name)
        owner = {**dict.fromkeys(PER_ISSUE, issue), **dict.fromkeys(PER_SESSION, session_id)}[name]
        if not owner:
            raise ValueError(f"the key {name} needs its issue or session")
        return self(name, owner)
