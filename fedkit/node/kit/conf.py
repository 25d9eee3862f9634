"""`client.conf`: what a node is to be, line by line `Key: value`.

The seed's keys (D57): ControlGateway, Hide, PortalAlias, ProjectUser, ProjectName, Service, SMBShare. Ours besides:

    Name, Host (address names), Route (destination neighbour), Network (of the experiment), Routing, Forward, Startup
    Group (name gid), Account (name uid group), SSHKey (account key)        SMBExport (share), SMBPassword
    Role, ControlKey, Listen, Child (name address:port key), Event (time node target action), Program (name json), Link (name address)
    File (path mode text), Daemon (name command)                            for services that need no more

ControlGateway, ProjectUser, ProjectName and SMBPassword hold for the lines that follow, so a node can have shares of several servers.
In a value `\\n` is a line's end and `\\\\` a backslash. `#` begins a comment at the beginning of a line.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network

from fedkit.node.kit.errors import BadConf

SIZE_LIMIT = 8 * 1024 * 1024  # octets
PATH = "/usr/local/federation/etc/client.conf"
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)
_ACCOUNT = re.compile(r"[a-z_][a-z0-9_-]{0,31}")
_SHARE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_WORD = re.compile(r"[!-~]{1,128}")
_ROUTINGS = {"static", "static-ddijk", "static-old", "session", "ospf", "manual"}


@dataclass(frozen=True)
class Account:
    """A person's account."""

    name: str
    uid: int
    group: str


@dataclass(frozen=True)
class Share:
    """A folder that is exported or mounted; `server` is an address or a name."""

    name: str
    server: str
    project: str
    user: str
    password: str = field(repr=False)

    @property
    def path(self) -> str:
        """Where it is, at the exporter and at importers."""
        return f"/proj/{self.name}" if self.name == self.project else f"/share/{self.name}"


@dataclass(frozen=True)
class Below:
    """Somebody whom a controller may ask: where, and with which key."""

    place: tuple[str, int]
    key: str = field(repr=False)


@dataclass
class Conf:
    """All of it; lists are in the order of the file."""

    name: str = ""
    role: str = "node"
    hosts: list[tuple[str, list[str]]] = field(default_factory=list)
    hidden: set[str] = field(default_factory=set)
    aliases: dict[str, str] = field(default_factory=dict)  # to a gateway
    routes: list[tuple[str, str]] = field(default_factory=list)
    networks: list[str] = field(default_factory=list)
    routing: str = "static"
    forwards: bool = False
    startup: str = ""
    services: list[str] = field(default_factory=list)
    groups: dict[str, int] = field(default_factory=dict)
    accounts: dict[str, Account] = field(default_factory=dict)
    keys: dict[str, list[str]] = field(default_factory=dict)
    exports: list[Share] = field(default_factory=list)
    shares: list[Share] = field(default_factory=list)
    control_key: str = field(default="", repr=False)
    listens: list[tuple[str, int]] = field(default_factory=list)
    children: dict[str, Below] = field(default_factory=dict)
    events: list[tuple[float, str, str, str]] = field(default_factory=list)
    programs: dict[str, dict[str, str]] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)
    files: list[tuple[str, int, str]] = field(default_factory=list)
    daemons: dict[str, str] = field(default_factory=dict)


def write(settings: Iterable[tuple[str, str]]) -> str:
    """The text of a `client.conf`; raises `BadConf` for what would not be read again."""
    text = "".join(f"{key}: {_escaped(value)}\n" for key, value in settings)
    read(text)
    return text


def read(text: str) -> Conf:
    """Read one; raises `BadConf` with the number of the line."""
    if len(text) > SIZE_LIMIT:
        raise BadConf(f"client.conf has more than {SIZE_LIMIT} characters.")
    reader = _Reader()
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip() or line.startswith("#"):
            continue
        key, colon, value = line.partition(":")
        if not colon or key not in reader.keys:
            raise BadConf(f"client.conf, line {number}: {key[:40]!r} is no key of it.")
        try:
            reader.keys[key](_ESCAPE.sub(lambda m: "\n" if m[1] == "n" else m[1], value.strip(" ")))
        except ValueError as error:
            raise BadConf(f"client.conf, line {number}: {key}: {error}.") from None
    return reader.conf


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "")


