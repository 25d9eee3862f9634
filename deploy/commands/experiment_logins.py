"""`fed experiment credentials`: from an experiment's key and what its lenders sealed to it, to `ssh` with nothing but a file of settings.

    fed experiment create … ─► the experiment's key, kept beside what `fed login` stored (or in --key FILE)
    fed experiment credentials NAME ─► DIRECTORY/ssh_config, known_hosts, a private key for each testbed ─► ssh -F DIRECTORY/ssh_config n1

What lenders say of their nodes goes into a file that ssh obeys, so nothing goes there that is not plainly a name, a number or a key.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from deploy.commands.client import Client
from deploy.commands.errors import NotFulfilled, UnusableFile
from deploy.commands.experiment_keys import read_key
from deploy.commands.experiments import CredentialOption, ExperimentArgument, ask
from deploy.commands.output import Format, OutputOption, say, show
from deploy.commands.topology import NONE

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

    from fedkit.protocol.segments import Login

HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.:-]{0,251}[A-Za-z0-9])?\Z")
NAME = re.compile(r"[A-Za-z0-9_()-][A-Za-z0-9_().-]{0,63}\Z")
USER = re.compile(r"[a-z_][a-z0-9_-]{0,31}\Z")
HOST_KEY = re.compile(r"(ssh|ecdsa|sk)-[a-z0-9@.-]{1,64} [A-Za-z0-9+/=]{1,4096}\Z")
UNUSUAL = re.compile(r"[^A-Za-z0-9]+")
HEAD = "# Written by `fed experiment credentials`; use it with: ssh -F {path} NODE\n"


@dataclass(frozen=True)
class Node:
    """A node that ssh can be told of, and the file with the private key that opens it."""

    testbed: str
    name: str
    host: str
    port: int
    user: str
    host_keys: list[str]
    identity: Path


def credentials(
    name: ExperimentArgument,
    key: Annotated[Path | None, typer.Option("--key", help="The experiment's key, if it was kept elsewhere.")] = None,
    into: Annotated[Path | None, typer.Option("--into", help="A directory; NAME.ssh otherwise.")] = None,
    credential: CredentialOption = NONE,
    output: OutputOption = Format.TABLE,
) -> None:
    """Write what ssh needs to enter an experiment's nodes, and the credential by which its owner may operate it.

    Only the experiment's key opens what its lenders sealed. Repeat it when nodes have come or gone.

    Example: `fed experiment credentials EXPERIMENT && ssh -F EXPERIMENT.ssh/ssh_config n1`
    """
    found = ask(Client.of_this_user(), name, "/credentials", credential)
    directory = (into or Path(f"{found['name']}.ssh")).absolute()
    nodes = write(directory, found, read_key(key, found["id"]))
    settings = directory / "ssh_config"
    rows = [{"testbed": n.testbed, "node": n.name, "ssh": f"ssh -F {settings} {n.name}"} for n in nodes]
    show(rows, output, {"testbed": "testbed", "node": "node", "ssh": "ssh"})
    there = {node.name for node in nodes}
    missing = [node["name"] for part in found["segments"] for node in part["nodes"] if node["name"] not in there]
    closed = [part["testbed"] for part in found["segments"] if not part["nodes"]]
    if missing or closed:
        raise NotFulfilled(f"Not to be entered yet: {', '.join([*missing, *closed])}. Repeat it when they run.")


def write(directory: Path, found: dict[str, Any], key: bytes) -> list[Node]:
    """Write all files anew, from what the member told and the experiment's key; returns the nodes that can be entered."""
    from fedkit.identity.sealing import from_pem

    opener = from_pem(key, "The experiment's key file")
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        parts = enumerate(found["segments"], 1)
        nodes = _undisputed([node for number, part in parts for node in _logins(directory, part, number, opener)])
        _put(directory / "known_hosts", "".join(f"{n.name} {line}\n" for n in nodes for line in n.host_keys))
        _put(directory / "ssh_config", HEAD.format(path=directory / "ssh_config") + _settings(directory, nodes))
        if found["credential"]:
            _put(directory / "experiment.cred", found["credential"] + "\n")
    except OSError as error:
        raise UnusableFile(f"{directory} cannot be written to: {error}.") from error
    return nodes


def _logins(directory: Path, part: dict[str, Any], number: int, key: X25519PrivateKey) -> Iterator[Node]:
    login = _open(part, key)
    if login is None:
        return
    identity = directory / f"{UNUSUAL.sub('-', part['testbed'])}-{number}.key"
    _put(identity, login.private_key)
    for node in part["nodes"]:
        fits = HOST.match(node["host"] or "") and NAME.match(node["name"]) and USER.match(login.user) and node["port"]
        trusted = [line for line in node["host_keys"] if HOST_KEY.match(line)]
        if fits and trusted:
            place = (node["host"], int(node["port"]), login.user)
            yield Node(part["testbed"], node["name"], *place, trusted, identity)


def _undisputed(nodes: list[Node]) -> list[Node]:
    """Those that one testbed alone says it has: nobody is to be entered in another's place."""
    claims = Counter(node.name for node in nodes)
    for name in [name for name, count in claims.items() if count > 1]:
        say(f"{name}: more than one claims to be it, so none is written.")
    return [node for node in nodes if claims[node.name] == 1]


def _open(part: dict[str, Any], key: X25519PrivateKey) -> Login | None:
    """What a lender sealed; None, and a word of it, if that is of no use: the other testbeds are."""
    from pydantic import ValidationError

    from fedkit.identity.sealing import NotForThisKey, open_sealed
    from fedkit.protocol.segments import LOGIN, Login

    if not part["sealed"]:
        return None
    try:
        return Login.model_validate_json(open_sealed(key, LOGIN, part["sealed"]))
    except (NotForThisKey, ValidationError):
        say(f"{part['testbed']}: what its lender sealed is of no use, or for another key.")
        return None


def _settings(directory: Path, nodes: list[Node]) -> str:
    known = _quoted(directory / "known_hosts")
    return "".join(
        f"\nHost {node.name}\n"
        f"    HostName {node.host}\n"
        f"    Port {node.port}\n"
        f"    User {node.user}\n"
        f"    IdentityFile {_quoted(node.identity)}\n"
        "    IdentitiesOnly yes\n"
        f"    HostKeyAlias {node.name}\n"
        f"    UserKnownHostsFile {known}\n"
        "    GlobalKnownHostsFile /dev/null\n"
        "    StrictHostKeyChecking yes\n"
        "    UpdateHostKeys no\n"
        for node in nodes
    )


def _quoted(path: Path) -> str:
    """As ssh_config(5) takes a path: quoted, with `%` doubled."""
    text = str(path)
    if '"' in text or "\n" in text or "\\" in text:
        raise UnusableFile(
            f"{text!r} cannot be written into a file that ssh reads; choose another directory by --into."
        )
    return '"' + text.replace("%", "%%") + '"'


def _put(path: Path, text: str) -> None:
    """Write a file that its owner alone reads; an interrupted write leaves the old one."""
    new = path.with_name(f".{path.name}.{os.getpid()}")
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(text)
    new.replace(path)
