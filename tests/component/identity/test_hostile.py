"""A member, a server or a user with bad intentions gets nothing in a name that is not theirs."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest
from sqlalchemy import select

from federation_member.accounts import challenges
from federation_member.accounts.errors import UnusableMandate, WrongKey
from federation_member.credentials import signing
from federation_member.credentials.errors import CredentialExpired, StaleList, TooManyLists, TooMuchKept
from federation_member.credentials.tables import signed
from federation_member.orders.model import OrderState
from fedkit.errors import FedError
from fedkit.identity import challenge, jws
from fedkit.identity.challenge import NotPossessed
from fedkit.identity.keys import PrivateKey
from fedkit.mesh.api import Peer
from fedkit.mesh.errors import KeyConflict
from fedkit.policy import compact, revocation
from fedkit.policy.model import Statement
from fedkit.protocol.lending import ComputeSpec, LeaseCreate, LeaseView
from tests.component.identity.test_turns import LARGE_ONLY, borrower, keep
from tests.support.federation import USER, Federation, Member, in_virtual_time, machine
from tests.support.requester import ask

LEASE = "c4b1a9c2-0f3d-4b60-8d7e-1f2a3b4c5d6e"


async def seen_in_transit(world: Federation, a: Member) -> LeaseCreate:
    """What any server on the way reads of a request of alice's."""
    order = (await a.orders.create(USER, machine(requirements=LARGE_ONLY), None))[0]
    await a.until(order.id, OrderState.FULFILLED)
    for packet in world.network.packets:
        if not packet.reply:
            claims = json.loads(jws.decode(packet.text.split(".")[1]))
            items = [claims, *claims.get("body", {}).get("items", [])]
            for item in items:
                if item.get("op") == "lease.create":
                    return LeaseCreate.model_validate(item["body"])
    raise AssertionError("no request was seen")


@in_virtual_time
async def test_what_a_server_reads_in_transit_is_of_no_use_to_another(world: Federation) -> None:
    """It has all of alice's credentials; but B lends to whoever she lets act for her, and that is A alone."""
    a, b = await borrower(world), await world.add("b")
    seen = await seen_in_transit(world, a)
    thief = PrivateKey.generate()
    sender = Peer(thief.fedid, "fm.evil.test")
    as_it_was = seen.model_copy(update={"lease_id": LEASE})
    assert isinstance(await ask(b, sender, as_it_was), FedError)
    until = world.clock() + timedelta(hours=1)
    roles = ("user", "project_project", "user_alice")
    own = [compact.issue(thief, Statement.parse(f"{thief.fedid}.{role} <- {seen.principal}"), until) for role in roles]
    texts = [*seen.credentials, *(one.raw.decode() for one in own)]
    in_its_own_name = as_it_was.model_copy(
        update={"name": f"{thief.fedid}/project/alice", "credentials": texts, "spec": ComputeSpec(image="debian")}
    )
    refused = await ask(b, sender, in_its_own_name)
    assert isinstance(refused, FedError)
    assert refused.code == "member.not_allowed"
    assert f"{seen.principal}.acting_for <- {thief.fedid}" in json.dumps(refused.details["missing"])
    assert len(b.cloud.made) == 1


@in_virtual_time
async def test_a_member_acts_for_nobody_who_did_not_say_so(world: Federation) -> None:
    """A itself, gone bad, makes up a user with a key that it knows the public half of."""
    a, b = await borrower(world), await world.add("b")
    victim = PrivateKey.generate()
    until = world.clock() + timedelta(hours=1)
    says = [Statement.parse(f"{a.key.fedid}.{role} <- {victim.fedid}") for role in ("user", "project_p", "user_v")]
    body = LeaseCreate(
        lease_id=LEASE,
        name=f"{a.key.fedid}/p/v",
        principal=victim.fedid,
        credentials=[compact.issue(a.key, one, until).raw.decode() for one in says],
        spec=ComputeSpec(image="debian"),
        seconds=600,
    )
    refused = await ask(b, a.peer, body)
    assert not isinstance(refused, LeaseView)
    assert refused.details["missing"] == [[f"{victim.fedid}.acting_for <- {a.key.fedid}"]]


