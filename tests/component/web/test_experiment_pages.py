"""Experiments in the dashboard, as a researcher uses it: in a real browser, with whole members whose machines are in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest

from federation_member.experiments.model import State
from federation_member.orders.model import User
from tests.component.web.dashboard import count, dashboard, sign_in
from tests.component.web.test_experiments import PROGRAM
from tests.support.browser import Browser, installed, open_browser
from tests.support.experiments import line, sites
from tests.support.federation import Federation, Member

pytestmark = pytest.mark.skipif(not installed(), reason="needs chromium and chromedriver")
ULF = User("proj1", "ulf")
GROWN = ("$ns rtproto", "set c [$ns node]\ntb-set-node-testbed $c deter\n$ns rtproto")
EVIL = "<img/src=x/onerror=document.title='owned'>"
WRITE = """
  const field = document.querySelector(arguments[0]);
  field.value = arguments[1];
  field.dispatchEvent(new Event('input', { bubbles: true }));
"""
STATE = "return document.getElementById('one-state').textContent === arguments[0]"
ARROW_RIGHT, ENTER = "\ue014", "\ue007"


@dataclass
class Page:
    """A dashboard, open in a browser, and the member behind it."""

    browser: Browser
    home: Member
    url: str

    async def go(self, place: str) -> None:
        """Go to a part of the dashboard."""
        await self.browser.run("location.hash = arguments[0]", place)

    async def write(self, css: str, text: str) -> None:
        """Put a text into a field at once."""
        await self.browser.find(css)
        await self.browser.run(WRITE, css, text)

    async def make(self, program: str = PROGRAM, name: str = "mine") -> None:
        """Make an experiment, and wait for its page."""
        await self.go("#experiments/new")
        await self.write("#describe-form [name=name]", name)
        await self.write("#describe-text", program)
        await self.browser.find("#describe-preview svg")
        await self.browser.click("#describe-form .make")
        await self.browser.find("#one-picture svg")


@pytest.fixture
async def page(tmp_path: Path) -> AsyncIterator[Page]:
    async with (
        Federation(tmp_path) as world,
        sites(world, "h", "a") as (home, _away),
        dashboard(home) as url,
        open_browser() as browser,
    ):
        await sign_in(browser, url, "ulf")
        yield Page(browser, home, url)


async def test_from_a_broken_description_to_the_end_of_an_experiment(page: Page) -> None:
    browser = page.browser
    await page.go("#experiments")
    await browser.click("#experiment-list a.button")
    await page.write("#describe-text", PROGRAM.replace("$a $b 100Mb", "$a $c 100Mb"))
    assert "Line 8" in await browser.text("#describe-problems .bad")
    assert "ns2.undefined" in await browser.text("#describe-problems .bad")
    assert await browser.text("#describe-lines .bad") == "8"
    assert await count(browser, "#describe-preview svg") == 0
    await browser.click("#describe-problems button")
    assert (
        await browser.run("return getSelection().toString()") == "set link0 [$ns duplex-link $a $c 100Mb 0ms DropTail]"
    )

    await page.write("#describe-text", PROGRAM)
    await browser.find("#describe-preview svg")
    assert "2 nodes at 2 testbeds" in await browser.text("#describe-sum")
    assert await count(browser, "#describe-problems li") == 0
    assert await page.home.experiments.page(ULF) == []  # nothing was asked of anybody
    for testbed, member in (("deter", "h.test"), ("ucb", "a.test")):
        await browser.run(
            "const s = document.querySelector(`[data-testbed=${arguments[0]}]`); s.value = arguments[1];"
            "s.dispatchEvent(new Event('change', { bubbles: true }))",
            testbed,
            member,
        )
    await browser.until("return document.querySelector('.pieces').innerText.includes('a.test')")
    await browser.type("#describe-form [name=name]", "mine")
    await browser.click("#describe-form .make")

    await browser.find("#one-secrets button")
    await browser.until(STATE, State.ACTIVE)
    await browser.until("return document.querySelectorAll('.spot[data-status=running]').length === 2")
    await browser.until("return document.querySelectorAll('.gate.joined').length === 2")
    assert "1 of 1 nodes run, 1 of 1 portals joined" in await browser.text("#one-progress [data-testbed=ucb]")
    await browser.click(".spot[data-node=b]")
    told = await browser.text("#one-node")
    assert "ssh -p" in told
    assert "10.1.1.3" in told
    await browser.click("#one-node-actions button")
    await browser.until("return !/^(Working…)?$/.test(document.getElementById('one-node-output').textContent)")

    await browser.click("#one-terminate")
    await browser.accept_alert()
    await browser.until(STATE, State.TERMINATED)
    states = await browser.run("return [...document.querySelectorAll('#one-log .state')].map((one) => one.textContent)")
    assert (states[0], states[-1]) == (State.ALLOCATING, State.TERMINATED)
    assert State.ACTIVE in states
    assert await browser.run("return document.getElementById('one-terminate').hidden")
    assert await browser.console() == []


async def test_the_list_is_live_and_the_picture_is_walked_by_keyboard(page: Page) -> None:
    browser = page.browser
    await page.make()
    await browser.run("document.querySelector('.spot[tabindex=\"0\"]').focus()")
    await browser.press(ARROW_RIGHT)
    assert await browser.run("return document.activeElement.dataset.node") == "b"
    await browser.press(ENTER)
    assert await browser.text("#one-node h3") == "b"
    await page.go("#experiments")
    await browser.find("tr[data-experiment][data-state=active]")
    (made,) = await page.home.experiments.page(ULF)
    await page.home.experiments.terminate(ULF, made.id)
    await browser.find("#experiment-nothing")
    await browser.click("#experiment-ended")
    await browser.click("tr[data-state=terminated] a")
    await browser.until(STATE, State.TERMINATED)
    assert await count(browser, "#one-secrets button") == 0
    assert await browser.console() == []


async def test_who_was_granted_one_opens_it_by_its_id(page: Page) -> None:
    browser = page.browser
    await page.make()
    (made,) = await page.home.experiments.page(ULF)
    olga = await page.home.accounts.get("olga")
    until = page.home.federation.clock().replace(year=2099)
    grant = await page.home.experiments.grant(ULF, made.id, olga.principal, until)
    await browser.click("#sign-out")
    await sign_in(browser, page.url)
    await page.go("#experiments")
    await browser.click("#experiment-list summary")
    await browser.type("#open-form [name=id]", made.id)
    await browser.click("#open-form button")
    assert "experiments.unknown" in await browser.text("#notice")
    await page.go("#experiments")
    await browser.type("#open-form [name=id]", made.id)
    await page.write("#open-form [name=credential]", grant.credential)
    await browser.click("#open-form [name=keep]")
    await browser.click("#open-form button")
    await browser.until(STATE, State.ACTIVE)
    assert await count(browser, "#one-secrets button") == 0
    assert await browser.run("return document.getElementById('one-grant').hidden")
    await browser.open(f"{page.url}/#experiments/{made.id}")  # nothing but what the member keeps
    await browser.until(STATE, State.ACTIVE)


async def test_keys_and_grants_become_files_and_a_grant_is_revoked(page: Page, tmp_path: Path) -> None:
    browser, files = page.browser, tmp_path / "files"
    behaviour = {"behavior": "allow", "downloadPath": str(files)}
    await browser.command("/goog/cdp/execute", {"cmd": "Browser.setDownloadBehavior", "params": behaviour})
    await page.make()
    await browser.until(STATE, State.ACTIVE)
    await browser.click("#one-secrets button")
    await page.home.federation.settle(lambda: "PRIVATE KEY" in _text(files / "mine.key"))
    await browser.click("#one-credentials")
    await page.home.federation.settle(lambda: '"sealed"' in _text(files / "mine-credentials.json"))

    olga = await page.home.accounts.get("olga")
    await browser.click("#one-grant summary")
    await browser.type("#one-grant-form [name=principal]", olga.principal)
    await page.write("#one-grant-form [name=until]", "2099-01-01T12:00")
    await browser.click("#one-grant-form button")
    await page.home.federation.settle(lambda: _text(files / f"mine-for-{olga.principal[:8]}.cred").startswith("ey"))
    assert olga.principal in await browser.text("#one-grants li")
    await browser.click("#one-grants button")
    await browser.accept_alert()
    await browser.until("return document.querySelector('#one-grants li').innerText.includes('revoked')")
    assert await browser.console() == []


def _text(file: Path) -> str:
    """What is in a file, if it is there already."""
    return file.read_text() if file.exists() else ""


async def test_it_is_extended_by_a_larger_description(page: Page, tmp_path: Path) -> None:
    browser, larger = page.browser, tmp_path / "larger.ns"
    await page.make()
    await browser.until(STATE, State.ACTIVE)
    await browser.click("#one-extend summary")
    chosen = await browser.find("#one-extend [name=files]")
    for program, nodes in ((PROGRAM.replace("set b [$ns node]", ""), 2), (PROGRAM.replace(*GROWN), 3)):
        larger.write_text(program)
        await browser.command(f"/element/{chosen}/value", {"text": str(larger)})
        await browser.click("#one-extend button")
        if nodes == 2:
            assert "ns2.undefined" in await browser.text("#one-extend-problems li")
    await browser.until("return document.querySelectorAll('.spot[data-status=running]').length === 3")
    await browser.until(STATE, State.ACTIVE)


async def test_what_parties_must_not_share_is_told_before_anything_is_made(page: Page) -> None:
    await page.go("#experiments/new")
    await page.write("#describe-text", PROGRAM)
    await page.browser.find("#describe-preview svg")
    await page.browser.click("#describe-form summary")
    await page.write("#describe-form [name=parties]", "red: deter\nblue: ucb")
    assert "topology.parties_meet" in await page.browser.text("#describe-problems .bad")


async def test_names_of_others_are_never_markup(page: Page) -> None:
    browser = page.browser
    await page.make(line("h.test", "a.test").description.replace("wire1", EVIL.replace("<", "&lt;")))
    await browser.until(
        "return [...document.querySelectorAll('.way title')].some((one) => one.textContent === arguments[0])", EVIL
    )
    await page.go("#experiments/new")
    await page.write("#describe-text", f"set ns [new Simulator]\nerror {{{EVIL}}}\n")
    assert EVIL in await browser.text("#describe-problems .bad")
    assert await browser.run("return document.title") == "fedmesh"
    assert await count(browser, "img") == 0


async def test_files_are_a_description_and_what_it_sources(page: Page, tmp_path: Path) -> None:
    main, library = tmp_path / "Main Program.ns", tmp_path / "nodes.tcl"
    library.write_text("set a [$ns node]\n")
    main.write_text(PROGRAM.replace("set a [$ns node]", "source nodes.tcl"))
    await page.go("#experiments/new")
    chosen = await page.browser.find("#describe-file")
    await page.browser.command(f"/element/{chosen}/value", {"text": f"{main}\n{library}"})
    await page.browser.find("#describe-preview svg")
    assert await page.browser.run("return document.querySelector('#describe-form [name=name]').value") == "main-program"
    library.write_text("set a [$ns nobody]\n")
    await page.browser.command(f"/element/{chosen}/value", {"text": f"{main}\n{library}"})
    assert "Line 6" in await page.browser.text("#describe-problems .bad")


async def test_a_huge_description_is_refused_in_words(page: Page) -> None:
    await page.go("#experiments/new")
    await page.write("#describe-text", "#" * 400_000)
    await page.browser.until("return document.getElementById('describe-said').textContent.includes('web.invalid')")


async def test_it_fits_a_narrow_window(page: Page) -> None:
    browser = page.browser
    await page.make()
    size = {"width": 320, "height": 800, "deviceScaleFactor": 1, "mobile": False}
    command = {"cmd": "Emulation.setDeviceMetricsOverride", "params": size}
    for place in ("", "#experiments", "#experiments/new"):
        if place:
            await page.go(place)
        await browser.command("/goog/cdp/execute", command)
        assert await browser.run("return document.documentElement.scrollWidth") <= size["width"]


async def test_nodes_of_services_are_operated_too_and_their_picture_is_not_asked_for_again_and_again(
    page: Page,
) -> None:
    browser = page.browser
    await page.make(f"# SERVICE: local_seer_control:deter:deter\n{PROGRAM}")
    await browser.until(STATE, State.ACTIVE)
    await browser.run("document.querySelector('#one-progress details').open = true")
    await browser.run(
        "[...document.querySelectorAll('#one-progress button')].find((b) => b.textContent === 'control').click()"
    )
    assert await browser.text("#one-node h3") == "control"
    assert "running" in await browser.text("#one-node-facts")
    assert await count(browser, ".spot[tabindex='0']") == 1
    asked = "return performance.getEntriesByType('resource').filter((one) => one.name.endsWith('/layout')).length"
    before = await browser.run(asked)
    await page.home.experiments.grant(ULF, "mine", "ab" * 20, page.home.federation.clock() + timedelta(days=1))
    await page.home.experiments.renew(ULF, "mine", page.home.federation.clock() + timedelta(days=1))
    await browser.until("return !document.getElementById('one-facts').textContent.includes('not by itself')")
    assert await browser.run(asked) == before
