"""Which of a user's files an agent finds in its box: most of the home to read, little to write, no known secrets.

Decided by what agents and their tools do there. They read toolchains and settings all over the home, so that is shown.
A writable home would be no box: what is put into a shell's start-up file runs when its owner logs in. But many tools
make a file of their own at their first start, and fail if they cannot; so in the usual places (`OPENED`) new files can
be made, in memory. What an agent's own CLI keeps (a session, a renewed login) stays.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from orchestrator.adapters.process.sandbox import Access, Link, Reach

OPENED = ("", ".cache", ".config", ".local", ".local/share", ".local/state")
"""Folders of the home in which new files can be made; what is there is read-only, or as said below."""

KEPT = (
    *(".claude", ".codex", ".copilot", ".gemini", ".qwen"),
    *(".local/share/opencode", ".local/state/claude", ".local/state/opencode", ".cache/opencode"),
)
"""What agents' CLIs write of their own, logins among it: renewing one makes the former invalid."""

COPIED = (".claude.json",)
"""Written anew by each run. As one file for all it would break: where it is mounted, it cannot be replaced at once."""

COMMANDS = (
    *(".claude/settings.json", ".claude/settings.local.json", ".claude/CLAUDE.md"),
    *(f".claude/{name}" for name in ("agents", "commands", "hooks", "plugins", "skills")),
    *(".codex/config.toml", ".codex/AGENTS.md", ".codex/hooks.json", ".codex/prompts", ".codex/rules", ".codex/skills"),
    *(".gemini/settings.json", ".gemini/GEMINI.md", ".gemini/commands", ".gemini/extensions", ".gemini/hooks"),
    *(".qwen/settings.json", ".qwen/QWEN.md", ".copilot/config.json", ".copilot/mcp-config.json"),
)
"""What has these CLIs run commands: read-only, or it would run outside of the box when their user starts one."""

SECRETS = (
    *(".ssh", ".gnupg", ".netrc", ".git-credentials", ".password-store", ".pgpass", ".my.cnf", ".vault-token"),
    *(
        ".aws",
        ".azure",
        ".config/gcloud",
        ".kube",
        ".docker",
        ".terraform.d",
        ".oci",
        ".config/doctl",
        ".config/hcloud",
    ),
    *(".config/gh", ".config/hub", ".config/glab-cli", ".config/git/credentials", ".config/sops", ".config/op"),
    *(".npmrc", ".yarnrc.yml", ".pypirc", ".cargo/credentials", ".cargo/credentials.toml", ".gem/credentials"),
    *(".m2/settings.xml", ".gradle/gradle.properties", ".composer/auth.json", ".config/composer/auth.json"),
    *(".1password", ".config/Bitwarden", ".config/Bitwarden CLI", ".config/rclone", ".local/share/keyrings"),
    *(".mozilla", ".thunderbird", ".config/google-chrome", ".config/chromium", ".config/BraveSoftware"),
    *(".Xauthority", ".bash_history", ".zsh_history", ".local/share/fish/fish_history", ".python_history"),
    *(".psql_history", ".mysql_history", ".node_repl_history"),
    # Ours: the environment files of the services, and the state folders of all projects, with their Redis.
    *(".config/sudocode-orchestrator", ".local/state/sudocode-orchestrator"),
)
"""Where secrets are known to be kept. One that is kept elsewhere in the home can be read."""

_XDG = {
    ".cache": "XDG_CACHE_HOME",
    ".config": "XDG_CONFIG_HOME",
    ".local/share": "XDG_DATA_HOME",
    ".local/state": "XDG_STATE_HOME",
}
_OWN_HOMES = ("CLAUDE_CONFIG_DIR", "CODEX_HOME")
_SHARED = ("/tmp", "/var/tmp", "/run")  # noqa: S108
_OF_THE_SYSTEM = ("/run/current-system", "/run/opengl-driver")


