"""What every agent transport promises: what the agent printed comes back, or one error that says what happened."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from threading import Event

import pytest

from orchestrator.adapters.agents.command import AgentCommand, CommandTransport
from orchestrator.adapters.process.foreign import Bounds
from orchestrator.agent_roles import AgentTransport
from orchestrator.errors import (
    AgentFailed,
    AgentSilent,
    AgentTimedOut,
    OrchestratorError,
    SessionStopped,
    SettingsError,
)
from orchestrator.text import redactor

ROLE = "spec_reviewer"
Make = Callable[..., AgentTransport]


@pytest.fixture
def transport(tmp_path: Path) -> Make:
    """A transport whose agent is this command; a string is Python code. Options go to `AgentCommand`."""
    (tmp_path / "worktree").mkdir()

    def make(
        program: str | tuple[str, ...],
        *,
        env: dict[str, str] | None = None,
        cancel: Event | None = None,
        **options: object,
    ) -> AgentTransport:
        argv = (sys.executable, "-S", "-c", program) if isinstance(program, str) else program
        agent = AgentCommand(argv, **({"prompt": "stdin", "bounds": Bounds(20)} | options))  # type: ignore[arg-type]
        return CommandTransport(
            {ROLE: agent},
            cwd=tmp_path / "worktree",
            logs=tmp_path / "logs",
            issue_id="i-0001",
            env=env or dict(os.environ),
            redact=redactor(env or {}),
            cancel=cancel,
        )

    return make


def failure(transport: AgentTransport, kind: type[OrchestratorError], role: str = ROLE) -> str:
    """The message of the error of this kind, which is one line and names issue and role."""
    with pytest.raises(kind) as caught:
        transport(role, "prompt")
    message = str(caught.value)

    assert message.startswith("i-0001: ")
    assert role in message
    assert 1 == len(message.splitlines())
    return message


# What goes in and what comes out


def test_the_answer_is_what_was_printed(transport: Make) -> None:
    """Standard output comes back as text, whatever is not UTF-8 replaced; standard error does not."""
    ask = transport("import os; os.write(1, b'na\\xc3\\xafve \\xff\\n'); os.write(2, b'progress')")

    assert "naïve \ufffd\n" == ask(ROLE, "")


@pytest.mark.parametrize(
    ("prompt", "argv"),
    [
        ("stdin", ("cat",)),
        ("file", ("cat", "{prompt_file}")),
        ("argument", ("printf", "%s", "{prompt}")),
        ("argument", ("sh", "-c", 'printf %s "${{1#--}}"', "sh", "--{prompt}")),
    ],
)
def test_the_prompt_arrives_as_it_is(transport: Make, prompt: str, argv: tuple[str, ...]) -> None:
    """However it is handed over, the agent reads the very prompt: no shell, no placeholder, no quoting changes it."""
    text = "line one\n  $(touch pwned) `id` \"'; {role} {{x}} %s \\n ü 😀\n"

    assert text == transport(argv, prompt=prompt)(ROLE, text)


def test_placeholders(transport: Make, tmp_path: Path) -> None:
    """Role, issue and directory are filled in; doubled braces are literal ones."""
    ask = transport(("sh", "-c", 'pwd; printf "%s " "$@"', "sh", "{role}", "{issue}", "{cwd}", "{{role}}", "a{issue}b"))

    worktree = tmp_path / "worktree"
    assert f"{worktree}\n{ROLE} i-0001 {worktree} {{role}} ai-0001b " == ask(ROLE, "")


def test_a_long_output_is_cut_at_its_front(transport: Make) -> None:
    """Of 50 MB of output the last megabyte comes back: the answer comes last."""
    ask = transport("import os\nfor _ in range(500): os.write(1, b'x' * 100_000)\nprint('the answer')")
    answer = ask(ROLE, "")

    assert 1_000_000 == len(answer)
    assert answer.endswith("the answer\n")


def test_every_run_leaves_its_logs(transport: Make, tmp_path: Path) -> None:
    """Each run leaves prompt, output and errors under a number of its own, outside of the worktree."""
    ask = transport("import sys; print('out'); print('err', file=sys.stderr)")
    ask(ROLE, "first")
    transport("pass")(ROLE, "second")
    logs = {path.name: path.read_text() for path in (tmp_path / "logs").iterdir()}

    assert {
        f"1-{ROLE}.prompt": "first",
        f"1-{ROLE}.stdout": "out\n",
        f"1-{ROLE}.stderr": "err\n",
        f"2-{ROLE}.prompt": "second",
        f"2-{ROLE}.stdout": "",
        f"2-{ROLE}.stderr": "",
    } == logs
    assert [] == list((tmp_path / "worktree").iterdir())


def test_the_environment_is_chosen(transport: Make) -> None:
    """The agent sees the usual names, what its role allows, and the markers of issue and session; no tokens."""
    env = {
        "PATH": os.environ["PATH"],
        "MODEL_KEY": "k",
        "OTHER_KEY": "k",
        "GITHUB_TOKEN": "t",
        "ORCH_ISSUE": "i-outer",
        "ORCH_SESSION": "s-1",
        "ORCH_LEASE": "17",
        "ORCH_REDIS_URL": "redis://",
    }
    seen = transport(("env",), env=env, allow_env=("MODEL_KEY",))(ROLE, "").split()

    assert {f"PATH={env['PATH']}", "MODEL_KEY=k", "ORCH_ISSUE=i-0001", "ORCH_SESSION=s-1", "ORCH_LEASE=17"} == {
        line
        for line in seen
        if not line.startswith(("LC_CTYPE=", "ORCH_RUN="))  # CPython sets the one in a C locale; the other varies
    }


# What goes wrong


def test_a_failing_agent(transport: Make, tmp_path: Path) -> None:
    """A non-zero exit names the code, the last words on stderr, and the log."""
    message = failure(
        transport(("sh", "-c", "echo no; printf 'a\\n\\033[31mquota\\a is over\\033[0m\\n\\n' >&2; exit 9")),
        AgentFailed,
    )

    assert "exited with code 9: quota is over; " in message
    assert message.endswith(f"{tmp_path}/logs/1-{ROLE}.stderr")


def test_last_words_may_be_on_stdout(transport: Make) -> None:
    """An agent that complains on stdout only is quoted from there, and one that says nothing is said to."""
    assert "Not logged in" in failure(transport(("sh", "-c", "echo Not logged in; exit 1")), AgentFailed)
    assert "it printed nothing" in failure(transport(("false",)), AgentFailed)


def test_last_words_are_bounded(transport: Make) -> None:
    """A screenful of one error line does not become the message."""
    assert 600 > len(failure(transport(("sh", "-c", "printf %09999d 0 >&2; exit 1")), AgentFailed))


@pytest.mark.parametrize("program", ["no-such-agent", "/dev/null", "./gone/agent"])
def test_an_agent_that_cannot_be_started(transport: Make, program: str) -> None:
    """A command that is not there, or no program, is named with the place where it is configured."""
    message = failure(transport((program,)), AgentFailed)

    assert f"could not be started: cannot run {program}: " in message
    assert f"orch.toml, [agents.{ROLE}]" in message


def test_exit_code_127_of_its_own(transport: Make) -> None:
    """An agent that was started and itself exits with 127 has failed; it was not missing."""
    assert "exited with code 127: oops" in failure(transport(("sh", "-c", "echo oops >&2; exit 127")), AgentFailed)


def test_no_secret_comes_back(transport: Make) -> None:
    """Neither in an answer nor in an error: both are recorded and published. What the agent may see is one, too."""
    env = dict(os.environ) | {"MY_TOKEN": "hunter-22"}
    says = "import os, sys; print(os.environ['MY_TOKEN'], 'ghp_0123456789abcdefghij01'); sys.exit({})"
    options = {"env": env, "allow_env": ("MY_TOKEN",)}

    assert "[redacted] [redacted]\n" == transport(says.format(0), **options)(ROLE, "")
    assert "[redacted] [redacted]" in failure(transport(says.format(1), **options), AgentFailed)


def test_a_killed_agent(transport: Make) -> None:
    """A signal is an exit code of 128 and more."""
    assert "exited with code 137" in failure(transport(("sh", "-c", "kill -9 $$")), AgentFailed)


def test_a_hanging_agent(transport: Make) -> None:
    """An agent over its wall-clock limit timed out."""
    message = failure(transport(("sleep", "60"), bounds=Bounds(0.2)), AgentTimedOut)

    assert "longer than 0.2 s" in message


def test_a_silent_agent(transport: Make) -> None:
    """An agent over its silence limit is silent, which is another error."""
    message = failure(transport(("sh", "-c", "echo hm; sleep 60"), bounds=Bounds(20, 0.2)), AgentSilent)

    assert "printed nothing for 0.2 s" in message


def test_a_flooding_agent(transport: Make) -> None:
    """An agent that prints more than it may has failed."""
    message = failure(transport(("yes",), bounds=Bounds(20, output_bytes=1_000_000)), AgentFailed)

    assert "more than 1000000 bytes" in message


def test_a_cancelled_agent(transport: Make) -> None:
    """A run that is cut off by a shutdown is nobody's failure: the session stopped."""
    cancel = Event()
    cancel.set()
    failure(transport(("sleep", "60"), cancel=cancel), SessionStopped)


