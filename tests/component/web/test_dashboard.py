"""The dashboard, used as a person uses it, in a real browser."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from fedkit.protocol.lending import ComputeSpec
from tests.component.web.conftest import PASSWORD, Site
from tests.support.browser import Browser, installed, open_browser

pytestmark = pytest.mark.skipif(not installed(), reason="needs chromium and chromedriver")


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


async def test_an_order_from_sign_in_to_deletion(site: Site, browser: Browser) -> None:
    await _sign_in(site, browser)
    assert "alice · physics" in await browser.text("#who")
    await browser.type("[name=name]", "worker")
    await browser.type("[name=requirements]", "vcpu >= 2")
    await browser.click("#order-form button")
    await browser.find("tr[data-state=open]")
    (order,) = site.book.orders.values()
    assert isinstance(order.spec, ComputeSpec)
    assert (order.spec.name, order.spec.requirements) == ("worker", "vcpu >= 2")

    site.book.fulfil(order.id)
    await browser.find("tr[data-state=fulfilled]")
    assert await browser.text("tr[data-state=fulfilled] code") == "ssh -p 20001 fed@tunnel.site-b.test"

    await browser.click(".actions button")
    await browser.find("#why-content ol li")
    assert "The machine runs at site-b.test." in await browser.text("#why")
    await browser.click("#why button")

    await browser.click(".actions button:last-child")
    await browser.accept_alert()
    await browser.find("tr[data-state=deleting]")
    site.book.change(order.id, state="deleted", reason="Its lender confirmed.")
    await browser.find("#nothing")
    assert await browser.console() == []


async def test_pressing_twice_orders_once(site: Site, browser: Browser) -> None:
    await _sign_in(site, browser)
    await browser.until("return document.getElementById('live').textContent === 'live'")
    await browser.run("const form = document.getElementById('order-form'); form.requestSubmit(); form.requestSubmit()")
    await browser.find("tr[data-state=open]")
    assert len(site.book.orders) == 1


async def test_text_of_others_is_never_markup(site: Site, browser: Browser) -> None:
    await _sign_in(site, browser)
    await browser.click("#order-form button")
    await browser.find("tr[data-state=open]")
    (order,) = site.book.orders.values()
    evil = "<img src=x onerror=\"document.title='owned'\">"
    site.book.change(order.id, state="closed", reason=evil)
    await browser.find("tr[data-state=closed]")
    assert evil in await browser.text("tr[data-state=closed]")
    assert await browser.run("return document.title") == "fedmesh"


async def test_a_refusal_is_shown_with_its_code(site: Site, browser: Browser) -> None:
    await browser.open(site.url)
    await browser.type("[name=user]", "alice")
    await browser.type("[name=password]", "wrong password")
    await browser.click("#sign-in-form button")
    assert "account.wrong_password" in await browser.text("#notice")


async def test_signing_out_revokes_the_token(site: Site, browser: Browser) -> None:
    await _sign_in(site, browser)
    before = len(await site.accounts.tokens("alice"))
    await browser.click("#sign-out")
    await browser.find("#sign-in-form")
    assert len(await site.accounts.tokens("alice")) == before - 1
    assert await browser.run("return sessionStorage.length") == 0


async def test_an_ended_session_asks_to_sign_in_again(site: Site, browser: Browser) -> None:
    await _sign_in(site, browser)
    await site.accounts.set_password("alice", "another password")
    await browser.click("#order-form button")
    assert "sign in again" in await browser.text("#notice")
    await browser.find("#sign-in-form")