def reach_of_machine(env: Mapping[str, str]) -> Reach:
    """The reach of a program with this environment: none of the sockets in /run, its own temporary files, its home."""
    temporary = (Path(env[name]) for name in ("TMPDIR", "XDG_RUNTIME_DIR") if env.get(name, "").startswith("/"))
    places: Reach = dict.fromkeys(_real(*_SHARED, *temporary), Access.EMPTY)
    # Where names are looked up, and what NixOS has its programs in.
    places |= dict.fromkeys(_real("/etc/resolv.conf", *_OF_THE_SYSTEM), Access.READ)
    home = Path(env.get("HOME", "")).resolve()
    return places | _home(home, env) if env.get("HOME") and home != Path("/") else places


def reach_given(home: str, *, write: Iterable[str] = (), read: Iterable[str] = ()) -> Reach:
    """The reach that a user names by whole paths, `~` for the home; a path that is named is no secret."""
    to_read, to_write = (
        (Path(home + name[1:] if name[:1] == "~" else name) for name in names) for names in (read, write)
    )
    places: Reach = dict.fromkeys(_real(*to_read), Access.READ)
    return places | dict.fromkeys(_real(*to_write), Access.WRITE)


def reach_of_programs(env: Mapping[str, str], commands: Iterable[Sequence[str]]) -> Reach:
    """The reach of what these commands start: the folders on PATH, and that of a program named by its whole path.

    A script may need what lies beside it. Of a folder that others put their files into it is the program alone.
    """
    shared = {Path("/"), *map(Path, _SHARED), Path(env.get("HOME", "")).resolve()}
    named = (Path(command[0]) for command in commands if command and command[0].startswith("/"))
    found = (path if path.resolve().parent in shared else path.parent for path in named)
    on_path = (Path(folder) for folder in env.get("PATH", "").split(os.pathsep) if folder.startswith("/"))
    return dict.fromkeys((path for path in _real(*on_path, *found) if path not in shared), Access.READ)


def reach_of_objects(git: Path) -> Reach:
    """The reach of a clone that borrows from the repo whose git folder this is: its objects, to read, and no more."""
    borrowed = git / "objects" / "info" / "alternates"
    lenders = borrowed.read_text("utf-8").splitlines() if borrowed.is_file() else ()
    folders = (git / "objects", git / "lfs", *(git / "objects" / lender for lender in lenders))
    modules = (path for path in git.glob("modules/**/objects") if path.is_dir())
    return dict.fromkeys(_real(*folders, *modules), Access.READ)


def reach_without(*paths: Path) -> Reach:
    """A reach without these files and folders."""
    return {path: Access.EMPTY if path.is_dir() else Access.BLANK for path in _real(*paths)}


def _home(home: Path, env: Mapping[str, str]) -> Reach:
    def at(name: str) -> Path:
        moved = next((folder for folder in _XDG if f"{name}/".startswith(f"{folder}/")), None)
        base = env.get(_XDG[moved], "") if moved else ""
        return Path(base, name[len(moved or "") + 1 :]) if base.startswith("/") else home / name

    places: Reach = {}
    for folder in _real(*map(at, OPENED)):
        if folder.is_dir():
            places |= {folder: Access.EMPTY} | dict(_entries(folder))
    own_homes = (Path(env[name]) for name in _OWN_HOMES if env.get(name, "").startswith("/"))
    places |= dict.fromkeys(_real(*map(at, KEPT), *own_homes), Access.WRITE)
    places |= dict.fromkeys(_real(*map(at, COMMANDS)), Access.READ)
    places |= dict.fromkeys(_real(*map(at, COPIED)), Access.COPY)
    return places | reach_without(*map(at, SECRETS))


def _entries(folder: Path) -> Iterator[tuple[Path, Access | Link]]:
    """What is in a folder, to read. No sockets: one can be spoken to where it can only be read."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_symlink():
                yield Path(entry), Link(str(Path(entry).readlink()))
            elif entry.is_dir() or entry.is_file():
                yield Path(entry), Access.READ


def _real(*paths: Path | str) -> Iterator[Path]:
    """Those of the paths that there are, without links on their way."""
    return (path.resolve() for path in map(Path, paths) if path.exists())
