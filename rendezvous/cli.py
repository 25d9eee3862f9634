"""`fed rendezvous serve -c FILE`."""

from __future__ import annotations

from pathlib import Path

from fedkit import config, service
from rendezvous.config import RendezvousConfig
from rendezvous.service import open_rendezvous

ENVIRONMENT = "FED_RENDEZVOUS"  # FED_RENDEZVOUS__HTTP__LISTEN=… wins over the file


def serve(file: Path) -> int:
    """Run the Rendezvous until SIGTERM or SIGINT and return its exit status; raise `UnusableConfig`."""
    loaded = config.load(file, RendezvousConfig, ENVIRONMENT)
    return service.run(lambda: open_rendezvous(loaded))
