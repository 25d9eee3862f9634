"""Everything that a hostile server or stranger can send: each is refused with its code, logged, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from fedkit.identity import jws
from fedkit.identity.keys import PrivateKey
from fedkit.mesh import envelope, receiver
from fedkit.mesh.api import Peer
from fedkit.mesh.envelope import Draft
from fedkit.mesh.errors import Bounced, PeerUnreachable, TooLarge
from fedkit.mesh.link import Incoming
from tests.support.memory_network import Deliveries, Packet
from tests.support.mesh_sites import Site
from tests.support.virtual_time import clock, run
from tests.unit.mesh.test_delivery import two_sites

ID = "3f1b2c4d-0000-4000-8000-000000000001"


def draft(to: Peer, **changes: Any) -> Draft:
    now = clock().timestamp()
    plain = Draft(to, ID, 1, "test.say", '"body":{"text":"evil"}', now, now + 5, now)
    return replace(plain, **changes)


async def send(site: Site, text: str, sender: str, kind: str = "set") -> tuple[str, str]:
    """Deliver a text as the XMPP server would; return ("signed" or "unsigned", code), or ("done", "")."""
    network = site.network
    theirs = network.links.pop(sender, None)
    link = network.links[sender] = network.link(sender)
    link._up = True
    try:
        result = await link.request(site.address, kind, text, 5.0)  # type: ignore[arg-type]
    except Bounced as error:
        return "unsigned", error.fault
    finally:
        del network.links[sender]
        if theirs is not None:
            network.links[sender] = theirs
    _, answer = envelope.open_answer(result)
    return ("signed", answer.error.code) if answer.error else ("done", "")


def altered(text: str, change: Callable[[dict[str, Any]], object]) -> str:
    """Change the claims of a signed text, keeping its signature."""
    header, payload, signature = text.split(".")
    claims = json.loads(jws.decode(payload))
    change(claims)
    return ".".join([header, jws.encode(json.dumps(claims).encode()), signature])


def test_unsigned_and_malformed_texts(tmp_path: Path) -> None:
    key = PrivateKey.generate()

    def typed(typ: str, payload: bytes) -> str:
        return jws.sign(key, typ, payload)

    def with_header(header: object) -> str:
        good = typed(envelope.REQUEST, b"{}")
        return ".".join([jws.encode(json.dumps(header).encode()), *good.split(".")[1:]])

    spki = jws.encode(key.public.spki)
    bad = [
        "",
        "hello",
        "a.b",
        "a.b.c",
        "....",
        "é.é.é",
        "A" * 60_000,
        typed(envelope.ANSWER, b"{}"),
        typed(envelope.REQUEST, b"not json"),
        typed(envelope.REQUEST, b"[]"),
        typed(envelope.REQUEST, b"{}"),
        typed(envelope.REQUEST, b'{"a":' * 5000),
        typed(envelope.REQUEST, b'{"v":"1.0","iat":NaN}'),
        typed(envelope.REQUEST, b"\xff\xfe"),
        with_header({"alg": "none", "typ": envelope.REQUEST, "spki": spki}),
        with_header({"alg": "ES256", "typ": envelope.REQUEST, "spki": spki}),
        with_header({"alg": "EdDSA", "typ": envelope.REQUEST, "spki": spki, "crit": ["x"]}),
        with_header({"alg": "EdDSA", "typ": envelope.REQUEST, "spki": "AAAA"}),
        with_header({"alg": "EdDSA", "typ": envelope.REQUEST, "spki": 7}),
        with_header([]),
    ]

    async def scenario() -> None:
        async with two_sites(tmp_path) as (_, _a, b):
            for text in bad:
                assert await send(b, text, "fm.evil.test") == ("unsigned", "mesh.malformed"), text[:80]
            assert b.effects() == []
            assert b.rows("mesh_keys") == b.rows("mesh_inbox") == b.rows("mesh_peers") == []

    run(scenario())


def test_a_text_that_is_too_long(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with two_sites(tmp_path) as (_, a, b):
            assert b.mesh._receiver is not None
            with pytest.raises(TooLarge):
                await b.mesh._receiver.serve(Incoming(a.address, b.address, "set", "x" * 65_537))

    run(scenario())


ALTERED: list[Callable[[dict[str, Any]], object]] = [
    lambda claims: claims.update(body={"text": "worse"}),
    lambda claims: claims.update(aud="0" * 40),
    lambda claims: claims.update(op="test.other"),
    lambda claims: claims.update(n=2),
    lambda claims: claims.update(exp=claims["exp"] + 1000),
    lambda claims: claims.update(jti=ID.replace("1b", "2b")),
    lambda claims: claims.update(iss="0" * 40),
]


@pytest.mark.parametrize("change", ALTERED)
def test_an_altered_request(tmp_path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    async def scenario() -> None:
        async with two_sites(tmp_path) as (_, a, b):
            text = altered(envelope.seal_request(a.key, a.peer, draft(b.peer)), change)
            assert await send(b, text, a.address) == ("unsigned", "mesh.bad_signature")
            assert b.effects() == []

    run(scenario())


def test_a_request_in_somebody_elses_name(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with two_sites(tmp_path) as (_, a, b):
            text = envelope.seal_request(PrivateKey.generate(), a.peer, draft(b.peer))
            assert await send(b, text, a.address) == ("unsigned", "mesh.bad_signature")

    run(scenario())


def test_a_replayed_request_is_refused_and_logged_and_changes_nothing_at_its_sender(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with two_sites(tmp_path) as (network, a, b):
            await a.say(b.peer, "once")
            await asyncio.sleep(1)
            packet = next(packet for packet in network.packets if not packet.reply)
            with capture_logs() as logs:
                network.inject(packet)
                await asyncio.sleep(1)
            assert [entry["code"] for entry in logs if entry["event"] == "mesh_refused"] == ["mesh.replayed"]
            assert b.effects() == ["once"]
            assert a.outcomes() == [("once", "")]

    run(scenario())


def test_a_query_replayed(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with two_sites(tmp_path) as (_, a, b):
            text = envelope.seal_request(a.key, a.peer, draft(b.peer, op="test.ask"))
            assert await send(b, text, a.address, "get") == ("done", "")
            assert await send(b, text, a.address, "get") == ("signed", "mesh.replayed")

    run(scenario())


def test_a_later_attempt_gets_the_stored_answer_and_an_earlier_one_is_a_replay(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with two_sites(tmp_path) as (_, a, b):
            for number, expected in ((5, ("done", "")), (6, ("done", "")), (5, ("signed", "mesh.replayed"))):
                text = envelope.seal_request(a.key, a.peer, draft(b.peer, n=number))
                assert await send(b, text, a.address) == expected
            assert b.effects() == ["evil"]

    run(scenario())


def test_a_request_id_used_for_another_request(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with two_sites(tmp_path) as (_, a, b):
            assert await send(b, envelope.seal_request(a.key, a.peer, draft(b.peer)), a.address) == ("done", "")
            other = draft(b.peer, n=2, content='"body":{"text":"other"}')
            text = envelope.seal_request(a.key, a.peer, other)
            assert await send(b, text, a.address) == ("signed", "mesh.id_reused")
            assert b.effects() == ["evil"]

    run(scenario())


def test_misdirected_requests(tmp_path: Path) -> None:
    """Carried to another recipient, or delivered in another sender's name."""

    async def scenario() -> None:
        async with two_sites(tmp_path) as (network, a, b):
            c = await Site(network, "c", tmp_path).start()
            text = envelope.seal_request(a.key, a.peer, draft(b.peer))
            assert await send(c, text, a.address) == ("signed", "mesh.misdirected")
            assert await send(b, text, "fm.evil.test") == ("signed", "mesh.misdirected")
            moved = envelope.seal_request(a.key, a.peer, draft(Peer(b.peer.fedid, "fm.elsewhere.test")))
            assert await send(b, moved, a.address) == ("signed", "mesh.misdirected")
            assert b.effects() == c.effects() == []
            await c.stop()

    run(scenario())


