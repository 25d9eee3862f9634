"""What each piece is told of the whole: names, addresses and routes, and who enters its nodes; for parties, what each of them may know.

A piece of a party is told of its own computers and the shared ones, a shared piece of the shared ones alone, and no piece of hosts that
`hide_hosts` keeps at another testbed. Where there are no parties, everybody is told of everybody.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from pydantic import TypeAdapter, ValidationError

from federation_member.experiments.errors import TooLarge, UnusableParty
from federation_member.experiments.model import NewExperiment, Party
from federation_member.experiments.views import sides_of
from fedkit.protocol.segments import ROUTES_LIMIT, Ban, Host, NodeName, Route
from fedkit.services.roles import users_own
from fedkit.topology.model import Computer, Topology
from fedkit.topology.routes import DYNAMIC, STATIC
from fedkit.topology.views import check_sides, hidden_hosts, reach_of, within

ALIASES = 16  # names of one address
_NODE: TypeAdapter[str] = TypeAdapter(NodeName)


class Parting:
    """One description's parties, and what follows of them for each piece.

    Raises `UnusableParty`, `PartiesMeet`, or `BadService` for hosts to hide that are not there.
    """

    def __init__(self, new: NewExperiment, topology: Topology) -> None:
        _check(new.parties, {str(computer.testbed) for computer in topology.computers})
        self._new = new
        self._topology = topology
        self._sides = sides_of(new.parties)
        check_sides(topology, self._sides)
        self._hidden = hidden_hosts(topology)
        self._testbed_of = {computer.name: computer.testbed for computer in topology.computers}
        self._reach = reach_of(topology, self._sides, users_own(topology))
        self._between = frozenset(
            one.name for one in topology.computers if len([i for i in one.interfaces if i.ip4]) > 1
        )
        self._hosts: dict[str | None, list[tuple[str, Host]]] = {}

    def hosts(self, testbed: str) -> list[Host]:
        """The hosts file of a piece."""
        party = self._sides.of(testbed)
        if party not in self._hosts:
            known = within(self._topology, self._sides, () if party is None else (party,))
            self._hosts[party] = [(computer.name, line) for computer in known.computers for line in _lines(computer)]
        return [line for name, line in self._hosts[party] if self.tells(testbed, name)]

    def tells(self, testbed: str, computer: str) -> bool:
        """Whether a piece may be told of a computer that it is joined with."""
        return computer not in self._hidden or self._testbed_of[computer] == testbed

    def routes_in(self, names: Sequence[str]) -> dict[str, list[Route]]:
        """The routes of these computers, where they have any; who is between others has a place here also without one.

        Raises `TooLarge`.
        """
        routes = self._reach.routes
        through = self._between if any(routes.values()) else frozenset()
        if any(len(routes.get(name, ())) > ROUTES_LIMIT for name in names):
            raise TooLarge(f"A node has at most {ROUTES_LIMIT} routes; join some of the links to LANs.")
        return {
            name: [Route(destination=hop.destination, via=hop.via) for hop in routes.get(name, ())]
            for name in names
            if routes.get(name) or name in through
        }

    @property
    def routing(self) -> str | None:
        """As described; but daemons would tell parties of one another, so where there are parties the ways are static."""
        wanted = self._topology.routing
        return STATIC if self._new.parties and wanted in DYNAMIC else wanted

    def apart(self, names: Sequence[str]) -> dict[str, list[Ban]]:
        """How these computers keep parties apart."""
        bans = self._reach.bans
        return {
            name: [Ban(address=ban.address, network=ban.network) for ban in bans[name]]
            for name in names
            if name in bans
        }

    def ssh_keys(self, testbed: str) -> list[str]:
        """Who may enter the nodes of a piece."""
        party = self._sides.of(testbed)
        return list(dict.fromkeys([*self._new.ssh_keys, *(self._new.parties[party].ssh_keys if party else ())]))


def _check(parties: Mapping[str, Party], testbeds: set[str]) -> None:
    known = testbeds | {testbed.partition("/")[0] for testbed in testbeds}
    of: dict[str, str] = {}
    for name, party in parties.items():
        for testbed in party.testbeds:
            if testbed not in known:
                has = ", ".join(sorted(testbeds)[:10])
                raise UnusableParty(
                    f"The description has no testbed {testbed}, which is to be of {name}; it has {has}."
                )
            if of.setdefault(testbed, name) != name:
                raise UnusableParty(f"The testbed {testbed} is to be of {of[testbed]} and of {name}; choose one.")


def hosts_of(topology: Topology) -> list[Host]:
    """Everybody's names, as fedd's hosts files have them: `NODE-SUBSTRATE` for each address, and `NODE` for the first."""
    return [line for computer in topology.computers for line in _lines(computer)]


def _lines(computer: Computer) -> Iterator[Host]:
    names = [computer.name]
    for interface in computer.interfaces:
        if interface.ip4:
            aliases = [f"{computer.name}-{substrate}" for substrate in interface.substrates]
            names += [alias for alias in aliases if _is_name(alias)]
            if names:
                yield Host(ip4=interface.ip4, names=names[:ALIASES])
            names = []


def _is_name(text: str) -> bool:
    try:
        _NODE.validate_python(text)
    except ValidationError:
        return False
    return True
