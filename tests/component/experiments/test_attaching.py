"""A desktop is attached to an experiment that runs: as one more computer of a piece, for as long as it asks. All in virtual time."""

from __future__ import annotations

import asyncio
import uuid
from typing import Any

import pytest

from federation_member.experiments.attaching import EACH, LIFE, NewAttachment
from federation_member.experiments.desktops import Attached, Standing
from federation_member.experiments.errors import (
    NotAttachable,
    NotContained,
    TooManyAttachments,
    UnknownAttachment,
    UnknownExperiment,
    UnusableAttachment,
)
from federation_member.experiments.extending import LargerDescription
from federation_member.experiments.joining import info_of
from federation_member.experiments.model import NewExperiment, State
from federation_member.middleware.contract import NoQuota
from federation_member.orders.segments import growing
from federation_member.orders.segments.errors import UnusableSegment
from federation_member.orders.ssh_keys import new_key, public_half
from fedkit.clock import now
from fedkit.protocol.lending import Offer
from fedkit.protocol.segments import SegmentSpec
from tests.component.experiments.test_extension import TWO, active, extended, lan, nodes, text
from tests.component.experiments.test_parties import BOB, duel
from tests.support.experiments import PASSIVE, books_agree, die_after, nothing_left, sites, until
from tests.support.federation import USER, Federation, Member, in_virtual_time

DESKTOP_KEY = public_half(new_key())


def asking(**changes: Any) -> NewAttachment:
    """What a desktop asks."""
    return NewAttachment(**{"id": str(uuid.uuid4()), "public_key": DESKTOP_KEY} | changes)


async def settled(h: Member, new: NewAttachment, *states: Standing) -> Attached:
    """The attachment, once it is in one of these states."""
    for _ in range(1200):
        found = await h.experiments.desktops.get(USER, "exp", new.id)
        if found.state in states:
            return found
        await asyncio.sleep(0.5)
    raise AssertionError(f"{found.state}: {found.attachment}")


async def attached(h: Member, **changes: Any) -> Attached:
    """A desktop whose portal waits for it."""
    new = asking(**changes)
    await h.experiments.desktops.attach(USER, "exp", new)
    return await settled(h, new, Standing.READY)


async def gone(h: Member, one: Attached) -> None:
    """Wait until it is forgotten."""
    for _ in range(1200):
        if one.attachment.id not in {each.attachment.id for each in await h.experiments.desktops.page(USER, "exp")}:
            return
        await asyncio.sleep(0.5)
    raise AssertionError("it is still there")


async def specs(h: Member) -> list[SegmentSpec]:
    """What the pieces are to be, without versions."""
    whole = await h.experiments.get(USER, "exp")
    found = [segment.order.spec for segment in whole.segments if segment.order is not None]
    return [one.model_copy(update={"version": 0}) for one in found if isinstance(one, SegmentSpec)]


def portals(*members: Member) -> list[str]:
    """The scripts of portals that wait for the desktop."""
    machines = [one.spec for member in members for one in member.cloud.instances.values()]
    scripts = [spec.user_data for spec in machines if spec.kind == "compute"]
    scripts += [portal.script for member in members for one in member.cloud.segments.values() for portal in one.portals]
    return [script for script in scripts if PASSIVE in script and DESKTOP_KEY in script]


@pytest.mark.parametrize("hosts", [False, True])
@in_virtual_time
async def test_a_desktop_gets_an_address_names_and_a_portal_that_waits(world: Federation, hosts: bool) -> None:
    async with sites(world, "h", "a", hosts=hosts) as (h, a):
        await active(h, **TWO)
        before = await specs(h)
        one = await attached(h)
        seat, portal = one.attachment, one.portal
        assert (seat.name, seat.substrate, seat.ip4, seat.prefix_length) == ("desktop", "wire1", "10.1.1.254", 24)
        assert {name for line in one.told.hosts for name in line.names} >= {"n0", "n1", "desktop"}
        assert portal is not None
        assert portal.host
        assert portal.port
        assert portal.host_key
        assert len(portals(h, a)) == 1
        assert str(seat.tag) in portals(h, a)[0]
        whole = await until(h, "exp", State.ACTIVE)  # nobody waits for the desktop to be joined
        assert [c.name for spec in await specs(h) for c in spec.connectors if c.failure == "ignore"] == [
            "desktoptunnel0"
        ]
        again = await attached(h, id=seat.id)  # asking again
        assert (again.attachment, again.told) == (seat, one.told)
        await h.experiments.desktops.detach(USER, "exp", seat.id)
        await h.experiments.desktops.detach(USER, "exp", seat.id)
        await gone(h, one)
        await asyncio.sleep(60)
        assert await specs(h) == before
        assert portals(h, a) == []
        words = [event.reason for event in await h.experiments.log(USER, "exp")]
        assert "alice attaches desktop to wire1" in words
        assert words[-1] == "desktop was detached"
        assert whole.experiment.state is State.ACTIVE
        await h.experiments.terminate(USER, "exp")
        await until(h, "exp", State.TERMINATED)
        await nothing_left(h, a)


