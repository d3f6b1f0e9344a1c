"""The base branch, verified with a real Redis and repo: when that is due, what a red one does, and until when."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Event

import pytest

from orchestrator.adapters.agents import CommandVerifier
from orchestrator.adapters.git.workspace import GitWorkspace
from orchestrator.adapters.process.foreign import Bounds
from orchestrator.models import BaseTrouble, VerificationEvidence, Verifier, Worktree
from orchestrator.session.verification import BaseCheck, BaseWatch, Verification
from tests.engine import Engine
from tests.git_project import Project
from tests.support import noon, wait_until

RED = ("sh", "-c", "echo 2 tests failed; exit 3")
GREEN = ("grep", "-q", "Project", "README.md")


@dataclass
class Base:
    """The base of a project, verified by `command`; `said` is what the watch in the background said of it."""

    engine: Engine
    project: Project
    workspace: GitWorkspace
    logs: Path
    command: Sequence[str] | None = GREEN
    set_up: VerificationEvidence | None = None
    said: list[str] = field(default_factory=list)

    @property
    def check(self) -> BaseCheck:
        return BaseCheck(
            branch="main",
            tip=self.workspace.tip,
            command=self.command,
            set_up_commands=[("npm", "ci")],
            verification=lambda cut: Verification(
                self.workspace, lambda _checkout, _commit: self.set_up, self.verifier(cut), retries=0
            ),
            recorded=lambda: self.engine.controls,
            now=noon,
        )

    def verifier(self, cut: Event) -> Verifier:
        return CommandVerifier(logs=self.logs, bounds=Bounds(60), env={"PATH": "/usr/bin:/bin"}, redact=str, cancel=cut)

    def watch(self) -> BaseWatch:
        """The watch of an `orch up` that starts now."""
        watch = BaseWatch(lambda: self.check, self.said.append)
        watch.begin()
        return watch

    def trouble(self) -> BaseTrouble | None:
        return self.check.trouble()

    def commit(self) -> None:
        """The base moves."""
        self.project.git("commit", "--allow-empty", "--message=Mend it")

    def poll(self) -> list[str]:
        return self.engine.poll(base=self.check.trouble)


@pytest.fixture
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, engine: Engine) -> Base:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    engine.slots(4)
    project = Project(tmp_path)
    return Base(engine, project, project.workspace(), tmp_path / "logs")


def looked(base: Base, watch: BaseWatch, lines: int = 1) -> None:
    """Have the watch look until it has said so much."""

    def said() -> bool:
        watch.look()
        return len(base.said) >= lines

    wait_until(said, f"{lines} lines should have been said, not {base.said}")


def test_a_green_base_is_verified_once(base: Base) -> None:
    """On its commit, in a clean checkout; then it is not due, also when it moves: sessions verify what they make."""
    assert base.check.due()
    verified = base.check(Event())

    assert base.project.first == verified.commit
    assert verified == base.engine.controls.base()
    assert verified.says.startswith(f"`grep -q Project README.md` exited with 0 on main at {base.project.first[:12]}")
    assert base.trouble() is None
    assert not base.check.due()
    base.commit()
    assert not base.check.due()


@pytest.mark.parametrize("changed", ["command", "set-up"])
def test_another_verification_was_never_run(base: Base, changed: str) -> None:
    """A green base says nothing about a command, or a set-up, that it was not verified by."""
    base.check(Event())
    if changed == "command":
        base.command = RED

    check = base.check if changed == "command" else replace(base.check, set_up_commands=[("npm", "install")])
    assert check.due()


def test_without_a_command_there_is_nothing_to_verify(base: Base) -> None:
    """Each session then says so itself."""
    base.command = None

    assert not base.check.due()


def test_nothing_is_claimed_while_the_base_is_red(base: Base) -> None:
    """Neither what is ready nor what a person asks for, who is told why; one line names the command and the commit."""
    base.command = RED
    base.check(Event())
    base.engine.tracker.file("One", issue_id="i-0001")
    base.engine.tracker.file("Two", issue_id="i-0002")
    base.engine.leases.want("i-0002")
    words = (
        "the base is red: `sh -c 'echo 2 tests failed; exit 3'` exited with 3 on main at "
        f"{base.project.first[:12]}: 2 tests failed; log: "
    )
    trouble = base.trouble()

    assert trouble
    assert trouble.red
    assert trouble.says.startswith(words)
    assert [] == base.poll()
    assert set() == base.engine.inflight()
    assert f"it waits: {trouble.says}" == base.engine.leases.answered("i-0002")
    assert ["i-0002"] == base.engine.leases.wanted()


def test_what_was_claimed_before_goes_on_while_the_base_is_red(base: Base) -> None:
    """A session whose worker died is taken up."""
    base.engine.running("i-0001")
    base.engine.fall_silent("i-0001")
    base.command = RED
    base.check(Event())

    assert ["i-0001"] == base.poll()


def moves(base: Base) -> None:
    base.commit()


def is_let_pass(base: Base) -> None:
    assert base.engine.controls.waive_base(by="anna@box")


def is_mended(base: Base) -> None:
    """As `orch doctor --verify` finds when a program was installed."""
    base.command = RED
    check = base.check
    ran = replace(check.verification(Event())(GREEN, "base", check.tip()))
    base.engine.controls.record_base(check.verified(ran))


@pytest.mark.parametrize("until", [moves, is_let_pass, is_mended])
def test_a_red_base_is_in_the_way_until(base: Base, until: Callable[[Base], None]) -> None:
    """It moves, a person lets it pass, or it is green."""
    base.engine.tracker.file("One", issue_id="i-0001")
    base.command = RED
    base.check(Event())
    assert [] == base.poll()
    until(base)

    assert ["i-0001"] == base.poll()
    assert base.check.due() == (until is moves)


def test_a_base_that_cannot_be_set_up_is_red(base: Base) -> None:
    """And it is the set-up that is named."""
    failed = base.verifier(Event())(
        ("sh", "-c", "echo no network; exit 5"), Worktree("base", base.logs.parent, "", ""), ""
    )
    base.set_up = replace(failed, set_up=True)
    base.check(Event())
    trouble = base.trouble()

    assert trouble
    assert "the base is red: the set-up `sh -c 'echo no network; exit 5'` exited with 5 on main" in trouble.says


# In the background of `orch up`


def test_claims_wait_while_the_base_is_verified(base: Base, tmp_path: Path) -> None:
    """From the first look on, before any worker is there; then they go on."""
    go = tmp_path / "go"
    base.command = ("sh", "-c", f"until [ -e {go} ]; do sleep 0.05; done")
    base.engine.tracker.file("One", issue_id="i-0001")
    watch = base.watch()
    trouble = base.trouble()

    assert trouble
    assert not trouble.red
    assert trouble.says.startswith("the base is being verified: `sh -c ")
    assert [] == base.poll()
    go.touch()
    looked(base, watch)
    assert ["i-0001"] == base.poll()
    assert " exited with 0 on main " in base.said[0]


def test_the_base_is_verified_by_one_of_several(base: Base, tmp_path: Path) -> None:
    """Where another host's `orch up` has begun, this one waits as well, and finds it done."""
    base.command = ("sh", "-c", f"echo x >> {tmp_path}/runs; sleep 0.2")
    one, other = base.watch(), base.watch()
    looked(base, one)
    other.stop()

    assert "x\n" == (tmp_path / "runs").read_text()
    assert 1 == len(base.said)


