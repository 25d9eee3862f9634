"""A portal's file: the seed's keys (D59) and ours, in TOML. Only the standard library reads it, as a bare machine has nothing else.

active = true                       # this end connects; the other waits
nat_partner = false                 # the partner is behind a NAT: the waiting end then takes it from whatever address
tunnelip = false                    # use `address` for the tunnel, an address of its own
peer = ["portal.b.example"]         # where the partner is; tried in turn (the waiting end: where it may come from)
ssh_privkey = "/etc/fed/portal/key" # who this end is
ssh_pubkey = "/etc/fed/portal/peer.pub"  # whom it lets in. The seed's portals share one pair, these have one each

port = 2022                         # of the waiting end: ssh by TCP, datagrams by UDP
host_key = "/etc/fed/host_key"      # waiting: its private key; connecting: a file with the public half that is pinned
state = "/var/lib/fed/portal"       # what was made, and how things are
planes = ["superframes", "datagrams", "classic"]     # which ways may be used at all; this is the default

[relay]                             # waiting end behind a NAT: be reached through this tunnel server
host = "dmz.b.example"
port = 2222
host_key = "/etc/fed/relay.pub"
key = "/etc/fed/tunnel_key"
name = "portal"

[[crossing]]
tag = 7                             # the same at both ends
interface = "eth1"
bridge = "br7"                      # made if it is not there
rate_kbps = 100000                  # what may leave through the tunnel; none: as much as it carries
delay_ms = 10                       # how late frames leave through the tunnel, besides what it takes itself
loss = 0.01                         # which part of them is lost on purpose
delay_back_ms = 10                  # the same for what comes out of the tunnel
loss_back = 0.01

[[forward]]                         # a service of the other end, reached at this one
listen = "10.0.0.2:445"
to = "a:445"

permit = ["a:445"]                  # (above the tables) what the other end may reach through this one
"""

from __future__ import annotations

import difflib
import re
import tomllib
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from fedkit.portal.errors import UnusableConfig
from fedkit.portal.line import LineShape
from fedkit.portal.messages import HIGHEST_TAG, MOST_FORWARDS, Forward, is_endpoint, is_host
from fedkit.portal.planes.contract import PlaneName

LONGEST_DELAY = 10_000  # ms, of one direction
INTERFACE = re.compile(r"^[A-Za-z0-9_.-]{1,15}$")


@dataclass(frozen=True)
class CrossingConfig:
    """One substrate that crosses here."""

    tag: int
    interface: str
    bridge: str
    rate_kbps: int | None = None
    delay_ms: float = 0.0
    loss: float = 0.0
    delay_back_ms: float = 0.0
    loss_back: float = 0.0

    @property
    def out(self) -> LineShape:
        """What becomes of what leaves through the tunnel, before it does."""
        return LineShape(self.delay_ms / 1000, self.loss)

    @property
    def back(self) -> LineShape:
        """What becomes of what comes out of it."""
        return LineShape(self.delay_back_ms / 1000, self.loss_back)

    @property
    def tap(self) -> str:
        """The name of its tap."""
        return f"tap{self.tag}"


@dataclass(frozen=True)
class RelayConfig:
    """A tunnel server by which this end is reached."""

    host: str
    port: int
    host_key: Path
    key: Path
    name: str = "portal"


@dataclass(frozen=True)
class PortalConfig:
    """The whole file."""

    active: bool
    peer: tuple[str, ...]
    ssh_pubkey: Path
    ssh_privkey: Path
    host_key: Path
    state: Path
    crossing: tuple[CrossingConfig, ...]
    port: int = 2022
    nat_partner: bool = False
    tunnelip: bool = False
    address: str = ""
    planes: tuple[PlaneName, ...] = tuple(PlaneName)
    relay: RelayConfig | None = None
    forward: tuple[Forward, ...] = ()
    permit: tuple[str, ...] = ()

    @property
    def local(self) -> str:
        """The address to use for the tunnel; empty: any."""
        return self.address if self.tunnelip else ""