@in_virtual_time
async def test_nodes_that_run_are_left_alone(world: Federation) -> None:
    async with sites(world, "h", "a") as (h, a):
        await active(h, **TWO)
        made = [*h.cloud.made, *a.cloud.made]
        one = await attached(h, name="laptop")
        assert len({*h.cloud.made, *a.cloud.made} - {*made}) == 1  # its portal
        await h.experiments.desktops.detach(USER, "exp", one.attachment.id)
        await asyncio.sleep(60)
        assert [*h.hands.asked, *a.hands.asked] == []
        whole = await h.experiments.get(USER, "exp")
        versions = [(info_of(s.order).version, s.order.spec.version) for s in whole.segments if s.order is not None]  # type: ignore[union-attr]
        assert all(told == wanted for told, wanted in versions)


@in_virtual_time
async def test_a_lender_that_refuses_the_portal_keeps_what_it_has(
    world: Federation, monkeypatch: pytest.MonkeyPatch
) -> None:
    def check(spec: SegmentSpec, offer: Offer) -> None:
        raise UnusableSegment(f"No portal for {offer.kinds[0]} of {spec.testbed}.")

    async with sites(world, "h", "a") as (h, _a):
        await active(h, **TWO)
        before = await specs(h)
        with monkeypatch.context() as patched:
            patched.setattr(growing, "check", check)
            for _ in range(2):
                new = asking()
                await h.experiments.desktops.attach(USER, "exp", new)
                found = await settled(h, new, Standing.FAILED)
                assert (found.attachment.code, "No portal for" in found.attachment.reason) == (
                    UnusableSegment.code,
                    True,
                )
                assert await specs(h) == before
            larger = LargerDescription(description=lan(**TWO, n2="h.test"))
            await h.experiments.extend(USER, "exp", larger)  # which is refused, too
            await until(h, "exp", State.ACTIVE, where=lambda it: it.extension is None)
            assert await specs(h) == before
        whole = await extended(h, lan(**TWO, n3="h.test"))
        assert len(nodes(whole)) == 3
        await attached(h)
        await asyncio.sleep(2 * 3600)
        assert (await h.experiments.get(USER, "exp")).experiment.state is State.ACTIVE


@in_virtual_time
async def test_one_that_is_not_heard_of_is_taken_out(world: Federation) -> None:
    async with sites(world, "h", "a") as (h, a):
        await active(h, **TWO)
        before = await specs(h)
        kept, lost = asking(), await attached(h)
        for _ in range(5):
            await h.experiments.desktops.attach(USER, "exp", kept)
            await asyncio.sleep(LIFE.total_seconds() / 4)
        found = await h.experiments.desktops.page(USER, "exp")
        assert [one.attachment.id for one in found] == [kept.id]
        assert "was not heard of" in [event.reason for event in await h.experiments.log(USER, "exp")][-1]
        with pytest.raises(UnknownAttachment):
            await h.experiments.desktops.get(USER, "exp", lost.attachment.id)
        await asyncio.sleep(2 * LIFE.total_seconds())
        assert await specs(h) == before
        assert portals(h, a) == []


