"""What an agent gets at beside git: processes, files and its environment, with the sandbox and without.

Each attempt is made twice by the same agent through the product's own wiring. Without the sandbox most succeed, or the
attempt would prove nothing; docs/threat-model.md lists them by their names, and a test holds it to that.
"""

from __future__ import annotations

import os
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event

import pytest

from orchestrator.adapters.agents import Access, reach_of_machine, reach_of_objects, reach_without
from orchestrator.adapters.git import create_project
from orchestrator.adapters.process import foreign, sandbox
from orchestrator.models import Lease, Role, Worktree
from orchestrator.settings import load, toml
from orchestrator.wiring.agents import SessionProcesses
from tests.engine import a_record
from tests.support import ROOT

CANARY, WRITTEN = "canary-5f1d", "written-by-the-agent"
NEEDS_BOX = pytest.mark.skipif(bool(sandbox.why_not()), reason=f"no sandbox: {sandbox.why_not()}")
ROOT_ONLY = pytest.mark.skipif(os.getuid() != 0, reason="only root could do it without a sandbox")


@dataclass(frozen=True)
class Attempt:
    """A shell script of an agent's. It got there if it printed CANARY, or else if `then` says so.

    `open` is whether it gets there without a sandbox, `boxed` whether it does with one.
    """

    name: str
    script: str
    then: Callable[[Machine], bool] | None = None
    open: bool = True
    boxed: bool = False
    role: Role = Role.IMPLEMENTER
    marks: tuple[pytest.MarkDecorator, ...] = ()


def python(code: str) -> str:
    return f"{sys.executable} -S -c {shlex.quote(code)}"


def connects(family: str, address: str) -> str:
    code = f"import os, socket; socket.socket(socket.{family}).connect({address}); print({CANARY!r})"
    return python(code)


def reads(path: str) -> str:
    return f"cat {path}"


def writes(path: str) -> str:
    return f"mkdir -p $(dirname {path}); echo {WRITTEN} > {path}"


def wrote(path: str) -> Callable[[Machine], bool]:
    """Whether it is there once the agent has gone."""

    def look(machine: Machine) -> bool:
        file = Path(path.replace("$HOME", str(machine.home)).replace("$M", str(machine.folder)))
        return file.is_file() and WRITTEN in file.read_text()

    return look


AUTOSTART, KEPT = "$HOME/.config/autostart/x", "$HOME/.claude/projects/s"
WORK = "$M/home/state/worktrees/i-a1b2/work"

