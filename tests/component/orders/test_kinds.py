"""Orders of every kind, at home and elsewhere: what they need of one another, and in which order they come and go."""

from __future__ import annotations

import uuid
from pathlib import Path

import pytest

from federation_member.errors import InUse, UnknownLease, UnknownReference
from federation_member.middleware.contract import NoCapacity, NoQuota
from federation_member.orders.model import NewOrder, Order, OrderState, OrderType, User
from fedkit.protocol.lending import AnySpec, AttachmentSpec, LeaseCreate, LeaseState, PublicIpSpec
from tests.support.fake_middleware import Cloud
from tests.support.federation import (
    USER,
    Federation,
    Member,
    attachment,
    in_virtual_time,
    machine,
    network,
    public_ip,
    snapshot,
    volume,
)

URL = {"image": "https://images.test/disk.qcow2", "image_sha256": "0" * 64}


@pytest.fixture
def world(tmp_path: Path) -> Federation:
    """An empty federation in virtual time."""
    return Federation(tmp_path, virtual=True)


async def place(member: Member, new: NewOrder) -> Order:
    """Order one."""
    return (await member.orders.create(USER, new, None))[0]


async def have(member: Member, new: NewOrder) -> Order:
    """Order one and wait until it runs."""
    return await member.until((await place(member, new)).id, OrderState.FULFILLED)


def at_peace(member: Member) -> bool:
    """Nothing was tried that a cloud must refuse, and nothing is left."""
    assert member.cloud.misdeeds == []
    return not member.cloud.instances


async def test_all_kinds_go_where_what_they_use_is(world_on_both: Federation) -> None:
    a, b = await world_on_both.add("a"), await world_on_both.add("b")
    await world_on_both.add("c")
    lan = await place(a, network(location="b.test"))
    disk = await place(a, volume(location="b.test"))
    vm = await place(a, machine(networks=[lan.id]))
    orders = [lan, disk, vm]
    orders += [await place(a, new) for new in (attachment(vm.id, disk.id), public_ip(vm.id), snapshot(vm.id))]
    orders.append(await place(a, machine(image=f"snapshot:{orders[-1].id}")))
    done = {order.id: await a.until(order.id, OrderState.FULFILLED) for order in orders}
    assert {order.member for order in done.values()} == {"b.test"}
    assert set(b.cloud.instances) == {order.lease_id for order in done.values()}
    attached, address, image, copy = (done[order.id] for order in orders[3:])
    assert attached.instance is not None
    assert attached.instance.device == "/dev/vdb"
    assert address.instance is not None
    assert address.instance.public_address is not None
    assert b.cloud.instances[str(copy.lease_id)].spec.image == f"snapshot:{image.lease_id}"  # type: ignore[union-attr]
    assert (await a.order(vm.id)).used_by == (attached.id, address.id)  # the snapshot is made, and a copy
    assert (await a.order(image.id)).used_by == (copy.id,)


@in_virtual_time
async def test_an_order_waits_for_what_it_uses_and_says_so(world: Federation) -> None:
    a = await world.add("a", Cloud(slow_start=True))
    disk, vm = await place(a, volume()), await place(a, machine())
    attached = await place(a, attachment(vm.id, disk.id))
    assert attached.code == "orders.waits_for_machine"
    assert attached.reason == f"waits for the machine {vm.id}, which is pending"
    await world.settle(lambda: len(a.cloud.instances) == 2)
    a.cloud.finish(str((await a.order(vm.id)).lease_id))
    waits = await a.until(attached.id, OrderState.OPEN, lambda order: order.code == "orders.waits_for_volume")
    assert waits.reason == f"waits for the volume {disk.id}, which is pending"
    a.cloud.finish(str((await a.order(disk.id)).lease_id))
    pending = await a.until(attached.id, OrderState.PENDING)
    await world.settle(lambda: pending.lease_id in a.cloud.instances)
    a.cloud.finish(str(pending.lease_id))
    await a.until(attached.id, OrderState.FULFILLED)


@pytest.mark.parametrize("lender", ["a.test", "b.test"])
async def test_what_is_used_is_deleted_last(world_on_both: Federation, lender: str) -> None:
    a, b = await world_on_both.add("a"), await world_on_both.add("b")
    disk, vm = await have(a, volume(location=lender)), await have(a, machine(location=lender))
    attached, address = await have(a, attachment(vm.id, disk.id)), await have(a, public_ip(vm.id))
    with pytest.raises(InUse, match=f"attachment {attached.id}, public address {address.id}") as refused:
        await a.orders.delete(USER, vm.id)
    assert refused.value.details == {"users": [attached.id, address.id]}
    with pytest.raises(InUse, match=f"delete first: attachment {attached.id}"):
        await a.orders.delete(USER, disk.id)
    for order in (attached, address, vm, disk):  # nobody waits in between: their lender keeps the order
        await a.orders.delete(USER, order.id)
    for order in (disk, vm):
        await a.until(order.id, OrderState.DELETED)
    assert at_peace(a)
    assert at_peace(b)
    with pytest.raises(UnknownReference, match=f"The machine {vm.id} is deleted"):
        await place(a, public_ip(vm.id))


