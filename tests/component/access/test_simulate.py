"""A new policy tried on the audit log of a member that really decided."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from federation_member.access.history import since
from federation_member.access.policy_file import read
from federation_member.access.simulate import Simulation, simulate
from federation_member.access.verdict import OWN_USERS
from fedkit.mesh.api import Peer
from fedkit.policy import revocation
from fedkit.protocol.lending import LeaseView
from tests.support.federation import Federation, Member, in_virtual_time
from tests.support.policies import rule
from tests.support.requester import Somebody, ask, give_back


async def tried(member: Member, policy: str, start: datetime) -> Simulation:
    rules = read(policy.encode(), "new.toml")
    return await member.db.read(lambda conn: simulate(rules, member.key.public, since(conn, start)))


def told(simulation: Simulation) -> list[tuple[str, str, str]]:
    return [
        (str(change.recorded.applicant.name).partition("/")[2], change.recorded.rule, change.rule)
        for change in simulation.changes
    ]


@in_virtual_time
async def test_what_a_new_policy_would_have_changed(world: Federation) -> None:
    b = await world.add("b")
    start = world.clock()
    alice = Somebody(start)
    home = Peer(alice.testbed.fedid, "fm.a.test")
    eve = Somebody(start, alice.testbed, name="proj2/eve")
    await b.set_policy(rule("proj1", f"{home.fedid}/proj1/*", count=1))
    first = await ask(b, home, alice.request())
    assert isinstance(first, LeaseView)
    await ask(b, home, alice.request())  # refused: the rule is full
    await ask(b, home, eve.request())  # refused: another project
    await give_back(b, home, first.lease_id)
    assert isinstance(await ask(b, home, alice.request()), LeaseView)

    same = await tried(b, rule("proj1", f"{home.fedid}/proj1/*", count=1), start)
    assert (same.decisions, same.changes) == (4, ())
    wider = await tried(b, rule("all", f"{home.fedid}/*/*"), start)
    assert told(wider) == [
        ("proj1/alice", "proj1", "all"),
        ("proj1/alice", "", "all"),
        ("proj2/eve", "", "all"),
        ("proj1/alice", "proj1", "all"),
    ]
    other = await tried(b, rule("proj1", f"{home.fedid}/proj2/*", count=1), start)
    assert told(other) == [("proj1/alice", "proj1", ""), ("proj2/eve", "", "proj1"), ("proj1/alice", "proj1", "")]
    nothing = await tried(b, "", start)
    assert told(nothing) == [("proj1/alice", "proj1", "")] * 2
    assert [change.verdict.reason for change in nothing.changes] == ["There are no rules: nothing is lent here."] * 2
    row: dict[str, Any] = nothing.changes[0].as_json()
    assert row["was"] == {"result": "allow", "rule": "proj1", "reason": ""}
    assert row["would_be"]["result"] == "deny"
    assert row["member"] == "fm.a.test"
    later = await tried(b, "", world.clock() + timedelta(seconds=1))
    assert (later.decisions, later.changes) == (0, ())


@in_virtual_time
async def test_the_new_policy_counts_what_it_would_have_lent_itself(world: Federation) -> None:
    b = await world.add("b")
    start = world.clock()
    alice = Somebody(start)
    home = Peer(alice.testbed.fedid, "fm.a.test")
    await b.set_policy(rule("two", f"{home.fedid}/*/*", count=2))
    for _ in range(3):
        await ask(b, home, alice.request())
    one = await tried(b, rule("one", f"{home.fedid}/*/*", count=1), start)
    assert told(one) == [("proj1/alice", "two", "one"), ("proj1/alice", "two", "")]


@in_virtual_time
async def test_what_was_revoked_then_counts_for_no_policy(world: Federation) -> None:
    b = await world.add("b")
    start = world.clock()
    alice = Somebody(start)
    home = Peer(alice.testbed.fedid, "fm.a.test")
    await b.set_policy(rule("all", f"{home.fedid}/*/*"))
    sent = alice.usual()
    listing = revocation.issue(alice.testbed, 1, start, {sent[1].id: sent[1].expires})
    await b.db.run(lambda tx: b.access.revoke(tx, listing))
    world.advance(10)
    await ask(b, home, alice.request(sent))
    for begin in (start, world.clock() - timedelta(seconds=5)):
        found = await tried(b, rule("all", f"{home.fedid}/*/*"), begin)
        assert (found.decisions, found.changes) == (1, ())


@in_virtual_time
async def test_own_users_are_looked_at_as_the_controller_does(world: Federation) -> None:
    b = await world.add("b")
    start = world.clock()
    bob = Somebody(start, b.key, name="proj1/bob")
    await b.set_policy("")
    assert isinstance(await ask(b, b.peer, bob.request()), LeaseView)
    assert told(await tried(b, "", start)) == []
    limited = await tried(b, rule("none", "self/*/*", hours="00:00-00:00"), start)
    assert told(limited) == [("proj1/bob", OWN_USERS.name, "")]