ATTEMPTS = [
    # Processes
    Attempt("read the environment of a process", "cat /proc/[0-9]*/environ | tr '\\0' '\\n' | grep SECRET_OF_ANOTHER"),
    Attempt("read the command line of a process", "cat /proc/[0-9]*/cmdline | tr '\\0' '\\n' | grep CANARY_IN_ARGV"),
    Attempt("read the files that a process has open", "cat /proc/$VICTIM/cwd/secret"),
    Attempt("end a process", f"kill -9 $VICTIM && echo {CANARY}"),
    Attempt(
        "trace a process",
        python(
            "import ctypes, os; seize = 0x4206; victim = int(os.environ['VICTIM']);"
            f"print(ctypes.CDLL(None).ptrace(seize, victim, None, None) or {CANARY!r})"
        ),
    ),
    Attempt(
        "leave a process behind",
        "setsid sh -c 'sleep 300 & echo $! > left; wait' & while ! [ -s left ]; do sleep 0.01; done",
        lambda machine: bool(machine.sleepers()),
        open=False,
    ),
    # Sockets and shared memory
    Attempt("speak to the private Redis", connects("AF_UNIX", "os.environ['M'] + '/home/state/r.sock'")),
    Attempt("speak to the user's services", connects("AF_UNIX", "os.environ['M'] + '/run/bus'")),
    Attempt("speak to a socket in the home", connects("AF_UNIX", "os.environ['HOME'] + '/agent.sock'")),
    Attempt("speak to a socket without a file", connects("AF_UNIX", "'\\0orch' + os.environ['M']"), boxed=True),
    Attempt(
        "speak to a port of this machine", connects("AF_INET", "('127.0.0.1', int(os.environ['PORT']))"), boxed=True
    ),
    Attempt("leave something in shared memory", writes("/dev/shm/$SHM"), lambda machine: machine.shm.exists()),
    # Secrets in the home
    *(
        Attempt(f"read {name}", reads(f"$HOME/{name}"))
        for name in (".ssh/id", ".netrc", ".git-credentials", ".config/gh/hosts.yml", ".npmrc", ".aws/credentials")
    ),
    Attempt("read the environment file of the services", reads("$HOME/.config/sudocode-orchestrator/*.env")),
    Attempt("read a history of the shell", reads("$HOME/.bash_history")),
    Attempt("read another file of the home", reads("$HOME/notes.txt"), boxed=True),
    # What would run later, or elsewhere
    Attempt("write a start-up file of the shell", f"echo '# {WRITTEN}' >> $HOME/.bashrc", wrote("$HOME/.bashrc")),
    Attempt("make a start-up file of the desktop", writes(AUTOSTART), wrote(AUTOSTART)),
    Attempt("replace a program of the user's", writes("$HOME/.local/bin/tool"), wrote("$HOME/.local/bin/tool")),
    Attempt(
        "have the user's own agent run a command",
        f"mv $HOME/.claude/settings.json $HOME/.claude/old; {writes('$HOME/.claude/settings.json')}",
        wrote("$HOME/.claude/settings.json"),
    ),
    Attempt("have the user's own agent start a server", writes("$HOME/.claude.json"), wrote("$HOME/.claude.json")),
    Attempt("keep a session of its own", writes(KEPT), wrote(KEPT), boxed=True),
    Attempt(
        "set a knob of the kernel",
        f"name=/proc/sys/kernel/domainname; was=$(cat $name); echo $was > $name && echo {CANARY}",
        marks=(ROOT_ONLY,),
    ),
    Attempt("make the machine writable again", f"mount -o remount,bind,rw / && echo {CANARY}", marks=(ROOT_ONLY,)),
    Attempt("leave a file in /tmp", writes("/tmp/$SHM/x"), wrote("$M/x")),
    Attempt("read a file of another in /tmp", reads("$M/in-tmp")),
    # Ours
    Attempt("read another issue's workspace", reads("$M/home/state/worktrees/i-other/work")),
    Attempt("write to another issue's workspace", writes("$M/home/state/worktrees/i-other/work"),
            wrote("$M/home/state/worktrees/i-other/work")),
    Attempt("read the logs of other sessions", reads("$M/home/state/logs/i-other/1-implementer.stdout")),
    Attempt("read another project's state", reads("$HOME/.local/state/sudocode-orchestrator/other/secret")),
    Attempt("read the tracker's files", reads("$M/home/repo/.sudocode/issues.jsonl")),
    Attempt("write to the tracker's files", writes("$M/home/repo/.sudocode/issues.jsonl"),
            wrote("$M/home/repo/.sudocode/issues.jsonl")),
    Attempt("read the .env of the main checkout", reads("$M/home/repo/.env.local")),
    Attempt("read the main checkout", reads("$M/home/repo/work"), boxed=True),
    Attempt("write to the main checkout", writes("$M/home/repo/work"), wrote("$M/home/repo/work")),
    Attempt("change the work as an implementer", writes("work"), wrote(WORK), boxed=True),
    Attempt("change the work as a reviewer", writes("work"), wrote(WORK), role=Role.SPEC_REVIEWER),
    # Its environment
    Attempt("find our token in its environment", f"test $ORCH_GITHUB_TOKEN && echo {CANARY}", open=False),
    Attempt("find another secret in its environment", f"test $SECRET_OF_OURS && echo {CANARY}", open=False),
]  # fmt: skip


