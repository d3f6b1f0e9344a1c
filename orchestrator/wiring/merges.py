"""The wiring of delivering and closing, apart from `project`, because few processes need it."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import structlog

from orchestrator import wiring
from orchestrator.adapters.git import github_repo
from orchestrator.adapters.process.lock import locked
from orchestrator.adapters.redis import RedisMerges
from orchestrator.errors import SettingsError, WorkspaceError
from orchestrator.merge_close import (
    NEVER,
    Delivery,
    Health,
    LastLook,
    MergeClosePayload,
    MergeCloseResult,
    MergeLook,
    MergePoll,
    PullText,
    Trust,
    fresh_checkpoint,
    health,
)
from orchestrator.models import utc_now

if TYPE_CHECKING:
    from orchestrator.adapters.github import GitHub

log = structlog.get_logger(__name__)

TURN_S = 60.0


class MergeWiring:
    """All that one process needs to deliver finished work and to close what was merged."""

    def __init__(self, here: wiring.Wiring) -> None:
        self._here = here
        self._settings = here.settings

    def look(self) -> list[str]:
        """Deliver what is finished and close what was merged, alone on this host; the ids of what is closed."""
        with self.turn():
            return self.merge_look()

    def close_by_hand(self, payload: MergeClosePayload) -> MergeCloseResult:
        """Close what an operator says was merged, by the same rules and in turn with the looks."""
        with self.turn():
            return self.merge_look.close(payload)

    def health(self) -> tuple[LastLook, Health, str]:
        """The last look for merges, how looking goes, and why."""
        last = self.finished.last_look() if self._here.is_up else NEVER
        return last, *health(last, now=utc_now())

    def repair(self) -> None:
        """Forget which merges are settled: the next look goes through those of the last 30 days again."""
        with self.turn():
            self.finished.write(fresh_checkpoint(now=utc_now()).model_dump_json())

    @contextmanager
    def turn(self) -> Iterator[None]:
        """One at a time on this host, which is the tracker's: it has no compare-and-set."""
        with locked(self._here.state("merges.lock"), wait_s=TURN_S):
            yield

    @functools.cached_property
    def merge_look(self) -> MergeLook:
        """One look for merges. Its caller has the `turn`."""
        return MergeLook(
            publish=self._here.publish,
            tracker=self._here.gateway,
            finished=self.finished,
            # Nothing is closed by a base that is in doubt.
            local=lambda work: () if self._here.controls.base_held() else self._here.workspace.merges().merged(work),
            poll=self._poll,
            # Found out only when something is to be delivered: a missing token keeps nothing from being closed.
            deliver=lambda work, text: self.delivery(work, text),
            adds=self._here.workspace.adds,
            closed=self._drop_worktrees,
        )

    @functools.cached_property
    def finished(self) -> RedisMerges:
        """The finished sessions, until their work is merged."""
        return RedisMerges(self._here.client, self._here.keys)

    @functools.cached_property
    def github(self) -> GitHub | None:
        """The repo on GitHub, if there is one and we have a token for it."""
        # Here, because session workers never speak to GitHub.
        from orchestrator.adapters.github import GitHub

        token = self._settings.github_token
        if not token or not self.github_repo:
            return None
        return GitHub(self.github_repo, token=token, api=self._settings.github.api)

    @functools.cached_property
    def github_repo(self) -> str | None:
        """`owner/name` on GitHub."""
        github = self._settings.github
        return github.repo or github_repo(self._settings.root, self._settings.remote, github.api)

    @functools.cached_property
    def delivery(self) -> Delivery:
        """The way finished work is delivered. SettingsError when the wanted way is not possible."""
        how, branches = self._settings.deliver, self._here.workspace.delivery()
        if how == "none" or (how is None and branches is None):
            return Delivery()
        if branches is None:
            raise SettingsError(
                f'orch.toml: deliver = "{how}" needs a git remote {self._settings.remote!r}; add it, or name another'
            )
        if how != "pr":
            return Delivery(branches.push)
        github, base = self.github, self._here.base
        if github is None:
            raise SettingsError(
                'orch.toml: deliver = "pr" needs ORCH_GITHUB_TOKEN_FILE and, unless the remote is on '
                "GitHub, [github] repo"
            )
        redact = self._here.redact

        def request(branch: str, text: PullText) -> str:
            """Open the pull request; an older version's record of a session may have secrets in it."""
            return github.deliver(
                branch, base=base, text=replace(text, title=redact(text.title), body=redact(text.body))
            )

        return Delivery(branches.push, request)

    @functools.cached_property
    def _poll(self) -> MergePoll | None:
        if self.github is None:
            return None
        return MergePoll(
            feed=self.github,
            tracker=self._here.gateway,
            store=self.finished,
            trust=Trust(self.github_repo or "", self._here.base, frozenset(self._settings.github.authors)),
            delivered=self.finished.last,
            now=utc_now,
        )

    def _drop_worktrees(self, issue_ids: Sequence[str]) -> None:
        for issue_id in issue_ids:
            try:
                self._here.workspace.drop(issue_id)
            except WorkspaceError as error:
                log.warning("worktree_not_dropped", issue=issue_id, reason=str(error), hint="orch gc")


@functools.cache
def here() -> MergeWiring:
    """The merge wiring of this process, by its environment and current folder."""
    return MergeWiring(wiring.here())
