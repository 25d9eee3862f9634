"""Commands in the nodes of a segment, by the key that its lender made for it, and the one that it gives away. In virtual time."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from federation_member.orders import leases
from federation_member.orders.leases import Lease
from federation_member.orders.model import Order, OrderState
from federation_member.orders.segments.operate import CONTAINER
from federation_member.orders.segments.remote import Said
from federation_member.orders.ssh_keys import public_half
from fedkit.identity import sealing
from fedkit.protocol.lending import ComputeSpec, LeaseChange
from fedkit.protocol.segments import LOGIN, RUN_LIMIT, Login, Operate, Operated, Operation, SegmentGo, SegmentSpec
from tests.support.fake_middleware import Cloud
from tests.support.federation import USER, Federation, Member, in_virtual_time
from tests.support.segments import ordered, piece


@pytest.fixture
def world(tmp_path: Path) -> Federation:
    """An empty federation."""
    return Federation(tmp_path, virtual=True)


async def running(a: Member, b: Member, spec: SegmentSpec) -> Order:
    """Have a segment that runs."""
    (order,) = await a.orders.create(USER, ordered(spec, location="b.test"), None)
    order = await a.until(order.id, OrderState.PENDING, lambda order: order.instance is not None)
    body = LeaseChange(lease_id=str(order.lease_id), segment=SegmentGo())
    await a.db.run(lambda tx: a.mesh.enqueue(tx, b.peer, "lease.change", body))
    return await a.until(order.id, OrderState.FULFILLED)


async def nodes(b: Member, order: Order) -> dict[str, Lease]:
    """Its machines by name."""
    found = await b.db.read(lambda conn: leases.children(conn, str(order.lease_id)))
    return {child.part.removeprefix("node/"): child for child in found.values() if child.part.startswith("node/")}


def host(lease: Lease) -> str:
    """Where a machine is reached."""
    assert lease.instance is not None
    return str(lease.instance.public_address)


async def operate(a: Member, b: Member, order: Order, operation: Operation, *names: str, command: str = "") -> Operated:
    """Ask the lender."""
    body = Operate(lease_id=str(order.lease_id), operation=operation, nodes=list(names), command=command)
    return await a.mesh.ask(b.peer, "segment.operate", body, Operated, timeout=RUN_LIMIT + 5)


@in_virtual_time
async def test_a_command_runs_in_each_node_by_the_lenders_own_key(world: Federation) -> None:
    a, b = await world.add("a"), await world.add("b", Cloud(gives_addresses=True))
    order = await running(a, b, piece(("a", "b", "c", "d")))
    machines = await nodes(b, order)
    b.hands.says = {host(machines["a"]): Said("up 1 day\n", 0), host(machines["b"]): Said("no such file\n", 2)}
    b.hands.silent, b.hands.hanging = {host(machines["c"])}, {host(machines["d"])}
    done = await operate(a, b, order, Operation.RUN, "a", "b", "c", "d", "z", command="uptime")
    assert done.output == {"a": "up 1 day\n", "b": "no such file\n"}
    assert done.status == {"a": 0, "b": 2}
    assert set(done.failed) == {"c", "d", "z"}
    assert "longer" in done.failed["d"]
    place, command = b.hands.asked[0]
    spec = machines["a"].spec
    assert isinstance(spec, ComputeSpec)
    assert (command, public_half(place.key) in spec.ssh_keys) == ("uptime", True)
    assert place.host_keys


@in_virtual_time
async def test_a_node_whose_lender_has_no_way_to_it_says_so(world: Federation) -> None:
    a, b = await world.add("a"), await world.add("b")
    order = await running(a, b, piece(("a", "b")))
    done = await operate(a, b, order, Operation.RUN, command="true")
    assert (done.output, set(done.failed)) == ({}, {"a", "b"})


@in_virtual_time
async def test_what_many_nodes_say_fits_one_answer(world: Federation) -> None:
    a, b = await world.add("a"), await world.add("b", Cloud(gives_addresses=True))
    names = [f"n{number}" for number in range(64)]
    order = await running(a, b, piece(tuple(names)))
    b.hands.says = {host(lease): Said('"\\é\n' * 10_000, 0) for lease in (await nodes(b, order)).values()}
    done = await operate(a, b, order, Operation.RUN, command="cat /dev/zero")
    assert set(done.output) == set(names)
    assert all(text.endswith('"\\é\n') for text in done.output.values())


@in_virtual_time
async def test_a_reboot_is_the_machines_own_and_a_container_has_none(world: Federation) -> None:
    a, b = await world.add("a"), await world.add("b", Cloud(gives_addresses=True))
    order = await running(a, b, piece(("a", "b")))
    machines = await nodes(b, order)
    b.hands.says = {host(machines["b"]): Said(CONTAINER, 1)}
    done = await operate(a, b, order, Operation.REBOOT)
    assert (done.output, done.failed, done.status) == ({"a": ""}, {"b": CONTAINER}, {})
    assert "reboot" in b.hands.asked[0][1]


@in_virtual_time
async def test_the_key_that_is_given_away_is_read_by_whom_it_is_for_and_enters_every_node(world: Federation) -> None:
    a, b = await world.add("a"), await world.add("b")
    key = sealing.new_key()
    order = await running(a, b, piece(("a", "b"), seal_to=sealing.public_text(key)))
    assert order.instance is not None
    assert order.instance.segment is not None
    sealed = str(order.instance.segment.credentials)
    login = Login.model_validate_json(sealing.open_sealed(key, LOGIN, sealed))
    assert (login.testbed, login.user) == ("here", "root")
    for lease in (await nodes(b, order)).values():
        assert isinstance(lease.spec, ComputeSpec)
        assert public_half(login.private_key) in lease.spec.ssh_keys
    kept = (await b.lease(str(order.lease_id))).segment
    assert kept is not None
    secret = json.dumps(login.private_key)[1:-1]
    assert secret not in await _everything(a) + await _everything(b)
    await a.orders.delete(USER, order.id)
    await a.until(order.id, OrderState.DELETED)
    after = (await b.lease(str(order.lease_id))).segment
    assert after is not None
    assert (after.keys, after.control, after.credentials) == ({}, "", None)


async def _everything(member: Member) -> str:
    """All that a member's database holds, as text."""
    return str(
        await member.db.read(
            lambda conn: [
                tuple(row)
                for (table,) in conn.exec_driver_sql("SELECT name FROM sqlite_master WHERE type='table'").all()
                for row in conn.exec_driver_sql(f"SELECT * FROM {table}").all()
            ]
        )
    )


@in_virtual_time
async def test_a_key_that_nothing_can_be_sealed_to_is_refused(world: Federation) -> None:
    a, _b = await world.add("a"), await world.add("b")
    spec = piece(("a", "b"), seal_to="A" * 43 + "=")  # of small order
    (order,) = await a.orders.create(USER, ordered(spec, location="b.test"), None)
    await a.until(order.id, OrderState.OPEN, lambda order: order.code == "identity.unusable_key")
