"""What `fed order create` orders: which options each kind takes, and the `spec` that they make."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from deploy.commands.errors import UnusableFile
from fedkit.errors import InputError

NOUNS = {
    "compute": "A machine",
    "network": "A network",
    "volume": "A volume",
    "attachment": "An attachment",
    "public_ip": "A public address",
    "snapshot": "A snapshot",
}
TAKES = {
    "compute": {
        "--image": "image",
        "--image-url": "image",
        "--sha256": "image_sha256",
        "--flavour": "flavour",
        "--requirements": "requirements",
        "--user-data": "user_data",
        "--ssh-key": "ssh_keys",
        "--network": "networks",
    },
    "network": {"--cidr": "cidr", "--requirements": "requirements", "--allow": "rules"},
    "volume": {"--size": "size_gb", "--requirements": "requirements"},
    "attachment": {"--machine": "machine", "--volume": "volume", "--device": "device"},
    "public_ip": {"--machine": "machine", "--allow": "rules"},
    "snapshot": {"--machine": "machine"},
}
"""Option → field of the spec."""
NEEDS = {
    "compute": ("--image",),  # or --image-url, the same field
    "network": ("--cidr",),
    "volume": ("--size",),
    "attachment": ("--machine", "--volume"),
    "public_ip": ("--machine",),
    "snapshot": ("--machine",),
}


def spec_of(kind: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """The spec that the options given (those that are not None) make; raises `InputError`.

    What kinds there are is the member's to say: one that is unknown here is sent as it is.
    """
    kind = kind.replace("-", "_")
    given = {option: value for option, value in options.items() if value is not None}
    spec = {"kind": kind} | ({"name": given.pop("--name")} if "--name" in given else {})
    if kind not in TAKES:
        return spec
    _check(kind, given)
    return spec | {TAKES[kind][option]: value for option, value in given.items()}


def _check(kind: str, given: Mapping[str, Any]) -> None:
    for option in given:
        if option not in TAKES[kind]:
            raise InputError(f"{NOUNS[kind]} takes no {option}; it takes --name, {', '.join(TAKES[kind])}.")
    fields = [TAKES[kind][option] for option in given]
    if fields.count("image") > 1:
        raise InputError("A machine has one image: --image or --image-url.")
    if ("--image-url" in given) != ("--sha256" in given):
        raise InputError("--image-url and --sha256 come together: what is fetched must be what was meant.")
    for option in NEEDS[kind]:
        if TAKES[kind][option] not in fields:
            raise InputError(f"{NOUNS[kind]} needs {option}.")


def read_text(path: Path) -> str:
    """A text file; raises `UnusableFile`."""
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise UnusableFile(f"{path} cannot be read: {error}.") from error


def read_keys(path: Path) -> list[str]:
    """The keys in a public key file; raises `UnusableFile`."""
    text = read_text(path)
    if "PRIVATE KEY" in text:
        raise UnusableFile(f"{path} is a private key; give the public one, {path}.pub.")
    return [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]