@in_virtual_time
async def test_no_private_key_and_no_kept_credential_leaves_unasked(world: Federation) -> None:
    a = await borrower(world)
    await world.add("b")
    secret = await keep(a, PrivateKey.generate(), "{me}.friend <- {alice}")
    await seen_in_transit(world, a)
    told = "".join(packet.text for packet in world.network.packets)
    read = "".join(jws.decode(p.text.split(".")[1]).decode(errors="replace") for p in world.network.packets if p.text)
    kept = next(one for one in await a.credentials.kept("alice") if one.credential.id == secret)
    for text in (told, read):
        assert "PRIVATE KEY" not in text
        assert kept.credential.raw.decode() not in text


# Log-in with a key


async def own_key(a: Member) -> PrivateKey:
    """Alice registers a key of her own."""
    key = PrivateKey.generate()
    await a.accounts.set_key("alice", key.public)
    return key


def acting_for(a: Member, key: PrivateKey, days: float = 7, member: str = "") -> str:
    """Let a member act for a key's owner."""
    statement = signing.mandate(key.fedid, member or a.key.fedid)
    return compact.issue(key, statement, a.federation.clock() + timedelta(days=days)).raw.decode()


@in_virtual_time
async def test_a_challenge_counts_once_for_one_user_and_a_while(world: Federation) -> None:
    a = await borrower(world)
    key, me = await own_key(a), a.key.fedid
    mandate = acting_for(a, key)

    async def log_in(nonce: str, user: str = "alice", by: PrivateKey = key, audience: str = me) -> None:
        text = challenge.answer(by, nonce, audience, user, mandate)
        await a.accounts.log_in_with_key(me, user, text, mandate, "192.0.2.1")

    async def nonce(user: str = "alice") -> str:
        return (await a.accounts.challenge(user, "192.0.2.1"))[0]

    first = await nonce()
    await log_in(first)
    with pytest.raises(WrongKey):
        await log_in(first)
    with pytest.raises(WrongKey):
        await log_in(await nonce("bob"))
    with pytest.raises(WrongKey):
        await log_in(await nonce(), by=PrivateKey.generate())
    with pytest.raises(WrongKey):
        await log_in(challenge.new_nonce())
    with pytest.raises(WrongKey):  # nobody of that name
        await log_in(await nonce("nobody"), user="nobody")
    with pytest.raises(WrongKey):  # whose key is kept here: there is nothing that they could show
        await log_in(await nonce("bob"), user="bob")
    with pytest.raises(NotPossessed):
        await log_in(await nonce(), audience=PrivateKey.generate().fedid)
    late = await nonce()
    world.advance(121)
    with pytest.raises(WrongKey):
        await log_in(late)


@in_virtual_time
async def test_a_mandate_is_for_this_member_and_not_for_ever(world: Federation) -> None:
    a = await borrower(world)
    key, me = await own_key(a), a.key.fedid
    stranger = PrivateKey.generate()
    for mandate in (
        acting_for(a, key, days=31),
        acting_for(a, key, days=-1),
        acting_for(a, key, member=stranger.fedid),
        acting_for(a, stranger),
        compact.issue(
            key, Statement.parse(f"{key.fedid}.friend <- {me}"), world.clock() + timedelta(days=1)
        ).raw.decode(),
    ):
        nonce, _ = await a.accounts.challenge("alice", "192.0.2.1")
        with pytest.raises(UnusableMandate):
            await a.accounts.log_in_with_key(
                me, "alice", challenge.answer(key, nonce, me, "alice", mandate), mandate, "192.0.2.1"
            )
    nonce, _ = await a.accounts.challenge("alice", "192.0.2.1")
    exchanged = challenge.answer(key, nonce, me, "alice", acting_for(a, key, days=1))
    with pytest.raises(NotPossessed):
        await a.accounts.log_in_with_key(me, "alice", exchanged, acting_for(a, key, days=20), "192.0.2.1")