@in_virtual_time
async def test_a_snapshot_outlives_its_machine_and_is_used_by_what_it_booted(world: Federation) -> None:
    a = await world.add("a", Cloud(slow_start=True))
    vm = await place(a, machine())
    await world.settle(lambda: len(a.cloud.instances) == 1)
    a.cloud.finish(a.cloud.made[0])
    await a.until(vm.id, OrderState.FULFILLED)
    image = await place(a, snapshot(vm.id))
    with pytest.raises(InUse):
        await a.orders.delete(USER, vm.id)  # it is being made
    await world.settle(lambda: len(a.cloud.instances) == 2)
    a.cloud.finish(a.cloud.made[1])
    await a.until(image.id, OrderState.FULFILLED)
    a.cloud.slow_start = False
    await a.orders.delete(USER, vm.id)
    await a.until(vm.id, OrderState.DELETED)
    assert (await a.order(image.id)).state is OrderState.FULFILLED
    copy = await have(a, machine(image=f"snapshot:{image.id}"))
    with pytest.raises(InUse):
        await a.orders.delete(USER, image.id)
    await a.orders.delete(USER, copy.id)
    await a.orders.delete(USER, image.id)
    await a.until(image.id, OrderState.DELETED)
    assert at_peace(a)


@in_virtual_time
async def test_what_belongs_to_others_cannot_be_used(world: Federation) -> None:
    a = await world.add("a")
    disk, vm = await have(a, volume()), await have(a, machine())
    bob = User("project", "bob")
    (own,) = await a.orders.create(bob, machine(), None)
    for new in (attachment(own.id, disk.id), public_ip(vm.id), snapshot(vm.id), machine(image=f"snapshot:{vm.id}")):
        with pytest.raises(UnknownReference, match="You have no"):
            await a.orders.create(bob, new, None)
    with pytest.raises(UnknownReference, match=f"You have no volume order {vm.id}"):
        await place(a, attachment(vm.id, vm.id))  # of the wrong kind


async def test_a_persistent_attachment_follows_its_machine(world_on_both: Federation) -> None:
    a, b = await world_on_both.add("a"), await world_on_both.add("b")
    persistent = OrderType.PERSISTENT
    disk = await have(a, volume(location="b.test"))
    vm = await have(a, machine(location="b.test", type=persistent))
    attached = await have(a, attachment(vm.id, disk.id, type=persistent))
    address = await have(a, public_ip(vm.id))
    b.cloud.lose(str(vm.lease_id))
    again = await a.until(vm.id, OrderState.FULFILLED, lambda order: order.lease_id != vm.lease_id)
    moved = await a.until(attached.id, OrderState.FULFILLED, lambda order: order.lease_id != attached.lease_id)
    assert b.cloud.instances[str(moved.lease_id)].spec.machine == again.lease_id  # type: ignore[union-attr]
    closed = await a.until(address.id, OrderState.CLOSED)
    assert closed.code == "lease.used_ended"
    assert closed.reason.startswith("lost at b.test: the machine that it uses ends: the instance is gone")
    assert b.cloud.misdeeds == []
    assert set(b.cloud.instances) == {disk.lease_id, again.lease_id, moved.lease_id} == await b.book()


@in_virtual_time
async def test_a_lender_believes_nobody_that_a_lease_is_theirs(world: Federation) -> None:
    a, b = await world.add("a"), await world.add("b")
    disk, vm = await have(a, volume(location="b.test")), await have(a, machine(location="b.test"))
    machine_lease, disk_lease = str(vm.lease_id), str(disk.lease_id)

    async def refusal(borrower: Member, user: str, spec: AnySpec) -> str:
        name = f"{borrower.key.fedid}/project/{user}"
        body = LeaseCreate(lease_id=str(uuid.uuid4()), name=name, principal=borrower.key.fedid, spec=spec, seconds=600)
        with pytest.raises(UnknownLease) as refused:
            await b.db.run(lambda tx: b.orders.engine.lending.create(tx, borrower.peer, body))
        return refused.value.message

    theirs = AttachmentSpec(machine=machine_lease, volume=disk_lease)
    for borrower, user in ((a, "bob"), (b, "alice")):
        assert "is not a lease of this user" in await refusal(borrower, user, theirs)
    unknown = PublicIpSpec(machine=str(uuid.uuid4()))
    assert "is not a lease of this user" in await refusal(a, "alice", unknown)
    swapped = AttachmentSpec(machine=disk_lease, volume=machine_lease)
    assert "is not a running" in await refusal(a, "alice", swapped)
    b.cloud.gate.clear()
    await a.orders.delete(USER, vm.id)
    await world.settle(lambda: _ends(b, machine_lease))
    assert "is not a running machine" in await refusal(a, "alice", theirs)
    b.cloud.gate.set()


