"""`ask`: what a person at a node says to the control network, by the station of that very node."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fedkit.node.kit.conf import Conf
from fedkit.node.kit.control.auth import Identity
from fedkit.node.kit.control.client import Client
from fedkit.node.kit.control.hands import RUN_LIMIT
from fedkit.node.kit.errors import BadConf

SLACK = 45.0  # seconds beyond what a command may take


def ask(conf: Conf, words: Sequence[str]) -> Any:
    """Ask `nodes`, `events`, `run COMMAND`, or `event NODE TARGET ACTION`; raises `KitError`."""
    if not conf.listens:
        raise BadConf("this node is not on the control network")
    client = Client(conf.listens[0], Identity(conf.name, conf.control_key))
    match list(words):
        case ["nodes"] | ["events"]:
            return client.ask("GET", f"/{words[0]}", timeout=SLACK)
        case ["run", command, *nodes]:
            return client.ask("POST", "/run", {"command": command, "nodes": nodes}, RUN_LIMIT + SLACK)
        case ["event", node, target, *action] if action:
            return client.ask("POST", "/event", {"node": node, "target": target, "action": " ".join(action)})
    raise BadConf("ask nodes, events, run COMMAND [NODE…], or event NODE TARGET ACTION")
