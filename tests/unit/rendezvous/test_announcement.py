"""What an announcement must be for anyone to believe it."""

from __future__ import annotations

import json

import pytest

from fedkit.identity import jws
from fedkit.identity.keys import PrivateKey
from fedkit.protocol.announcement import (
    TYPE,
    TooMuchToAnnounce,
    UnusableAnnouncement,
    read_announcement,
    sign_announcement,
)
from fedkit.protocol.lending import Image, Offer
from fedkit.protocol.rendezvous import SIGNED_LIMIT
from rendezvous.errors import NotAllowed, NotYours, StaleAnnouncement
from rendezvous.model import SKEW, AllowList, check_announcement
from tests.unit.rendezvous.support import NOON, Site


@pytest.mark.parametrize("kind", ["ed25519", "p256", "rsa"])
def test_reads_what_was_signed(kind: str) -> None:
    site = Site("site-a.test", PrivateKey.generate(kind))
    announcement = site.describe(Offer(kinds=["compute"], attributes={"arch": "x86_64", "gpu": 2}))
    heard = read_announcement(sign_announcement(site.key, announcement))
    assert heard.announcement == announcement
    assert heard.key == site.key.public


def test_refuses_another_member_s_fedid() -> None:
    victim, attacker = Site("site-a.test"), Site("site-b.test")
    with pytest.raises(UnusableAnnouncement, match="signed an announcement for"):
        read_announcement(sign_announcement(attacker.key, victim.describe()))


def test_refuses_an_altered_text() -> None:
    site = Site("site-a.test")
    header, payload, signature = site.announce().signed.split(".")
    altered = json.loads(jws.decode(payload))
    altered["address"] = "fm.evil.site-a.test"
    with pytest.raises(UnusableAnnouncement, match="not signed"):
        read_announcement(f"{header}.{jws.encode(json.dumps(altered).encode())}.{signature}")


def test_refuses_what_was_signed_for_another_purpose() -> None:
    site = Site("site-a.test")
    text = jws.sign(site.key, "fedmesh-request+jws", site.describe().model_dump_json().encode())
    with pytest.raises(UnusableAnnouncement, match="not signed"):
        read_announcement(text)


def test_refuses_another_site_s_name() -> None:
    site = Site("site-a.test")
    stolen = site.describe().model_copy(update={"name": "site-b.test"})
    with pytest.raises(UnusableAnnouncement, match="not the domain"):
        read_announcement(sign_announcement(site.key, stolen))


@pytest.mark.parametrize("payload", [b"", b"[]", b"{}", b'{"offer": ' + b"[" * 5000, b"\xff"])
def test_refuses_garbage_that_is_signed(payload: bytes) -> None:
    with pytest.raises(UnusableAnnouncement, match="malformed"):
        read_announcement(jws.sign(PrivateKey.generate(), TYPE, payload))


def test_refuses_a_name_that_would_trick_a_terminal() -> None:
    site = Site("site-a.test")
    payload = site.describe().model_dump(mode="json") | {"name": "\x1b[2Jsite"}
    with pytest.raises(UnusableAnnouncement, match="name"):
        read_announcement(jws.sign(site.key, TYPE, json.dumps(payload).encode()))


def test_understands_a_later_version() -> None:
    site = Site("site-a.test")
    payload = site.describe(Offer(images=[Image(name="debian")])).model_dump(mode="json") | {"colour": "blue"}
    payload["offer"]["images"][0]["kernel"] = "6.12"
    heard = read_announcement(jws.sign(site.key, TYPE, json.dumps(payload).encode()))
    assert heard.announcement.offer.images == [Image(name="debian")]


def test_a_sign_of_life_says_the_same() -> None:
    site = Site("site-a.test")
    first, again = site.announce(), site.announce()
    other = site.announce(Offer(kinds=["compute"]))
    assert first.digest == again.digest != other.digest


def test_tells_an_operator_whose_offer_does_not_fit() -> None:
    site = Site("site-a.test")
    images = [Image(name=f"image-{n}", description="d" * 500) for n in range(100)]
    with pytest.raises(TooMuchToAnnounce) as caught:
        sign_announcement(site.key, site.describe(Offer(images=images)))
    assert caught.value.details["limit"] == SIGNED_LIMIT


def test_a_member_announces_itself_from_its_own_address() -> None:
    site, other = Site("site-a.test"), Site("site-b.test")
    check_announcement(site.announce(), site.peer, NOON)
    with pytest.raises(NotYours, match="announces itself only"):
        check_announcement(site.announce(), other.peer, NOON)
    with pytest.raises(NotYours, match="came from"):
        check_announcement(site.announce(), type(site.peer)(site.key.fedid, "fm.site-b.test"), NOON)


@pytest.mark.parametrize("direction", [1, -1])
def test_an_announcement_is_made_just_now(direction: int) -> None:
    site = Site("site-a.test")
    check_announcement(site.announce(issued=NOON + direction * SKEW), site.peer, NOON)
    with pytest.raises(StaleAnnouncement, match="set the clock"):
        check_announcement(site.announce(issued=NOON + direction * SKEW * 1.01), site.peer, NOON)


def test_allow_list() -> None:
    site, other = Site("site-a.test"), Site("site-b.test")
    AllowList(["*"]).require(site.peer)
    AllowList([site.key.fedid]).require(site.peer)
    with pytest.raises(NotAllowed, match="allow"):
        AllowList([site.key.fedid]).require(other.peer)
