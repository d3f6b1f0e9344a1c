"""Every setting, with its type, default and description: the tables of orch.toml and the environment.

A field's description is its line in the docs.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import unquote, urlsplit

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag

from orchestrator.models import Role
from orchestrator.settings.kinds import (
    AnyCase,
    BranchName,
    Command,
    Commands,
    Count,
    HomePath,
    HostName,
    ProjectName,
    RedisUrl,
    RemoteName,
    Seconds,
    VariableName,
    WholePath,
    fits,
)


class _Table(BaseModel):
    """Frozen, and strict: a misspelt key or a number in quotes is an error, not a guess."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class LimitSettings(_Table):
    """Limits of time, tries and output."""

    spec_attempts: Count = Field(
        default=3, description="Spec reviews a session may fail before it overflows into a [FIX] issue"
    )
    quality_attempts: Count = Field(default=2, description="Quality reviews a session may fail before it overflows")
    agent_seconds: Seconds = Field(default=3600.0, description="Wall clock of one agent run")
    silence_seconds: Seconds = Field(default=900.0, description="How long an agent may print nothing")
    setup_seconds: Seconds = Field(default=1800.0, description="Wall clock of one command of a set-up")
    verify_seconds: Seconds = Field(default=1800.0, description="Wall clock of one verification")
    output_mb: int = Field(
        default=100,
        ge=1,
        le=10_000,
        json_schema_extra={"unit": "MB"},
        description="Output kept of one agent run, set-up or verification",
    )
    rescues: int = Field(default=3, ge=0, le=100, description="How often a session whose worker died is taken up again")
    errors_in_a_row: Count = Field(default=3, description="Sessions that end in an error before no new one is started")


class WorkspaceSettings(_Table):
    """What a fresh checkout needs before anything can be built or tested in it."""

    setup: Commands | None = Field(
        default=None,
        examples=[["npm", "ci"]],
        description="Run in a session's workspace before its first agent, and in the clean checkout before each"
        " verification: a command, or a list of commands",
    )
    copy_: tuple[str, ...] = Field(
        default=(),
        alias="copy",
        strict=False,
        examples=[[".env"]],
        description="Files of the main checkout that git ignores, to be copied before the set-up: git's pathspecs",
    )
    cache: tuple[VariableName, ...] = Field(
        default=(),
        strict=False,
        examples=[["npm_config_cache"]],
        description="Environment variables that name a package manager's folder: each gets one in the state folder,"
        " which outlives the workspaces",
    )


class VerifySettings(_Table):
    """Verification commands, run in a clean checkout: a list of words, or text that is split into words."""

    default: Command | None = Field(
        default=None,
        examples=[["make", "test"]],
        description="The verification of issues that name no level, or one not set here",
    )
    L0: Command | None = Field(
        default=None, examples=[["make", "lint"]], description="The verification of issues with Verify: L0"
    )
    L1: Command | None = Field(
        default=None, examples=[["make", "test"]], description="The verification of issues with Verify: L1"
    )
    L2: Command | None = Field(
        default=None, examples=[["make", "e2e"]], description="The verification of issues with Verify: L2"
    )
    retries: int = Field(
        default=1, ge=0, le=10, description="How often a red verification is run again; that it was is in the evidence"
    )
    trust_agent: bool = Field(
        default=False,
        description="Where no command is set, run the one that the implementer names; every report then says so",
    )


class AgentSettings(_Table):
    """The command that starts one agent for one answer."""

    command: Command = Field(examples=[["claude", "-p"]], description="The agent's command line, without the prompt")
    prompt: Literal["stdin", "file", "argument"] = Field(
        default="stdin",
        description="How the agent gets its prompt: on stdin, as the path of a file, or as the last argument",
    )


