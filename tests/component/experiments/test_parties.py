"""Attacker and defender: each sees and operates what is its own, and of the rest only what is shared. All in virtual time."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest

from federation_member.experiments.errors import NotGranted, UnusableParty
from federation_member.experiments.extending import LargerDescription
from federation_member.experiments.model import NewExperiment, State, Whole
from federation_member.experiments.views import UNTOLD
from federation_member.orders.model import User
from federation_member.web.experiment_views import credentials_view, event_view, whole_view
from fedkit.protocol.lending import ComputeSpec
from fedkit.protocol.segments import Operation, SegmentSpec
from fedkit.topology import topdl
from fedkit.topology.json_form import topology_as_json
from fedkit.topology.picture import draw
from fedkit.topology.services import BadService
from fedkit.topology.views import PartiesMeet
from tests.support.experiments import line, sites, until
from tests.support.federation import USER, Federation, Member, in_virtual_time
from tests.support.segments import KEY, wired

BOB = User("project", "bob")
PLACES = ("site/attack", "hall", "site/defend")
PARTIES = {
    "attacker": {"testbeds": ["site/attack"], "ssh_keys": [f"{KEY} mallory"]},
    "defender": {"testbeds": ["site/defend"], "ssh_keys": [f"{KEY} trent"]},
}
SECRETS = {  # of each party: names, places, addresses of what no other may know
    "attacker": ("n0", "site/attack", "wire1", "10.1.1.", "attacker", "mallory"),
    "defender": ("n2", "site/defend", "wire2", "10.1.2.", "defender", "trent"),
}


def duel(*members: str, **changes: Any) -> NewExperiment:
    """n0 of the attacker and n2 of the defender, with the shared n1 between them."""
    wanted = {
        "nodes": {"n1": {"startup": "ping n0 n2 10.1.1.2 10.1.2.3"}},
        "members": dict(zip(PLACES, members, strict=True)),
        "parties": PARTIES,
        "ssh_keys": [f"{KEY} owner"],
    }
    return line(*PLACES, **wanted | changes)


def spec(whole: Whole, testbed: str) -> SegmentSpec:
    """What was asked for at a testbed."""
    found = next(segment.order for segment in whole.segments if segment.testbed == testbed)
    assert found is not None
    assert isinstance(found.spec, SegmentSpec)
    return found.spec


def told(text: str, secrets: Sequence[str]) -> list[str]:
    """Which of them are in a text, as words: a key may have any letters."""
    return [one for one in secrets if re.search(rf"(?<![A-Za-z0-9+/]){re.escape(one)}(?![A-Za-z+/=])", text)]


async def shown_to(member: Member, user: User, wanted: str, credential: str) -> str:
    """Everything that somebody can ask of an experiment, as text."""
    experiments, shown = member.experiments, [credential]
    whole = await experiments.get(user, wanted, shown)
    topology = await experiments.topology(user, wanted, shown)
    events = await experiments.log(user, wanted, shown)
    logins, grant = await experiments.credentials(user, wanted, shown)
    return "\n".join(
        [
            whole_view(whole).model_dump_json(),
            repr(whole),
            json.dumps(topology_as_json(topology)),
            draw(topology),
            *(event_view(event).model_dump_json() for event in events),
            credentials_view(logins, grant).model_dump_json(),
        ]
    )


@asynccontextmanager
async def granted(world: Federation, party: str, **changes: Any) -> AsyncIterator[tuple[Member, Member, str, str]]:
    """A running duel: home, the other member, the experiment's id, and Bob's credential as one of a party."""
    async with sites(world, "h", "a") as (h, a):
        made, _grant, _key = await h.experiments.create(USER, duel("h.test", "h.test", "a.test", **changes))
        wanted = made.experiment.id
        await until(h, wanted, State.ACTIVE)
        principal = (await h.accounts.get("bob")).principal
        grant = await h.experiments.grant(USER, wanted, principal, world.clock() + timedelta(hours=1), party)
        yield h, a, wanted, grant.credential


@pytest.mark.parametrize(("party", "other"), [("attacker", "defender"), ("defender", "attacker")])
@in_virtual_time
async def test_nothing_of_the_other_is_in_anything_that_one_can_ask(world: Federation, party: str, other: str) -> None:
    async with granted(world, party) as (h, _a, wanted, credential):
        text = await shown_to(h, BOB, wanted, credential)
        assert told(text, SECRETS[other]) == []
        assert told(text, SECRETS[party]) == list(SECRETS[party])
        whole = await h.experiments.get(BOB, wanted, [credential])
        assert [segment.testbed for segment in whole.segments if segment.testbed == "hall"] == ["hall"]
        assert "n1" in text


@in_virtual_time
async def test_a_hidden_host_is_in_nothing_that_a_party_can_ask(world: Federation) -> None:
    async with granted(world, "attacker", services=["hide_hosts:hall::hosts=n1"]) as (h, _a, wanted, credential):
        assert told(await shown_to(h, BOB, wanted, credential), ["n1", "n0"]) == ["n0"]
        assert [one.name for one in (await h.experiments.topology(USER, wanted)).computers] == ["n0", "n1", "n2"]


@in_virtual_time
async def test_a_loss_elsewhere_is_told_without_saying_where(world: Federation) -> None:
    async with granted(world, "attacker") as (h, a, wanted, credential):
        a.cloud.lose(next(key for key, one in a.cloud.instances.items() if one.spec.name == "n2"))
        await until(h, wanted, State.FAILED)
        owners = (await h.experiments.get(USER, wanted)).experiment
        assert "n2" in owners.reason
        text = await shown_to(h, BOB, wanted, credential)
        assert told(text, (*SECRETS["defender"], "a.test")) == []
        experiment = (await h.experiments.get(BOB, wanted, [credential])).experiment
        assert (experiment.state, experiment.code, experiment.reason) == (State.FAILED, "", UNTOLD)


@in_virtual_time
async def test_each_operates_its_own_nodes_and_nothing_else(world: Federation) -> None:
    async with granted(world, "attacker") as (h, _a, wanted, credential):
        shown, experiments = [credential], h.experiments
        done = await experiments.operate(BOB, wanted, Operation.STOP, ["n0", "n1", "n2", "n9"], shown)
        assert set(done.output) == {"n0"}
        assert len({done.failed[name] for name in ("n1", "n2", "n9")}) == 1  # so it is not told which of them are there
        done = await experiments.operate(BOB, wanted, Operation.START, [], shown)
        assert (set(done.output), done.failed) == ({"n0"}, {})
        for forbidden in (
            experiments.renew(BOB, wanted, None, shown),
            experiments.terminate(BOB, wanted, shown),
        ):
            with pytest.raises(NotGranted):
                await forbidden
        assert (await experiments.get(USER, wanted)).experiment.state is State.ACTIVE


@in_virtual_time
async def test_pieces_are_told_of_their_own_and_of_what_is_shared(world: Federation) -> None:
    async with sites(world, "h") as (h,):
        made, _grant, _key = await h.experiments.create(USER, duel("h.test", "h.test", "h.test"))
        attack, hall, defend = (spec(made, place) for place in PLACES)
        names = {place: [host.names for host in spec(made, place).hosts] for place in PLACES}
        assert names["site/attack"] == [["n0", "n0-wire1"], ["n1", "n1-wire1"]]
        assert names["site/defend"] == [["n1", "n1-wire2"], ["n2", "n2-wire2"]]
        assert names["hall"] == []
        assert [key.split()[-1] for key in attack.ssh_keys] == ["owner", "mallory"]
        assert [key.split()[-1] for key in hall.ssh_keys] == ["owner"]
        assert attack.apart == defend.apart == {}
        assert {(ban.address, ban.network) for ban in hall.apart["n1"]} == {
            ("10.1.1.3", "10.1.2.0/24"),
            ("10.1.2.2", "10.1.1.0/24"),
        }
        await until(h, made.experiment.id, State.ACTIVE)
        machine = next(one.spec for one in h.cloud.instances.values() if one.spec.name == "n1")
        assert isinstance(machine, ComputeSpec)
        assert "APART='10.1.1.3 10.1.2.0/24\n10.1.2.2 10.1.1.0/24'" in machine.user_data


@in_virtual_time
async def test_hosts_that_are_hidden_stay_in_the_hosts_files_of_their_testbed(world: Federation) -> None:
    async with sites(world, "h") as (h,):
        new = line("one", "one", "two", services=["hide_hosts:one::hosts=n0"])
        made, _grant, _key = await h.experiments.create(USER, new)
        assert [host.names[0] for host in spec(made, "one").hosts] == ["n0", "n1", "n1-wire2", "n2"]
        assert [host.names[0] for host in spec(made, "two").hosts] == ["n1", "n1-wire2", "n2"]
        with pytest.raises(BadService, match="hide_hosts"):
            await h.experiments.create(USER, line("one", "two", name="x", services=["hide_hosts:one::hosts=n1"]))


@pytest.mark.parametrize(
    ("parties", "error"),
    [
        ({"red": {"testbeds": ["one"]}, "blue": {"testbeds": ["two"]}}, PartiesMeet),
        ({"red": {"testbeds": ["three"]}}, UnusableParty),
        ({"red": {"testbeds": ["one"]}, "blue": {"testbeds": ["one"]}}, UnusableParty),
    ],
)
@in_virtual_time
async def test_parties_that_cannot_be_are_refused(world: Federation, parties: Any, error: type[Exception]) -> None:
    async with sites(world, "h") as (h,):
        with pytest.raises(error):
            await h.experiments.create(USER, line("one", "two", parties=parties))
        assert await h.experiments.page(USER) == []
        made, _grant, _key = await h.experiments.create(USER, line("one", "two"))
        principal = (await h.accounts.get("bob")).principal
        with pytest.raises(UnusableParty):
            await h.experiments.grant(USER, "line", principal, world.clock() + timedelta(hours=1), "red")
        assert made.experiment.parties == {}


@in_virtual_time
async def test_computers_without_a_testbed_are_shared(world: Federation) -> None:
    async with sites(world, "h", "a") as (h, _a):
        nodes = {"n0": {"testbed": "a.test"}, "n1": {"testbed": ""}}
        new = line("", "", nodes=nodes, parties={"red": {"testbeds": ["a.test"]}})
        made, _grant, _key = await h.experiments.create(USER, new)
        assert [segment.testbed for segment in made.segments] == ["a.test", "h.test"]


@in_virtual_time
async def test_what_is_added_belongs_to_whose_testbed_it_is_at(world: Federation) -> None:
    async with granted(world, "attacker") as (h, _a, wanted, credential):
        places = {name: {"testbed": place} for name, place in zip(("n0", "n1", "n2"), PLACES, strict=True)}
        places["n1"] |= {"startup": "ping n0 n2 10.1.1.2 10.1.2.3"}
        larger = wired(("n0", "n1"), ("n1", "n2", "n3"), **places, n3={"testbed": "site/defend"})
        body = LargerDescription(description=topdl.write(larger).decode())
        with pytest.raises(NotGranted):
            await h.experiments.extend(BOB, wanted, body, [credential])
        await h.experiments.extend(USER, wanted, body)
        for _ in range(600):
            text = await shown_to(h, BOB, wanted, credential)
            assert told(text, (*SECRETS["defender"], "n3")) == []
            whole = await h.experiments.get(USER, wanted)
            if whole.experiment.extension is None and whole.experiment.state is State.ACTIVE:
                break
            await asyncio.sleep(0.5)
        names = {place: [host.names[0] for host in spec(whole, place).hosts] for place in PLACES}
        assert names == {"site/attack": ["n0", "n1"], "hall": [], "site/defend": ["n1", "n2", "n3"]}
        joined = wired(("n0", "n1", "n4"), ("n1", "n2", "n3"), **places, n3=places["n2"], n4=places["n2"])
        body = LargerDescription(description=topdl.write(joined).decode())
        with pytest.raises(PartiesMeet):
            await h.experiments.extend(USER, wanted, body)
