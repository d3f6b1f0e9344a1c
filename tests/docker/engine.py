"""A Docker engine: the one that answers, else one of our own that needs no registry, no bridge and no firewall."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.docker.containers import REDIS
from tests.support import wait_until

BASE = "orch-base:bookworm"
MIRROR = "http://deb.debian.org/debian"
PACKAGES = "python3,python3-venv,ca-certificates"
HOST_FILES = ("etc/ssl/certs/ca-certificates.crt", "etc/pip.conf")
"""How this machine reaches its package index; a build has to reach it likewise."""

REDIS_DOCKERFILE = f"""\
FROM {BASE}
RUN apt-get update && apt-get install -y --no-install-recommends redis-server && rm -rf /var/lib/apt/lists/*
"""


class Missing(Exception):
    """What this machine lacks, and how to get it."""


@contextlib.contextmanager
def running() -> Iterator[bool]:
    """While there is an engine that `docker` speaks to; whether it is our own, which has nothing but BASE and REDIS."""
    if not shutil.which("docker") or not compose_command():
        raise Missing("docker and docker-compose are needed: apt-get install docker.io docker-compose")
    if _answers():
        yield False
        return
    if os.geteuid() or not shutil.which("dockerd") or not shutil.which("debootstrap"):
        raise Missing("no engine answers; as root, with `apt-get install docker.io debootstrap`, one is started here")
    with tempfile.TemporaryDirectory(prefix="orch-docker-") as folder, _own(Path(folder)):
        _import_base(Path(folder) / "base")
        docker("build", "--quiet", "--network", "host", "--tag", REDIS, "-", stdin=REDIS_DOCKERFILE)
        yield True


def compose_command() -> list[str] | None:
    """Compose as it is installed here."""
    plugin = subprocess.run(["docker", "compose", "version"], capture_output=True, check=False)
    if plugin.returncode == 0:
        return ["docker", "compose"]
    return ["docker-compose"] if shutil.which("docker-compose") else None


def docker(*words: str, stdin: str = "") -> str:
    """What `docker words` prints; its errors go to ours."""
    done = subprocess.run(["docker", *words], input=stdin, stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout.strip()


def _answers() -> bool:
    return subprocess.run(["docker", "version"], capture_output=True, check=False).returncode == 0


@contextlib.contextmanager
def _own(folder: Path) -> Iterator[None]:
    """A dockerd with all its data in `folder`; ended by its process id, with all that it runs."""
    # Layers that share files where the kernel allows it; without that, each of them is a copy of all before it.
    driver = "overlay2" if "\toverlay\n" in Path("/proc/filesystems").read_text() else "vfs"
    address = f"unix://{folder}/docker.sock"
    argv = ["dockerd", "--iptables=false", "--ip6tables=false", "--ip-forward=false", "--bridge=none"]
    places = ["--host", address, "--data-root", f"{folder}/data", "--exec-root", f"{folder}/exec"]
    log = folder / "dockerd.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*argv, *places, "--pidfile", f"{folder}/pid", "--storage-driver", driver],
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    # The classic builder: the other one is a plugin, and fetches its own frontend.
    ours = {"DOCKER_HOST": address, "DOCKER_BUILDKIT": "0"}
    os.environ.update(ours)
    try:
        wait_until(lambda: _answers() or process.poll() is not None, "dockerd should answer", 60)
        if process.poll() is not None:
            raise Missing(f"dockerd does not run here: {log.read_text(errors='replace').splitlines()[-1]}")
        yield
    finally:
        process.terminate()
        process.wait(60)
        for name in ours:
            del os.environ[name]


def _import_base(folder: Path) -> None:
    """A small Debian with Python, as an image."""
    with folder.with_name("debootstrap.log").open("wb") as log:
        argv = ["debootstrap", "--variant=minbase", f"--include={PACKAGES}", "bookworm", str(folder), MIRROR]
        subprocess.run(argv, stdout=log, stderr=subprocess.STDOUT, check=True)
    for name in HOST_FILES:
        if Path("/", name).exists():
            shutil.copy(Path("/", name), folder / name)
    with subprocess.Popen(["tar", "-C", folder, "-c", "."], stdout=subprocess.PIPE) as archive:
        subprocess.run(["docker", "import", "-", BASE], stdin=archive.stdout, stdout=sys.stderr, check=True)
    shutil.rmtree(folder)