@dataclass
class Machine:
    """A user's home with secrets, a state folder with other work, and what listens and runs beside."""

    folder: Path
    shm: Path
    victim: subprocess.Popen[bytes] = field(init=False)
    port: int = 0

    @property
    def home(self) -> Path:
        return self.folder / "home"

    @property
    def repo(self) -> Path:
        return self.home / "repo"

    @property
    def state(self) -> Path:
        return self.home / "state"

    @property
    def workspace(self) -> Path:
        return self.state / "worktrees" / "i-a1b2"

    def ask(self, script: str, how: str, role: Role = Role.IMPLEMENTER) -> str:
        """What an agent prints that runs the script."""
        argv = ("sh", "-c", f"{{ {script}; }} 2>&1; exit 0".replace("{", "{{").replace("}", "}}"))
        return self.processes(how, argv).transport(self.lease, self.worktree, Event())(role, "")

    def processes(self, how: str, command: tuple[str, ...] = ("true",)) -> SessionProcesses:
        """The processes of sessions, by these settings."""
        (self.repo / "orch.toml").write_text(
            f'sandbox = "{how}"\n[agents]\nenv = ["VICTIM", "M", "PORT", "SHM"]\n'
            f"[agents.default]\ncommand = {toml(command)}\n"
        )
        settings = load(self.repo, {"ORCH_STATE_DIR": str(self.state)})
        return SessionProcesses(settings, self.state.joinpath, git=lambda: self.repo / ".git", redact=str)

    def sleepers(self) -> list[int]:
        """The processes of the session that are left."""
        return [pid for family in self.processes("off").families().values() for pid in family if pid != os.getpid()]

    lease = Lease("i-a1b2", 1, a_record("i-a1b2"))

    @property
    def worktree(self) -> Worktree:
        return Worktree("i-a1b2", self.workspace, "orch/i-a1b2", "HEAD")


FILES = {
    **{f"home/{name}": CANARY for name in (".ssh/id", ".netrc", ".git-credentials", ".config/gh/hosts.yml", ".npmrc")},
    **{f"home/{name}": CANARY for name in (".bash_history", "notes.txt", ".config/sudocode-orchestrator/a.env")},
    **dict.fromkeys(("home/.bashrc", "home/.local/bin/tool", "home/.claude/settings.json", "home/.claude.json"), ""),
    **dict.fromkeys(("home/.claude/projects/old", "home/state/worktrees/i-a1b2/work"), ""),
    **{f"home/state/{name}": CANARY for name in ("worktrees/i-other/work", "logs/i-other/1-implementer.stdout")},
    **{f"home/repo/{name}": CANARY for name in (".sudocode/issues.jsonl", ".env.local", "work")},
    **dict.fromkeys(("elsewhere/credentials", "in-tmp", "victim/secret"), CANARY),
    "home/.local/state/sudocode-orchestrator/other/secret": CANARY,
    **dict.fromkeys(("run/none", "home/repo/.git/HEAD"), ""),
}


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    """The machine, and the environment of a worker on it."""
    with tempfile.TemporaryDirectory(prefix="orch-") as name, ExitStack() as stack:
        folder = Path(name)
        machine = Machine(folder, Path("/dev/shm", folder.name))
        for path, text in FILES.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_text(text)
        (machine.home / ".aws").symlink_to(folder / "elsewhere")
        machine.victim = subprocess.Popen(
            ["sh", "-c", "sleep 300; true", f"CANARY_IN_ARGV={CANARY}"],
            env={"SECRET_OF_ANOTHER": CANARY, "PATH": os.environ["PATH"]},
            cwd=folder / "victim",
            start_new_session=True,
        )
        stack.callback(machine.victim.wait)
        stack.callback(os.killpg, machine.victim.pid, signal.SIGKILL)
        for place in (machine.state / "r.sock", folder / "run/bus", machine.home / "agent.sock", f"\0orch{folder}"):
            listens(stack, socket.AF_UNIX, str(place))
        machine.port = listens(stack, socket.AF_INET, ("127.0.0.1", 0)).getsockname()[1]
        stack.callback(machine.shm.unlink, missing_ok=True)
        for variable, value in {
            "HOME": machine.home,
            "XDG_RUNTIME_DIR": folder / "run",
            "XDG_STATE_HOME": machine.home / ".local/state",
            "XDG_CONFIG_HOME": machine.home / ".config",
            "VICTIM": machine.victim.pid,
            "M": folder,
            "PORT": machine.port,
            "SHM": folder.name,
            "ORCH_GITHUB_TOKEN": "token-of-ours",
            "SECRET_OF_OURS": "secret-of-ours",
        }.items():
            monkeypatch.setenv(variable, str(value))
        yield machine


