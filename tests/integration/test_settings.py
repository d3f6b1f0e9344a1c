"""Settings as a process of its own reads them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.support import ROOT


def test_from_environment(tmp_path: Path) -> None:
    """A process in a repo's folder reads its own environment and finds that repo; importing reads nothing."""
    (tmp_path / "orch.toml").write_text("concurrency = 7")
    (tmp_path / "src").mkdir()
    code = "from orchestrator import settings as s; f = s.from_environment(); print(f.root, f.concurrency, f.log)"
    env = {"PYTHONPATH": str(ROOT), "HOME": "/h", "ORCH_LOG": "error"}
    answer = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path / "src", env=env, capture_output=True, text=True, check=True
    )

    assert f"{tmp_path} 7 error\n" == answer.stdout
