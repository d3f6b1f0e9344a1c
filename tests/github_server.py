"""GitHub in a box: the part of its REST API that we use, over a socket, with its pages, ETags, limits and failures.

It answers as the real one does: the fields, headers and texts are GitHub's own. `fail` makes the next calls go wrong.
"""

from __future__ import annotations

import hashlib
import hmac
import itertools
import json
import threading
import uuid
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qs, unquote, urlsplit

import httpx2

from tests.support import NOON

TOKEN = "t0ken"
SIGNATURE = "X-Hub-Signature-256"
VALIDATION = "Validation Failed"


@dataclass(frozen=True)
class Fault:
    """What one call gets instead of its answer: all of `body` or half of it, at once, in drops, or never.

    With `again` it is no answer at all: `body` as it is, and then `again` without end.
    """

    status: int = 200
    body: str | bytes = ""
    headers: dict[str, str] = field(default_factory=dict)
    truncated: bool = False
    hangs: bool = False
    drips: bool = False
    again: bytes = b""


def error(status: int, message: str, **headers: str) -> Fault:
    """An error as GitHub words it."""
    body = {"message": message, "documentation_url": "https://docs.github.com/rest", "status": str(status)}
    return Fault(status, json.dumps(body), {name.replace("_", "-"): value for name, value in headers.items()})


def rate_limit_exceeded(reset: datetime) -> Fault:
    """The primary limit: so many calls an hour."""
    used_up = {"x_ratelimit_remaining": "0", "x_ratelimit_reset": str(int(reset.timestamp()))}
    return error(403, "API rate limit exceeded for user ID 1.", **used_up)


def secondary_limit(**headers: str) -> Fault:
    """The limit on bursts."""
    return error(403, "You have exceeded a secondary rate limit. Please wait a few minutes.", **headers)


