"""Servers that lie, stall, send too much, or lead somewhere else."""

from __future__ import annotations

from pathlib import Path

import pytest

from federation_member.middleware.contract import Unavailable, UnusableImage
from federation_member.middleware.images import Fetching
from tests.component.middleware.images.conftest import GOOD, HERE, Bench, Starts, sha256
from tests.component.middleware.images.servers import (
    Answer,
    Names,
    certificate,
    endless,
    file,
    redirect,
    reset,
    says,
    serving,
    silence,
    status,
    trickle,
)

GIB = 1 << 30


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        pytest.param(file(GOOD + b"x"), f"sha256 {sha256(GOOD + b'x')}", id="other-content"),
        pytest.param(file(GOOD, length=len(GOOD) - 1), "not the one that was ordered", id="too-small-a-length"),
        pytest.param(file(b"<!DOCTYPE html><html>log in"), "an HTML page", id="html"),
        pytest.param(file(b""), "an empty file|sha256", id="empty"),
        pytest.param(file(GOOD, length=10 * GIB), "larger than", id="announces-10-GiB"),
        pytest.param(endless(bytes(1 << 16), GOOD), "larger than", id="never-ends"),
        pytest.param(status("404 Not Found"), "404 Not Found", id="not-found"),
        pytest.param(status("403 \x1b[31mForbidden"), "403", id="with-control-characters"),
        pytest.param(status("204 No Content"), "204", id="no-content"),
        pytest.param(status("206 Partial Content"), "206", id="partial"),
        pytest.param(status("302 Found"), "302", id="redirect-to-nowhere"),
        pytest.param(status("304 Not Modified"), "304", id="not-modified"),
        pytest.param(redirect("/answer"), "more than 5 times", id="circle"),
        pytest.param(redirect("http://127.0.0.1:1/"), "from the ports", id="other-port"),
        pytest.param(redirect("file:///etc/shadow"), "begins with http", id="file"),
        pytest.param(redirect("http://a:b@127.0.0.1/"), "no user name", id="credentials"),
        pytest.param(redirect("http://["), "no URL|not a URL", id="garbage"),
        pytest.param(redirect("/" + "a" * 3000), "at most", id="long"),
    ],
)
async def test_what_another_attempt_would_not_change(bench: Bench, start: Starts, answer: Answer, why: str) -> None:
    bench.server.answers["/answer"] = answer
    error = await bench.failure(await start(size=20_000_000), "/answer")
    assert isinstance(error, UnusableImage)
    assert error.message.isprintable()
    with pytest.raises(UnusableImage, match=why):
        raise error
    assert not bench.pauses
    assert not bench.files()


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(file(GOOD[:-1], length=len(GOOD)), id="truncated"),
        pytest.param(reset, id="reset"),
        pytest.param(endless(bytes(1 << 16), GOOD, 100), id="goes-on-after-its-length"),
        pytest.param(says(b""), id="hangs-up"),
        pytest.param(says(b"\x00\xff garbage\r\n\r\n" * 50), id="garbage"),
        pytest.param(says(b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n"), id="negative-length"),
        pytest.param(says(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n"), id="two-lengths"),
        pytest.param(says(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"), id="bad-chunk"),
        pytest.param(says(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfffffffff\r\nx"), id="huge-chunk"),
        pytest.param(says(b"HTTP/1.1 200 OK\r\nX: " + b"a" * 100_000), id="huge-header"),
        pytest.param(says(b"HTTP/1.1 200 OK\r\n" + b"X: a\r\n" * 100_000), id="many-headers"),
        pytest.param(status("503 Service Unavailable"), id="busy"),
        pytest.param(status("429 Too Many Requests"), id="too-many"),
        pytest.param(silence, id="silence"),
        pytest.param(trickle(b""), id="trickle"),
        pytest.param(trickle(GOOD[: 2 << 20]), id="trickle-later"),
    ],
)
async def test_what_may_pass_is_tried_three_times(bench: Bench, start: Starts, answer: Answer) -> None:
    bench.server.answers["/answer"] = answer
    error = await bench.failure(await start(stall=0.5), "/answer")
    assert isinstance(error, Unavailable)
    assert error.message.isprintable()
    assert bench.pauses == [2.0, 8.0]
    assert not bench.files()


async def test_a_server_that_recovers(bench: Bench, start: Starts) -> None:
    url = bench.server.url("/answer")
    bench.server.answers["/answer"] = reset
    store = bench.store()

    async def recover(_seconds: float) -> None:
        bench.server.answers["/answer"] = file(GOOD)

    store._pause = recover
    await store.start(bench.woken.put_nowait)
    assert await bench.outcome(store, url)
    await store.stop()


async def test_all_attempts_together_have_an_end(bench: Bench, start: Starts) -> None:
    bench.server.answers["/answer"] = trickle(GOOD[: 2 << 20])
    error = await bench.failure(await start(seconds=0.5), "/answer")
    assert isinstance(error, UnusableImage)
    assert "within" in error.message


async def test_a_failure_is_remembered_for_its_url_alone(bench: Bench, start: Starts) -> None:
    bench.server.answers["/bad"] = file(b"<html>")
    bench.server.answers["/good"] = file(GOOD)
    store = await start()
    for _ in range(3):
        assert isinstance(await bench.failure(store, "/bad"), UnusableImage)
    assert len(bench.server.requests) == 1
    assert await bench.outcome(store, bench.server.url("/good"))


INSIDE = ["127.0.0.2", "127.1", "0x7f.0.0.2", "2130706434", "0177.0.0.2", "[::1]", "[::ffff:127.0.0.2]"]


@pytest.mark.parametrize("host", INSIDE)
async def test_no_url_leads_inside(bench: Bench, start: Starts, host: str) -> None:
    async with serving("127.0.0.2") as inside:
        store = await start(ports=[inside.port])
        error = await bench.failure(store, f"http://{host}:{inside.port}/")
        assert isinstance(error, UnusableImage)
        assert not inside.requests


@pytest.mark.parametrize("host", [*INSIDE, "169.254.169.254", "10.0.0.1", "192.168.0.1", "[fe80::1]", "[fd00::1]"])
async def test_no_redirect_leads_inside(bench: Bench, start: Starts, host: str) -> None:
    async with serving("127.0.0.2") as inside:
        bench.server.answers["/answer"] = redirect(f"http://{host}:{inside.port}/latest/meta-data/")
        error = await bench.failure(await start(ports=[bench.server.port, inside.port]), "/answer")
        assert isinstance(error, UnusableImage)
        assert not inside.requests


async def test_a_name_that_means_something_else_at_the_second_look(bench: Bench, start: Starts) -> None:
    async with serving("127.0.0.2") as inside:
        inside.answers["/b"] = file(GOOD)
        names = Names(rebind_example=[["127.0.0.1"], ["127.0.0.2"]])
        port = bench.server.port
        bench.server.answers["/a"] = redirect(f"http://rebind.example:{inside.port}/b")
        error = await bench.failure(await start(names, ports=[port, inside.port]), f"http://rebind.example:{port}/a")
        assert isinstance(error, UnusableImage)
        assert "public addresses only" in error.message
        assert "127" not in error.message, "what names mean inside is not told"
        assert len(bench.server.requests) == 1
        assert not inside.requests


async def test_a_name_with_a_second_address_inside(bench: Bench, start: Starts) -> None:
    """The first does not answer; the second is not tried."""
    async with serving("127.0.0.2") as inside:
        names = Names(two_example=[["127.0.0.1", "127.0.0.2"]])
        store = await start(names, allow=["127.0.0.1/32"], ports=[inside.port])
        assert isinstance(await bench.failure(store, f"http://two.example:{inside.port}/"), UnusableImage)
        assert not inside.requests


async def test_names_inside_and_names_of_nothing_look_alike(bench: Bench, start: Starts) -> None:
    port = bench.server.port
    store = await start(Names(inside_example=[["10.0.0.7"]]))
    messages = [
        (await bench.failure(store, f"http://{name}:{port}/")).message for name in ("inside.example", "nothing.example")
    ]
    assert messages[0] == messages[1]


async def test_from_https_there_is_no_way_down(bench: Bench, start: Starts, tmp_path: Path) -> None:
    ca, tls = certificate(tmp_path)
    bench.server.answers["/good"] = file(GOOD)
    async with serving(tls=tls) as secure:
        secure.answers["/down"] = redirect(bench.server.url("/good"))
        store = await start(ports=[secure.port, bench.server.port], ca=ca)
        assert "https to http" in (await bench.failure(store, secure.url("/down"))).message
    assert not bench.server.requests


async def test_a_certificate_that_nobody_trusts(bench: Bench, start: Starts, tmp_path: Path) -> None:
    _, tls = certificate(tmp_path)
    async with serving(tls=tls) as secure:
        secure.answers["/good"] = file(GOOD)
        error = await bench.failure(await start(ports=[secure.port]), secure.url("/good"))
        assert isinstance(error, UnusableImage)
        assert "not trusted" in error.message


async def test_a_slow_server_holds_nobody_else_up(bench: Bench, start: Starts) -> None:
    """Somebody named the right checksum and a bad URL."""
    bench.server.answers["/slow"] = trickle(GOOD[: 1 << 20])
    bench.server.answers["/good"] = file(GOOD)
    store = await start(allow=[HERE])
    store.state("attacker", bench.server.url("/slow"), sha256(GOOD))
    assert await bench.outcome(store, bench.server.url("/good"))
    assert not isinstance(store.state("attacker", bench.server.url("/slow"), sha256(GOOD)), Fetching)
