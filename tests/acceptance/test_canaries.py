"""Secrets that are planted where they get into: afterwards none stands in anything that is stored or published."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import github_server
from tests.acceptance.project import CELERY, ORCH_UP, Project, Running
from tests.github_server import GitHubServer
from tests.support import ROOT

HEX, WORD = "0a1b2c3d4e5f67890a1b2c3d4e5f67890a1b2c3d", "aB3xK9mQ2vT7aB3xK9mQ2vT7aB3xK9mQ2vT7"
KEY = "MIIEpAIBAAKCAQEAcanaryinthetailofakey0123456789abcdefghijklmnop"

CANARIES = {
    "ORCH_GITHUB_TOKEN in the environment": "canary-github-token",
    "ORCH_GITHUB_WEBHOOK_SECRET in the environment": "canary-webhook-secret",
    "a variable that agents are given": "canary-of-the-service",
    "the issue's title": f"ghp_{WORD}",
    "the issue's description": "canary-Pa55word",
    "the agent's answer": f"sk_live_{WORD}",
    "the agent's stderr": "Y2FuYXJ5OmluLWEtaGVhZGVy",
    "the agent's own commit": f"npm_{WORD}",
    "the command in orch.toml, and its output": f"dop_v1_{HEX}{HEX[:24]}",
    "the end of a key in the output of the verification": KEY,
    "the address of the remote": f"canary{HEX}",
}
TITLE, BODY, AGENT = (list(CANARIES.values())[n] for n in (3, 4, 5))
VARIABLE, STDERR, COMMIT, COMMAND, REMOTE = (list(CANARIES.values())[n] for n in (2, 6, 7, 8, 10))
LEAKY = f"echo TOKEN {COMMAND}; printf '{KEY}\\n{KEY}\\n-----END PRIVATE KEY-----\\n'; test -s work.txt"
FIXES = "Thanks @octocat. Fixes #12, closes acme/shop#3.\n\nCo-authored-by: X <x@y.z>\nSudocode-Issue: i-other"


@pytest.fixture
def github(monkeypatch: pytest.MonkeyPatch) -> Iterator[GitHubServer]:
    """A forge that takes the canary for its token."""
    monkeypatch.setattr(github_server, "TOKEN", CANARIES["ORCH_GITHUB_TOKEN in the environment"])
    with GitHubServer() as server:
        yield server


@pytest.fixture
def project(tmp_path: Path, github: GitHubServer) -> Iterator[Project]:
    """A project with a canary in each place, and pull requests for what is done."""
    folder = tmp_path / "canaries"
    folder.mkdir()
    verify = f"L1 = {json.dumps(['sh', '-c', LEAKY])}"
    with Project(folder, top='deliver = "pr"', verify=verify) as project:
        toml = project.toml.read_text().replace('env = ["PYTHONPATH"]', 'env = ["PYTHONPATH", "SERVICE_TOKEN"]')
        project.toml.write_text(f'{toml}\n[github]\nrepo = "acme/shop"\napi = "{github.url}"\n')
        bare = folder / "bare.git"
        project.git("init", "--quiet", "--bare", str(bare))
        project.git("remote", "add", "origin", str(bare))
        project.git("push", "--quiet", "origin", "main")
        project.env |= {
            "SERVICE_TOKEN": VARIABLE,
            "ORCH_GITHUB_TOKEN": CANARIES["ORCH_GITHUB_TOKEN in the environment"],
            "ORCH_GITHUB_WEBHOOK_SECRET": CANARIES["ORCH_GITHUB_WEBHOOK_SECRET in the environment"],
        }
        yield project


def leaky_agent() -> list[dict[str, object]]:
    """An implementer who gives away all that it knows."""
    commit = ["git", "-c", "user.name=a", "-c", "user.email=a@b.c", "commit", "-qm", f"Use {COMMIT} @octocat fixes #7"]
    shell = f'echo "token: $SERVICE_TOKEN"; echo "Authorization: Basic {STDERR}" > /proc/$PPID/fd/2; echo x > a.txt'
    return [
        {
            "write": {"work.txt": "done\n"},
            "run": [["sh", "-c", shell], ["git", "add", "a.txt"], commit],
            "notes": f"{FIXES}\n\nit needs {AGENT} to work",
        }
    ]


def found(text: str) -> list[str]:
    """The places of the canaries that stand in a text."""
    return [place for place, canary in CANARIES.items() if canary in text or canary.replace("/", "\\/") in text]


def files_below(folder: Path) -> dict[str, list[str]]:
    """The canaries in the files below a folder, sockets and the tracker's own copy of the issue's text left out."""
    files = (path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    held = {str(path): found(path.read_bytes().decode("utf-8", "replace")) for path in files}
    return {path: canaries for path, canaries in held.items() if canaries}


def messages(project: Project) -> str:
    """Every commit message here and on the remote; the agent's own commits are put aside here, as its files are."""
    here = project.git("log", "--format=%B", "--exclude=refs/orch/wip/*", "--all")
    return here + project.git("--git-dir", str(project.folder / "bare.git"), "log", "--format=%B", "--all")