def listens(stack: ExitStack, family: socket.AddressFamily, address: str | tuple[str, int]) -> socket.socket:
    """A socket to connect to."""
    server = stack.enter_context(socket.socket(family))
    server.bind(address)
    server.listen()
    return server


def got_there(attempt: Attempt, machine: Machine, how: str) -> bool:
    said = machine.ask(attempt.script, how, attempt.role)
    return attempt.then(machine) if attempt.then else CANARY in said


CASES = [pytest.param(it, id=it.name, marks=it.marks) for it in ATTEMPTS]


@pytest.mark.parametrize("attempt", CASES)
def test_without_a_sandbox(attempt: Attempt, machine: Machine) -> None:
    """An agent gets at all that its user does, but for what a clean environment and our sweep keep from it."""
    assert attempt.open == got_there(attempt, machine, "off")


@NEEDS_BOX
@pytest.mark.parametrize("attempt", CASES)
def test_with_the_sandbox(attempt: Attempt, machine: Machine) -> None:
    """It gets at its workspace, what its CLI keeps, the network, and to read at what is no known secret."""
    assert attempt.boxed == got_there(attempt, machine, "bubblewrap")


def test_the_threat_model_lists_each_attempt() -> None:
    """With what becomes of it, in a row of its own."""
    page = (ROOT / "docs" / "threat-model.md").read_text()
    answers = {True: "yes", False: "no"}

    for attempt in ATTEMPTS:
        assert f"| {attempt.name} | {answers[attempt.open]} | {answers[attempt.boxed]} |" in page


@NEEDS_BOX
def test_a_clone_reaches_the_objects_alone(machine: Machine) -> None:
    """Of the repo that it borrows from, and of the one that lends to that; no refs, hooks, or address with a token."""
    lender, repo, clone = (machine.home / name for name in ("lender", "borrower", "clone"))
    create_project(lender, {"README.md": "lent\n"})
    for source, target in ((lender, repo), (repo, clone)):
        subprocess.run(["git", "clone", "--quiet", "--shared", source, target], check=True, capture_output=True)
    (repo / ".git" / "config").write_text(CANARY)
    reach = reach_of_machine(os.environ) | reach_without(repo / ".git") | reach_of_objects(repo / ".git")
    # The lender's own git folder is the user's to hide, as any other repo of the home; its objects must be there.
    reach |= reach_without(lender / ".git") | reach_of_objects(lender / ".git")
    script = f"git status --short; git log -p --format=%s; cat {repo}/.git/config; ls -A {repo}/.git {lender}/.git"
    ran = foreign.run(
        ["sh", "-c", script],
        cwd=clone,
        env={"PATH": os.environ["PATH"], "HOME": str(machine.home)},
        bounds=foreign.Bounds(20),
        redact=str,
        stdout=machine.folder / "said",
        stderr=None,
        reach=reach | {clone: Access.WRITE},
    )
    said = ran.stdout.read_text()

    assert "+lent" in said
    assert CANARY not in said
    assert said.endswith(f"{lender}/.git:\nobjects\n")
    assert f"{repo}/.git:\nobjects\n" in said
