"""Any coding agent that has a command line: an argv per role in, what it printed out.

Issue text reaches the agent as data (standard input, a file, or one argument), never through a shell. Finding the
answer in what was printed is up to the caller.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from string import Formatter
from threading import Event
from typing import Literal, assert_never

from orchestrator.adapters.process import foreign, marked, shim
from orchestrator.adapters.process.foreign import Bounds, Ended, Ran
from orchestrator.adapters.process.sandbox import Access, Reach
from orchestrator.errors import (
    AgentFailed,
    AgentSilent,
    AgentTimedOut,
    OrchestratorError,
    SessionStopped,
    SettingsError,
)
from orchestrator.text import REDACTED

ANSWER_BYTES = 1_000_000
"""How much of the end of the output is given back: the answer comes last."""

ARGUMENT_BYTES = 128 * 1024
"""What Linux takes as one argument (MAX_ARG_STRLEN, its closing zero included)."""

REDACTED_NOTE = f"({REDACTED} below stands for what looks like a secret; files have what they had.)"

_PLACEHOLDERS = ("role", "issue", "prompt_file", "prompt", "cwd")
_OWED = {"stdin": None, "file": "prompt_file", "argument": "prompt"}
_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]")


@dataclass(frozen=True)
class AgentCommand:
    """The command of one role. `prompt` says how the prompt is handed over; `allow_env` names more variables to pass.

    In argv, {role}, {issue}, {cwd}, {prompt_file} and, when the prompt is an argument, {prompt} are filled in; a
    literal brace is doubled. Raises `SettingsError` for anything else.
    """

    argv: tuple[str, ...]
    prompt: Literal["stdin", "file", "argument"]
    bounds: Bounds
    allow_env: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        used = {name for element in self.argv for name in self._names(element)}
        owed = _OWED[self.prompt]
        if not self.argv:
            raise SettingsError("an agent has an empty argv: give the command in orch.toml, [agents.<role>]")
        if owed and owed not in used:
            raise self._wrong(f'prompt = "{self.prompt}" needs {{{owed}}} in argv')
        if "prompt" in used and self.prompt != "argument":
            raise self._wrong('{prompt} in argv needs prompt = "argument"')

    def _names(self, element: str) -> set[str]:
        try:
            fields = list(Formatter().parse(element))
        except ValueError as error:
            raise self._wrong(f"{element!r}: {error}; double a literal brace") from None
        for _, name, spec, conversion in fields:
            if name is not None and (name not in _PLACEHOLDERS or spec or conversion):
                known = ", ".join(f"{{{known}}}" for known in _PLACEHOLDERS)
                raise self._wrong(f"{element!r} has a placeholder that is none of {known}; double a literal brace")
        return {name for _, name, _, _ in fields if name is not None}

    def _wrong(self, what: str) -> SettingsError:
        return SettingsError(f"agent command {self.argv[0]!r}: {what} (orch.toml, [agents.<role>])")


class CommandTransport:
    """Run the command of a role in `cwd`, once for each call, and gives back the end of what it printed.

    `env` is what may be passed on, by `foreign.clean_env`; the markers in it always are. Each call leaves
    `<n>-<role>.prompt`, `.stdout` and `.stderr` in `logs`. All of it passes through `redact`: the prompt before the
    agent has it, because transcripts keep prompts, and what it prints before it is written. With a `reach`, a role's
    runs are boxed in what it gives. Running it again means another run of the agent.
    """

    def __init__(
        self,
        agents: Mapping[str, AgentCommand],
        *,
        cwd: Path,
        logs: Path,
        issue_id: str,
        env: Mapping[str, str],
        redact: Callable[[str], str],
        cancel: Event | None,
        reach: Callable[[str], Reach] | None = None,
    ) -> None:
        markers = marked.of(env) | {"ORCH_ISSUE": issue_id}
        self._envs = {role: foreign.clean_env(env, allow=it.allow_env, extra=markers) for role, it in agents.items()}
        self._agents = dict(agents)
        self._redact = redact
        self._cwd, self._logs = cwd.resolve(), logs.resolve()
        self._issue_id = issue_id
        self._cancel = cancel
        self._reach = reach

    def __call__(self, role: str, prompt: str) -> str:
        """Raises `AgentFailed`, `AgentTimedOut`, `AgentSilent`; `SessionStopped` when it was cancelled."""
        agent = self._agents.get(role)
        if agent is None:
            raise AgentFailed(f"{self._issue_id}: no agent for the role {role}: add [agents.{role}] to orch.toml")
        sent = self._fit(prompt).encode("utf-8", errors="replace")
        try:
            prompt_file = foreign.new_log(self._logs, role, ".prompt")
            prompt_file.write_bytes(sent)
            ran = foreign.run(
                self._argv(role, agent, sent.decode(), prompt_file),
                cwd=self._cwd,
                env=self._envs[role],
                stdin=sent if agent.prompt == "stdin" else b"",
                bounds=agent.bounds,
                stdout=prompt_file.with_suffix(".stdout"),
                stderr=prompt_file.with_suffix(".stderr"),
                reach=self._reach(role) | {prompt_file: Access.READ} if self._reach else None,
                redact=self._redact,
                cancel=self._cancel,
            )
        except OSError as error:
            raise AgentFailed(f"{self._who(role)} could not be run: {error}") from error
        if ran.ended is Ended.EXITED and ran.exit_code == 0:
            return foreign.tail(ran.stdout, ANSWER_BYTES)
        raise self._error(role, agent, ran)

    def _fit(self, prompt: str) -> str:
        """The prompt without secrets, which says so if there were any: they may stand in what is to be reviewed."""
        redacted = self._redact(prompt)
        return redacted if redacted == prompt else f"{REDACTED_NOTE}\n\n{redacted}"

    def _argv(self, role: str, agent: AgentCommand, prompt: str, prompt_file: Path) -> list[str]:
        values = {
            "role": role,
            "issue": self._issue_id,
            "prompt_file": str(prompt_file),
            "prompt": prompt,
            "cwd": str(self._cwd),
        }
        argv = [element.format_map(values) for element in agent.argv]
        if any("\0" in element or len(os.fsencode(element)) >= ARGUMENT_BYTES for element in argv):
            raise AgentFailed(
                f"{self._who(role)} cannot take this prompt of {len(prompt)} characters as an argument: it is over "
                f'{ARGUMENT_BYTES // 1024} kB or holds a zero byte; set prompt = "stdin" in orch.toml, [agents.{role}]'
            )
        return argv

    def _error(self, role: str, agent: AgentCommand, ran: Ran) -> OrchestratorError:
        who, bounds = self._who(role), agent.bounds
        match ran.ended:
            case Ended.CANCELLED:
                return SessionStopped(f"{who} was stopped; the session goes on from its last recorded step")
            case Ended.WALL:
                return AgentTimedOut(
                    f"{who} ran longer than {bounds.wall_s:g} s and was ended: make the issue smaller, or raise "
                    f"agent_seconds in orch.toml, [limits]; log: {ran.stdout}"
                )
            case Ended.SILENCE:
                return AgentSilent(
                    f"{who} printed nothing for {bounds.silence_s:g} s and was ended: see what it waited for, or raise "
                    f"silence_seconds in orch.toml, [limits]; log: {ran.stdout}"
                )
            case Ended.OUTPUT:
                return AgentFailed(
                    f"{who} printed more than {bounds.output_bytes} bytes and was ended: see what it repeats in "
                    f"{ran.stdout}, or raise output_mb in orch.toml, [limits]"
                )
            case Ended.EXITED:
                words = _last_words(ran)
                if ran.exit_code in (shim.NOT_FOUND, shim.NOT_EXECUTABLE) and words.startswith("orch: "):
                    return AgentFailed(
                        f"{who} could not be started: {words.removeprefix('orch: ')}; install it, or correct command "
                        f"in orch.toml, [agents.{role}]"
                    )
                return AgentFailed(f"{who} exited with code {ran.exit_code}: {words}; log: {ran.stderr}")
            case _ as never:
                assert_never(never)

    def _who(self, role: str) -> str:
        return f"{self._issue_id}: the {role} agent ({self._agents[role].argv[0]})"


def _last_words(ran: Ran) -> str:
    """The last line that is not blank, on stderr or else on stdout, fit to be part of one line."""
    for path in (ran.stderr, ran.stdout):
        for line in reversed(foreign.tail(path, 4_000).splitlines()):
            if words := "".join(filter(str.isprintable, _ESCAPES.sub("", line))).strip():
                return words[-300:]
    return "it printed nothing"