@pytest.mark.parametrize(
    ("issued", "lifetime", "since"),
    [(-100, 5, -100), (100, 5, 100), (0, 1000, 0), (0, 5, -8 * 86400), (0, 5, 100)],
    ids=["expired", "from the future", "valid too long", "older than the inbox", "issued after itself"],
)
def test_requests_out_of_time(tmp_path: Path, issued: float, lifetime: float, since: float) -> None:
    async def scenario() -> None:
        async with two_sites(tmp_path) as (_, a, b):
            now = clock().timestamp()
            late = draft(b.peer, iat=now + issued, exp=now + issued + lifetime, since=now + since)
            text = envelope.seal_request(a.key, a.peer, late)
            assert await send(b, text, a.address) == ("signed", "mesh.expired")
            assert b.effects() == []

    run(scenario())


def test_another_major_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        async with two_sites(tmp_path) as (_, a, b):
            monkeypatch.setattr(envelope, "VERSION", "2.0")
            text = envelope.seal_request(a.key, a.peer, draft(b.peer))
            monkeypatch.undo()
            assert await send(b, text, a.address) == ("signed", "mesh.version")
            monkeypatch.setattr(envelope, "VERSION", "1.7")
            text = envelope.seal_request(a.key, a.peer, draft(b.peer))
            monkeypatch.undo()
            assert await send(b, text, a.address) == ("done", "")

    run(scenario())


