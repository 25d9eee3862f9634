"""What an experiment goes through, from its description to its end. All in virtual time."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from federation_member.errors import NotAllowed
from federation_member.experiments import store
from federation_member.experiments.errors import Why
from federation_member.experiments.joining import info_of
from federation_member.experiments.model import State
from federation_member.middleware.contract import NoCapacity
from federation_member.orders.model import Order, OrderState
from federation_member.orders.retention import Retention
from fedkit.protocol.lending import NetworkSpec
from fedkit.protocol.segments import NodeStatus, Operation, SegmentSpec
from tests.support.experiments import line, nothing_left, sites, until
from tests.support.federation import USER, Federation, in_virtual_time
from tests.support.policies import NOTHING, rule


def spec(order: Order | None) -> SegmentSpec:
    """What was asked for."""
    assert order is not None
    assert isinstance(order.spec, SegmentSpec)
    return order.spec


@in_virtual_time
async def test_it_comes_up_at_three_members_is_joined_and_leaves_nothing(world: Federation) -> None:
    async with sites(world, "h", "a", "b") as (h, a, b):
        made, _grant, _key = await h.experiments.create(USER, line("h.test", "a.test", "b.test"))
        assert made.experiment.state is State.ALLOCATING
        whole = await until(h, made.experiment.id, State.ACTIVE)
        assert [segment.order and segment.order.member for segment in whole.segments] == ["h.test", "a.test", "b.test"]
        assert [len(member.cloud.instances) for member in (h, a, b)] == [3, 5, 3]  # nodes, networks, portals
        await h.experiments.terminate(USER, "line")
        await until(h, made.experiment.id, State.TERMINATED)
        await nothing_left(h, a, b)
        told = dict.fromkeys(event.state for event in await h.experiments.log(USER, "line"))
        told.pop(State.JOINING, None)  # the portals may be joined before the last word of the nodes comes
        assert list(told) == [
            State.ALLOCATING,
            State.STARTING,
            State.ACTIVE,
            State.TERMINATING,
            State.TERMINATED,
        ]


@in_virtual_time
async def test_pieces_know_the_whole_and_of_each_way_one_end_is_active(world: Federation) -> None:
    async with sites(world, "h", "a") as (h, _a):
        made, _grant, _key = await h.experiments.create(USER, line("one", "two", "one", members={"two": "a.test"}))
        one, two = (spec(segment.order) for segment in made.segments)
        assert [host.names for host in one.hosts] == [host.names for host in two.hosts]
        assert [host.names for host in one.hosts if host.ip4 == "10.1.1.3"] == [["n1", "n1-wire1"]]
        assert ([c.active for c in one.connectors], [c.active for c in two.connectors]) == ([False], [True])
        tags = {c.substrate: c.tag for c in one.connectors[0].crossings}
        assert tags == {c.substrate: c.tag for c in two.connectors[0].crossings}
        assert len(set(tags.values())) == 2
        assert (made.segments[0].order and made.segments[0].order.location) is None
        assert (made.segments[1].order and made.segments[1].order.location) == "a.test"


@in_virtual_time
async def test_a_refusal_at_one_testbed_costs_nothing_anywhere(world: Federation) -> None:
    async with sites(world, "h", "a", "b", b=NOTHING) as (h, a, b):
        made, _grant, _key = await h.experiments.create(USER, line("h.test", "a.test", "b.test"))
        whole = await until(h, made.experiment.id, State.FAILED)
        assert whole.experiment.code == NotAllowed.code
        assert whole.experiment.reason.startswith("b.test: ")
        assert [member.cloud.made for member in (h, a, b)] == [[], [], []]
        await nothing_left(h, a, b)


@in_virtual_time
async def test_a_testbed_that_is_nobody_s_goes_to_whoever_lends_it(world: Federation) -> None:
    async with sites(world, "h", "a", "b", a=rule("disks", "*/*/*", may=["volume"])) as (h, _a, _b):
        await h.stop()
        h.cloud.kinds = frozenset({"volume"})  # a member's own users have whatever it lends
        await h.start()
        await asyncio.sleep(1)
        made, _grant, _key = await h.experiments.create(USER, line("somewhere"))
        whole = await until(h, made.experiment.id, State.ACTIVE)
        assert [segment.order and segment.order.member for segment in whole.segments] == ["b.test"]


@in_virtual_time
async def test_a_piece_that_fails_to_start_is_had_elsewhere_and_joined_there(world: Federation) -> None:
    async with sites(world, "h", "a") as (h, a):
        h.cloud.refusal = NoCapacity("It is full.")
        made, _grant, _key = await h.experiments.create(USER, line("left", "a.test"))
        whole = await until(h, made.experiment.id, State.ACTIVE)
        assert [segment.order and segment.order.member for segment in whole.segments] == ["a.test", "a.test"]
        assert h.cloud.instances == {}
        assert len(a.cloud.instances) == 6


@in_virtual_time
async def test_computers_without_a_testbed_are_placed_within_what_there_is(world: Federation) -> None:
    async with sites(world, "h", "a") as (h, _a):
        nodes = {f"n{number}": {"testbed": ""} for number in range(4)}
        new = line("", "", "", "", nodes=nodes, places={"h.test": 2, "a.test": 2})
        made, _grant, _key = await h.experiments.create(USER, new)
        whole = await until(h, made.experiment.id, State.ACTIVE)
        assert {segment.order and segment.order.member for segment in whole.segments} == {"h.test", "a.test"}
        assert len(spec(whole.segments[0].order).connectors) == 1


@in_virtual_time
async def test_what_is_lost_while_it_is_active_ends_all_of_it(world: Federation) -> None:
    async with sites(world, "h", "a") as (h, a):
        made, _grant, _key = await h.experiments.create(USER, line("h.test", "a.test"))
        await until(h, made.experiment.id, State.ACTIVE)
        node = next(key for key, one in a.cloud.instances.items() if one.spec.name == "n1")
        a.cloud.lose(node)
        whole = await until(h, made.experiment.id, State.FAILED)
        assert "node/n1" in whole.experiment.reason
        await nothing_left(h, a)


@in_virtual_time
async def test_the_loss_of_a_node_is_reported_or_ignored_as_it_says(world: Federation) -> None:
    async with sites(world, "h", "a") as (h, a):
        actions = {"n1": {"failureaction": "nonfatal"}, "n2": {"failureaction": "ignore"}}
        made, _grant, _key = await h.experiments.create(USER, line("h.test", "a.test", "a.test", nodes=actions))
        await until(h, made.experiment.id, State.ACTIVE)
        for name in ("n2", "n1"):
            a.cloud.lose(next(key for key, one in a.cloud.instances.items() if one.spec.name == name))
        await asyncio.sleep(30)
        experiment = (await h.experiments.get(USER, "line")).experiment
        assert experiment.state is State.ACTIVE
        assert "n1 failed" in experiment.reason
        assert "n2" not in experiment.reason


@in_virtual_time
async def test_it_warns_before_its_end_and_may_be_renewed(world: Federation) -> None:
    async with sites(world, "h") as (h,):
        hour = world.clock() + timedelta(hours=1)
        made, _grant, _key = await h.experiments.create(USER, line("h.test", valid_until=hour))
        await until(h, made.experiment.id, State.ACTIVE)
        await asyncio.sleep(3000)
        assert Why.ENDS_SOON in [event.code for event in await h.experiments.log(USER, "line")]
        await h.experiments.renew(USER, "line", hour + timedelta(hours=1))
        await asyncio.sleep(1200)
        assert (await h.experiments.get(USER, "line")).experiment.state is State.ACTIVE
        await asyncio.sleep(3600)
        experiment = (await h.experiments.get(USER, "line")).experiment
        assert (experiment.state, experiment.code) == (State.TERMINATED, Why.ENDED)
        await nothing_left(h)


@in_virtual_time
async def test_what_ended_long_ago_is_forgotten_and_nothing_else(world: Federation) -> None:
    async with sites(world, "h") as (h,):
        for name in ("old", "living"):
            await h.experiments.create(USER, line("h.test", name=name))
            await until(h, name, State.ACTIVE)
        await h.experiments.terminate(USER, "old")
        await until(h, "old", State.TERMINATED)
        await asyncio.sleep(3600)
        keep = timedelta(minutes=30)
        forgotten = await Retention(h.db, world.clock, keep, keep, {"experiments": store.forget}).forget()
        assert forgotten["experiments"] == 1
        assert [one.name for one in await h.experiments.page(USER)] == ["living"]


@in_virtual_time
async def test_an_order_that_is_deleted_by_itself_ends_the_experiment(world: Federation) -> None:
    async with sites(world, "h", "a") as (h, a):
        made, _grant, _key = await h.experiments.create(USER, line("h.test", "a.test"))
        await until(h, made.experiment.id, State.ACTIVE)
        await h.orders.delete(USER, made.segments[1].order_id)
        whole = await until(h, made.experiment.id, State.FAILED)
        assert whole.experiment.code == Why.SEGMENT_GIVEN_BACK
        await nothing_left(h, a)


@in_virtual_time
async def test_its_nodes_are_stopped_and_looked_at_wherever_they_are(world: Federation) -> None:
    async with sites(world, "h", "a") as (h, a):
        await h.experiments.create(USER, line("h.test", "a.test", "a.test"))
        await until(h, "line", State.ACTIVE)
        done = await h.experiments.operate(USER, "line", Operation.STOP, ["n0", "n2", "n9"])
        assert (set(done.output), set(done.failed)) == ({"n0", "n2"}, {"n9"})
        await asyncio.sleep(10)
        whole = await h.experiments.get(USER, "line")
        statuses = {node.name: node.status for segment in whole.segments for node in info_of(segment.order).nodes}
        assert statuses == {"n0": NodeStatus.STOPPED, "n1": NodeStatus.RUNNING, "n2": NodeStatus.STOPPED}
        world.network.cut(h.address, a.address)
        done = await h.experiments.operate(USER, "line", Operation.START, [])
        assert (set(done.output), set(done.failed)) == ({"n0"}, {"n1", "n2"})


@in_virtual_time
async def test_a_command_runs_in_its_nodes_wherever_they_are(world: Federation) -> None:
    async with sites(world, "h", "a") as (h, a):
        names = [f"n{number}" for number in range(70)]  # more than one request carries
        await h.experiments.create(USER, line("h.test", *["a.test"] * 69))
        await until(h, "line", State.ACTIVE)
        done = await h.experiments.operate(USER, "line", Operation.RUN, [], command="uptime")
        assert (set(done.output), done.failed, set(done.status.values())) == (set(names), {}, {0})
        assert [len(member.hands.asked) for member in (h, a)] == [1, 69]


@in_virtual_time
async def test_its_orders_are_not_listed_among_the_others(world: Federation) -> None:
    async with sites(world, "h") as (h,):
        made, _grant, _key = await h.experiments.create(USER, line("h.test"))
        listed, _ = await h.orders.page(USER, state=None, kind=None, batch=None, after=None, limit=10)
        assert listed == []
        order = await h.orders.get(USER, made.segments[0].order_id)
        assert order.state in (OrderState.PENDING, OrderState.FULFILLED)
        assert not isinstance(order.spec, NetworkSpec)