def test_an_unknown_role(transport: Make) -> None:
    """A role without an agent is told how to get one."""
    assert "add [agents.implementer]" in failure(transport(("true",)), AgentFailed, role="implementer")


@pytest.mark.parametrize("text", ["x" * 128 * 1024, "a\0b"])
def test_a_prompt_that_is_no_argument(transport: Make, text: str) -> None:
    """A prompt too long for an argument, or with a zero byte, is refused with the way out."""
    ask = transport(("true", "{prompt}"), prompt="argument")

    with pytest.raises(AgentFailed, match='set prompt = "stdin"'):
        ask(ROLE, text)


def test_the_longest_argument(transport: Make) -> None:
    """What just fits is handed over."""
    text = "x" * (128 * 1024 - 1)

    assert text == transport(("printf", "%s", "{prompt}"), prompt="argument")(ROLE, text)


def test_odd_characters(transport: Make) -> None:
    """A lone surrogate, which JSON can smuggle in, is replaced and stops nothing."""
    assert "a?b" == transport(("cat",))(ROLE, "a\ud800b")


# What the settings may say


@pytest.mark.parametrize(
    ("argv", "prompt", "reason"),
    [
        ((), "stdin", "empty argv"),
        (("agent", "{model}"), "stdin", "{model}"),
        (("agent", "{}"), "stdin", "placeholder"),
        (("agent", "{role!r}"), "stdin", "placeholder"),
        (("agent", "{role.__class__}"), "stdin", "placeholder"),
        (("agent", "{role"), "stdin", "double a literal brace"),
        (("agent", '{"json": 1}'), "stdin", "double a literal brace"),
        (("agent", "{prompt}"), "stdin", 'needs prompt = "argument"'),
        (("agent",), "argument", "needs {prompt}"),
        (("agent",), "file", "needs {prompt_file}"),
    ],
)
def test_wrong_commands_are_refused_early(argv: tuple[str, ...], prompt: str, reason: str) -> None:
    """A command that could never work is an error of the settings before anything runs."""
    with pytest.raises(SettingsError) as caught:
        AgentCommand(argv, prompt, Bounds(1))  # type: ignore[arg-type]

    assert reason in str(caught.value)
    assert "[agents.<role>]" in str(caught.value)


def test_tokens_cannot_be_allowed(transport: Make) -> None:
    """Allowing an agent one of our own tokens is refused before anything runs."""
    with pytest.raises(SettingsError, match="GITHUB_TOKEN"):
        transport(("true",), allow_env=("GITHUB_TOKEN",))