@in_virtual_time
async def test_challenges_are_bounded(world: Federation, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(challenges, "LIMIT", 5)
    a = await borrower(world)
    for _ in range(20):
        await a.db.run(lambda tx: challenges.begin(tx, "alice", world.clock()))
    rows = select(challenges.login_challenges.c.nonce)
    assert len(await a.db.read(lambda conn: conn.execute(rows).all())) == 5


@in_virtual_time
async def test_a_second_key_with_a_known_fedid_is_refused(world: Federation) -> None:
    a = await borrower(world)
    key = await own_key(a)
    forged = PrivateKey.generate().public
    forged.__dict__["fedid"] = key.fedid  # as if SHA-1 had been broken
    with pytest.raises(KeyConflict):
        await a.accounts.set_key("bob", forged)
    assert (await a.accounts.get("bob")).principal != key.fedid


# What is kept and published is bounded


@in_virtual_time
async def test_a_wallet_is_bounded(world: Federation, monkeypatch: pytest.MonkeyPatch) -> None:
    from federation_member.credentials import wallet

    monkeypatch.setattr(wallet, "CREDENTIALS_PER_ACCOUNT", 3)
    a = await borrower(world)
    key = PrivateKey.generate()
    for number in range(3):
        await keep(a, key, f"{{me}}.r{number} <- {{alice}}")
    await keep(a, key, "{me}.r0 <- {alice}")  # again is no more
    with pytest.raises(TooMuchKept):
        await keep(a, key, "{me}.r3 <- {alice}")
    with pytest.raises(CredentialExpired):
        await keep(a, key, "{me}.r4 <- {alice}", days=-1)
    with pytest.raises(FedError, match="at most"):
        await a.credentials.add("alice", "x" * 10_000_000)


@in_virtual_time
async def test_published_lists_are_bounded_and_only_grow(world: Federation) -> None:
    a = await borrower(world)

    def listing(key: PrivateKey, serial: int) -> str:
        return revocation.issue(key, serial, world.clock(), {"1" * 64: world.clock() + timedelta(days=1)}).text

    key = PrivateKey.generate()
    await a.credentials.publish("alice", listing(key, 5))
    for serial in (4, 5):
        world.advance(1)
        with pytest.raises(StaleList):
            await a.credentials.publish("bob", listing(key, serial))
    with pytest.raises(StaleList):  # the member's own is made by itself alone
        await a.credentials.publish("alice", listing(a.key, 9))
    for _ in range(15):
        await a.credentials.publish("alice", listing(PrivateKey.generate(), 1))
    with pytest.raises(TooManyLists):
        await a.credentials.publish("alice", listing(PrivateKey.generate(), 1))


@in_virtual_time
async def test_more_than_a_list_holds_is_told_and_ends_by_its_time(world: Federation) -> None:
    a = await borrower(world)
    until = world.clock() + timedelta(hours=24)
    says = [Statement.parse(f"{a.key.fedid}.r{number} <- {PrivateKey.generate().fedid}") for number in range(400)]
    made = [compact.issue(a.key, one, until + timedelta(seconds=n)) for n, one in enumerate(says)]

    def revoke(tx):  # type: ignore[no-untyped-def]
        for one in made:
            signing.keep(tx, "alice", one)
        signing.revoke(tx, "alice", world.clock())

    await a.db.run(revoke)
    a.credentials.look()

    async def published() -> bool:
        return await a.credentials.published(a.key.fedid) is not None

    await world.settle(published)
    text = await a.credentials.published(a.key.fedid)
    assert text is not None
    assert len(text) <= 40 * 1024
    listed = revocation.read(text).revoked
    assert set(listed) == {one.id for one in made[-350:]}
    assert len(await a.db.read(lambda conn: conn.execute(select(signed.c.id)).all())) == 400
