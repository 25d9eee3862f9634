"""What a store keeps: shared, bounded, whole after a crash."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from federation_member.middleware.contract import NoCapacity, Unavailable, UnusableImage
from federation_member.middleware.images import Fetching, ImageStore, Ready
from tests.component.middleware.images.conftest import GOOD, Bench, Starts, sha256, until
from tests.component.middleware.images.servers import certificate, file, redirect, serving, trickle
from tests.support.disk_images import qcow2_image, raw_image


def received(store: ImageStore, key: str, url: str) -> int:
    """Octets of an image that is not there yet."""
    state = store.state(key, url, sha256(GOOD))
    assert isinstance(state, Fetching)
    return state.received


def has_begun(store: ImageStore, key: str, url: str) -> bool:
    """Whether something came of it."""
    return received(store, key, url) > 0


async def test_an_image_is_fetched_checked_and_kept(bench: Bench, start: Starts) -> None:
    bench.server.answers["/good"] = file(GOOD)
    ready = await bench.outcome(await start(), bench.server.url("/good"))
    assert ready.path.read_bytes() == GOOD
    assert (ready.format, ready.virtual_size, ready.sha256) == ("qcow2", 1 << 20, sha256(GOOD))
    assert bench.files() == {f"{sha256(GOOD)}.qcow2"}


async def test_a_raw_disk_is_kept_as_raw(bench: Bench, start: Starts) -> None:
    raw = raw_image(3 << 20)
    bench.server.answers["/raw"] = file(raw)
    ready = await bench.outcome(await start(), bench.server.url("/raw"), sha256(raw))
    assert (ready.format, ready.virtual_size) == ("raw", 3 << 20)


async def test_redirects_are_followed_five_times(bench: Bench, start: Starts) -> None:
    for number in range(5):
        bench.server.answers[f"/{number}"] = redirect(f"/{number + 1}")
    bench.server.answers["/5"] = file(GOOD)
    assert await bench.outcome(await start(), bench.server.url("/0"))


async def test_a_server_whose_certificate_the_operator_trusts(bench: Bench, start: Starts, tmp_path: Path) -> None:
    ca, tls = certificate(tmp_path)
    async with serving(tls=tls) as secure:
        secure.answers["/good"] = file(GOOD)
        store = await start(ports=[secure.port], ca=ca)
        assert await bench.outcome(store, secure.url("/good"))


async def test_nothing_of_ours_is_told(bench: Bench, start: Starts, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.9:1")
    bench.server.answers["/good"] = file(GOOD)
    await bench.outcome(await start(), bench.server.url("/good"))
    lines = bench.server.requests[0].splitlines()
    names = {line.split(":")[0] for line in lines[1:] if line}
    assert names == {"Host", "User-Agent", "Accept", "Accept-Encoding", "Connection"}


async def test_orders_for_one_image_share_a_download(bench: Bench, start: Starts) -> None:
    bench.server.answers["/good"] = file(GOOD)
    store, url = await start(), bench.server.url("/good")
    assert all(isinstance(store.state(key, url, sha256(GOOD)), Fetching) for key in ("a", "b", "c"))
    assert {await bench.woken.get() for _ in range(3)} == {"a", "b", "c"}
    assert all(isinstance(store.state(key, url, sha256(GOOD)), Ready) for key in ("a", "b", "c"))
    assert isinstance(store.state("d", "https://elsewhere.example/", sha256(GOOD)), Ready), "by its checksum"
    assert len(bench.server.requests) == 1


async def test_how_far_it_is_can_be_seen(bench: Bench, start: Starts) -> None:
    goes_on = asyncio.Event()

    async def in_two_parts(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(GOOD) + GOOD[: 2 << 20])
        await goes_on.wait()
        writer.write(GOOD[2 << 20 :])

    bench.server.answers["/good"] = in_two_parts
    store, url = await start(), bench.server.url("/good")
    await until(lambda: received(store, "a", url) == 2 << 20)
    assert str(store.state("a", url, sha256(GOOD))) == f"fetching the image: {100 * (2 << 20) // len(GOOD)} %"
    goes_on.set()
    assert await bench.outcome(store, url, key="a")


async def test_what_nobody_waits_for_is_not_fetched_further(bench: Bench, start: Starts) -> None:
    bench.server.answers["/slow"] = trickle(GOOD[: 1 << 20])
    store, url = await start(), bench.server.url("/slow")
    for key in ("a", "b"):
        await until(partial(has_begun, store, key, url))
    store.release("a")
    assert received(store, "b", url) > 0, "b still waits for it"
    store.release("b")
    await until(lambda: not bench.files())
    assert received(store, "c", url) == 0, "begun anew"


async def test_the_longest_unused_goes_first(bench: Bench, start: Starts) -> None:
    images = {name: qcow2_image(name.encode().ljust(1 << 20)) for name in "abc"}
    store = await start(cache=3_000_000)
    for name, image in images.items():
        bench.server.answers[f"/{name}"] = file(image)
    for name in "abac":
        await bench.outcome(store, bench.server.url(f"/{name}"), sha256(images[name]))
    assert bench.files() == {f"{sha256(images[name])}.qcow2" for name in "ac"}


async def test_an_announcement_alone_drops_nothing(bench: Bench, start: Starts) -> None:
    bench.server.answers["/good"] = file(GOOD)
    bench.server.answers["/liar"] = file(qcow2_image()[:1000], length=9_000_000)
    store = await start(cache=10_000_000)
    await bench.outcome(store, bench.server.url("/good"))
    assert isinstance(await bench.failure(store, "/liar", "0" * 64), Unavailable)
    assert bench.files() == {f"{sha256(GOOD)}.qcow2"}


async def test_an_image_without_room_for_it(bench: Bench, start: Starts) -> None:
    bench.server.answers["/good"] = file(GOOD)
    assert isinstance(await bench.failure(await start(cache=1_000_000), "/good"), NoCapacity)
    assert not bench.files()


async def test_the_disk_is_never_filled(bench: Bench, start: Starts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("federation_member.middleware.images.shelf.EACH", 1 << 20)
    bench.server.answers["/good"] = file(GOOD)
    assert isinstance(await bench.failure(await start(spare=1 << 60), "/good"), NoCapacity)
    assert not bench.files()


async def test_a_restart_finds_what_is_whole_and_forgets_the_rest(bench: Bench, start: Starts) -> None:
    bench.server.answers["/good"] = file(GOOD)
    first = bench.store()
    await first.start(bench.woken.put_nowait)
    await bench.outcome(first, bench.server.url("/good"))
    await first.stop()
    (bench.folder / "partial" / "half").write_bytes(b"half")
    (bench.folder / f"{'1' * 64}.raw").write_bytes(b"what once was an image")
    second = await start()
    assert isinstance(second.state("lease", "http://127.0.0.1/", sha256(GOOD)), Ready)
    assert bench.files() == {f"{sha256(GOOD)}.qcow2"}
    assert len(bench.server.requests) == 1


async def test_a_stop_ends_downloads(bench: Bench) -> None:
    bench.server.answers["/slow"] = trickle(GOOD[: 1 << 20])
    store = bench.store()
    await store.start(bench.woken.put_nowait)
    await until(partial(has_begun, store, "a", bench.server.url("/slow")))
    await store.stop()
    assert not bench.files()


async def test_an_image_removed_behind_our_back_is_fetched_again(bench: Bench, start: Starts) -> None:
    bench.server.answers["/good"] = file(GOOD)
    store, url = await start(), bench.server.url("/good")
    (await bench.outcome(store, url)).path.unlink()
    assert (await bench.outcome(store, url)).path.read_bytes() == GOOD


async def test_two_processes_do_not_share_a_folder(bench: Bench, start: Starts) -> None:
    await start()
    with pytest.raises(Unavailable, match="Another member"):
        await start()


async def test_a_bound_of_downloads_under_way(bench: Bench, start: Starts) -> None:
    bench.server.answers["/slow"] = trickle(GOOD[: 1 << 20])
    store = await start(waiting=1)
    store.state("a", bench.server.url("/slow"), sha256(GOOD))
    with pytest.raises(NoCapacity):
        store.state("b", bench.server.url("/other"), "0" * 64)


@pytest.mark.parametrize("digest", ["", "0" * 63, "G" * 64, "A" * 64, "../" + "0" * 61, "0" * 64 + "\n"])
async def test_a_checksum_is_a_checksum(bench: Bench, start: Starts, digest: str) -> None:
    with pytest.raises(UnusableImage, match="sha256"):
        (await start()).state("a", bench.server.url("/good"), digest)


CRASHER = """
import asyncio, sys
from federation_member.middleware.images import ImagesConfig, ImageStore

async def main(folder, url, digest):
    config = {"folder": folder, "allow": ["127.0.0.1/32"], "ports": [int(url.split(":")[2].split("/")[0])], "spare": 0}
    store = ImageStore(ImagesConfig.model_validate(config))
    await store.start(lambda key: None)
    while store.state("a", url, digest).received == 0:
        await asyncio.sleep(0.01)
    print("under way", flush=True)
    await asyncio.sleep(3600)

asyncio.run(main(*sys.argv[1:]))
"""


async def test_kill_9_in_the_middle_leaves_nothing_half(bench: Bench, start: Starts) -> None:
    bench.server.answers["/good"] = trickle(GOOD[: 2 << 20])
    url = bench.server.url("/good")
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", CRASHER, str(bench.folder), url, sha256(GOOD)), stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    assert (await process.stdout.readline()).strip() == b"under way"
    os.kill(process.pid, signal.SIGKILL)
    await process.wait()
    assert bench.files(), "half an image"
    bench.server.answers["/good"] = file(GOOD)
    ready = await bench.outcome(await start(), url)
    assert ready.path.read_bytes() == GOOD
    assert bench.files() == {ready.path.name}