@dataclass(frozen=True)
class Asked:
    """One call as it came in."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: Any
    status: int


class GitHubServer:
    """One repo, `acme/shop`. A context manager; leaving it frees the port and whoever hangs."""

    def __init__(self, *, repo: str = "acme/shop") -> None:
        self.repo = repo
        self.pulls: dict[int, dict[str, Any]] = {}
        self.branches: dict[str, set[str]] = {"main": set()}
        self.commits: dict[str, dict[str, Any]] = {}
        self.asked: list[Asked] = []
        self.faults: deque[Fault] = deque()
        self.remaining = 5000
        self.now: Callable[[], datetime] = lambda: datetime.now(UTC)
        self.let_go = threading.Event()
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.01})

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._http.server_address[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.let_go.set()
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    def fail(self, *faults: Fault) -> None:
        """The next calls get these, one each."""
        self.faults.extend(faults)

    def calls(self, method: str = "GET") -> list[Asked]:
        return [asked for asked in self.asked if asked.method == method]

    # What people do

    def push(self, branch: str, *commits: str) -> None:
        self.branches.setdefault(branch, set()).update(commits)

    def open(
        self, branch: str, *, body: str = "", title: str = "x", author: str = "somebody", base: str = "main"
    ) -> int:
        number = len(self.pulls) + 1
        where = {"repo": {"full_name": self.repo}}
        self.pulls[number] = {
            "number": number,
            "html_url": f"https://github.com/{self.repo}/pull/{number}",
            "url": f"{self.url}/repos/{self.repo}/pulls/{number}",
            "state": "open",
            "title": title,
            "body": body,
            "user": {"login": author, "id": 1},
            "labels": [],
            "draft": False,
            "head": {"ref": branch, "sha": "b" * 40, "label": f"acme:{branch}", **where},
            "base": {"ref": base, "sha": "0" * 40, **where},
            "merge_commit_sha": None,
            "merged_at": None,
            "closed_at": None,
            "created_at": _zulu(NOON),
            "updated_at": _zulu(NOON),
        }
        return number

    def commit(
        self, sha: str, message: str, *, at: datetime = NOON, branch: str = "main", parents: int = 1, files: int = 1
    ) -> None:
        """A commit on a branch, with what GitHub shows of it."""
        self.push(branch, sha)
        self.commits[sha] = {
            "sha": sha,
            "commit": {"message": message, "committer": {"date": _zulu(at)}},
            "parents": [{"sha": f"{n}" * 40} for n in range(parents)],
            "files": [{"filename": f"{n}.py"} for n in range(files)],
        }

    def merge(self, number: int, *, at: datetime = NOON, message: str = "", parents: int = 2, files: int = 1) -> str:
        """Merge a pull request; gives the merge commit."""
        commit = hashlib.sha1(f"{number}".encode()).hexdigest()
        pull = self.pulls[number]
        words = message or f"Merge pull request #{number} from {pull['head']['label'].replace(':', '/')}"
        self.commit(commit, words, at=at, branch=pull["base"]["ref"], parents=parents, files=files)
        self.close(number, at=at)
        self.pulls[number] |= {"merged_at": _zulu(at), "merge_commit_sha": commit}
        return commit

    def reopen(self, number: int, *, at: datetime = NOON) -> None:
        self.pulls[number] |= {"state": "open", "closed_at": None, "updated_at": _zulu(at)}

    def close(self, number: int, *, at: datetime = NOON) -> None:
        self.pulls[number] |= {"state": "closed", "closed_at": _zulu(at), "updated_at": _zulu(at)}

    def comment(self, number: int, *, at: datetime) -> None:
        self.pulls[number]["updated_at"] = _zulu(at)

    def send_webhook(
        self, to: str, event: str, payload: dict[str, Any], *, secret: str, delivery: str = "", signature: str = ""
    ) -> httpx2.Response:
        """A signed delivery, as GitHub posts it; with another `signature`, a forged one."""
        body = json.dumps(payload).encode()
        headers = {
            "Content-Type": "application/json",
            "User-Agent": "GitHub-Hookshot/044aadd",
            "X-GitHub-Event": event,
            "X-GitHub-Delivery": delivery or str(uuid.uuid4()),
            SIGNATURE: signature or sign(body, secret),
        }
        return httpx2.post(to, content=body, headers=headers, timeout=10)

    def closed_event(self, number: int) -> dict[str, Any]:
        """The payload of `pull_request` when one was closed."""
        pull = self.pulls[number]
        return {
            "action": "closed",
            "number": number,
            "pull_request": {**pull, "merged": pull["merged_at"] is not None},
            "repository": {"full_name": self.repo, "default_branch": "main"},
        }

    # What programs ask

    def answer(self, method: str, path: str, query: dict[str, str], body: Any) -> tuple[int, Any, dict[str, str]]:
        """Status, JSON and headers."""
        match method, path.removeprefix(f"/repos/{self.repo}").strip("/").split("/"):
            case "GET", ["pulls"]:
                return self._list(query)
            case "POST", ["pulls"]:
                return self._make(body)
            case "PATCH", ["pulls", number]:
                self.pulls[int(number)] |= body
                return 200, self.pulls[int(number)], {}
            case "POST", ["issues", number, "labels"]:
                labels = self.pulls[int(number)]["labels"]
                labels += [{"name": name} for name in body["labels"]]
                return 200, labels, {}
            case "GET", ["commits"]:
                return self._log(query)
            case "GET", ["commits", sha]:
                return (200, self.commits[sha], {}) if sha in self.commits else _not_found()
            case "GET", ["compare", *span]:
                branch, _, commit = "/".join(span).partition("...")
                return self._compare(unquote(branch), commit)
        return _not_found()

    def _list(self, query: dict[str, str]) -> tuple[int, Any, dict[str, str]]:
        wanted = query.get("state", "open")
        found = [pull for pull in self.pulls.values() if wanted in ("all", pull["state"])]
        if "head" in query:
            found = [pull for pull in found if pull["head"]["label"] == query["head"]]
        order = "updated_at" if query.get("sort") == "updated" else "created_at"
        found.sort(key=lambda pull: (pull[order], pull["number"]), reverse=query.get("direction", "desc") == "desc")
        size, page = min(int(query.get("per_page", 30)), 100), int(query.get("page", 1))
        last = max(1, -(-len(found) // size))
        at = f"<{self.url}/repositories/1/pulls?page={{}}>"
        links = f'{at.format(page + 1)}; rel="next", {at.format(last)}; rel="last"' if page < last else ""
        return 200, found[(page - 1) * size : page * size], {"Link": links} if links else {}

    def _log(self, query: dict[str, str]) -> tuple[int, Any, dict[str, str]]:
        """The commits of a branch, newest first, without their files."""
        on = self.branches.get(query["sha"])
        if on is None:
            return _not_found()
        rows = [row for sha, row in self.commits.items() if sha in on]
        found = [row for row in rows if row["commit"]["committer"]["date"] >= query.get("since", "")]
        size, page = int(query.get("per_page", 30)), int(query.get("page", 1))
        shown = found[::-1][(page - 1) * size : page * size]
        more = f'<{self.url}/repositories/1/commits?page={page + 1}>; rel="next"' if page * size < len(found) else ""
        short = [{name: value for name, value in row.items() if name != "files"} for row in shown]
        return 200, short, {"Link": more} if more else {}

    def _make(self, body: dict[str, str]) -> tuple[int, Any, dict[str, str]]:
        label = f"acme:{body['head']}"
        problem: dict[str, str] | None = None
        if body["head"] not in self.branches:
            problem = {"resource": "PullRequest", "field": "head", "code": "invalid"}
        elif not self.branches[body["head"]] - self.branches[body["base"]]:
            problem = {"code": "custom", "message": f"No commits between {body['base']} and {body['head']}"}
        elif any(pull["head"]["label"] == label and pull["state"] == "open" for pull in self.pulls.values()):
            problem = {"code": "custom", "message": f"A pull request already exists for {label}."}
        elif len(body["body"]) > 65536:
            problem = {"field": "body", "code": "custom", "message": "body is too long (maximum is 65536 characters)"}
        if problem:
            return 422, {"message": VALIDATION, "errors": [problem], "status": "422"}, {}
        number = self.open(body["head"], body=body["body"], title=body["title"], base=body["base"])
        return 201, self.pulls[number], {}

    def _compare(self, branch: str, commit: str) -> tuple[int, Any, dict[str, str]]:
        known = set().union(*self.branches.values())
        if branch not in self.branches or commit not in known:
            return _not_found()
        status = "behind" if commit in self.branches[branch] else "diverged"
        return 200, {"status": status, "ahead_by": 0, "behind_by": 1, "commits": [], "files": []}, {}


def sign(body: bytes, secret: str) -> str:
    """The signature of a webhook's body."""
    return "sha256=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()


