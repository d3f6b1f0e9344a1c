"""Verification: a command of the user's, run in a checkout, and the evidence of it; set-up is one as well."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from threading import Event
from typing import assert_never

from orchestrator.adapters.process import foreign, shim
from orchestrator.adapters.process.foreign import Bounds, Ended, Ran
from orchestrator.adapters.process.sandbox import Reach
from orchestrator.errors import SessionStopped
from orchestrator.models import VerificationEvidence, Worktree

OVER_LIMIT = 124
"""The exit code of a command that we ended because of a limit, as timeout(1) has it."""


class CommandVerifier:
    """Run verification commands with `env` as their environment, boxed in what `reach` gives for a checkout.

    The whole output, both streams as a terminal would show them, stays in `logs`; evidence carries its last
    `max_output_chars` characters. All of it passes through `redact` before it is written. Running it again gives
    new evidence and another log, which begins with `what` it is of.
    """

    def __init__(
        self,
        *,
        logs: Path,
        bounds: Bounds,
        env: Mapping[str, str],
        redact: Callable[[str], str],
        cancel: Event | None,
        reach: Callable[[Path], Reach] | None = None,
        max_output_chars: int = 4000,
        what: str = "verification",
    ) -> None:
        self._logs = logs.resolve()
        self._bounds = bounds
        self._env = dict(env)
        self._redact = redact
        self._cancel = cancel
        self._reach = reach
        self._max_output_chars = max_output_chars
        self._what = what

    def __call__(self, command: Sequence[str], worktree: Worktree, commit: str) -> VerificationEvidence:
        """Evidence, whatever the command does: exit code 124 over a limit, 127 when there is no such command.

        `commit` is what the caller has checked out. Raises `SessionStopped` when cancelled, `WorkspaceError` when the
        worktree is not there.
        """
        log = foreign.new_log(self._logs, self._what, ".log")
        ran = foreign.run(
            command,
            cwd=worktree.path,
            env=self._env,
            bounds=self._bounds,
            stdout=log,
            stderr=None,
            reach=self._reach(worktree.path) if self._reach else None,
            redact=self._redact,
            cancel=self._cancel,
        )
        produced_at = datetime.now(UTC)
        if ran.ended is Ended.CANCELLED:
            raise SessionStopped(f"{worktree.issue_id}: the {self._what} was stopped; it is run again when taken up")
        if remark := self._remark(ran):
            with log.open("a", encoding="utf-8") as file:
                file.write(f"\n{remark}\n")
        return VerificationEvidence(
            command=self._redact(shlex.join(command)),
            output=foreign.tail(log, 4 * self._max_output_chars)[-self._max_output_chars :],
            exit_code=ran.exit_code if ran.ended is Ended.EXITED else OVER_LIMIT,
            produced_at=produced_at,
            commit=commit,
            output_ref=str(log),
            duration_s=ran.duration_s,
        )

    def _remark(self, ran: Ran) -> str | None:
        """The remark that the output alone does not make."""
        match ran.ended:
            case Ended.WALL:
                return f"orch: ended after {self._bounds.wall_s:g} s, the time limit of a {self._what}"
            case Ended.SILENCE:
                return f"orch: ended after {self._bounds.silence_s:g} s without output, the silence limit"
            case Ended.OUTPUT:
                return f"orch: ended after {self._bounds.output_bytes} bytes of output, the limit of a {self._what}"
            case Ended.EXITED if ran.exit_code == shim.NOT_FOUND:
                return "orch: exit code 127 means that a command was not found: install it, or correct orch.toml"
            case Ended.EXITED | Ended.CANCELLED:
                return None
            case _ as never:
                assert_never(never)
