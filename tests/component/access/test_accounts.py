"""Local accounts come with grants and go with them, whatever dies in between."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from federation_member.access.pool import Pool
from federation_member.access.world import Policy
from federation_member.middleware.contract import AccountKind
from federation_member.orders.model import OrderState
from fedkit.config import UnusableConfig
from fedkit.mesh.api import Peer
from fedkit.protocol.lending import LeaseView
from tests.support.fake_middleware import SMALL, Cloud
from tests.support.federation import USER, Federation, Member, in_virtual_time, machine
from tests.support.policies import rule
from tests.support.requester import Somebody, ask
from tests.support.virtual_time import EPOCH, Crash, InlineDatabase, run

LARGE_ONLY = "vcpu >= 4"
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIPAwSzZ0zRoKgCs2VRyWJh4TTI9kcMaVmUPYhEvMTbm5 alice"


async def two_sites(world: Federation, **account: object) -> tuple[Member, Member]:
    """A borrower, and a lender with one rule."""
    a = await world.add("a", Cloud(flavours=[SMALL]))
    return a, await world.add("b", lends=rule("all", "*/*/*", account=account))


async def ordered(a: Member, count: int = 1) -> list[str]:
    """Machines that run at the lender."""
    made = await a.orders.create(USER, machine(requirements=LARGE_ONLY, ssh_keys=[KEY], count=count), None)
    for order in made:
        await a.until(order.id, OrderState.FULFILLED)
    return [order.id for order in made]


async def deleted(a: Member, order_id: str) -> None:
    await a.orders.delete(USER, order_id)
    await a.until(order_id, OrderState.DELETED)


@in_virtual_time
async def test_an_account_is_there_while_something_is_granted_to_it(world: Federation) -> None:
    a, b = await two_sites(world, create="fed-{project}")
    first, second = await ordered(a, 2)
    account = b.cloud.accounts["fed-project"]
    assert (account.kind, account.keys) == (AccountKind.CREATED, (KEY,))
    assert {request.account.name for request in b.cloud.instances.values()} == {"fed-project"}
    await deleted(a, first)
    assert "fed-project" in b.cloud.accounts
    await deleted(a, second)
    await world.settle(lambda: not b.cloud.accounts)
    assert b.cloud.history == ["account fed-project", *["machine under fed-project"] * 2, "no account fed-project"]


@in_virtual_time
async def test_an_existing_account_is_given_rights_and_keys_for_the_time_of_the_grant(world: Federation) -> None:
    a, b = await two_sites(world, rights="shared")
    (order,) = await ordered(a)
    account = b.cloud.accounts["shared"]
    assert (account.kind, account.keys) == (AccountKind.EXISTING, (KEY,))
    assert set(account.rights) == {"kind:compute", "flavour:large"}
    await deleted(a, order)
    await world.settle(lambda: not b.cloud.accounts)


@in_virtual_time
async def test_an_account_that_does_not_exist_fails_the_order_with_words(world: Federation) -> None:
    a, b = await two_sites(world, name="nobody")
    order = (await a.orders.create(USER, machine(requirements=LARGE_ONLY), None))[0]
    found = await a.until(order.id, OrderState.OPEN, lambda o: o.code == "middleware.unknown_account")
    assert "no account nobody" in found.reason
    assert not b.cloud.instances


@in_virtual_time
async def test_what_an_operator_made_stays_and_what_a_crash_left_goes(world: Federation) -> None:
    a, b = await two_sites(world, create="fed-{project}")
    (order,) = await ordered(a)
    b.cloud.existing.add("operators-own")
    await b.kill()
    left = b.cloud.accounts["fed-project"]
    b.cloud.accounts["fed-gone"] = type(left)("fed-gone", AccountKind.CREATED)
    await b.start()
    await world.settle(lambda: set(b.cloud.accounts) == {"fed-project"})
    assert "operators-own" in b.cloud.existing
    await deleted(a, order)


@in_virtual_time
async def test_two_testbeds_never_share_a_made_account(world: Federation) -> None:
    b = await world.add("b")
    one, other = Somebody(world.clock()), Somebody(world.clock())
    policy = "".join(
        rule(name, f"{user.testbed.fedid}/*/*", account={"create": "fed-{project}"})
        for name, user in (("one", one), ("two", other))
    )
    await b.set_policy(policy)
    assert isinstance(await ask(b, user_home(one), one.request()), LeaseView)
    refusal = await ask(b, user_home(other), other.request())
    assert not isinstance(refusal, LeaseView)
    assert "{testbed}" in refusal.message


def user_home(user: Somebody) -> Peer:
    """The member that asks for this user."""
    return Peer(user.testbed.fedid, f"fm.{user.testbed.fedid[:6]}.test")


@pytest.mark.parametrize("victim", ["before", "after"])
def test_killed_at_each_commit_of_its_life(tmp_path: Path, victim: str) -> None:
    """The lender dies at its n-th commit, for every n; in the end there is no machine without account and no account too many."""
    moments = 0
    while run(_killed_once(_new(tmp_path / f"{moments}"), victim, moments)):
        moments += 1
    assert moments > 5


def _new(folder: Path) -> Path:
    folder.mkdir()
    return folder


async def _killed_once(folder: Path, victim: str, moments: int) -> bool:
    async with Federation(folder, virtual=True) as world:
        a, b = await two_sites(world, create="fed-{project}")
        left, died = moments, False

        def on_commit(moment: str) -> None:
            nonlocal left, died
            left -= moment == victim
            if died or left < 0:
                died = b.middleware.dead = True
                raise Crash

        assert isinstance(b.db, InlineDatabase)
        b.db.on_commit = on_commit
        order = (await a.orders.create(USER, machine(requirements=LARGE_ONLY, ssh_keys=[KEY]), None))[0]
        await asyncio.sleep(30)
        await a.orders.delete(USER, order.id)
        await asyncio.sleep(30)
        await b.kill()
        await b.start()
        await asyncio.sleep(1800)
        assert (await a.order(order.id)).state is OrderState.DELETED
        assert not b.cloud.instances
        assert not b.cloud.accounts
        assert not await b.book()
        return died


def test_certificates_of_a_level_are_used_evenly_and_only_while_valid(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_certificate(tmp_path / "gold" / f"{name}.pem", days=10)
    write_certificate(tmp_path / "silver" / "old.pem", days=1)

    @in_virtual_time
    async def scenario(world: Federation) -> None:
        pool = Pool.load(tmp_path)
        b = await world.add("b", Cloud(existing={"one", "two"}))
        user = Somebody(world.clock())
        policy = rule("gold", f"{user.testbed.fedid}/proj1/*", account={"certificate": "gold"})
        policy += rule("none", f"{user.testbed.fedid}/proj2/*", account={"certificate": "platinum"})
        b.world.set_policy(Policy.parse(policy, "test", pool), world.clock())
        views = [await ask(b, user_home(user), user.request()) for _ in range(3)]
        assert all(isinstance(view, LeaseView) for view in views)
        await world.settle(lambda: len(b.cloud.instances) == 3)
        accounts = sorted(
            (request.account.name, str(request.account.certificate)) for request in b.cloud.instances.values()
        )
        one, two = (("one", str(tmp_path / "gold/one.pem")), ("two", str(tmp_path / "gold/two.pem")))
        assert accounts == [one, one, two]
        refusal = await ask(b, user_home(user), Somebody(world.clock(), user.testbed, name="proj2/bob").request())
        assert not isinstance(refusal, LeaseView)
        assert "certificate of level platinum" in refusal.message

    scenario(Federation(tmp_path, virtual=True))


def test_a_pool_with_something_unusable_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "gold" / "broken.pem"
    write_certificate(path, days=1)
    path.write_text("nonsense")
    with pytest.raises(UnusableConfig, match=r"broken\.pem"):
        Pool.load(tmp_path)
    with pytest.raises(UnusableConfig, match="no folder"):
        Pool.load(tmp_path / "absent")


def write_certificate(path: Path, days: int) -> None:
    """A self-signed certificate with its key."""
    path.parent.mkdir(exist_ok=True)
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, path.stem)])
    start = datetime.fromtimestamp(EPOCH, UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(start)
        .not_valid_after(start + timedelta(days=days))
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM) + private)
    path.chmod(0o600)
