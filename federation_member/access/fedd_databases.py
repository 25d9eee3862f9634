"""fedd's text databases, as its access and experiment controllers kept them.

    access       (fedid:X, proj1, user1) -> (local[:type[,type]], creation_user, service_user)      first form
                 (fedid:X, proj1, user1) -> access[, (DETER, faber, faber)]                          later form
                 restricted: type            attribute: value
    ec           fedid:X -> (project, user)
    map          testbed_name:URI
    simple       fedid:X -> attribute

`#` begins a comment, blank lines are ignored. On the left `<any>` stands for anything and `<none>` for a blank; on the right
`<same>` and `<dynamic>` say where a project comes from. Every mistake is told with its file and line, all of them at once.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from federation_member.access.errors import UnusableDatabase
from fedkit.errors import InputError
from fedkit.identity.keys import is_fedid
from fedkit.identity.patterns import NamePattern

SIZE_LIMIT = 4 * 1024 * 1024  # octets
LINE_LIMIT = 4096  # characters
TOLD_LIMIT = 20  # mistakes
WILD = {"<any>": "*", "<none>": ""}

_NAME = r"\(([^()]*)\)"
_FIRST = re.compile(_NAME + r"\s*->\s*\(([^()]*)\)\s*\Z")
_LATER = re.compile(_NAME + r"\s*->\s*([A-Za-z0-9][A-Za-z0-9_-]*)\s*(?:,\s*\(([^()]*)\)\s*)?\Z")
_USER = re.compile(r"fedid:([0-9a-f]{40})\s*->\s*\(([^(),]*),([^(),]*)\)\s*\Z")
_SIMPLE = re.compile(r"fedid:([0-9a-f]{40})\s*->\s*([A-Za-z0-9][A-Za-z0-9_-]*)\s*\Z")
_PAIR = re.compile(r"([A-Za-z0-9_.-]+)\s*:\s*(\S.*)\Z")
_LOCAL = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@+-]*\Z")
_TYPE = re.compile(r"[A-Za-z0-9_.+-]+\Z")
_ACCOUNT = re.compile(r"(<same>|<dynamic>|[A-Za-z0-9][A-Za-z0-9._-]*)\Z")


@dataclass(frozen=True)
class Where:
    """A line of a file."""

    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


@dataclass(frozen=True)
class Local:
    """What a name was mapped to: an Emulab project with node types beyond the usual, and two users there."""

    project: str
    node_types: tuple[str, ...]
    creation_user: str
    service_user: str


@dataclass(frozen=True)
class AccessLine:
    """Whoever fits `who` gets `attribute`, and acts here as `local`, where that is said."""

    where: Where
    who: NamePattern
    attribute: str
    local: Local | None
    others: tuple[str, ...] = ()  # a plug-in's own list that is no Emulab project


@dataclass(frozen=True)
class UserLine:
    """This fedid is this user of this project."""

    where: Where
    fedid: str
    project: str
    user: str


@dataclass
class Databases:
    """Everything that was read."""

    access: list[AccessLine] = field(default_factory=list)
    restricted: list[str] = field(default_factory=list)
    attributes: list[tuple[Where, str, str]] = field(default_factory=list)
    users: list[UserLine] = field(default_factory=list)
    testbeds: dict[str, str] = field(default_factory=dict)
    simple: list[tuple[str, str]] = field(default_factory=list)

    @classmethod
    def parse(cls, texts: Mapping[str, tuple[str, str]]) -> Databases:
        """Read databases: kind (`access`, `ec`, `map`, `simple`) → name of the file and its text. Raises `UnusableDatabase`."""
        found = cls()
        readers: dict[str, Callable[[Where, str], None]] = {
            "access": found._access,
            "ec": found._ec,
            "map": found._map,
            "simple": found._simple,
        }
        mistakes = [told for kind, (name, text) in texts.items() for told in _mistakes(name, text, readers[kind])]
        if mistakes:
            more = f"\nand {len(mistakes) - TOLD_LIMIT} more" if len(mistakes) > TOLD_LIMIT else ""
            raise UnusableDatabase("\n".join(mistakes[:TOLD_LIMIT]) + more)
        return found

    def _access(self, where: Where, line: str) -> None:
        if not line.startswith("("):
            name, value = _pair(line, "(testbed, project, user) -> …, restricted: TYPE or ATTRIBUTE: VALUE")
            if name == "restricted":
                self.restricted.append(_checked(_TYPE, value, "a node type"))
            else:
                self.attributes.append((where, name, value))
        elif first := _FIRST.match(line):
            self.access.append(AccessLine(where, _who(first[1]), "access", _local(first[2])))
        elif later := _LATER.match(line):
            parts = tuple(_split(later[3])) if later[3] is not None else ()
            emulab = len(parts) == 3 and later[2] == "access"
            local = Local(_checked(_ACCOUNT, parts[0], "a project"), (), parts[1], parts[2]) if emulab else None
            self.access.append(AccessLine(where, _who(later[1]), later[2], local, () if emulab else parts))
        else:
            raise UnusableDatabase("after (testbed, project, user) -> stands (project, user, user) or an attribute")

    def _ec(self, where: Where, line: str) -> None:
        match = _USER.match(line)
        if match is None:
            raise UnusableDatabase("a line is written fedid:<40 lower-case hex digits> -> (project, user)")
        project, user = (_checked(_LOCAL, part.strip(), "a local name") for part in match.group(2, 3))
        self.users.append(UserLine(where, match[1], project, user))

    def _map(self, where: Where, line: str) -> None:
        name, uri = _pair(line, "testbed_name:URI")
        if self.testbeds.setdefault(name, uri) != uri:
            raise UnusableDatabase(f"{name} has another address above")

    def _simple(self, where: Where, line: str) -> None:
        match = _SIMPLE.match(line)
        if match is None:
            raise UnusableDatabase("a line is written fedid:<40 lower-case hex digits> -> attribute")
        self.simple.append((match[1], match[2]))


def _mistakes(name: str, text: str, read: Callable[[Where, str], None]) -> Iterator[str]:
    if len(text) > SIZE_LIMIT:
        yield f"{name}: a database has at most {SIZE_LIMIT} characters"
        return
    for number, line in enumerate(text.split("\n"), 1):
        said = line[: LINE_LIMIT + 1].partition("#")[0].replace("\t", " ").strip()
        try:
            if len(said) > LINE_LIMIT:
                raise UnusableDatabase(f"a line has at most {LINE_LIMIT} characters")
            if not said.isprintable():
                raise UnusableDatabase("a line holds characters that cannot be printed")
            if said:
                read(Where(name, number), said)
        except InputError as error:
            yield f"{name}:{number}: {error.message}"


def _who(text: str) -> NamePattern:
    parts = [_name(part) for part in _split(text)]
    if len(parts) != 3:
        raise UnusableDatabase("a name has three parts: testbed, project, user")
    pattern = NamePattern(*parts)
    if pattern.asserter != "*" and not is_fedid(pattern.asserter):
        raise UnusableDatabase(
            f"{pattern.asserter!r} is no fedid, and the outermost part of a name vouches for the rest"
        )
    return pattern


def _name(part: str) -> str:
    if part in WILD:
        return WILD[part]
    if part.startswith("fedid:"):
        fedid = part.removeprefix("fedid:")
        if not is_fedid(fedid):
            raise UnusableDatabase(f"after fedid: stand 40 lower-case hex digits; {fedid[:80]!r} is not")
        return fedid
    bare = part.strip('"')
    return _checked(_LOCAL, bare, "a local name, a fedid: or <any>") if bare else ""


def _local(text: str) -> Local:
    """The project's node types are set off by commas as the users are, so the last two parts are the users."""
    parts = _split(text)
    if len(parts) < 3:
        raise UnusableDatabase("on the right stand project[:type[,type]], creation user and service user")
    *projects, creation, service = parts
    project, _colon, first = projects[0].partition(":")
    types = [first.strip(), *projects[1:]] if _colon else projects[1:]
    return Local(
        _checked(_ACCOUNT, project.strip(), "a project"),
        tuple(_checked(_TYPE, one, "a node type") for one in types),
        creation,
        service,
    )


def _split(text: str) -> list[str]:
    return [part.strip() for part in text.split(",")]


def _pair(line: str, form: str) -> tuple[str, str]:
    match = _PAIR.match(line)
    if match is None:
        raise UnusableDatabase(f"a line is written {form}")
    return match[1], match[2]


def _checked(pattern: re.Pattern[str], text: str, what: str) -> str:
    if not pattern.match(text):
        raise UnusableDatabase(f"{text[:80]!r} is not {what}")
    return text
