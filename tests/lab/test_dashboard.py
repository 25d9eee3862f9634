"""What people do at a site in a browser: its operator sees what was decided and why, a researcher runs an experiment."""

from __future__ import annotations

import asyncio
import secrets
from typing import Any

import pytest

from deploy.lab.client import Lab
from deploy.lab.person import Person, machines_at, until
from deploy.lab.topology import API_PORT
from tests.lab.policies import fedid, policy
from tests.lab.windows import window
from tests.support.browser import Browser, installed, open_browser
from tests.unit.topology.test_sub_experiment import SEED

pytestmark = [pytest.mark.lab, pytest.mark.skipif(not installed(), reason="needs chromium and chromedriver")]
HOME, LENDER = "site-a", "site-b"
RULE = {"name": "proj1-small", "who": ["site-a/proj1/*"], "may": ["compute"], "flavours": ["small"]}
WISH = ("--image", "debian", "--flavour", "small", "--location", f"{LENDER}.test")
PATIENCE = 180.0  # seconds
WRITE = """
  const field = document.querySelector(arguments[0]);
  field.value = arguments[1];
  field.dispatchEvent(new Event("input", { bubbles: true }));
"""
CHOOSE = """
  const select = document.querySelector(`[data-testbed="${arguments[0]}"]`);
  select.value = arguments[1];
  select.dispatchEvent(new Event("change", { bubbles: true }));
"""
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


def test_a_researcher_runs_an_experiment_over_two_sites(lab: Lab) -> None:
    password = secrets.token_urlsafe()
    rita = Person(lab, HOME, "rita")
    rita.account("password", "--password-stdin", text=password)
    try:
        asyncio.run(_experiment(lab, password))
    finally:
        rita.fed_status("experiment", "terminate", "seed", "--follow")
    for site in (HOME, LENDER):
        until(lambda site=site: machines_at(lab, site) == [], f"{site} holds nothing", PATIENCE)  # type: ignore[misc]


async def _experiment(lab: Lab, password: str) -> None:
    """The seed's example: wrong at first, then seen, made, watched and ended, without anything but the page."""
    async with window(lab, HOME, lab.plan.site(HOME).lan, API_PORT) as address, open_browser() as browser:
        await browser.open(f"http://{address}/#experiments/new")
        await browser.type("[name=user]", "rita")
        await browser.type("[name=password]", password)
        await browser.click("#sign-in-form button")
        await _write(browser, "#describe-text", SEED.replace("$a $b 100Mb", "$a $x 100Mb"))
        assert "Line 18" in await browser.text("#describe-problems .bad")
        await _write(browser, "#describe-text", SEED)
        await browser.find("#describe-preview svg")
        for testbed, site in (("deter", HOME), ("ucb", LENDER)):
            await browser.run(CHOOSE, testbed, f"{site}.test")
        await browser.type("#describe-form [name=name]", "seed")
        await browser.click("#describe-form .make")
        await _patiently(browser, "return document.getElementById('one-state')?.textContent === 'active'")
        await browser.find(".spot[data-node=e][data-status=running]")
        await _patiently(browser, "return document.querySelectorAll('.gate.joined').length === 2")
        await browser.click(".spot[data-node=a]")
        assert "ssh -p" in await browser.text("#one-node")
        await _write(browser, "#one-run input", "hostname; ping -c 1 -w 20 e")
        await browser.click("#one-run button")
        await _patiently(
            browser, "return document.getElementById('one-node-output').textContent.includes(' 0% packet loss')"
        )
        await browser.click("#one-terminate")
        await browser.accept_alert()
        await _patiently(browser, "return document.getElementById('one-state').textContent === 'terminated'")
        assert await browser.console() == []


async def _write(browser: Browser, css: str, text: str) -> None:
    await browser.find(css)
    await browser.run(WRITE, css, text)


async def _patiently(browser: Browser, script: str) -> None:
    """Wait until something is so in the page that real machines take their time for."""
    async with asyncio.timeout(PATIENCE):
        while not await browser.run(script):  # noqa: ASYNC110  the page tells nobody
            await asyncio.sleep(0.2)


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
