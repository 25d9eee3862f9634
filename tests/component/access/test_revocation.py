"""A revoked credential carries nothing any more: what rests on it ends at once, and nothing new is lent on it."""

from __future__ import annotations

from datetime import timedelta

from federation_member.access import grants
from federation_member.errors import NotAllowed
from federation_member.orders.model import OrderState
from fedkit.identity.keys import PrivateKey
from fedkit.mesh.api import Peer
from fedkit.policy import revocation
from fedkit.policy.model import Credential
from fedkit.protocol.lending import LeaseState, LeaseView
from tests.support.fake_middleware import SMALL, Cloud
from tests.support.federation import USER, Federation, Member, in_virtual_time, machine
from tests.support.policies import rule
from tests.support.requester import Somebody, ask


def listing(key: PrivateKey, world: Federation, *revoked: str, serial: int = 1) -> revocation.RevocationList:
    """A list of credential ids."""
    until = world.clock() + timedelta(days=2)
    return revocation.issue(key, serial, world.clock(), dict.fromkeys(revoked, until))


async def lender_with_machine(world: Federation) -> tuple[Member, Somebody, Peer, list[Credential], LeaseView]:
    """A lender, and a machine that it lent to a user's home."""
    b = await world.add("b")
    user = Somebody(world.clock())
    home = Peer(user.testbed.fedid, "fm.a.test")
    await b.set_policy(rule("all", f"{home.fedid}/*/*"))
    sent = user.usual()
    view = await ask(b, home, user.request(sent))
    assert isinstance(view, LeaseView)
    await world.settle(lambda: view.lease_id in b.cloud.instances)
    return b, user, home, sent, view


@in_virtual_time
async def test_a_running_machine_ends_and_its_borrower_is_told_why(world: Federation) -> None:
    a, b = await world.add("a", Cloud(flavours=[SMALL])), await world.add("b")
    order = (await a.orders.create(USER, machine(requirements="vcpu >= 4"), None))[0]
    order = await a.until(order.id, OrderState.FULFILLED)
    grant = await b.db.read(lambda conn: grants.load(conn, str(order.lease_id)))
    assert grant is not None
    said = next(s for proof in grant.proof["proofs"] for s in proof if ".project_project <-" in s["statement"])
    await b.revoke(listing(a.key, world, said["credential"]))
    ended = await a.until(order.id, OrderState.CLOSED)
    assert ended.code == "member.revoked"
    assert said["statement"] in ended.reason
    await world.settle(lambda: not b.cloud.instances)


@in_virtual_time
async def test_new_requests_with_it_are_refused(world: Federation) -> None:
    b, user, home, sent, _view = await lender_with_machine(world)
    await b.revoke(listing(user.testbed, world, sent[0].id))
    refusal = await ask(b, home, user.request(sent))
    assert isinstance(refusal, NotAllowed)
    assert str(sent[0].statement) in refusal.message
    again = [user.says(user.testbed, "{A}.user <- {U}", hours=30), *sent[1:]]
    assert isinstance(await ask(b, home, user.request(again)), LeaseView)


@in_virtual_time
async def test_nobody_revokes_what_another_said(world: Federation) -> None:
    b, user, home, sent, view = await lender_with_machine(world)
    await b.revoke(listing(PrivateKey.generate(), world, *(one.id for one in sent)))
    await b.revoke(listing(user.user, world, sent[0].id))  # the user did not say that
    assert view.lease_id in b.cloud.instances
    assert isinstance(await ask(b, home, user.request(sent)), LeaseView)
    await b.revoke(listing(user.user, world, sent[-1].id, serial=2))  # but this
    await world.settle(lambda: not b.cloud.instances)


@in_virtual_time
async def test_it_is_taken_in_once_and_an_older_list_changes_nothing(world: Federation) -> None:
    b, user, home, sent, _view = await lender_with_machine(world)
    newest = listing(user.testbed, world, sent[0].id, serial=7)
    for one in (newest, newest, listing(user.testbed, world, serial=6)):
        await b.revoke(one)
    entries = await b.audit("revocation")
    assert [entry.said["serial"] for entry in entries] == [7]
    assert isinstance(await ask(b, home, user.request(sent)), NotAllowed)


@in_virtual_time
async def test_it_is_remembered_through_a_crash(world: Federation) -> None:
    b, user, home, sent, view = await lender_with_machine(world)
    b.cloud.gate.clear()
    await b.revoke(listing(user.testbed, world, sent[0].id))
    await b.kill()
    b.cloud.gate.set()
    await b.start()
    await world.settle(lambda: view.lease_id not in b.cloud.instances)
    assert isinstance(await ask(b, home, user.request(sent)), NotAllowed)


@in_virtual_time
async def test_what_ends_says_which_credential(world: Federation) -> None:
    b, user, _home, sent, view = await lender_with_machine(world)
    b.cloud.gate.clear()
    await b.revoke(listing(user.testbed, world, sent[1].id))
    lease = await b.lease(view.lease_id)
    assert (lease.state, lease.code) == (LeaseState.FAILING, "member.revoked")
    assert sent[1].id in lease.reason
    b.cloud.gate.set()