@in_virtual_time
async def test_several_have_addresses_tags_and_portals_of_their_own_and_no_more_than_a_few(world: Federation) -> None:
    async with sites(world, "h", "a") as (h, a):
        await active(h, **TWO)
        found = [(await attached(h)).attachment for _ in range(EACH)]
        for name in ("name", "ip4", "tag", "connector"):
            assert len({getattr(one, name) for one in found}) == EACH
        with pytest.raises(TooManyAttachments):
            await h.experiments.desktops.attach(USER, "exp", asking())
        await h.experiments.desktops.detach(USER, "exp", found[1].id)
        await asyncio.sleep(60)
        assert len(portals(h, a)) == EACH - 1
        one = (await attached(h)).attachment
        assert (one.name, one.ip4) == (found[1].name, found[1].ip4)


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"at": "nowhere"}, "'nowhere'; there is wire1"),
        ({"name": "n1"}, "n1"),
        ({"public_key": "ssh-ed25519 AAAA"}, "public key"),
    ],
)
@in_virtual_time
async def test_what_cannot_be_is_refused_and_changes_nothing(
    world: Federation, changes: dict[str, Any], word: str
) -> None:
    async with sites(world, "h", "a") as (h, _a):
        await active(h, **TWO)
        before = await specs(h)
        with pytest.raises(UnusableAttachment, match=word):
            await h.experiments.desktops.attach(USER, "exp", asking(**changes))
        with pytest.raises(UnknownExperiment):
            await h.experiments.desktops.attach(BOB, "exp", asking())
        one = await attached(h)
        other = asking(id=one.attachment.id, public_key=public_half(new_key()))
        with pytest.raises(UnusableAttachment, match="id"):  # somebody else's, with another key
            await h.experiments.desktops.attach(USER, "exp", other)
        await h.experiments.desktops.detach(USER, "exp", one.attachment.id)
        await gone(h, one)
        assert await specs(h) == before


@in_virtual_time
async def test_a_portal_that_cannot_be_made_costs_the_attachment_alone(world: Federation) -> None:
    async with sites(world, "h", "a") as (h, a):
        await active(h, **TWO)
        for member in (h, a):
            member.cloud.refusal, member.cloud.refused_kinds = NoQuota("It is full."), frozenset({"compute"})
        new = asking()
        await h.experiments.desktops.attach(USER, "exp", new)
        found = await settled(h, new, Standing.FAILED)
        assert "It is full." in found.attachment.reason
        await asyncio.sleep(120)
        assert (await h.experiments.get(USER, "exp")).experiment.state is State.ACTIVE
        for member in (h, a):
            member.cloud.refusal = None
        await attached(h)
        assert (await h.experiments.desktops.get(USER, "exp", new.id)).state is Standing.FAILED


@in_virtual_time
async def test_an_experiment_is_extended_with_desktops_and_they_stay(world: Federation) -> None:
    async with sites(world, "h", "a", "b") as (h, a, b):
        await active(h, **TWO)
        one = await attached(h)
        before = portals(h, a)
        larger = LargerDescription(description=lan(**TWO, n2="b.test"))
        await h.experiments.extend(USER, "exp", larger)
        with pytest.raises(NotAttachable, match="extended"):
            await h.experiments.desktops.attach(USER, "exp", asking())
        await h.experiments.desktops.detach(USER, "exp", one.attachment.id)
        await asyncio.sleep(0.5)
        assert (await h.experiments.desktops.get(USER, "exp", one.attachment.id)).state is Standing.LEAVING
        await until(h, "exp", State.ACTIVE, where=lambda it: it.extension is None)
        await gone(h, one)
        second = await attached(h)
        whole = await extended(h, lan(**TWO, n2="b.test", n3="a.test"))
        assert len(whole.segments) == 3
        assert (await h.experiments.desktops.get(USER, "exp", second.attachment.id)).state is Standing.READY
        assert len(portals(h, a, b)) == len(before) == 1
        taken = LargerDescription(description=lan(**TWO, n2="b.test", n3="a.test", desktop="a.test"))
        with pytest.raises(NotContained, match="desktop that is attached"):
            await h.experiments.extend(USER, "exp", taken)
        await h.experiments.terminate(USER, "exp")
        await until(h, "exp", State.TERMINATED)
        assert await h.experiments.desktops.page(USER, "exp") == []
        await nothing_left(h, a, b)


