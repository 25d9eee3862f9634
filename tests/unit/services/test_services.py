"""What the six services tell an experiment's nodes, and what they refuse."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

import pytest

from fedkit.errors import FedError
from fedkit.node.kit.conf import read as read_conf
from fedkit.node.kit.conf import write
from fedkit.node.script import NodeConfig
from fedkit.services.arrange import Arranged, arrange, uses_of
from fedkit.services.contract import Services
from fedkit.services.errors import UnknownService, UnusableService
from fedkit.services.events import Happening, happenings, unserved
from fedkit.services.installed import installed
from fedkit.services.scene import Project, Scene, account_name, project
from fedkit.topology.formats import read
from fedkit.topology.model import Attribute, Topology
from fedkit.topology.routes import routes_of
from fedkit.topology.services import BadService, parse_service
from tests.unit.topology.test_sub_experiment import SEED

KEYS = {"rosa": ["ssh-ed25519 AAAA rosa"], "Bob": []}
SIX = (
    "project_export:deter:ucb:project=TIED",
    "local_seer_control:deter,ucb",
    "seer_master:deter:ucb",
    "hide_hosts:ucb::hosts=d",
)


def people(name: str) -> Project:
    """Everybody, in whatever project."""
    return project(name, KEYS)


async def topology(*services: str, text: str = SEED) -> Topology:
    """The seed's, with these services."""
    found = (await read(text.encode(), "seed.ns", None, {})).topology
    return replace(found, services=tuple(map(parse_service, services)))


async def arranged(*services: str, text: str = SEED, known: Services | None = None) -> Arranged:
    """The same, with its services carried out."""
    found = await topology(*services, text=text)
    return arrange(found, known or installed(), secret="s3cret", user="rosa", project_of=people)


def told(done: Arranged, node: str) -> dict[str, list[str]]:
    """What a node is told, by key."""
    found: dict[str, list[str]] = defaultdict(list)
    for key, value in done.settings.get(node, ()):
        found[key].append(value)
    return found


def test_the_six_of_fedd_are_installed() -> None:
    assert sorted(installed()) == [
        "SMB",
        "hide_hosts",
        "local_seer_control",
        "project_export",
        "seer_master",
        "userconfig",
    ]


async def test_project_export_is_users_and_files_under_one_id() -> None:
    known = installed()
    (use,) = uses_of(await topology("project_export:deter:ucb:project=TIED"), known)
    expanded = list(known["project_export"].expand(use))
    assert [one.service for one in expanded] == ["userconfig", "SMB"]
    assert {one.id for one in expanded} == {use.id}
    done = await arranged("project_export:deter:ucb:project=TIED")
    exporter, importer = told(done, "a"), told(done, "e")
    assert exporter["SMBExport"] == importer["SMBShare"] == ["tied"]
    assert exporter["Account"] == importer["Account"]
    assert [account.split()[0] for account in importer["Account"]] == ["rosa", "bob"]
    assert importer["SSHKey"] == ["rosa ssh-ed25519 AAAA rosa"]
    assert importer["ControlGateway"] == ["10.1.1.2"]
    assert told(done, "b")["SMBShare"] == ["tied"]  # a path means the same on all nodes
    assert exporter["SMBPassword"] == importer["SMBPassword"]


async def test_what_is_not_imported_is_not_told() -> None:
    done = await arranged("SMB:deter::project=TIED;shares=data,results")
    assert not told(done, "e")
    assert told(done, "b")["SMBShare"] == ["data", "results"]
    assert told(await arranged("SMB:deter::project=TIED;importall=true"), "e")["SMBShare"] == ["tied"]


async def test_controllers_see_their_testbeds_and_the_master_sees_controllers() -> None:
    done = await arranged("local_seer_control:deter,ucb", "seer_master:deter:ucb")
    testbeds = {computer.name: computer.testbed for computer in done.topology.computers}
    assert (testbeds["control"], testbeds["control1"], testbeds["master"]) == ("deter", "ucb", "deter")
    assert [child.split()[0] for child in told(done, "master")["Child"]] == ["control", "control1"]
    assert [child.split()[0] for child in told(done, "control1")["Child"]] == ["c", "d", "e"]
    listens = {name: told(done, name)["Listen"] for name in testbeds}
    assert [child.split()[1] for child in told(done, "control1")["Child"]] == [listens[n][0] for n in "cde"]
    assert [child.split()[1] for child in told(done, "master")["Child"]] == [
        listens["control"][1],
        listens["control1"][1],
    ]


async def test_who_is_below_has_a_key_of_its_own_and_knows_nobody_elses() -> None:
    done = await arranged("local_seer_control:deter,ucb", "seer_master:deter:ucb")
    own = {computer.name: told(done, computer.name)["ControlKey"] for computer in done.topology.computers}
    assert len({key for (key,) in own.values()}) == len(own)
    below = {name: dict(child.split()[::2] for child in told(done, name)["Child"]) for name in own}
    assert below["master"] == {name: own[name][0] for name in ("control", "control1")}
    assert below["control"] == {name: own[name][0] for name in "ab"}
    assert below["control1"] == {name: own[name][0] for name in "cde"}
    for name in "abcde":
        keys = [own[other][0] for other in own if other != name]
        assert not [key for key in keys if key in write(done.settings[name])]


async def test_the_users_own_wires_and_ways_stay_as_they_were() -> None:
    before = await topology()
    after = (await arranged(*SIX)).topology
    names = {computer.name for computer in before.computers}
    for old, new in zip(before.computers, (c for c in after.computers if c.name in names), strict=True):
        assert new.interfaces[: len(old.interfaces)] == old.interfaces
    assert after.substrates[: len(before.substrates)] == before.substrates
    assert routes_of(before)["a"]