class _Reader:
    """Holds what is said for the lines that follow."""

    def __init__(self) -> None:
        self.conf = conf = Conf()
        self._gateway = self._project = self._user = self._password = ""
        self.keys: dict[str, Callable[[str], None]] = {
            "Name": lambda value: setattr(conf, "name", _word(value)),
            "Role": lambda value: setattr(conf, "role", _word(value)),
            "Host": self._host,
            "Hide": lambda value: conf.hidden.add(_word(value)),
            "ControlGateway": lambda value: setattr(self, "_gateway", _word(value)),
            "PortalAlias": self._alias,
            "ProjectUser": lambda value: setattr(self, "_user", _matching(_ACCOUNT, value)),
            "ProjectName": lambda value: setattr(self, "_project", _matching(_SHARE, value)),
            "SMBPassword": lambda value: setattr(self, "_password", _word(value)),
            "SMBShare": lambda value: conf.shares.append(self._share(value)),
            "SMBExport": lambda value: conf.exports.append(self._share(value)),
            "Service": lambda value: conf.services.append(_word(value)),
            "Route": self._route,
            "Network": lambda value: conf.networks.append(str(IPv4Network(value))),
            "Routing": self._routing,
            "Forward": lambda value: setattr(conf, "forwards", value.lower() in ("yes", "true", "1")),
            "Startup": lambda value: setattr(conf, "startup", value),
            "Group": self._group,
            "Account": self._account,
            "SSHKey": self._key,
            "ControlKey": lambda value: setattr(conf, "control_key", _word(value)),
            "Listen": lambda value: conf.listens.append(_place(value)),
            "Child": self._child,
            "Event": self._event,
            "Program": self._program,
            "Link": self._link,
            "File": self._file,
            "Daemon": self._daemon,
        }

    def _host(self, value: str) -> None:
        address, *names = value.split()
        if not names:
            raise ValueError("an address and its names are wanted")
        self.conf.hosts.append((str(IPv4Address(address)), [_word(name) for name in names]))

    def _alias(self, value: str) -> None:
        if not self._gateway:
            raise ValueError("a ControlGateway has to stand before it")
        self.conf.aliases[_word(value)] = self._gateway

    def _share(self, value: str) -> Share:
        if not (self._gateway and self._user and self._password):
            raise ValueError("ControlGateway, ProjectUser and SMBPassword have to stand before it")
        return Share(_matching(_SHARE, value), self._gateway, self._project, self._user, self._password)

    def _route(self, value: str) -> None:
        destination, via = value.split()
        self.conf.routes.append((str(IPv4Network(destination)), str(IPv4Address(via))))

    def _routing(self, value: str) -> None:
        if value.lower() not in _ROUTINGS:
            raise ValueError(f"there is {', '.join(sorted(_ROUTINGS))}, and no {value[:40]!r}")
        self.conf.routing = value.lower()

    def _group(self, value: str) -> None:
        name, gid = value.split()
        self.conf.groups[_matching(_ACCOUNT, name)] = _id(gid)

    def _account(self, value: str) -> None:
        name, uid, group = value.split()
        if group not in self.conf.groups:
            raise ValueError(f"the group {group} has to stand before it")
        self.conf.accounts[name] = Account(_matching(_ACCOUNT, name), _id(uid), group)

    def _key(self, value: str) -> None:
        name, _, key = value.partition(" ")
        if name not in self.conf.accounts or "\n" in key or not key.strip():
            raise ValueError("an account that stands before it and a key are wanted")
        self.conf.keys.setdefault(name, []).append(key)

    def _child(self, value: str) -> None:
        name, place, key = value.split()
        self.conf.children[_word(name)] = Below(_place(place), _word(key))

    def _event(self, value: str) -> None:
        time, node, target, action = value.split(" ", 3)
        self.conf.events.append((float(time), _word(node), _word(target), action))

    def _program(self, value: str) -> None:
        name, _, said = value.partition(" ")
        options = json.loads(said)
        if not isinstance(options, dict) or not all(isinstance(option, str) for option in options.values()):
            raise ValueError("options are names and texts")
        self.conf.programs[_word(name)] = options

    def _link(self, value: str) -> None:
        name, address = value.split()
        self.conf.links[_word(name)] = str(IPv4Address(address))

    def _file(self, value: str) -> None:
        path, mode, text = value.split(" ", 2)
        if not path.startswith("/") or ".." in path.split("/"):
            raise ValueError("a path from the root is wanted")
        self.conf.files.append((path, int(mode, 8) & 0o777, text))

    def _daemon(self, value: str) -> None:
        name, _, command = value.partition(" ")
        if not command:
            raise ValueError("a name and a command are wanted")
        self.conf.daemons[_word(name)] = command


def _matching(pattern: re.Pattern[str], value: str) -> str:
    if not pattern.fullmatch(value):
        raise ValueError(f"{value[:40]!r} is no such name")
    return value


def _word(value: str) -> str:
    return _matching(_WORD, value)


def _id(value: str) -> int:
    number = int(value)
    if not 1000 <= number < 2**31:
        raise ValueError(f"{number} is no number of a person's account or group")
    return number


def _place(value: str) -> tuple[str, int]:
    address, _, port = value.rpartition(":")
    return str(IPv4Address(address)), int(port)
