"""Verification: a command in a clean checkout of the exact commit, of an issue's work or of the base branch."""

from __future__ import annotations

import math
import shlex
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from threading import Event
from typing import Protocol

import structlog

from orchestrator.errors import OrchestratorError, RedisUnavailable, SessionStopped, WorkspaceError
from orchestrator.models import BASE, BaseTrouble, BaseVerified, SetUp, VerificationEvidence, Verifier, Workspace

log = structlog.get_logger(__name__)

NOT_RUN = (126, 127)
"""The exit codes of a command that cannot be run: running it again cannot help."""


@dataclass(frozen=True)
class Verification:
    """How commits are verified: set up, then run, up to `retries` times more while it is red."""

    workspace: Workspace
    set_up: SetUp
    run: Verifier
    retries: int

    def __call__(self, command: Sequence[str], issue_id: str, commit: str) -> VerificationEvidence:
        """Evidence of the command on the commit, each run in a clean checkout of its own. Raises WorkspaceError."""
        red: list[int] = []
        while True:
            ran = self._once(command, issue_id, commit)
            if ran.exit_code == 0 or ran.exit_code in NOT_RUN or len(red) == self.retries:
                break
            red.append(ran.exit_code)
        if red:
            log.warning("verification_run_again", red=red, exit_code=ran.exit_code)
        return replace(ran, commit=commit, clean=True, red_before=tuple(red))

    def sets_up(self, issue_id: str, commit: str) -> VerificationEvidence | None:
        """None when the commit can be set up in a clean checkout, else the evidence that it cannot."""
        with self.workspace.clean(issue_id, commit) as checkout:
            return self.set_up(checkout, commit)

    def _once(self, command: Sequence[str], issue_id: str, commit: str) -> VerificationEvidence:
        """One run. A green one of files that are gone is no evidence: it is done again, once."""
        for _ in range(2):
            with self.workspace.clean(issue_id, commit) as checkout:
                ran = self.set_up(checkout, commit) or self.run(command, checkout, commit)
                if checkout.path.is_dir():
                    return ran
                log.warning("checkout_gone", path=str(checkout.path))
        raise WorkspaceError(
            f"{issue_id}: the checkout of its verification was deleted twice in a row; find out what does it"
        )


class BaseRecords(Protocol):
    """What all parts of the program know of the base. Every method raises `RedisUnavailable`."""

    def base(self) -> BaseVerified | None:
        """Its last verification."""

    def record_base(self, verified: BaseVerified) -> None:
        """Record a verification; it is not under way any more."""

    def base_under_way(self) -> str:
        """What is verified now, in words; empty when nothing is."""

    def begin_base(self, says: str, for_s: float) -> bool:
        """Record that it is under way for so long; False when it is already, somewhere."""

    def go_on_with_base(self, for_s: float) -> None:
        """It is under way for so long from now on."""

    def leave_base(self) -> None:
        """It is not under way any more, and nothing came of it."""

    def doubt_base(self) -> None:
        """Forget its last verification."""


