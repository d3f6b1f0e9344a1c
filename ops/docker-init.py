"""Runs once before the services of docker-compose.yml, as root: docker-init.py USER:GROUP REPO.

Gives the state folder to the user who all run as, and, where the repo is to be the demo, makes that. Running it again
changes nothing.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

DEMO = "demo"
"""What stands for the repo when none was named: the volume of that name."""

BUILD = """
import os, sys
from pathlib import Path
from orchestrator import demo
demo.build(Path(sys.argv[1]), os.environ, project=Path(sys.argv[2]))
"""


def main(owner: str, named: str) -> None:
    """Prepare what all services share."""
    user, group = (int(word) for word in owner.split(":"))
    repo, state = Path(os.environ["ORCH_PROJECT_ROOT"]), Path(os.environ["ORCH_STATE_DIR"])
    for folder in (state, Path(os.environ["HOME"]), *([repo] if named == DEMO else [])):
        folder.mkdir(exist_ok=True)
        os.chown(folder, user, group)
    if named == DEMO:
        make_demo(repo, state / "demo", user, group)
    elif not (repo / ".git").exists():
        sys.exit(f"{named} is no git repo; correct ORCH_REPO in .env")


def make_demo(repo: Path, folder: Path, user: int, group: int) -> None:
    """The demo's repo and issues, owned by the user. One that was cut off is made anew."""
    done = folder / "made"
    if done.exists():
        return
    for old in (folder, *repo.iterdir()):
        shutil.rmtree(old, ignore_errors=not old.exists()) if old.is_dir() else old.unlink(missing_ok=True)
    who = {"user": user, "group": group, "extra_groups": []} if os.geteuid() == 0 else {}
    subprocess.run([sys.executable, "-P", "-c", BUILD, str(folder), str(repo)], check=True, **who)
    done.touch()
    print("made a demo repo with issues: docker compose exec control orch status", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