def test_a_second_key_with_a_pinned_fedid(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with two_sites(tmp_path) as (_, a, b):
            other = PrivateKey.generate().public.spki
            with b.db.engine.begin() as conn:
                conn.exec_driver_sql(
                    "INSERT INTO mesh_keys (fedid, spki, pinned) VALUES (?, ?, 0)", (a.key.fedid, other)
                )
            text = envelope.seal_request(a.key, a.peer, draft(b.peer))
            with capture_logs() as logs:
                assert await send(b, text, a.address) == ("signed", "mesh.key_conflict")
            assert "mesh_key_conflict" in {entry["event"] for entry in logs}
            with pytest.raises(PeerUnreachable):
                await b.ask(a.peer, "who are you")

    run(scenario())


def test_a_flood_is_held_back_and_the_sender_honours_it(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with two_sites(tmp_path) as (_, a, b):
            await a.say(b.peer, "hello")
            await asyncio.sleep(1)
            assert b.mesh._receiver is not None
            b.mesh._receiver._rates._rate, b.mesh._receiver._rates._burst = 5.0, 5.0
            said = [str(number) for number in range(300)]
            for text in said:
                await a.say(b.peer, text)
            await asyncio.sleep(70)
            assert b.effects() == ["hello", *said]
            assert a.link.sent < 150

    run(scenario())


def test_strangers_are_held_back_sooner(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with two_sites(tmp_path) as (_, _a, b):
            codes = []
            for _ in range(100):
                key = PrivateKey.generate()
                me = Peer(key.fedid, "fm.evil.test")
                request = draft(b.peer, content='"body":{"text":"refuse"}')
                codes.append((await send(b, envelope.seal_request(key, me, request), me.address))[1])
            assert codes.count("test.not_today") == receiver.STRANGER_BURST
            assert codes[-1] == "mesh.rate_limited"
            assert b.rows("mesh_keys") == b.rows("mesh_peers") == []

    run(scenario())


def test_no_more_than_so_many_at_once(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with two_sites(tmp_path) as (_, a, b):
            assert b.mesh._receiver is not None
            b.mesh._receiver.running = receiver.RUNNING
            text = envelope.seal_request(a.key, a.peer, draft(b.peer))
            assert await send(b, text, a.address) == ("unsigned", "mesh.busy")

    run(scenario())


GARBAGE: list[Callable[[Packet], Deliveries]] = [
    lambda packet: [(0, replace(packet, text="garbage"))],
    lambda packet: [(0, replace(packet, text=""))],
    lambda packet: [(0, replace(packet, text="x" * 60_000))],
    lambda packet: [(0, replace(packet, text=jws.sign(PrivateKey.generate(), envelope.ANSWER, b"{}")))],
    lambda packet: [(0, replace(packet, text=altered(packet.text, lambda claims: claims.update(body={"text": "x"}))))],
    lambda packet: [(0, replace(packet, error=Bounced("forbidden", "go away")))],
    lambda packet: [],
]


@pytest.mark.parametrize("fate", GARBAGE)
def test_garbage_for_an_answer_is_no_answer(tmp_path: Path, fate: Callable[[Packet], Deliveries]) -> None:
    """It costs back-off, never a wrong outcome; when true answers come again, everything is as it should be."""

    async def scenario() -> None:
        async with two_sites(tmp_path) as (network, a, b):
            network.faults = lambda packet: fate(packet) if packet.reply else [(0, packet)]
            await a.say(b.peer, "hello")
            await a.say(b.peer, "soon", deadline=20)
            await asyncio.sleep(30)
            assert a.outcomes() == [("soon", "mesh.no_answer")]
            assert a.rows("mesh_peers")[0]["failures"]
            network.faults = lambda packet: [(0, packet)]
            await asyncio.sleep(600)
            assert ("hello", "") in a.outcomes()
            assert b.effects().count("hello") == 1

    run(scenario())


def test_an_answer_to_another_request_is_no_answer(tmp_path: Path) -> None:
    """A server that swaps two answers of the same peer."""

    async def scenario() -> None:
        async with two_sites(tmp_path) as (network, a, b):
            kept: list[str] = []

            def swap(packet: Packet) -> Deliveries:
                if not packet.reply:
                    return [(0, packet)]
                kept.append(packet.text)
                return [(0, replace(packet, text=kept[0]))]

            network.faults = swap
            assert await a.ask(b.peer, "first") == "FIRST"
            with pytest.raises(PeerUnreachable) as raised:
                await a.ask(b.peer, "second")
            assert "jti" in raised.value.message

    run(scenario())


def test_the_commands_of_a_pack_are_judged_one_by_one(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with two_sites(tmp_path) as (_, a, b):
            now = clock().timestamp()

            def item(number: int, said: str, **changes: object) -> dict[str, object]:
                plain = {"jti": f"{ID[:-1]}{number}", "n": 1, "op": "test.say", "since": now, "body": {"text": said}}
                return {**plain, **changes}

            items = [
                item(1, "one"),
                item(2, "refuse this"),
                item(3, "three", op="test.nothing"),
                item(4, "four", body={"wrong": 1}),
                item(5, "five", since=now - 8 * 86400),
                item(6, "six", after=f"{ID[:-1]}9"),
                item(7, "seven", after=f"{ID[:-1]}1"),
                item(1, "one"),
                item(1, "other", n=2),
                item(8, "fail"),
            ]
            content = '"body":' + json.dumps({"items": items})
            request = draft(b.peer, jti=ID[:-1] + "f", op="mesh.pack", content=content)
            link = b.network.links[a.address]
            result = await link.request(b.address, "set", envelope.seal_request(a.key, a.peer, request), 5.0)
            _, answer = envelope.open_answer(result)
            assert answer.body is not None
            assert [each.get("error", {}).get("code", "") for each in answer.body["answers"]] == [
                "",
                "test.not_today",
                "mesh.unknown_operation",
                "mesh.bad_body",
                "mesh.expired",
                "mesh.out_of_order",
                "",
                "mesh.replayed",
                "mesh.id_reused",
                "internal",
            ]
            assert b.effects() == ["one", "seven"]

    run(scenario())


def test_a_pack_whose_answers_do_not_fit_together(tmp_path: Path) -> None:
    """Each is told to come again alone, and then gets its stored answer."""

    async def scenario() -> None:
        async with two_sites(tmp_path) as (_, a, b):
            await asyncio.gather(*(a.say(b.peer, f"much {number}") for number in range(10)))
            await asyncio.sleep(10)
            assert sorted(a.outcomes()) == [(f"much {number}", "") for number in range(10)]
            assert sorted(b.effects()) == [f"much {number}" for number in range(10)]

    run(scenario())


@pytest.mark.parametrize("items", [[], [{"jti": ID}], [{}] * 40, "x", None])
def test_a_malformed_pack(tmp_path: Path, items: object) -> None:
    async def scenario() -> None:
        async with two_sites(tmp_path) as (_, a, b):
            request = draft(b.peer, op="mesh.pack", content='"body":' + json.dumps({"items": items}))
            text = envelope.seal_request(a.key, a.peer, request)
            assert await send(b, text, a.address) == ("signed", "mesh.bad_body")

    run(scenario())


def test_chunks_of_a_hostile_sender_stay_bounded(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with two_sites(tmp_path) as (_, a, b):
            assert b.mesh._receiver is not None
            await a.say(b.peer, "hello")
            await asyncio.sleep(1)
            for number in range(30):
                body = {"sha256": f"{number:064x}", "total": 1024 * 1024, "offset": 0, "data": "AAAA"}
                request = draft(
                    b.peer,
                    op="mesh.chunk",
                    jti=ID[:-2] + f"{number:02x}",
                    content='"body":' + json.dumps(body),
                )
                text = envelope.seal_request(a.key, a.peer, request)
                assert await send(b, text, a.address, "get") == ("done", "")
            assert len(b.mesh._receiver.work._assemblies._open) <= 4

    run(scenario())


@pytest.mark.parametrize(
    "ref",
    [{"sha256": "0" * 64, "size": 10}, {"sha256": "0" * 64, "size": 2 * 1024 * 1024}, {"sha256": "zz", "size": 1}],
)
def test_a_reference_to_a_body_that_never_came(tmp_path: Path, ref: dict[str, Any]) -> None:
    async def scenario() -> None:
        async with two_sites(tmp_path) as (_, a, b):
            text = envelope.seal_request(a.key, a.peer, draft(b.peer, content='"ref":' + json.dumps(ref)))
            where, code = await send(b, text, a.address)
            assert (where, code) in {("signed", "mesh.incomplete"), ("unsigned", "mesh.malformed")}

    run(scenario())
