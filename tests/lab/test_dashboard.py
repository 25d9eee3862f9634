"""What the operator of a site sees in a browser of what the site decided: an allow as a picture, and what a deny missed."""

from __future__ import annotations

import asyncio
import secrets
from typing import Any

import pytest

from deploy.lab.client import Lab
from deploy.lab.person import Person, until
from deploy.lab.topology import API_PORT
from tests.lab.policies import fedid, policy
from tests.lab.windows import window
from tests.support.browser import Browser, installed, open_browser

pytestmark = [pytest.mark.lab, pytest.mark.skipif(not installed(), reason="needs chromium and chromedriver")]
HOME, LENDER = "site-a", "site-b"
RULE = {"name": "proj1-small", "who": ["site-a/proj1/*"], "may": ["compute"], "flavours": ["small"]}
WISH = ("--image", "debian", "--flavour", "small", "--location", f"{LENDER}.test")
BOXES = "return [...document.querySelectorAll('dialog[open] .box')].map((box) => box.textContent)"


def _refused(person: Person, order: dict[str, Any]) -> bool:
    return bool(person.ask("order", "show", order["id"])["code"] == "member.not_allowed")


def test_the_operator_of_a_site_sees_why_it_lent_and_why_not(lab: Lab) -> None:
    password = secrets.token_urlsafe()
    operator = Person(lab, LENDER, "olga", operator=True)
    operator.account("password", "--password-stdin", text=password)
    dora, emil = Person(lab, HOME, "dora", ("proj1",)), Person(lab, HOME, "emil", ("proj2",))
    with policy(lab, LENDER, RULE):
        lent = dora.order("--flavour", "small", "--location", f"{LENDER}.test")
        denied = emil.ask("order", "create", *WISH)[0]
        try:
            until(lambda: _refused(emil, denied), "the order is refused")
            asyncio.run(_look(lab, password))
        finally:
            dora.delete(lent)
            emil.delete(denied)


async def _look(lab: Lab, password: str) -> None:
    lan = lab.plan.site(LENDER).lan
    async with window(lab, LENDER, lan, API_PORT) as address, open_browser() as browser:
        await browser.open(f"http://{address}/#audit")
        await browser.type("[name=user]", "olga")
        await browser.type("[name=password]", password)
        await browser.click("#sign-in-form button")
        home = fedid(lab, HOME)

        await _open(browser, f"{home[:8]}/proj1/dora")
        told = await browser.text("#decision-content")
        assert "allowed by rule proj1-small" in told
        assert "dora" in told
        assert f"is in project proj1 according to {HOME} {home[:8]} may use rule proj1-small." in told
        drawn = await browser.run(BOXES)
        assert any(f"rule proj1-smallof {LENDER} {fedid(lab, LENDER)[:8]}" in box for box in drawn)
        assert any(f"project proj1of {HOME} {home[:8]}" in box for box in drawn)
        assert len(drawn) == 7
        await browser.click("#decision-content button")
        await browser.until("return document.getElementById('decision-check').textContent.includes('decided again')")
        await browser.click("#decision .bar button")

        await _open(browser, f"{home[:8]}/proj2/emil")
        told = await browser.text("#decision-content")
        assert "denied" in told
        assert f"{HOME} {home[:8]} would have to say that emil" in told
        assert "is in project proj1." in told
        assert await browser.console() == []


async def _open(browser: Browser, name: str) -> None:
    """Open the newest decision about somebody."""
    script = """
      const row = [...document.querySelectorAll("#decisions tr")].find((row) => row.innerText.includes(arguments[0]));
      row?.querySelector("a").click();
      return Boolean(row);
    """
    await browser.until(script, name)
    await browser.find("#decision-content dl")
