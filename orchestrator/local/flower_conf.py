"""Flower's configuration file: each name is one of Flower's options.

FLOWER_<NAME> in the environment wins over this file, and a flag over both.
"""

from __future__ import annotations

import os

from orchestrator import wiring
from orchestrator.local import flower_login

wiring.start_anew_without()
_state_dir = wiring.here().state("flower").parent
_options = {
    "address": "127.0.0.1",
    # Flower lets its users end workers.
    "basic_auth": [flower_login.login(_state_dir)],
    "persistent": True,
    "db": str(_state_dir / "flower"),
    # Saved at its end too; this is for a sudden end.
    "state_save_interval": 15_000,
    "max_tasks": 10_000,
    # In the morning, what died at night is still listed, as offline.
    "purge_offline_workers": 86_400,
    # Every task that Flower sees is a session: its id begins with the issue's.
    "tasks_columns": "uuid,args,state,received,runtime,worker",
}
globals().update({name: value for name, value in _options.items() if not os.environ.get(f"FLOWER_{name.upper()}")})
