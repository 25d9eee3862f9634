"""Who gets what: by name, kind, number and hour; with a proof, or with what is missing."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from cryptography.hazmat.primitives.serialization import SSHCertificate, load_ssh_public_identity

from federation_member.access import grants
from federation_member.errors import NotAllowed
from federation_member.orders.model import OrderState, User
from fedkit.errors import FedError
from fedkit.identity.keys import PrivateKey
from fedkit.mesh.api import Peer
from fedkit.policy import compact
from fedkit.policy.model import Entity, Role
from fedkit.policy.prover import Prover
from fedkit.protocol.lending import LeaseView
from tests.support.fake_middleware import SMALL, Cloud
from tests.support.federation import USER, Federation, Member, in_virtual_time, machine
from tests.support.policies import NOTHING, rule
from tests.support.requester import Somebody, ask, give_back, sync

LARGE_ONLY = "vcpu >= 4"
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIPAwSzZ0zRoKgCs2VRyWJh4TTI9kcMaVmUPYhEvMTbm5 alice"
NIGHT = datetime(2027, 1, 15, 20, tzinfo=UTC)  # a Friday; virtual time begins at 08:00 of that day


@in_virtual_time
async def test_what_a_rule_lends_comes_with_its_proof(world: Federation) -> None:
    a = await world.add("a", Cloud(flavours=[SMALL]))
    b = await world.add("b", lends=rule("partners", f"{a.key.fedid}/project/*"))
    order = (await a.orders.create(USER, machine(requirements=LARGE_ONLY), None))[0]
    order = await a.until(order.id, OrderState.FULFILLED)
    assert order.member == "b.test"
    attempt = (await a.orders.why(USER, order.id)).attempts[-1]
    assert attempt.access.proof is not None
    assert attempt.access.proof["rule"] == "partners"
    concluded = [proof[-1]["role"] for proof in attempt.access.proof["proofs"]]
    assert concluded[-1] == f"{b.key.fedid}.rule_partners"
    assert f"{a.key.fedid}.project_project" in concluded


@in_virtual_time
async def test_a_refusal_says_what_is_missing(world: Federation) -> None:
    a = await world.add("a", Cloud(flavours=[SMALL]))
    acme = PrivateKey.generate().fedid
    await world.add("b", lends=rule("customers", f"{acme}.customer"))
    order = (await a.orders.create(USER, machine(requirements=LARGE_ONLY), None))[0]
    order = await a.until(order.id, OrderState.OPEN, lambda o: o.code == "member.not_allowed")
    attempt = (await a.orders.why(USER, order.id)).attempts[-1]
    assert len(attempt.access.missing) == 1
    assert attempt.access.missing[0][0].startswith(f"{acme}.customer <- ")
    assert f"{acme}.customer" in order.reason


@in_virtual_time
async def test_one_project_is_lent_to_and_the_other_is_not(world: Federation) -> None:
    b = await world.add("b")
    mine = Somebody(world.clock())
    home = Peer(mine.testbed.fedid, "fm.a.test")
    await b.set_policy(rule("proj1-small", f"{home.fedid}/proj1/*", flavours=["small"], count=2))
    assert isinstance(await ask(b, home, mine.request()), LeaseView)
    other = Somebody(world.clock(), mine.testbed, name="proj2/bob")
    refusal = await ask(b, home, other.request())
    assert isinstance(refusal, NotAllowed)
    assert refusal.details["missing"] == [[f"{home.fedid}.project_proj1 <- {other.user.fedid}"]]


@in_virtual_time
async def test_no_more_than_the_rule_lends_at_the_same_time(world: Federation) -> None:
    b = await world.add("b")
    user = Somebody(world.clock())
    home = Peer(user.testbed.fedid, "fm.a.test")
    await b.set_policy(rule("two", f"{home.fedid}/*/*", count=2))
    views = [await ask(b, home, user.request()) for _ in range(2)]
    refusal = await ask(b, home, user.request())
    assert isinstance(refusal, NotAllowed)
    assert "Rule two lends 2 at the same time, and 2 exist." in refusal.message
    first = views[0]
    assert isinstance(first, LeaseView)
    await give_back(b, home, first.lease_id)
    assert isinstance(await ask(b, home, user.request()), LeaseView)


@in_virtual_time
async def test_only_within_the_hours_of_the_rule_and_what_runs_then_ends_with_its_lease(world: Federation) -> None:
    a = await world.add("a", Cloud(flavours=[SMALL]))
    b = await world.add("b", lends=rule("office", f"{a.key.fedid}/*/*", hours="mon-fri 08:00-18:00"))
    order = (await a.orders.create(USER, machine(requirements=LARGE_ONLY, lease_seconds=60), None))[0]
    order = await a.until(order.id, OrderState.FULFILLED)
    world.advance((NIGHT.replace(hour=17, minute=59) - world.clock()).total_seconds())
    await world.settle(lambda: bool(b.cloud.instances))
    world.advance(300)
    closed = await a.until(order.id, OrderState.CLOSED)
    assert not b.cloud.instances
    assert closed.code in ("lease.expired", "member.not_allowed")
    late = (await a.orders.create(USER, machine(requirements=LARGE_ONLY), None))[0]
    late = await a.until(late.id, OrderState.OPEN, lambda o: o.code == "member.not_allowed")
    assert "mon-fri 08:00-18:00" in late.reason


@in_virtual_time
async def test_without_a_policy_a_members_own_users_still_have_its_own_machines(world: Federation) -> None:
    a = await world.add("a", lends=NOTHING)
    order = (await a.orders.create(USER, machine(), None))[0]
    await a.until(order.id, OrderState.FULFILLED)
    attempt = (await a.orders.why(USER, order.id)).attempts[-1]
    assert attempt.access.proof is not None
    assert attempt.access.proof["rule"] == "own users"


@in_virtual_time
async def test_a_rule_that_is_for_own_users_limits_them(world: Federation) -> None:
    a = await world.add("a", lends=rule("one", "self/*/*", count=1))
    first, second = await a.orders.create(USER, machine(count=2), None)
    await a.until(first.id, OrderState.FULFILLED)
    refused = await a.until(second.id, OrderState.OPEN, lambda o: o.code == "member.not_allowed")
    assert "Rule one lends 1" in refused.reason


@in_virtual_time
async def test_what_is_handed_over_lasts_as_long_as_the_lease_and_not_longer(world: Federation) -> None:
    a, b = await world.add("a", Cloud(flavours=[SMALL])), await world.add("b")
    new = machine(requirements=LARGE_ONLY, ssh_keys=[KEY], lease_seconds=90)
    order = await a.until((await a.orders.create(USER, new, None))[0].id, OrderState.FULFILLED)
    granted = order.handle
    assert granted is not None
    certificate = load_ssh_public_identity(granted.certificates[0].encode())
    assert isinstance(certificate, SSHCertificate)
    grant = await b.db.read(lambda conn: grants.load(conn, str(order.lease_id)))
    assert grant is not None
    assert grant.key is not None
    assert certificate.signature_key().public_bytes_raw() == grant.key.key.public_key().public_bytes_raw()  # type: ignore[union-attr]
    assert order.lease_expires is not None
    assert certificate.valid_before == int(order.lease_expires.timestamp())
    holder = [compact.read(text) for text in granted.credentials]
    assert Prover(holder).prove(Role(granted.allocation, "holder"), Entity(grant.principal), world.clock()).proved
    before = certificate.valid_before
    world.advance(60)
    renewed = await a.until(order.id, OrderState.FULFILLED, lambda o: o.handle != granted)
    assert renewed.handle is not None
    assert renewed.handle.allocation == granted.allocation
    again = load_ssh_public_identity(renewed.handle.certificates[0].encode())
    assert isinstance(again, SSHCertificate)
    assert again.valid_before > before
    await a.orders.delete(USER, order.id)
    await a.until(order.id, OrderState.DELETED, lambda o: o.handle is None)
    grant = await b.db.read(lambda conn: grants.load(conn, str(order.lease_id)))
    assert grant is not None
    assert grant.key is None


@in_virtual_time
async def test_a_grant_does_not_outlive_its_proof_unless_fresh_credentials_come(world: Federation) -> None:
    b = await world.add("b")
    user = Somebody(world.clock())
    home = Peer(user.testbed.fedid, "fm.a.test")
    await b.set_policy(rule("all", f"{home.fedid}/*/*"))
    short = [user.says(user.testbed, "{A}.user <- {U}", hours=0.1), *user.usual()[1:]]
    view = await ask(b, home, user.request(short))
    assert isinstance(view, LeaseView)
    assert view.expires == short[0].expires
    kept = await sync(b, home, view.lease_id)
    assert kept.expires == short[0].expires
    assert "will not be renewed" not in kept.reason
    fresh = await sync(b, home, view.lease_id, [user.says(user.testbed, "{A}.user <- {U}", hours=48)])
    assert fresh.expires > short[0].expires + timedelta(minutes=1)
    far = await sync(b, home, view.lease_id, seconds=7 * 86400)
    assert far.expires == user.now + timedelta(hours=24)  # the other credentials' end


@in_virtual_time
async def test_what_another_policy_does_not_allow_is_not_renewed_and_not_cut_off(world: Federation) -> None:
    b = await world.add("b")
    user = Somebody(world.clock())
    home = Peer(user.testbed.fedid, "fm.a.test")
    allowing = rule("all", f"{home.fedid}/*/*")
    await b.set_policy(allowing)
    view = await ask(b, home, user.request())
    assert isinstance(view, LeaseView)
    await b.set_policy(NOTHING)
    kept = await sync(b, home, view.lease_id)
    assert kept.expires == view.expires
    assert kept.code == "member.not_allowed"
    assert kept.reason == "will not be renewed: The rule under which it was granted is gone."
    await b.set_policy(allowing)
    world.advance(60)
    again = await sync(b, home, view.lease_id)
    assert again.expires > view.expires
    assert again.code == again.reason == ""


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"name": f"{'0' * 40}/proj1/alice"}, "vouches for that name"),
        ({"principal": "1" * 40}, "Nothing shows"),
        ({"credentials": []}, "Nothing shows"),
    ],
)
def test_a_member_has_nothing_in_anybodys_name_without_their_word(
    world: Federation, changed: dict[str, object], said: str
) -> None:
    @in_virtual_time
    async def scenario(world: Federation) -> None:
        b = await world.add("b")
        user = Somebody(world.clock())
        home = Peer(user.testbed.fedid, "fm.a.test")
        await b.set_policy(rule("all", f"{home.fedid}/*/*"))
        refusal = await ask(b, home, user.request().model_copy(update=changed))
        assert isinstance(refusal, NotAllowed)
        assert said in refusal.message

    scenario(world)


@in_virtual_time
async def test_a_site_acts_only_for_users_who_said_so(world: Federation) -> None:
    """The site vouches for the user, the rule is the user's, yet the user never let this site act."""
    b = await world.add("b")
    user = Somebody(world.clock())
    home = Peer(user.testbed.fedid, "fm.a.test")
    await b.set_policy(rule("all", f"{home.fedid}/*/*"))
    refusal = await ask(b, home, user.request(user.usual()[:-1]))
    assert isinstance(refusal, NotAllowed)
    assert refusal.details["missing"] == [[f"{user.user.fedid}.acting_for <- {home.fedid}"]]


