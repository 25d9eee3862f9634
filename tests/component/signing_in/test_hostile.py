"""A Keystone that answers as no Keystone should: there is a definite answer, soon, and nothing is left behind."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from aiohttp import web
from pydantic import ValidationError

from federation_member.accounts import keystone as module
from federation_member.accounts.errors import ProviderUnavailable, WrongPassword
from federation_member.accounts.keystone import Keystone, KeystoneConfig
from fedkit.identity.keys import PrivateKey
from fedkit.identity.tls import self_signed
from tests.component.signing_in.false_keystone import FalseKeystone


@pytest.fixture
async def keystone() -> AsyncIterator[FalseKeystone]:
    async with FalseKeystone().running() as running:
        yield running


def answering(text: bytes, status: int = 201, headers: Mapping[str, str] | None = None) -> web.Response:
    """An answer to the first question."""
    return web.Response(body=text, status=status, headers={"X-Subject-Token": "t", **(headers or {})})


GARBAGE = {
    "no JSON": answering(b"<html>"),
    "nothing": answering(b""),
    "another shape": answering(b'{"token": []}'),
    "depth": answering(b"[" * 100_000),
    "no time zone": answering(
        b'{"token": {"user": {"id": "u", "name": "a", "domain": {"id": "d", "name": "Default"}}, "expires_at": "2099-01-01"}}'
    ),
    "not text": answering(b"\xff\xfe\x00"),
    "a long name": answering(b'{"token": {"user": {"id": "' + b"u" * 300 + b'"}}}'),
    "no token": answering(b"{}", headers={"X-Subject-Token": ""}),
    "a long token": answering(b"{}", headers={"X-Subject-Token": "t" * 8100}),
    "elsewhere": web.Response(status=302, headers={"Location": "http://127.0.0.1:1/"}),
    "elsewhere, with the body": web.Response(status=307, headers={"Location": "http://127.0.0.1:1/"}),
    "its own fault": answering(b"{}", 500),
    "too many": answering(b"{}", 429),
    "forbidden": answering(b"{}", 403),
    "compressed": answering(b"\x1f\x8b" + b"\0" * 100, headers={"Content-Encoding": "gzip"}),
}


@pytest.mark.parametrize("what", GARBAGE)
async def test_garbage(keystone: FalseKeystone, what: str) -> None:
    async def instead(_request: web.Request) -> web.StreamResponse:
        return GARBAGE[what]

    keystone.instead = instead
    with pytest.raises(ProviderUnavailable):
        await Keystone(KeystoneConfig(url=keystone.url)).sign_in("alice", "secret")
    assert keystone.asked == [("POST", "/v3/auth/tokens")]  # asked once, and nobody else


async def test_an_answer_without_end(keystone: FalseKeystone) -> None:
    sent = 0

    async def instead(request: web.Request) -> web.StreamResponse:
        nonlocal sent
        response = web.StreamResponse(status=201, headers={"X-Subject-Token": "t"})
        await response.prepare(request)
        while True:
            await response.write(b" " * 65536)
            sent += 65536

    keystone.instead = instead
    with pytest.raises(ProviderUnavailable, match="does not end"):
        await Keystone(KeystoneConfig(url=keystone.url)).sign_in("alice", "secret")
    assert sent < 16 * module.ANSWER_LIMIT


async def test_an_answer_that_does_not_come(keystone: FalseKeystone, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SECONDS", 0.3)

    async def instead(_request: web.Request) -> web.StreamResponse:
        await asyncio.Event().wait()
        raise AssertionError

    keystone.instead = instead
    provider = Keystone(KeystoneConfig(url=keystone.url))
    answers = await asyncio.gather(
        *(provider.sign_in("alice", "secret") for _ in range(3 * module.AT_ONCE)), return_exceptions=True
    )
    assert {type(answer) for answer in answers} == {ProviderUnavailable}


async def test_a_crowd_is_asked_for_a_few_at_a_time(keystone: FalseKeystone, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SECONDS", 100.0)
    now, most = 0, 0
    full = asyncio.Event()

    async def instead(_request: web.Request) -> web.StreamResponse:
        nonlocal now, most
        now += 1
        most = max(most, now)
        if now == module.AT_ONCE:
            full.set()
        await full.wait()
        now -= 1
        return answering(b"{}", 401)

    keystone.instead = instead
    provider = Keystone(KeystoneConfig(url=keystone.url))
    crowd = (provider.sign_in("alice", "secret") for _ in range(3 * module.AT_ONCE))
    answers = await asyncio.gather(*crowd, return_exceptions=True)
    assert {type(answer) for answer in answers} == {WrongPassword}
    assert most == module.AT_ONCE


async def test_an_answer_that_drips(keystone: FalseKeystone, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SECONDS", 0.3)

    async def instead(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(status=201, headers={"X-Subject-Token": "t"})
        await response.prepare(request)
        while True:
            await response.write(b" ")
            await asyncio.sleep(0.05)

    keystone.instead = instead
    with pytest.raises(ProviderUnavailable, match="does not answer"):
        await Keystone(KeystoneConfig(url=keystone.url)).sign_in("alice", "secret")


async def test_a_word_that_ended_before_it_came(keystone: FalseKeystone) -> None:
    keystone.until = datetime(2020, 1, 1, tzinfo=UTC)
    with pytest.raises(ProviderUnavailable, match="clocks"):
        await Keystone(KeystoneConfig(url=keystone.url)).sign_in("alice", "secret")


async def test_somebody_of_another_domain(keystone: FalseKeystone) -> None:
    keystone.domain["name"] = "Elsewhere"
    with pytest.raises(ProviderUnavailable, match="domain"):
        await Keystone(KeystoneConfig(url=keystone.url)).sign_in("alice", "secret")


async def test_nobody_there() -> None:
    with pytest.raises(ProviderUnavailable):
        await Keystone(KeystoneConfig(url="http://127.0.0.1:1/v3")).sign_in("alice", "secret")


async def test_a_certificate_that_nobody_vouches_for(tmp_path: Path) -> None:
    """The password is not sent: the server never sees a request."""
    key = PrivateKey.generate()
    began = datetime.now(UTC) - timedelta(hours=1)
    (tmp_path / "both.pem").write_bytes(key.pem + self_signed(key, began, timedelta(days=1)))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "both.pem")
    heard: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append(await reader.read(1024))
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context) as server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(ProviderUnavailable, match="Certificate"):
            await Keystone(KeystoneConfig(url=f"https://localhost:{port}/v3")).sign_in("alice", "secret")
    assert not any(heard)


@pytest.mark.parametrize(
    "url",
    [
        "http://keystone.site-a.test:5000/v3",
        "ftp://127.0.0.1/v3",
        "https://",
        "https://alice@keystone.site-a.test/v3",
        "https://keystone.site-a.test/v3?x=1",
    ],
)
def test_addresses_to_which_no_password_goes(url: str) -> None:
    with pytest.raises(ValidationError):
        KeystoneConfig(url=url)
