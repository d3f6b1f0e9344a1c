"""Prepare the volumes of docker-compose.yml, once and as root: docker-init.py USER:GROUP REPO.

Gives the state folder to the user of all services and makes the demo's repo, if that is wanted. Running it again
changes nothing.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

DEMO = "demo"
"""ORCH_REPO when it is not set: the name of the demo's volume."""

BUILD = """
import os, sys
from pathlib import Path
from orchestrator.local import demo
demo.build(Path(sys.argv[1]), os.environ, project=Path(sys.argv[2]))
"""


def main(owner: str, named: str) -> None:
    """Prepare the volumes that all services share."""
    user, group = (int(word) for word in owner.split(":"))
    repo, state = Path(os.environ["ORCH_PROJECT_ROOT"]), Path(os.environ["ORCH_STATE_DIR"])
    for folder in (state, Path(os.environ["HOME"]), *([repo] if named == DEMO else [])):
        folder.mkdir(exist_ok=True)
        if (folder.stat().st_uid, folder.stat().st_gid) != (user, group):
            subprocess.run(["chown", "--recursive", owner, folder], check=True)
    if named == DEMO:
        make_demo(repo, state / "demo", user, group)
    elif not (repo / ".git").exists():
        sys.exit(f"{named} is no git repo; correct ORCH_REPO in .env")


def make_demo(repo: Path, folder: Path, user: int, group: int) -> None:
    """Make the demo's repo and issues, owned by the user; from the beginning where an earlier start was cut off."""
    done = folder / "made"
    if done.exists():
        return
    print("making a demo repo with issues ...", flush=True)
    for old in (folder, *repo.iterdir()):
        if old.is_dir():
            shutil.rmtree(old)
        else:
            old.unlink(missing_ok=True)
    who = {"user": user, "group": group, "extra_groups": []} if os.geteuid() == 0 else {}
    subprocess.run([sys.executable, "-P", "-c", BUILD, str(folder), str(repo)], check=True, **who)
    done.touch()
    print("made: docker compose exec control orch status", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