class Agents(_Table):
    """The agents of the roles; a role without a table of its own is played by `default`."""

    env: tuple[VariableName, ...] = Field(
        default=(),
        strict=False,
        examples=[["ANTHROPIC_API_KEY"]],
        description="Names of environment variables that agents get too; all others are kept from them",
    )
    read: tuple[HomePath, ...] = Field(
        default=(),
        strict=False,
        examples=[["~/.npmrc"]],
        description="Files and folders that the sandbox shows, too, though secrets are kept there",
    )
    write: tuple[HomePath, ...] = Field(
        default=(),
        strict=False,
        examples=[["~/.my-agent"]],
        description="Files and folders that the sandbox lets agents and verifications write to, too",
    )
    default: AgentSettings | None = None
    implementer: AgentSettings | None = None
    spec_reviewer: AgentSettings | None = None
    quality_reviewer: AgentSettings | None = None


class GitHubSettings(_Table):
    """The repo of pull requests, and the authors whose merges count. The token is ORCH_GITHUB_TOKEN."""

    repo: Annotated[str, fits(r"[\w.-]+/[\w.-]+", "owner/name")] | None = Field(
        default=None, examples=["me/my-repo"], description="The repo on GitHub. Unset: from the URL of `remote`"
    )
    api: Annotated[str, fits(r"https?://\S+", "an http address")] = Field(
        default="https://api.github.com", description="GitHub's API; another address for GitHub Enterprise"
    )
    authors: tuple[str, ...] = Field(
        default=(),
        strict=False,
        examples=[["octocat"]],
        description="Who may close an issue with a pull request from a branch that no session delivered",
    )


class WebSettings(_Table):
    """Who may ask `orch web`."""

    hosts: tuple[HostName, ...] = Field(
        default=(),
        strict=False,
        examples=[["orch.example.com"]],
        description="Names by which `orch web` is asked, besides localhost, this machine's name and the address it"
        " listens on: what a reverse proxy hands on as `Host`; *.example.com is every name below it",
    )


class TrackerCommand(_Table):
    """A tracker of your own."""

    command: Command = Field(
        examples=[["sudocode-mcp"]], description="A stdio MCP server that answers as sudocode does"
    )


IN_FILE = "_FILE"
"""What the name of a secret's variable ends in that gives a file instead of the secret itself."""

FLOWER_LOGIN = "FLOWER_BASIC_AUTH"
"""Flower's own variable, the one that is none of ours."""


class RepoSettings(_Table):
    """The keys of orch.toml."""

    project: ProjectName | None = Field(
        default=None,
        examples=["my-repo"],
        description="The project's name on a shared Redis: a-z, 0-9 and -, up to 40. Unset: from the folder's name",
    )
    base: BranchName | None = Field(
        default=None,
        examples=["main"],
        description="The branch sessions start from. Unset: origin's default, else main, master, the current one",
    )
    remote: RemoteName = Field(
        default="origin",
        description="The git remote that sessions' work is pushed to, for other hosts to go on from; empty for none",
    )
    deliver: Literal["none", "branch", "pr"] | None = Field(
        default=None,
        examples=["pr"],
        description="Finished work stays here, its branch is pushed, or a pull request is opened too."
        " Unset: branch if the repo has the remote, else none",
    )
    concurrency: int = Field(default=4, ge=1, le=64, description="Sessions that one worker runs at once")
    poll_interval: float = Field(
        default=5.0,
        ge=0.2,
        le=3600,
        json_schema_extra={"unit": "seconds"},
        description="Time between two looks at the tracker",
    )
    tracker: Annotated[
        Annotated[Literal["auto", "sudocode", "bundled"], Tag("(name)")] | Annotated[TrackerCommand, Tag("(table)")],
        Discriminator(lambda value: "(name)" if isinstance(value, str) else "(table)"),
    ] = Field(
        default="auto",
        description="Where issues live: sudocode, the bundled tracker, or auto: sudocode if sudocode-mcp is on PATH",
    )
    prompt_template: Path | None = Field(
        default=None,
        strict=False,
        examples=["docs/prompt.md"],
        description="Your own prompt template, relative to the repo. Unset: the one that ships with orch",
    )
    lease_seconds: float = Field(
        default=15.0,
        ge=2,
        le=600,
        json_schema_extra={"unit": "seconds"},
        description="How long after its last sign of life a worker loses its session to another",
    )
    sandbox: Literal["auto", "bubblewrap", "off"] = Field(
        default="auto",
        description="Agents and verifications run in bubblewrap; auto: where it works; bubblewrap: else not at all",
    )
    limits: LimitSettings = LimitSettings()
    workspace: WorkspaceSettings = WorkspaceSettings()
    verify: VerifySettings = VerifySettings()
    agents: Agents = Agents()
    github: GitHubSettings = GitHubSettings()
    web: WebSettings = WebSettings()