@in_virtual_time
async def test_what_the_site_itself_or_its_operator_may_gives_its_users_nothing(world: Federation) -> None:
    b = await world.add("b")
    site = PrivateKey.generate()
    operator = Somebody(world.clock(), site, name="ops/operator")
    user = Somebody(world.clock(), site)
    home = Peer(site.fedid, "fm.a.test")
    await b.set_policy(rule("site", f"//{site.fedid}") + rule("operator", f"{site.fedid}/ops/operator"))
    refusal = await ask(b, home, user.request())
    assert isinstance(refusal, NotAllowed)
    # Nor do the operator's credentials, which the site knows, help anybody else.
    refusal = await ask(b, home, user.request([*user.usual(), *operator.usual()]))
    assert isinstance(refusal, NotAllowed)
    assert isinstance(await ask(b, home, operator.request()), LeaseView)


@in_virtual_time
async def test_another_site_cannot_use_credentials_that_it_saw(world: Federation) -> None:
    b = await world.add("b")
    user = Somebody(world.clock())
    await b.set_policy(rule("all", "*/*/*") + rule("a", f"{user.testbed.fedid}/*/*"))
    thief = Peer(PrivateKey.generate().fedid, "fm.thief.test")
    stolen = user.request()
    refusal = await ask(b, thief, stolen)
    assert isinstance(refusal, NotAllowed)
    own_name = stolen.model_copy(update={"name": f"{thief.fedid}/proj1/alice"})
    assert isinstance(await ask(b, thief, own_name), NotAllowed)


@in_virtual_time
async def test_a_bad_credential_is_refused_with_its_own_code(world: Federation) -> None:
    b = await world.add("b")
    user = Somebody(world.clock())
    request = user.request()
    text = request.credentials[0]
    forged = request.model_copy(update={"credentials": [text[:-8] + "AAAAAAAA", *request.credentials[1:]]})
    refusal = await ask(b, Peer(user.testbed.fedid, "fm.a.test"), forged)
    assert isinstance(refusal, FedError)
    assert refusal.code == "policy.bad_credential"


@in_virtual_time
async def test_the_next_of_a_users_projects_is_tried(world: Federation) -> None:
    a = await world.add("a", Cloud(flavours=[SMALL]))
    await a.register("carol", "physics", "chemistry")
    carol = User("physics", "carol")
    await world.add("b", lends=rule("chemists", f"{a.key.fedid}/chemistry/*"))
    order = (await a.orders.create(carol, machine(requirements=LARGE_ONLY), None))[0]
    await world.settle(lambda: _fulfilled(a, carol, order.id))


async def _fulfilled(member: Member, user: User, order_id: str) -> bool:
    return (await member.orders.get(user, order_id)).state is OrderState.FULFILLED
