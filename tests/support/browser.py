"""A headless Chromium, driven over the WebDriver protocol (https://www.w3.org/TR/webdriver2/) by a plain HTTP client."""

from __future__ import annotations

import asyncio
import base64
import re
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from tempfile import TemporaryDirectory
from typing import Any

import aiohttp

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1200,900",
)
ELEMENT = "element-6066-11e4-a52e-4f735466cecf"  # WebDriver §12: the key of an element's reference

_SHOWN = "return [...document.querySelectorAll(arguments[0])].find((element) => element.checkVisibility())"
PAUSE = 0.05  # seconds
ATTEMPTS = 400


def installed() -> bool:
    """Whether this machine has the browser and its driver."""
    return bool(shutil.which("chromedriver") and shutil.which("chromium"))


class Browser:
    """One window."""

    def __init__(self, http: aiohttp.ClientSession, url: str) -> None:
        self._http = http
        self._url = url

    async def command(self, path: str, body: dict[str, Any] | None = None, method: str = "POST") -> Any:
        """Run one WebDriver command and return its value."""
        json = (body or {}) if method == "POST" else None
        async with self._http.request(method, self._url + path, json=json) as answer:
            value = (await answer.json(content_type=None))["value"]
        if answer.status != 200:
            raise AssertionError(f"{path}: {value['error']}: {value['message']}")
        return value

    async def open(self, url: str) -> None:
        """Load a page."""
        await self.command("/url", {"url": url})

    async def run(self, script: str, *arguments: Any) -> Any:
        """Run a function body in the page; `arguments` are its `arguments`."""
        return await self.command("/execute/sync", {"script": script, "args": list(arguments)})

    async def find(self, css: str) -> str:
        """Wait for an element that is shown, and return its reference."""
        return str((await self.until(_SHOWN, css))[ELEMENT])

    async def until(self, script: str, *arguments: Any) -> Any:
        """Run a function body until it returns something true, and return that."""
        for _ in range(ATTEMPTS):
            if found := await self.run(script, *arguments):
                return found
            await asyncio.sleep(PAUSE)
        page = await self.run("return document.body.innerText")
        raise AssertionError(f"Never came: {script} {arguments}; the page reads:\n{page}\n{await self.console()}")

    async def click(self, css: str) -> None:
        """Click where a person would."""
        await self.command(f"/element/{await self.find(css)}/click")

    async def type(self, css: str, text: str) -> None:
        """Type into a field, after emptying it."""
        reference = await self.find(css)
        await self.command(f"/element/{reference}/clear")
        await self.command(f"/element/{reference}/value", {"text": text})

    async def press(self, key: str) -> None:
        """Press one key where the keyboard is; keys without a character are in WebDriver §17.4.2."""
        actions = [{"type": kind, "value": key} for kind in ("keyDown", "keyUp")]
        await self.command("/actions", {"actions": [{"type": "key", "id": "keyboard", "actions": actions}]})

    async def text(self, css: str) -> str:
        """What a person reads there."""
        return str(await self.command(f"/element/{await self.find(css)}/text", method="GET"))

    async def accept_alert(self) -> None:
        """Say yes to what the page asks."""
        await self.command("/alert/accept")

    async def screenshot(self) -> bytes:
        """What is seen, as PNG."""
        return base64.b64decode(await self.command("/screenshot", method="GET"))

    async def console(self) -> list[str]:
        """What the page complained of since the last call."""
        entries = await self.command("/se/log", {"type": "browser"})
        return [entry["message"] for entry in entries]


@asynccontextmanager
async def open_browser() -> AsyncIterator[Browser]:
    """Start a driver on a free port and a browser with an empty profile; both end with the context."""
    driver = await asyncio.create_subprocess_exec("chromedriver", "--port=0", stdout=asyncio.subprocess.PIPE)
    assert driver.stdout is not None
    try:
        while not (started := re.search(rb"successfully on port (\d+)", await driver.stdout.readline())):
            pass
        with TemporaryDirectory(ignore_cleanup_errors=True) as profile:
            async with aiohttp.ClientSession() as http, _session(http, int(started[1]), profile) as browser:
                yield browser
    finally:
        driver.terminate()
        await driver.communicate()


@asynccontextmanager
async def _session(http: aiohttp.ClientSession, port: int, profile: str) -> AsyncIterator[Browser]:
    base = f"http://127.0.0.1:{port}/session"
    options = {"args": [*FLAGS, f"--user-data-dir={profile}"], "binary": shutil.which("chromium")}
    wanted = {"goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}
    async with http.post(base, json={"capabilities": {"alwaysMatch": wanted}}) as answer:
        value = (await answer.json(content_type=None))["value"]
    browser = Browser(http, f"{base}/{value['sessionId']}")
    try:
        yield browser
    finally:
        await browser.command("", method="DELETE")