@pytest.mark.skipif(sys.platform != "linux", reason="it looks into /proc")
@pytest.mark.timeout(300)
def test_no_canary_gets_out(project: Project, github: GitHubServer) -> None:
    """Of eleven places none shows in state, logs, Redis, commits, the tracker's feedback, the forge, or a process."""
    content = f"Verify: L1\nThe login is password={BODY}\n\n- [ ] it works with {TITLE}\n"
    with Running(project, ORCH_UP) as stack:
        stack.says("is up")
        issue = project.file(f"Log in with {TITLE} as @octocat, fixes #9", content=content, implementer=leaky_agent())
        github.push(f"orch/{issue}", issue)
        stack.until(lambda: project.known(issue) and project.holding(issue).delivered_to, "a pull request", 90)
        environments = [Path(f"/proc/{pid}/environ").read_bytes().decode() for pid in project.processes("celery")]
        environments.append(Path(f"/proc/{stack.process.pid}/environ").read_bytes().decode())

        # And a remote that is away, with a token in its address.
        project.git("remote", "set-url", "origin", f"http://x:{REMOTE}@127.0.0.1:1/acme/shop.git")
        away = project.file("Another", implementer=[{"write": {"work.txt": "more\n"}, "notes": "done"}])
        stack.until(lambda: project.known(away) and project.holding(away).state == "ended", "it should end", 90)
        stack.says("not_on_remote")
        stack.until(lambda: project.outbox.waiting() == 0, "all should be told")
        assert stack.lines("secret_in_issue", issue)
        shown = [orch(project, *words) for words in (("history", issue), ("logs", issue, "--step", "1"), ("report",))]
        printed = stack.printed

    assert {} == files_below(project.state)
    assert [] == found(printed)
    assert [] == found(messages(project))
    assert [] == found(json.dumps([project.feedback(it) for it in (issue, away)]))
    assert [] == found(json.dumps([call.body for call in github.asked]) + json.dumps(github.pulls, default=str))
    assert [] == found("".join(shown))
    assert [[]] * len(environments) == [
        [place for place in found(it) if place.startswith("ORCH_")] for it in environments
    ]
    assert any("SERVICE_TOKEN" in it for it in environments), "these are the processes that were meant"

    (pull,) = github.pulls.values()
    for text in (pull["title"], pull["body"], messages(project)):
        assert not re.search(r"(^|\W)@octocat|#(?:12|3|7|9)\b|^\W*Co-authored-by:|Sudocode-Issue: i-other", text, re.M)
    assert f"Sudocode-Issue: {issue}" in messages(project)


def orch(project: Project, *words: str) -> str:
    """What a command prints."""
    with Running(project, [sys.executable, "-P", "-m", "orchestrator.cli", *words], {"PYTHONPATH": str(ROOT)}) as run:
        run.ends()
        return run.printed


@pytest.mark.skipif(sys.platform != "linux", reason="it looks into /proc")
@pytest.mark.parametrize(
    ("words", "up"),
    [
        ((*CELERY, "worker", "--loglevel", "info"), "ready."),
        ((*CELERY, "beat", "--loglevel", "info", "--pidfile="), "beat: Starting"),
        ((*CELERY, "flower", "--port=0"), "Visit me"),
        ((sys.executable, "-P", "-m", "orchestrator.cli", "web", "--port", "0"), "listening on"),
    ],
    ids=["worker", "beat", "flower", "web"],
)
def test_what_a_person_starts_shows_no_secret(tmp_path: Path, words: tuple[str, ...], up: str) -> None:
    """Started by hand with the token in its environment, it has begun anew without it, under the same process id."""
    token = "canary-github-token"
    with Project(tmp_path / "by-hand") as project, Running(project, ORCH_UP) as stack:
        stack.says("is up")
        with Running(project, words, {"ORCH_GITHUB_TOKEN": token, "FLOWER_BASIC_AUTH": f"me:{token}"}) as program:
            program.says(up)
            environ = Path(f"/proc/{program.process.pid}/environ").read_bytes().decode()

            assert token not in environ
            assert "ORCH_GITHUB_TOKEN_FILE=/proc/self/fd/" in environ
            assert program.process.poll() is None
            program.process.kill()  # Flower may take its time to end