@in_virtual_time
async def test_who_is_on_its_own_network_is_called_by_the_address_there(world: Federation) -> None:
    async with sites(world, "h", "a") as (h, _a):
        new = NewExperiment(name="exp", description=text(("n0", "n1"), ("n0", "n1"), **TWO))
        await h.experiments.create(USER, new)
        await until(h, "exp", State.ACTIVE)
        told = (await attached(h, at="wire2")).told
        known = {name: line.ip4 for line in told.hosts for name in line.names}
        assert (known["n0"], known["n1"], known["n0-wire1"]) == ("10.1.2.2", "10.1.2.3", "10.1.1.2")
        assert len([name for line in told.hosts for name in line.names]) == len(known)


@in_virtual_time
async def test_a_partys_people_attach_to_what_is_their_own(world: Federation) -> None:
    async with sites(world, "h", "a") as (h, _a):
        whole, _grant, _key = await h.experiments.create(USER, duel("h.test", "h.test", "a.test", name="exp"))
        wanted = whole.experiment.id
        await until(h, wanted, State.ACTIVE)
        account = await h.accounts.get("bob")
        until_when = now().replace(year=now().year + 1)
        grant = await h.experiments.grant(USER, wanted, account.principal, until_when, "attacker")
        shown, desks = [grant.credential], h.experiments.desktops
        new = asking()
        made = await desks.attach(BOB, wanted, new, shown)
        found = made.attachment
        assert (found.testbed, found.substrate) == ("site/attack", "wire1")
        assert {name for line in made.told.hosts for name in line.names} & {"n0", "n1", "n2"} == {"n0", "n1"}
        for other in ("wire2", "wire9"):
            with pytest.raises(UnusableAttachment, match="there is wire1"):
                await desks.attach(BOB, wanted, asking(at=other), shown)
        beyond = await desks.attach(USER, wanted, asking(at="wire2"))
        owners = beyond.attachment
        assert (owners.testbed, {"n0"} & {n for line in beyond.told.hosts for n in line.names}) == (
            "site/defend",
            set(),
        )
        assert [one.attachment.id for one in await desks.page(BOB, wanted, shown)] == [new.id]
        await desks.detach(BOB, wanted, owners.id, shown)  # which they know nothing of
        await asyncio.sleep(60)
        assert len(await desks.page(USER, wanted)) == 2
        await h.experiments.revoke(USER, wanted, account.principal)
        await asyncio.sleep(60)
        assert [one.attachment.id for one in await desks.page(USER, wanted)] == [owners.id]


@pytest.mark.parametrize("hosts", [False, True])
@in_virtual_time
async def test_where_the_lender_has_no_tunnel_server_that_of_home_serves(world: Federation, hosts: bool) -> None:
    async with sites(world, "h", "a", hosts=hosts, closed=["a"]) as (h, a):
        await active(h, n0="a.test", n1="a.test")
        one = await attached(h)
        assert one.attachment.relay
        assert one.portal is not None
        assert one.portal.host
        await h.experiments.desktops.detach(USER, "exp", one.attachment.id)
        await gone(h, one)
        await h.experiments.terminate(USER, "exp")
        await until(h, "exp", State.TERMINATED)
        await nothing_left(h, a)


@pytest.mark.parametrize("commits", range(1, 9))
@in_virtual_time
async def test_home_may_die_at_every_commit(world: Federation, commits: int) -> None:
    async with sites(world, "h", "a") as (h, a):
        await active(h, **TWO)
        before = await specs(h)
        die_after(h, commits)
        new = asking()
        asked = asyncio.create_task(h.experiments.desktops.attach(USER, "exp", new))
        await asyncio.sleep(20)
        asked.cancel()
        await asyncio.gather(asked, return_exceptions=True)
        await h.kill()
        await h.start()
        one = await attached(h, id=new.id)
        assert len(portals(h, a)) == 1
        await h.experiments.desktops.detach(USER, "exp", new.id)
        await gone(h, one)
        await asyncio.sleep(60)
        assert await specs(h) == before
        assert portals(h, a) == []
        await books_agree(h, a)
        await h.experiments.terminate(USER, "exp")
        await until(h, "exp", State.TERMINATED)
        await nothing_left(h, a)