def test_a_red_base_is_said_and_verified_again_when_it_has_moved(base: Base) -> None:
    """It is green then, and that is said too."""
    base.command = ("grep", "-q", "mended", "README.md")
    watch = base.watch()
    looked(base, watch)
    (base.project.repo / "README.md").write_text("mended\n")
    base.project.git("commit", "--all", "--message=Mend it")
    looked(base, watch, 2)

    assert base.said[0].startswith("the base is RED, nothing is claimed: `grep -q mended README.md` exited with 1")
    assert base.said[1].startswith("`grep -q mended README.md` exited with 0")
    assert base.trouble() is None


def test_a_start_does_not_believe_that_the_base_is_red(base: Base, tmp_path: Path) -> None:
    """Something outside of the repo may have been mended since."""
    tool = tmp_path / "tool"
    base.command = ("test", "-e", str(tool))
    looked(base, base.watch())
    tool.touch()
    looked(base, base.watch(), 2)

    assert base.trouble() is None


def test_a_stop_ends_the_verification_and_records_nothing(base: Base) -> None:
    """The next start begins anew."""
    base.command = ("sleep", "60")
    watch = base.watch()
    watch.stop()
    watch.look()

    assert base.engine.controls.base() is None
    assert "" == base.engine.controls.base_under_way()
    assert base.check.due()
    assert [] == base.said


def test_a_start_that_is_killed_keeps_claims_waiting_for_seconds(base: Base) -> None:
    """What it said of the verification under way is over by itself."""
    assert base.engine.controls.begin_base("`make test` on main", 15)

    assert 14_000 < base.engine.client.pttl(base.engine.keys("base-under-way")) <= 15_000


def test_a_base_that_cannot_be_verified_is_said_once(base: Base) -> None:
    """A repo that git refuses is not looked at every second."""
    base.project.git("update-ref", "-d", "refs/heads/main")
    watch = base.watch()
    watch.look()

    (line,) = base.said
    assert line.startswith("the base could not be verified, tried again in 60 s: base: ")
