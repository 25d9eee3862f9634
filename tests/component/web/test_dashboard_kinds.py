"""Orders of every kind in the dashboard, and what is done with what runs, in a real browser."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from fedkit.protocol.lending import (
    AttachmentSpec,
    ComputeSpec,
    NetworkSpec,
    Power,
    PublicIpSpec,
    SecurityRule,
    VolumeSpec,
)
from tests.component.web.conftest import PASSWORD, Site
from tests.support.browser import Browser, installed, open_browser

pytestmark = pytest.mark.skipif(not installed(), reason="needs chromium and chromedriver")
SHA256 = "0" * 64


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    async with open_browser() as opened:
        yield opened


async def _sign_in(site: Site, browser: Browser) -> None:
    await browser.open(site.url)
    await browser.type("[name=user]", "alice")
    await browser.type("[name=password]", PASSWORD)
    await browser.click("#sign-in-form button")
    await browser.until("return document.querySelector('option[value=debian]')")


async def _set(browser: Browser, field: str, value: str) -> None:
    """Choose or type as a person does, with the events that come of it."""
    await browser.run(
        f"const field = document.querySelector('#order-form [name={field}]'); field.value = {value!r};"
        "field.dispatchEvent(new Event('change', {bubbles: true})); field.dispatchEvent(new Event('input', {bubbles: true}));"
    )


async def _order(site: Site, browser: Browser, **fields: str) -> str:
    """Fill in the form and send it; returns the id of the new order."""
    known = set(site.book.orders)
    for field, value in fields.items():
        await _set(browser, field, value)
    await browser.click("#order-form > button")
    await browser.until(f"return document.querySelectorAll('#orders tr').length === {len(known) + 1}")
    (made,) = site.book.orders.keys() - known
    return made


async def test_orders_of_every_kind(site: Site, browser: Browser) -> None:
    await _sign_in(site, browser)
    machine = await _order(site, browser, kind="compute", name="box")
    disk = await _order(site, browser, kind="volume", name="disk", size_gb="7")
    joined = await _order(site, browser, kind="attachment", name="in", machine=machine, volume=disk)
    net = await _order(
        site, browser, kind="network", name="net", cidr="10.8.0.0/24", rules="tcp 80-90 from 192.0.2.0/24"
    )
    address = await _order(site, browser, kind="public_ip", name="out", machine=machine, rules="")
    fetched = await _order(
        site, browser, kind="compute", name="url", image_url="https://x.test/i.qcow2", image_sha256=SHA256
    )
    specs = {order_id: order.spec for order_id, order in site.book.orders.items()}
    assert isinstance(specs[machine], ComputeSpec)
    assert specs[disk] == VolumeSpec(name="disk", size_gb=7)
    assert specs[joined] == AttachmentSpec(name="in", machine=machine, volume=disk)
    rule = SecurityRule(ports=(80, 90), cidr="192.0.2.0/24")
    assert specs[net] == NetworkSpec(name="net", cidr="10.8.0.0/24", rules=[rule])
    assert specs[address] == PublicIpSpec(name="out", machine=machine)
    assert specs[fetched] == ComputeSpec(name="url", image="https://x.test/i.qcow2", image_sha256=SHA256)
    assert await browser.console() == []


async def test_what_runs_is_stopped_watched_and_opened(site: Site, browser: Browser) -> None:
    await _sign_in(site, browser)
    machine = await _order(site, browser, kind="compute", name="box")
    net = await _order(site, browser, kind="network", name="net", cidr="10.8.0.0/24")
    site.book.fulfil(machine)
    await browser.click("button[aria-label^='Manage box']")
    await browser.click("#running-content button:nth-of-type(1)")  # pause
    await browser.until("return document.querySelector('#running-content').textContent.includes('It is paused')")
    order = site.book.orders[machine]
    assert order.instance
    assert order.instance.power is Power.PAUSED
    await browser.run(
        "[...document.querySelectorAll('#running-content button')].find((b) => b.textContent === 'Show').click()"
    )
    await browser.until("return !document.querySelector('#running-content pre').hidden")
    await browser.click("#running form button")

    site.book.fulfil(net)
    await browser.click("button[aria-label^='Manage net']")
    await browser.type("#running-content textarea", "tcp nonsense")
    await browser.click("#running-content textarea + button")
    await browser.until("return document.getElementById('running-said').textContent.includes('is no rule')")
    await browser.run("document.querySelector('#running-content textarea').value = 'icmp\\ntcp 22 from 192.0.2.1/32'")
    await browser.click("#running-content textarea + button")
    await browser.until("return document.getElementById('running-said').textContent === ''")
    rules = site.book.orders[net].rules
    assert rules is not None
    assert list(rules) == [SecurityRule(protocol="icmp"), SecurityRule(ports=(22, 22), cidr="192.0.2.1/32")]


async def test_the_quota_is_shown(site: Site, browser: Browser) -> None:
    await _sign_in(site, browser)
    await browser.click("a[href='#usage']")
    await browser.until("return document.querySelectorAll('#quota-rows tr').length > 0")
    assert "site-b.test" in await browser.text("#quota-rows")
    assert await browser.console() == []
