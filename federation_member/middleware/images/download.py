"""One attempt to fetch a file from a server that a stranger named.

The server is hostile until the checksum says otherwise: it may send 10 GB, a trickle, nothing, a redirect into the intranet, a
wrong length, or an HTML page. So each step has a time, the octets are counted, the first 64 KiB decide whether the rest is wanted,
and every connection passes the border (addresses.py). Nothing of ours goes out: no cookies, no credentials, no proxy from the
environment, no referrer. Content codings are not undone: what is checked is what was sent.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import socket
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import aiohttp
from aiohttp.abc import AbstractResolver
from yarl import URL

from federation_member.middleware.contract import Unavailable, UnusableImage
from federation_member.middleware.images import formats, urls
from federation_member.middleware.images.addresses import NOWHERE, Border
from federation_member.middleware.images.config import ImagesConfig
from federation_member.middleware.images.formats import Disk

BLOCK = 1 << 20  # octets written at once, and that may take `stall` seconds
REDIRECTS = 5
MAY_PASS = {408, 425, 429, *range(500, 600)}  # statuses after which another attempt is worth it
HEADERS = {"User-Agent": "fedmesh", "Accept": "*/*", "Accept-Encoding": "identity"}
Progress = Callable[[int, int | None], None]
"""Told how many octets came and how many were announced; raises what shall end the download."""


class Downloader:
    """Fetches files by the rules of one site. `resolver` is for tests, which own the names."""

    def __init__(self, config: ImagesConfig, resolver: AbstractResolver | None = None) -> None:
        self._config = config
        self._border = Border(config.allow, config.refuse)
        self._resolver = resolver

    async def fetch(self, url: str, sha256: str, path: Path, progress: Progress) -> Disk:
        """Write what the URL leads to into `path` and say what disk it holds.

        Raises `UnusableImage` for what another attempt would not change, and `Unavailable` for what it might.
        """
        start = urls.parse(url, self._config.ports)
        try:
            async with self._session() as session:
                return await self._fetch(session, start, sha256, path, progress)
        except TimeoutError as error:
            raise Unavailable("The image's server is too slow.") from error
        except aiohttp.ClientConnectorDNSError as error:
            if error.os_error.errno == socket.EAI_AGAIN:
                raise Unavailable("The name of the image's server cannot be looked up now.") from error
            # A name that means nothing is answered as one that means something inside.
            raise UnusableImage(NOWHERE) from error
        except aiohttp.ClientConnectorCertificateError as error:
            raise UnusableImage(f"The image's server is not trusted: {_words(error.certificate_error)}.") from error
        except (ValueError, aiohttp.InvalidURL) as error:  # names and redirects that no library can read
            raise UnusableImage(f"The image's URL cannot be used: {_words(error)}.") from error
        except aiohttp.ClientResponseError as error:
            raise Unavailable("The image's server does not speak HTTP properly.") from error
        except (aiohttp.ClientError, ConnectionError) as error:
            raise Unavailable(f"The image's server failed: {_words(error)}.") from error

    def _session(self) -> aiohttp.ClientSession:
        trust = ssl.create_default_context(cafile=self._config.ca) if self._config.ca else True
        connector = aiohttp.TCPConnector(
            ssl=trust,
            resolver=self._resolver or aiohttp.ThreadedResolver(),
            use_dns_cache=False,
            force_close=True,
            happy_eyeballs_delay=None,  # one address after another: a refusal then ends the attempt
            socket_factory=self._border.open_socket,
        )
        return aiohttp.ClientSession(
            connector=connector,
            connector_owner=True,
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
            auto_decompress=False,
            headers=HEADERS,
            timeout=aiohttp.ClientTimeout(total=None),  # the steps have their own
        )

    async def _fetch(
        self, session: aiohttp.ClientSession, url: URL, sha256: str, path: Path, progress: Progress
    ) -> Disk:
        for _ in range(1 + REDIRECTS):
            async with asyncio.timeout(self._config.stall):
                response = await session.get(url, allow_redirects=False)
            try:
                if response.status == 200:
                    return await self._receive(response, sha256, path, progress)
                url = self._next(url, response)
            finally:
                response.close()
        raise UnusableImage(f"The server redirects more than {REDIRECTS} times.")

    def _next(self, url: URL, response: aiohttp.ClientResponse) -> URL:
        status = _words(f"{response.status} {response.reason or ''}".strip())
        if response.status in MAY_PASS:
            raise Unavailable(f"The image's server says {status}.")
        if response.status not in (301, 302, 303, 307, 308) or "Location" not in response.headers:
            raise UnusableImage(f"The image's server says {status}.")
        return urls.redirect(url, response.headers["Location"], self._config.ports)

    async def _receive(self, response: aiohttp.ClientResponse, sha256: str, path: Path, progress: Progress) -> Disk:
        config, announced, received = self._config, response.content_length, 0
        self._check_size(announced or 0)
        digest = hashlib.sha256()
        head = b""
        with await asyncio.to_thread(path.open, "xb") as file:
            while block := await self._block(response.content):
                if not received:
                    head = block[: formats.WANTED]
                    formats.inspect(head, None, config.virtual_size)
                received += len(block)
                self._check_size(received)
                progress(received, announced)
                await asyncio.to_thread(_write, file, digest, block)
            await asyncio.to_thread(_write_through, file)
        if digest.hexdigest() != sha256:
            raise UnusableImage(f"The image has the sha256 {digest.hexdigest()}, not the one that was ordered.")
        disk = formats.inspect(head, received, config.virtual_size)
        assert disk is not None  # with the size known, it is one or an error
        return disk

    async def _block(self, content: aiohttp.StreamReader) -> bytes:
        """The next MiB, or what is left; `stall` bounds how slowly it may come."""
        block = bytearray()
        async with asyncio.timeout(self._config.stall):
            while len(block) < BLOCK and (part := await content.read(BLOCK - len(block))):
                block += part
        return bytes(block)

    def _check_size(self, octets: int) -> None:
        if octets > self._config.size:
            raise UnusableImage(f"The image is larger than {self._config.size} octets, which is the most taken here.")


def _words(said: object) -> str:
    """What a stranger or a library said, as one short printable line."""
    return "".join(letter if letter.isprintable() else " " for letter in str(said)[:200]) or type(said).__name__


def _write(file: BinaryIO, digest: hashlib._Hash, block: bytes) -> None:
    digest.update(block)
    file.write(block)


def _write_through(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())