async def _ends(member: Member, lease_id: str) -> bool:
    return (await member.lease(lease_id)).state is LeaseState.RELEASING


@in_virtual_time
async def test_a_volume_stays_where_it_is(world: Federation) -> None:
    a, b = await world.add("a"), await world.add("b")
    disk = await have(a, volume(location="b.test"))
    vm = await have(a, machine(location=["b.test", "a.test"][1], type=OrderType.PERSISTENT))
    attached = await place(a, attachment(vm.id, disk.id, type=OrderType.PERSISTENT))
    assert attached.state is OrderState.OPEN
    assert attached.code == "orders.apart"
    assert attached.reason == (
        f"what it uses is at different members: machine {vm.id} at a.test, volume {disk.id} at b.test"
    )
    assert len(b.cloud.instances) == 1


@in_virtual_time
async def test_what_uses_an_order_that_has_ended_ends(world: Federation) -> None:
    a = await world.add("a", Cloud(slow_start=True))
    vm = await place(a, machine(valid_until=world.clock().replace(year=world.clock().year + 1)))
    image = await place(a, snapshot(vm.id, type=OrderType.PERSISTENT))
    world.advance(400 * 86400)
    closed = await a.until(image.id, OrderState.CLOSED)
    assert closed.code == "orders.used_ended"
    assert closed.reason == f"uses the machine {vm.id}, which is closed"


@in_virtual_time
async def test_whoever_may_not_have_more_leads_on_to_the_next(world: Federation) -> None:
    a = await world.add("a", Cloud(refusal=NoQuota("10 GiB allowed, 8 in use")))
    await world.add("b", Cloud(refusal=NoCapacity("no disk is free")))
    c = await world.add("c", Cloud(kinds=frozenset({"compute"})))
    d = await world.add("d")
    disk = await have(a, volume())
    assert disk.member == "d.test"
    said = {attempt.member: (attempt.code, attempt.reason) for attempt in (await a.orders.why(USER, disk.id)).attempts}
    assert said["a.test"] == (NoQuota.code, "10 GiB allowed, 8 in use")
    assert said.get("b.test") in (None, (NoCapacity.code, "no disk is free"))
    assert "c.test" not in said
    assert len(d.cloud.instances) == 1
    assert not c.cloud.made


@in_virtual_time
async def test_an_image_is_fetched_by_whom_it_can_be(world: Federation) -> None:
    a = await world.add("a")
    vm = await place(a, machine(**URL))
    assert vm.reason == "images are not fetched by any known member"
    await world.add("b", Cloud(fetches_images=True))
    assert (await a.until(vm.id, OrderState.FULFILLED)).member == "b.test"


@in_virtual_time
async def test_how_far_a_slow_lender_is_can_be_followed(world: Federation) -> None:
    a, b = await world.add("a", Cloud(kinds=frozenset())), await world.add("b", Cloud(slow_start=True))
    b.cloud.progress = "fetching the image: 34 %"
    vm = await place(a, machine())
    pending = await a.until(vm.id, OrderState.PENDING, lambda order: "34 %" in order.reason)
    assert pending.reason == "b.test is making it: fetching the image: 34 %"
    b.cloud.progress = "fetching the image: 99 %"
    await a.until(vm.id, OrderState.PENDING, lambda order: "99 %" in order.reason)
    b.cloud.finish(str(pending.lease_id))
    assert (await a.until(vm.id, OrderState.FULFILLED)).reason == "runs at b.test"


@in_virtual_time
async def test_where_machines_have_addresses_there_is_no_tunnel(world: Federation) -> None:
    a = await world.add("a", Cloud(gives_addresses=True))
    vm = await have(a, machine())
    assert vm.instance is not None
    address = vm.instance.public_address
    assert vm.reason == f"runs at a.test, reachable at its public address {address} without a tunnel"
    assert vm.tunnels == ()
