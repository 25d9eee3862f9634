"""The audit log: every decision with what it rests on, in a chain that shows what was changed, replayable."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, delete, text, update

from federation_member.access import audit
from federation_member.access.replay import differing
from federation_member.access.tables import audit as log
from federation_member.access.tables import audit_head, texts
from federation_member.orders.model import OrderState
from fedkit.mesh.api import Peer
from fedkit.policy import revocation
from tests.support.fake_middleware import SMALL, Cloud
from tests.support.federation import USER, Federation, Member, in_virtual_time, machine
from tests.support.policies import NOTHING, rule
from tests.support.requester import Somebody, ask, give_back


async def some_decisions(world: Federation) -> Member:
    """A lender that lent twice, refused three times, and heard of a revocation."""
    b = await world.add("b")
    user, stranger = Somebody(world.clock()), Somebody(world.clock())
    home = Peer(user.testbed.fedid, "fm.a.test")
    await b.set_policy(rule("two", f"{home.fedid}/*/*", count=2))
    sent = user.usual()
    views = [await ask(b, home, user.request(sent)) for _ in range(3)]
    await ask(b, Peer(stranger.testbed.fedid, "fm.c.test"), stranger.request())
    await give_back(b, home, views[0].lease_id)  # type: ignore[union-attr]
    revoked = {sent[0].id: sent[0].expires}
    await b.revoke(revocation.issue(user.testbed, 1, world.clock(), revoked))
    await ask(b, home, user.request(sent))
    await b.set_policy(NOTHING)
    await world.settle(lambda: _nothing_left(b))
    return b


async def _nothing_left(member: Member) -> bool:
    return not await member.book()


async def kept(member: Member, name: str) -> str | None:
    """A text that stands beside the log."""
    return await member.db.read(lambda conn: audit.text_of(conn, name))


@in_virtual_time
async def test_every_decision_is_there_with_what_it_rests_on(world: Federation) -> None:
    b = await some_decisions(world)
    decisions = await b.audit("decision")
    assert [entry.said["allowed"] for entry in decisions] == [True, True, False, False, False]
    lent = decisions[0].said
    assert lent["proofs"][-1][-1]["role"] == f"{b.key.fedid}.rule_two"
    assert decisions[2].said["held"] == {"two": 2}
    assert decisions[3].said["reason"] == "No rule lends this to anybody now."
    for entry in decisions:
        for name in (*entry.said["credentials"], entry.said["policy"], entry.said["members"]):
            assert audit.sha256(str(await kept(b, name))) == name
    assert (await b.audit("release"))[0].said["code"] == ""
    assert len(await b.audit("policy")) == 3


@in_virtual_time
async def test_a_refusal_over_the_wire_is_written_down_with_its_reason(world: Federation) -> None:
    a = await world.add("a", Cloud(flavours=[SMALL]))
    b = await world.add("b", lends=NOTHING)
    order = (await a.orders.create(USER, machine(requirements="vcpu >= 4"), None))[0]
    await a.until(order.id, OrderState.OPEN, lambda o: o.code == "member.not_allowed")
    (entry,) = await b.audit("decision")
    assert entry.said["applicant"]["name"] == f"{a.key.fedid}/project/alice"
    assert "nothing is lent here" in entry.said["reason"]


@in_virtual_time
async def test_decisions_made_again_are_the_same(world: Federation) -> None:
    b = await some_decisions(world)
    assert await b.db.read(lambda conn: list(differing(conn, b.key.public))) == []


@in_virtual_time
async def test_no_secret_is_written_down(world: Federation) -> None:
    b = await some_decisions(world)
    everything = [entry.said for kind in audit.Kind for entry in await b.audit(kind)]
    assert "PRIVATE KEY" not in json.dumps(everything)


def tamper(statement: str) -> Callable[[Connection], object]:
    return lambda conn: conn.execute(text(statement))


TAMPERINGS: dict[str, Callable[[Connection], object]] = {
    "another text": tamper("UPDATE access_audit SET entry = replace(entry, 'false', 'true') WHERE sequence = 5"),
    "another time": tamper("UPDATE access_audit SET at = at + 1 WHERE sequence = 5"),
    "another kind": tamper("UPDATE access_audit SET kind = 'release' WHERE sequence = 5"),
    "another hash": tamper(
        "UPDATE access_audit SET hash = previous FROM (SELECT hash AS previous FROM access_audit"
        " WHERE sequence = 4) WHERE sequence = 5"
    ),
    "one gone": lambda conn: conn.execute(delete(log).where(log.c.sequence == 5)),
    "one gone, the next renumbered": lambda conn: (
        conn.execute(delete(log).where(log.c.sequence == 5)),
        conn.execute(update(log).where(log.c.sequence == 6).values(sequence=5)),
    ),
    "hashed anew": lambda conn: conn.execute(
        update(log).where(log.c.sequence == 5).values(entry="{}", hash=audit.sha256("{}"))
    ),
}


@pytest.mark.parametrize("name", TAMPERINGS)
def test_tampering_is_found_where_it_was_done(world: Federation, name: str) -> None:
    @in_virtual_time
    async def scenario(world: Federation) -> None:
        b = await some_decisions(world)
        good = await b.db.read(audit.verify)
        assert good.broken_at is None
        assert good.entries == await b.db.read(lambda conn: audit.page(conn, before=None, limit=1)[0].sequence)
        await b.db.run(lambda tx: TAMPERINGS[name](tx.conn))
        bad = await b.db.read(audit.verify)
        assert bad.broken_at == 5
        assert bad.entries == 4
        assert bad.problem

    scenario(world)


@in_virtual_time
async def test_an_end_cut_off_and_a_text_changed_are_found(world: Federation) -> None:
    b = await some_decisions(world)
    last = (await b.db.read(audit.verify)).entries
    await b.db.run(lambda tx: tx.conn.execute(delete(log).where(log.c.sequence == last)))
    assert (await b.db.read(audit.verify)).broken_at == last
    hashes = await b.db.read(lambda conn: audit.read(conn, last - 1))
    assert hashes is not None
    await b.db.run(lambda tx: tx.conn.execute(update(audit_head).values(sequence=last - 1, hash=hashes.hash)))
    assert (await b.db.read(audit.verify)).broken_at is None  # only a hash that was kept elsewhere tells
    await b.db.run(lambda tx: tx.conn.execute(update(texts).values(text=texts.c.text + " ")))
    assert (await b.db.read(audit.verify)).broken_at == 1


step = st.one_of(
    st.tuples(
        st.just("ask"), st.integers(0, 1), st.sampled_from(["small", "large"]), st.sets(st.integers(0, 3), max_size=2)
    ),
    st.tuples(st.just("policy"), st.integers(0, 3)),
    st.tuples(st.just("revoke"), st.integers(0, 1), st.integers(0, 3)),
    st.tuples(st.just("wait"), st.sampled_from([60.0, 36000.0])),
)


@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
@given(steps=st.lists(step, min_size=3, max_size=14))
def test_law_the_log_alone_gives_every_answer_again(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[object, ...]]
) -> None:
    @in_virtual_time
    async def scenario(world: Federation) -> None:
        b = await world.add("b")
        users = [Somebody(world.clock()), Somebody(world.clock(), name="proj2/bob")]
        said = [user.usual() for user in users]
        homes = [Peer(user.testbed.fedid, f"fm.{index}.test") for index, user in enumerate(users)]
        policies = [
            NOTHING,
            rule("small", f"{homes[0].fedid}/proj1/*", flavours=["small"], count=2)
            + rule("all", f"{homes[1].fedid}/*/*"),
            rule("office", "*/*/*", f"{homes[0].fedid}/*/alice", hours="mon-fri 08:00-18:00"),
            rule("both", f"{homes[0].fedid}/*/* & {homes[0].fedid}.partner"),
        ]
        for what, *rest in steps:
            match what, rest:
                case "ask", [int(who), str(flavour), set() as left_out]:
                    sent = [one for index, one in enumerate(said[who]) if index not in left_out]
                    await ask(b, homes[who], users[who].request(sent, flavour=flavour))
                case "policy", [int(number)]:
                    await b.set_policy(policies[number])
                case "revoke", [int(who), int(number)]:
                    one = said[who][number]
                    key = users[who].user if number == 3 else users[who].testbed
                    serial = int((world.clock() - users[who].now).total_seconds()) + number
                    await b.revoke(revocation.issue(key, serial, world.clock(), {one.id: one.expires}))
                case "wait", [float(seconds)]:
                    world.advance(seconds)
        assert (await b.db.read(audit.verify)).broken_at is None
        assert await b.db.read(lambda conn: list(differing(conn, b.key.public))) == []

    scenario(Federation(tmp_path_factory.mktemp("law"), virtual=True))