@dataclass(frozen=True)
class BaseCheck:
    """The verification of the branch that sessions start from, by the command for issues of no level.

    Only that one: the others may take hours, and hold up every issue for the sake of a few. `recorded` is asked when
    records are needed: to have them may mean to start a Redis.
    """

    branch: str
    tip: Callable[[], str]
    command: Sequence[str] | None
    set_up_commands: Sequence[Sequence[str]]
    verification: Callable[[Event], Verification]
    recorded: Callable[[], BaseRecords]
    now: Callable[[], datetime]

    @property
    def records(self) -> BaseRecords:
        """What is known of the base."""
        return self.recorded()

    @property
    def commands(self) -> str:
        """All that is run for it, in words."""
        return "; ".join(shlex.join(words) for words in (*self.set_up_commands, self.command or ()))

    @property
    def says(self) -> str:
        """What is run, and on what."""
        return f"`{shlex.join(self.command or ())}` on {self.branch} at {self.tip()[:12]}"

    def due(self) -> bool:
        """True when it was never verified like this, or was red and has moved since."""
        if not self.command:
            return False
        known = self.records.base()
        return known is None or known.commands != self.commands or (known.red and known.commit != self.tip())

    def trouble(self) -> BaseTrouble | None:
        """Why nothing may be claimed: it is red where it stands, or is being verified."""
        if under_way := self.records.base_under_way():
            return BaseTrouble(f"the base is being verified: {under_way}", red=False)
        known = self.records.base()
        if known is None or not known.red or known.commands != self.commands or known.commit != self.tip():
            return None
        return BaseTrouble(f"the base is red: {known.failed}", red=True, since_ms=known.at_ms)

    def __call__(self, cut: Event) -> BaseVerified:
        """Verify it where it stands now, and record how that went. Raises as `Verification` does."""
        commit = self.tip()
        ran = self.verification(cut)(self.command or (), BASE, commit)
        verified = self.verified(ran)
        self.records.record_base(verified)
        return verified

    def verified(self, ran: VerificationEvidence) -> BaseVerified:
        """What this evidence says of the base."""
        what = "the set-up " if ran.set_up else ""
        where = f"{what}`{ran.command}` exited with {ran.exit_code} on {self.branch} at {ran.commit[:12]}"
        said = f": {_last_line(ran.output)}" if ran.exit_code else ""
        remarks = "".join(f"; {remark}" for remark in ran.remarks)
        return BaseVerified(
            commit=ran.commit,
            commands=self.commands,
            says=f"{where} after {ran.duration_s:.1f} s{said}{remarks}",
            failed=f"{where}{said}; log: {ran.output_ref}" if ran.exit_code else "",
            at_ms=int(self.now().timestamp() * 1000),
        )


def _last_line(output: str) -> str:
    return next((line.strip() for line in reversed(output.splitlines()) if line.strip()), "it printed nothing")


LOOK_EVERY_S = 1.0
UNDER_WAY_S = 15.0
AFTER_ERROR_S = 60.0


class BaseWatch:
    """Verifies the base in the background whenever that is due; `say` gets a line about it.

    It counts as under way for as long as somebody calls `look`, and a few seconds more: claims wait for it.
    """

    def __init__(self, check: Callable[[], BaseCheck], say: Callable[[str], object]) -> None:
        self._check = check
        self._say = say
        self._cut = Event()
        self._thread: threading.Thread | None = None
        self._next = math.inf
        self._believes_red = False

    def begin(self) -> None:
        """Look from now on. The first look does not believe that the base is red: a person who starts us may have
        mended this host.
        """
        self._next = 0.0
        self.look()

    def look(self) -> None:
        """Begin to verify when it is due; it asks once a second. Redis being away is said by others."""
        if (now := time.monotonic()) < self._next or self._cut.is_set():
            return
        self._next = now + LOOK_EVERY_S
        try:
            if self._thread and self._thread.is_alive():
                self._check().records.go_on_with_base(UNDER_WAY_S)
                return
            if not self._believes_red and (trouble := self._check().trouble()) and trouble.red:
                self._check().records.doubt_base()
            self._believes_red = True
            if self._check().due() and self._check().records.begin_base(self._check().says, UNDER_WAY_S):
                self._thread = threading.Thread(target=self._verify, name="base", daemon=True)
                self._thread.start()
        except RedisUnavailable:
            self._next = now + UNDER_WAY_S / 3
        except WorkspaceError as error:
            self._failed(error)

    def stop(self) -> None:
        """End what is under way. Calling it again is harmless."""
        self._cut.set()
        if self._thread:
            self._thread.join()

    def _verify(self) -> None:
        try:
            try:
                verified = self._check()(self._cut)
            except BaseException:
                self._check().records.leave_base()
                raise
        except SessionStopped:
            return
        except (OrchestratorError, OSError) as error:
            self._failed(error)
        else:
            self._say(f"the base is RED, nothing is claimed: {verified.says}" if verified.red else verified.says)

    def _failed(self, error: Exception) -> None:
        self._next = time.monotonic() + AFTER_ERROR_S
        self._say(f"the base could not be verified, tried again in {AFTER_ERROR_S:g} s: {error}")