class Environment(_Table):
    """The environment variables. An empty one counts as unset."""

    redis_url: RedisUrl | None = Field(
        default=None,
        alias="ORCH_REDIS_URL",
        examples=["redis://localhost:6379/0"],
        repr=False,
        description="The Redis to use: redis://, rediss://, unix:// or redis+socket://. Unset: a private one."
        " May be given as ORCH_REDIS_URL_FILE",
    )
    project_root: Path | None = Field(
        default=None,
        alias="ORCH_PROJECT_ROOT",
        strict=False,
        examples=["/home/me/my-repo"],
        description="The repo's folder. Unset: the nearest folder from here up with an orch.toml, else the git repo",
    )
    state_dir: WholePath | None = Field(
        default=None,
        alias="ORCH_STATE_DIR",
        strict=False,
        examples=["/var/lib/orch/my-repo"],
        description="For worktrees, logs and the private Redis. Unset: a folder per repo in ~/.local/state",
    )
    github_token: str | None = Field(
        default=None,
        alias="ORCH_GITHUB_TOKEN",
        examples=["github_pat_..."],
        repr=False,
        description="For pull requests: may read contents and write pull requests."
        " Best given as ORCH_GITHUB_TOKEN_FILE",
    )
    github_webhook_secret: str | None = Field(
        default=None,
        alias="ORCH_GITHUB_WEBHOOK_SECRET",
        examples=["a long random text"],
        repr=False,
        description="The secret that GitHub signs its webhooks with, for `orch web`."
        " Best given as ORCH_GITHUB_WEBHOOK_SECRET_FILE",
    )
    log: Annotated[Literal["debug", "info", "warning", "error"], AnyCase] = Field(
        default="info", alias="ORCH_LOG", description="How much is logged"
    )
    log_format: Annotated[Literal["auto", "text", "json"], AnyCase] = Field(
        default="auto",
        alias="ORCH_LOG_FORMAT",
        description="One line per event: key=value text, or JSON. auto: text on a terminal and in `orch up`, else JSON",
    )


SECRETS = (*(str(field.alias) for field in Environment.model_fields.values() if not field.repr), FLOWER_LOGIN)
"""The variables that hold a secret."""


class Settings(RepoSettings):
    """All settings of one process, as the rest of the program reads them. Made by `load`."""

    project: ProjectName
    root: Path
    state_dir: Path
    redis_url: str | None = Field(default=None, repr=False)
    github_token: str | None = Field(default=None, repr=False)
    github_webhook_secret: str | None = Field(default=None, repr=False)
    log: str = "info"
    log_format: str = "auto"

    @property
    def secrets(self) -> tuple[str, ...]:
        """The values that must stand in no text."""
        password = urlsplit(self.redis_url or "").password or ""
        return tuple(filter(None, (self.github_token, self.github_webhook_secret, password, unquote(password))))

    @property
    def worktrees(self) -> Path:
        """The folder of the sessions' checkouts."""
        return self.state_dir / "worktrees"

    @property
    def logs(self) -> Path:
        """The folder of the full output of agents and verifications."""
        return self.state_dir / "logs"

    @property
    def caches(self) -> Path:
        """The folder of what set-ups keep between workspaces."""
        return self.state_dir / "caches"

    def verify_command(self, level: str) -> tuple[str, ...] | None:
        """The command that verifies an issue of this level: L0, L1, L2, or `-`. None when none is set."""
        return {"L0": self.verify.L0, "L1": self.verify.L1, "L2": self.verify.L2}.get(level) or self.verify.default

    def agent(self, role: Role) -> AgentSettings | None:
        """The agent that plays this role; None when none is set."""
        own: AgentSettings | None = getattr(self.agents, role)
        return own or self.agents.default
