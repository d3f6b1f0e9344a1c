"""All errors, as one tree.

    OrchestratorError            says what happened, to which issue, and what to do
    ├── SettingsError            orch.toml or the environment is wrong: file, key, fix
    ├── Transient                trying again later may help, and nothing is lost until then
    │   ├── TransientMCPError    the tracker did not answer this time; the gateway tries three times
    │   │   └── TrackerUnavailable   it did not, three times
    │   ├── RedisUnavailable     Redis cannot be reached or started
    │   ├── GitHubUnavailable    GitHub gave no usable answer this time
    │   │   └── GitHubRateLimited    and it says from when on
    │   └── LockTimeout          another process keeps a lock file longer than we wait
    ├── InvalidMCPResponseError  the tracker answered something that is not in its contract
    ├── TrackerRefused           the tracker said no (unknown issue, invalid status ...): trying again cannot help
    ├── AgentError               an agent run gave no usable answer
    │   ├── AgentFailed          it exited with a code other than 0, or could not be started
    │   ├── AgentTimedOut        it ran longer than its wall-clock limit
    │   ├── AgentSilent          it printed nothing for longer than its silence limit
    │   ├── MalformedAnswer      it answered, twice, without the JSON object its role owes (also a ValueError)
    │   └── NothingChanged       the implementer changed nothing, twice, and does not say that all is there already
    ├── WorkspaceError           git refused
    │   └── CommitMissing        a commit or branch that work stands on is not in this clone
    ├── RedBase                  the base branch itself cannot be set up: no issue's fault
    ├── GitHubRefused            GitHub said no (token, repo, branch): trying again cannot help
    │   └── NothingToMerge       it takes no pull request of a branch whose commits the base has
    ├── CheckpointUnreadable     the record of settled merges cannot be read: nothing is closed by a merge
    ├── LeaseLost                another worker runs this issue now: stop, write nothing more
    ├── StoppedByHand            a person ended the session with `orch stop`: its issue is open again
    ├── SessionStopped           the run is over, the session is not: it goes on elsewhere
    └── HistoryMismatch          the recorded history does not fit the lifecycle: other limits or other code

A caller tells two kinds apart: `Transient`, and the rest. What ends a run of a session but not the session itself is
listed once more, at the end: `ENDS_RUN_ONLY`.
"""

from __future__ import annotations

from datetime import datetime

ALREADY_TOLD = "The tracker has been told: SESSION_ERROR, and the issue is open again."
"""The note on an error that its session has told; others need not say it again."""


class OrchestratorError(Exception):
    """One line for a person: what happened, to which issue, and what to do."""


class SettingsError(OrchestratorError):
    """orch.toml or the environment is wrong."""


class Transient(OrchestratorError):
    """Trying again later may help, and nothing is lost until then."""


class TransientMCPError(Transient):
    """The tracker did not answer this time.

    `maybe_applied` says whether the call may have been carried out all the same: look before a retry, or a record is
    made twice. It is False only where the call is known not to have reached the tracker, or to have been rolled back.
    """

    def __init__(self, *args: object, maybe_applied: bool = True) -> None:
        super().__init__(*args)
        self.maybe_applied = maybe_applied


class TrackerUnavailable(TransientMCPError):
    """The tracker did not answer in any of the tries."""


class RedisUnavailable(Transient):
    """Redis cannot be reached or started."""


class GitHubUnavailable(Transient):
    """GitHub gave no usable answer this time."""


class GitHubRateLimited(GitHubUnavailable):
    """GitHub takes no calls of ours before `until`; asking earlier makes it longer."""

    def __init__(self, message: str, until: datetime) -> None:
        super().__init__(message)
        self.until = until


class LockTimeout(Transient):
    """Another process keeps a lock file longer than we wait. `holder` is its process id, or empty if unknown."""

    def __init__(self, message: str, holder: str = "") -> None:
        super().__init__(message)
        self.holder = holder


class InvalidMCPResponseError(OrchestratorError):
    """The tracker answered something that is not in its contract."""


class TrackerRefused(OrchestratorError):
    """The tracker said no; asking again cannot help."""


class AgentError(OrchestratorError):
    """An agent run gave no usable answer."""


class AgentFailed(AgentError):
    """The agent exited with a code other than 0, or could not be started."""


class AgentTimedOut(AgentError):
    """The agent ran longer than its wall-clock limit."""


class AgentSilent(AgentError):
    """The agent printed nothing for longer than its silence limit."""


class MalformedAnswer(AgentError, ValueError):
    """The agent's answer is not the JSON object that its role owes; names role and field."""


class NothingChanged(AgentError):
    """The implementer changed nothing, asked twice, and does not say that the work is there already."""


class WorkspaceError(OrchestratorError):
    """Git refused."""


class CommitMissing(WorkspaceError):
    """A commit or branch that work stands on is not in this clone."""


class RedBase(OrchestratorError):
    """The base branch itself cannot be set up, so no issue is at fault; says which command fails on which commit."""


class GitHubRefused(OrchestratorError):
    """GitHub said no; asking again cannot help."""


class NothingToMerge(GitHubRefused):
    """GitHub takes no pull request of a branch that has no commit beyond its base."""


class CheckpointUnreadable(OrchestratorError):
    """The record of settled merges cannot be read; nothing is closed by a merge until that is mended."""


class LeaseLost(OrchestratorError):
    """Another worker runs this issue now."""


class SessionStopped(OrchestratorError):
    """The worker stops, or Redis lost what it had recorded; the session goes on from its last recorded step."""


class StoppedByHand(OrchestratorError):
    """A person ended the session; says who, why, and where its unfinished work is."""


class HistoryMismatch(OrchestratorError):
    """The recorded history does not fit the lifecycle."""


ENDS_RUN_ONLY = (LeaseLost, SessionStopped, RedisUnavailable)
"""What ends a run but not its session: the session goes on elsewhere, from its last recorded step."""