async def test_a_hidden_host_is_under_no_controller_that_others_ask() -> None:
    done = await arranged(*SIX)
    assert [child.split()[0] for child in told(done, "control1")["Child"]] == ["c", "e"]
    alone = await arranged("local_seer_control:ucb", "hide_hosts:ucb::hosts=d")
    assert [child.split()[0] for child in told(alone, "control")["Child"]] == ["c", "d", "e"]


@pytest.mark.parametrize(
    ("services", "error", "says"),
    [
        (["smb:deter:ucb:project=x"], UnknownService, "did you mean SMB"),
        (["teleport:deter"], UnknownService, "userconfig"),
        (["SMB:mars:ucb:project=x"], UnusableService, "there is deter, ucb"),
        (["SMB::ucb:project=x"], UnusableService, "exported by 1 testbed"),
        (["SMB:deter,ucb::project=x"], UnusableService, "not by 2"),
        (["SMB:deter:ucb"], UnusableService, "needs the attribute project=NAME"),
        (["SMB:deter:ucb:project=x;path=/"], UnusableService, "it takes project, shares"),
        (["SMB:deter:ucb:project=../x"], UnusableService, "is NAME"),
        (["SMB:deter:ucb:project=x;project=y"], UnusableService, "twice"),
        (["SMB:deter::project=x;importall=perhaps"], UnusableService, "true or false"),
        (["seer_master:deter:ucb", "local_seer_control:deter"], UnusableService, "local_seer_control:ucb"),
        (["hide_hosts:ucb::hosts=a"], BadService, "no computer of ucb"),
        (["hide_hosts:ucb"], UnusableService, "needs the attribute hosts"),
    ],
)
async def test_mistakes_are_told_with_what_to_write(services: Sequence[str], error: type[FedError], says: str) -> None:
    with pytest.raises(error) as raised:
        await arranged(*services)
    assert says in raised.value.message


async def test_events_go_to_whoever_carries_them_out() -> None:
    text = SEED.replace(
        "$ns run",
        """set prog [$c program-agent -command "echo hi" -timeout 5]
        set both [$ns event-group [list $prog $link0]]
        set line [$ns event-timeline]
        $line at 2.5 "$prog stop"
        set cbr [new Application/Traffic/CBR]
        $ns at 5.0 "$prog start"
        $ns at 1.0 "$link0 down"
        $ns at 7.0 "$line start"
        $ns at 8.0 "$cbr start"
        $ns run""",
    )
    found = await topology(text=text)
    assert happenings(found) == [
        Happening(1.0, "a", "link0", "down"),
        Happening(1.0, "b", "link0", "down"),
        Happening(5.0, "c", "prog", "start"),
        Happening(9.5, "c", "prog", "stop"),
    ]
    assert unserved(found) == ["8 cbr start"]
    done = await arranged("local_seer_control:deter,ucb", "seer_master:deter:ucb", text=text)
    assert told(done, "master")["Event"] == ["1 a link0 down", "1 b link0 down", "5 c prog start", "9.5 c prog stop"]
    assert not told(done, "control")["Event"]
    assert told(done, "c")["Program"] == ['prog {"command": "echo hi", "timeout": "5"}']
    assert "link0 10.1.1.2" in told(done, "a")["Link"]


def described_events(*said: tuple[str, str]) -> Topology:
    """A topology with these agents and events."""
    return Topology(attributes=tuple(Attribute(name, value) for name, value in said))


@pytest.mark.parametrize(
    "said",
    [
        [("agent", "\n".join(["EventGroup", "g", *["g"] * 3000])), ("event", "1 g start")],
        [("agent", "\n".join(["EventGroup", "g", *["p"] * 300])), ("agent", "Program\np\nnode=a")]
        + [("event", f"{time} g start") for time in range(100)],
        [("agent", "EventTimeline\nt\nsoon\nx start"), ("event", "1 t start")],
        [("event", "nan x start")],
        [("event", "soon x start")],
        [("agent", "EventGroup")],
    ],
)
def test_events_that_are_too_many_or_at_no_time_are_refused(said: list[tuple[str, str]]) -> None:
    with pytest.raises(UnusableService):
        happenings(described_events(*said))


def test_events_of_groups_in_circles_are_soon_found_to_be_unserved() -> None:
    circle = described_events(("agent", "\n".join(["EventGroup", "g", *["g"] * 3000])), ("event", "1 g start"))
    with pytest.raises(UnusableService):
        unserved(circle)


async def test_no_secret_is_seen_in_what_is_printed_by_mistake() -> None:
    done = await arranged(*SIX)
    scene = Scene(done.topology, "s3cret", "rosa", people)
    told_to_d = done.settings["d"]
    secrets = [value for key, value in told_to_d if key in ("ControlKey", "SMBPassword")]
    text = write(told_to_d)
    printed = f"{scene} {done} {read_conf(text)} {NodeConfig('d', settings=text)}"
    assert secrets
    assert not [secret for secret in (*secrets, "s3cret") if secret in printed]


def test_accounts_are_alike_wherever_they_are_made() -> None:
    assert project("TIED", KEYS) == project("TIED", KEYS)
    crowd = project("p", {f"user{number}": [] for number in range(2000)})
    assert len({account.uid for account in crowd.accounts}) == 2000
    assert account_name("Rosa Lux@keystone") == "rosa-lux-keystone"
    assert account_name("9lives") == "u9lives"
    assert account_name("Root") == "uroot"
    assert account_name("Ünï") == "n"
    assert account_name("…") == "user"
