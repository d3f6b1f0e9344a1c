"""The private Redis as a service: `python -m orchestrator.redis_service` keeps it up until SIGTERM."""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from collections.abc import Mapping

from orchestrator.adapters.redis import server as redis_server
from orchestrator.errors import OrchestratorError
from orchestrator.settings import from_environment

LOOK_EVERY_S = 1.0


def main() -> None:
    """Start the private Redis, and start it again when it ends. One that another process started is left alone."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # the Redis started here ends with us
    try:
        state_dir = from_environment().state_dir
        redis_server.ensure(state_dir)
        tell_systemd("READY=1", os.environ)
        while True:
            time.sleep(LOOK_EVERY_S)
            if redis_server.find(state_dir) is None:
                redis_server.ensure(state_dir)
    except OrchestratorError as error:
        sys.exit(str(error))


def tell_systemd(message: str, environ: Mapping[str, str]) -> None:
    """Notify systemd as sd_notify(3) does; do nothing where systemd does not ask for it."""
    if place := environ.get("NOTIFY_SOCKET"):
        address = f"\0{place[1:]}" if place.startswith("@") else place
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as service_manager:
            service_manager.sendto(message.encode(), address)


if __name__ == "__main__":
    main()
