"""`serve`: a station with its servers, until it is told to end."""

from __future__ import annotations

import signal
from pathlib import Path
from threading import Event

from fedkit.node.kit.conf import Conf
from fedkit.node.kit.control.actions import Actions
from fedkit.node.kit.control.auth import Identity
from fedkit.node.kit.control.server import Server
from fedkit.node.kit.control.station import Station
from fedkit.node.kit.errors import BadConf
from fedkit.node.kit.system import System


def serve(conf: Conf, state: Path) -> int:
    """Serve at all places that the configuration names."""
    if not conf.control_key or not conf.listens:
        raise BadConf("client.conf names no place to listen at, or no key")
    ends = Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ends.set())
    actions = Actions(System(state=str(state)), conf.programs, conf.links, conf.routes)
    folder = state / "control"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    station = Station(conf, folder, actions.do)
    identity = Identity(conf.name, conf.control_key)
    servers = [Server(place, identity, station.answer) for place in conf.listens]
    for server in servers:
        server.begin()
    station.begin()
    ends.wait()
    for server in servers:
        server.close()
    station.close()
    return 0