def _not_found() -> tuple[int, Any, dict[str, str]]:
    return 404, {"message": "Not Found", "status": "404"}, {}


def _zulu(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def _handler(server: GitHubServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True  # or each answer takes 40 ms

        def _serve(self) -> None:
            url = urlsplit(self.path)
            query = {name: values[0] for name, values in parse_qs(url.query).items()}
            length = int(self.headers.get("Content-Length", 0))
            body = json.loads(self.rfile.read(length)) if length else None
            answer = self._answer(url.path, query, body)
            headers = {name.lower(): value for name, value in self.headers.items()}
            server.asked.append(Asked(self.command, url.path, query, headers, body, answer.status))
            self._send(answer)

        do_GET = do_POST = do_PATCH = _serve  # noqa: N815 - the names that http.server calls

        def _answer(self, path: str, query: dict[str, str], body: Any) -> Fault:
            if server.faults:
                return server.faults.popleft()
            if self.headers.get("Authorization") != f"Bearer {TOKEN}":
                return error(401, "Bad credentials")
            status, content, headers = server.answer(self.command, path, query, body)
            text = json.dumps(content)
            etag = f'W/"{hashlib.sha256(text.encode()).hexdigest()}"'
            if self.command == "GET" and self.headers.get("If-None-Match") == etag:
                status, text = 304, ""
            else:
                server.remaining -= 1
            reset = str(int((NOON + timedelta(hours=1)).timestamp()))
            limit = {"X-RateLimit-Remaining": str(server.remaining), "X-RateLimit-Reset": reset}
            return Fault(status, text, {"ETag": etag, **limit, **headers})

        def _send(self, answer: Fault) -> None:
            if answer.hangs:
                server.let_go.wait()
                self.close_connection = True
                return
            body = answer.body.encode() if isinstance(answer.body, str) else answer.body
            if answer.again:
                self.wfile.write(body)
                self._drip(answer.again, every_s=0.01, endless=True)
                self.close_connection = True
                return
            self.send_response(answer.status)
            for name, value in ({"Content-Type": "application/json; charset=utf-8"} | answer.headers).items():
                self.send_header(name, value)
            if answer.status != 304:
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if answer.truncated:
                self.wfile.write(body[: len(body) // 2])
                self.close_connection = True
            elif answer.drips:
                self._drip(body)
            else:
                self.wfile.write(body)

        def _drip(self, body: bytes, *, every_s: float = 0.05, endless: bool = False) -> None:
            for drop in itertools.repeat(body) if endless else (bytes([byte]) for byte in body):
                if server.let_go.wait(every_s):
                    return
                try:
                    self.wfile.write(drop)
                except OSError:  # who asked has lost its patience
                    self.close_connection = True
                    return

        def date_time_string(self, timestamp: float | None = None) -> str:
            """The server's time."""
            return format_datetime(server.now(), usegmt=True)

        def log_message(self, *_: object) -> None:
            """Nothing: tests look at `asked`."""

    return Handler