def load(path: Path) -> PortalConfig:
    """Read a file; raises `UnusableConfig`."""
    try:
        return read(tomllib.loads(path.read_text()))
    except OSError as error:
        raise UnusableConfig(f"{path} cannot be read: {error.strerror}.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UnusableConfig(f"{path} is not TOML: {error}.") from error


def read(data: dict[str, Any]) -> PortalConfig:
    """Check what a file holds; raises `UnusableConfig` that names the key."""
    _known(data, PortalConfig, "")
    config = PortalConfig(
        active=_flag(data, "active"),
        peer=tuple(_host(one, "peer") for one in _texts(data, "peer")),
        ssh_pubkey=_path(data, "ssh_pubkey"),
        ssh_privkey=_path(data, "ssh_privkey"),
        host_key=_path(data, "host_key"),
        state=_path(data, "state"),
        crossing=tuple(_crossing(one) for one in _tables(data, "crossing")),
        port=_number(data, "port", 1, 65535, 2022),
        nat_partner=_flag(data, "nat_partner", False),
        tunnelip=_flag(data, "tunnelip", False),
        address=_text(data, "address", ""),
        planes=tuple(_plane(name) for name in _texts(data, "planes", tuple(PlaneName))),
        relay=_relay(data["relay"]) if "relay" in data else None,
        forward=tuple(_forward(one) for one in _tables(data, "forward")),
        permit=tuple(_endpoint(one, "permit") for one in _texts(data, "permit", ())),
    )
    return _agreeing(config)


def _agreeing(config: PortalConfig) -> PortalConfig:
    tags = [crossing.tag for crossing in config.crossing]
    ports = [crossing.interface for crossing in config.crossing]
    if not config.crossing:
        raise UnusableConfig("crossing: a portal joins at least one network")
    if len(set(tags)) < len(tags) or len(set(ports)) < len(ports):
        raise UnusableConfig("crossing: each tag and each interface belongs to one crossing")
    if config.active and not config.peer:
        raise UnusableConfig("peer: the end that connects must know where its partner is")
    if config.active and config.relay is not None:
        raise UnusableConfig("relay: the end that waits is reached through a relay; the other names it as its `peer`")
    if config.tunnelip and not config.address:
        raise UnusableConfig("tunnelip: say which address, with the key `address`")
    if not config.planes:
        raise UnusableConfig("planes: at least one")
    return config


def _crossing(data: dict[str, Any]) -> CrossingConfig:
    _known(data, CrossingConfig, "crossing.")
    for key in ("interface", "bridge"):
        if not INTERFACE.match(_text(data, key)):
            raise UnusableConfig(f"crossing.{key}: {data[key]!r} is no name of an interface")
    rate = _number(data, "rate_kbps", 1, 10**9) if "rate_kbps" in data else None
    return CrossingConfig(
        tag=_number(data, "tag", 0, HIGHEST_TAG),
        interface=data["interface"],
        bridge=data["bridge"],
        rate_kbps=rate,
        delay_ms=_real(data, "delay_ms", LONGEST_DELAY),
        loss=_real(data, "loss", 1),
        delay_back_ms=_real(data, "delay_back_ms", LONGEST_DELAY),
        loss_back=_real(data, "loss_back", 1),
    )


def _relay(data: Any) -> RelayConfig:
    if not isinstance(data, dict):
        raise UnusableConfig("relay: a table")
    _known(data, RelayConfig, "relay.")
    name = _text(data, "name", "portal")
    if not re.match(r"^[a-z0-9-]{1,63}$", name):
        raise UnusableConfig("relay.name: lower-case letters, digits and hyphens")
    return RelayConfig(
        _host(_text(data, "host"), "relay.host"),
        _number(data, "port", 1, 65535),
        _path(data, "host_key"),
        _path(data, "key"),
        name,
    )


def _forward(data: dict[str, Any]) -> Forward:
    _known(data, Forward, "forward.")
    return Forward(*(_endpoint(_text(data, key), f"forward.{key}") for key in ("listen", "to")))


def _endpoint(text: str, key: str) -> str:
    if not is_endpoint(text):
        raise UnusableConfig(f"{key}: {text!r} is not HOST:PORT")
    return text


def _host(text: str, key: str) -> str:
    if not is_host(text):
        raise UnusableConfig(f"{key}: {text[:80]!r} is neither an address nor a name")
    return text


def _plane(name: str) -> PlaneName:
    try:
        return PlaneName(name)
    except ValueError as error:
        raise UnusableConfig(f"planes: {name!r}; there are {', '.join(PlaneName)}") from error


# Values.

_NOTHING: Any = object()


def _known(data: dict[str, Any], model: type, prefix: str) -> None:
    names = [field.name for field in fields(model)]
    for key in data:
        if key not in names:
            near = difflib.get_close_matches(key, names, 1)
            hint = f"did you mean {near[0]}?" if near else f"known here: {', '.join(sorted(names))}"
            raise UnusableConfig(f"{prefix}{key}: unknown key; {hint}")


def _value(data: dict[str, Any], key: str, kind: type, default: Any) -> Any:
    value = data.get(key, default)
    if value is _NOTHING:
        raise UnusableConfig(f"{key}: is missing")
    if key in data and type(value) is not kind:
        raise UnusableConfig(f"{key}: must be of type {kind.__name__}")
    return value


def _flag(data: dict[str, Any], key: str, default: Any = _NOTHING) -> bool:
    return bool(_value(data, key, bool, default))


def _text(data: dict[str, Any], key: str, default: Any = _NOTHING) -> str:
    return str(_value(data, key, str, default))


def _path(data: dict[str, Any], key: str) -> Path:
    return Path(_text(data, key))


def _number(data: dict[str, Any], key: str, least: int, most: int, default: Any = _NOTHING) -> int:
    value = int(_value(data, key, int, default))
    if not least <= value <= most:
        raise UnusableConfig(f"{key}: from {least} to {most}")
    return value


def _real(data: dict[str, Any], key: str, most: float) -> float:
    value = data.get(key, 0.0)
    if type(value) not in (int, float) or not 0 <= value <= most:  # which TOML's nan and inf are not
        raise UnusableConfig(f"{key}: a number from 0 to {most}")
    return float(value)


def _texts(data: dict[str, Any], key: str, default: Any = _NOTHING) -> tuple[str, ...]:
    values = tuple(_value(data, key, list, default))
    if len(values) > MOST_FORWARDS or not all(isinstance(value, str) for value in values):
        raise UnusableConfig(f"{key}: a list of at most {MOST_FORWARDS} texts")
    return values


def _tables(data: dict[str, Any], key: str) -> list[dict[str, Any]]:
    values = _value(data, key, list, [])
    if not all(isinstance(value, dict) for value in values):
        raise UnusableConfig(f"{key}: tables, written [[{key}]]")
    return list(values)
