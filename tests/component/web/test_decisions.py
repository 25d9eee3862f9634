"""What operators and users see of decisions: proofs as pictures, refusals with what was missing, hostile texts as text."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from deploy.lab.components import to_toml
from federation_member.access import audit
from federation_member.access.tables import audit as log
from federation_member.orders.model import OrderState, User
from fedkit.identity.keys import PrivateKey
from fedkit.policy.compact import issue
from fedkit.policy.model import Statement
from tests.component.web.conftest import PASSWORD
from tests.component.web.dashboard import count, dashboard, sign_in
from tests.support.browser import Browser, installed, open_browser
from tests.support.fake_middleware import SMALL, Cloud
from tests.support.federation import Federation, Member, machine
from tests.support.requester import Somebody, ask

pytestmark = pytest.mark.skipif(not installed(), reason="needs chromium and chromedriver")
EVIL = "<script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">"
ULF = User("proj1", "ulf")
TEXTS = "return [...document.querySelectorAll(arguments[0])].map((element) => element.textContent)"


@dataclass
class Lending:
    """Site A asks, site B lends small machines to proj1, large ones to preferred customers of acme's resellers."""

    home: Member
    lender: Member
    acme: PrivateKey

    def somebody(self, name: str) -> Somebody:
        """A user of A."""
        return Somebody(self.home.federation.clock(), self.home.key, name=name)

    async def ask(self, who: Somebody, flavour: str = "small", also: tuple[tuple[PrivateKey, str], ...] = ()) -> int:
        """Let A ask for a machine in a user's name, with credentials besides the usual; returns the decision's number."""
        term = self.home.federation.clock.base().replace(year=2099)
        further = [issue(key, Statement.parse(text), term) for key, text in also]
        request = who.request([*who.usual(), *further], flavour=flavour)
        await ask(self.lender, self.home.peer, request)
        return (await self.lender.audit("decision"))[-1].sequence


@pytest.fixture
async def lending(tmp_path: Path) -> AsyncIterator[Lending]:
    async with Federation(tmp_path) as world:
        home, acme = await world.add("a", Cloud(flavours=[SMALL]), lends=""), PrivateKey.generate()
        rules = [
            {"name": "proj1-small", "who": ["site-a/proj1/*"], "may": ["compute"], "flavours": ["small"]},
            {"name": "customers", "who": ["acme.preferred.customer & site-a/*/*"], "may": ["*"], "flavours": ["large"]},
        ]
        principals = {"site-a": home.key.fedid, "acme": acme.fedid}
        lender = await world.add("b", lends=to_toml({"principals": principals, "rule": rules}))
        yield Lending(home, lender, acme)


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    async with open_browser() as opened:
        yield opened


async def rows(browser: Browser) -> list[str]:
    """The audit view's decisions, newest first, once they are there."""
    await browser.find("#decisions tr")
    return list(await browser.run(TEXTS, "#decisions tr"))


async def opened(browser: Browser, number: int) -> str:
    """Open a decision as a keyboard does, and read what it tells."""
    await browser.find(f"tr[data-decision='{number}']")
    await browser.run("document.querySelector(arguments[0]).focus()", f"tr[data-decision='{number}'] a")
    await browser.press("\ue007")
    await browser.find("#decision-content dl")
    return await browser.text("#decision-content")


async def boxes(browser: Browser) -> list[list[str]]:
    """The two lines of each box of the picture, from the top row to the bottom one."""
    script = """
      const boxes = [...document.querySelectorAll("dialog[open] .box")];
      boxes.sort((a, b) => a.getBBox().y - b.getBBox().y);
      return boxes.map((box) => [...box.querySelectorAll("text")].map((line) => line.textContent));
    """
    return list(await browser.run(script))


async def test_an_operator_sees_an_allow_with_its_picture_and_a_deny_with_what_was_missing(
    lending: Lending, browser: Browser
) -> None:
    alice, bob = lending.somebody("proj1/alice"), lending.somebody("proj2/bob")
    allowed, denied = await lending.ask(alice), await lending.ask(bob)
    a, b = (member.key.fedid[:8] for member in (lending.home, lending.lender))
    async with dashboard(lending.lender) as url:
        await sign_in(browser, url)
        await browser.click("#views a[href='#audit']")
        newest, oldest = await rows(browser)
        assert f"{a}/proj2/bob" in newest
        assert "compute small debian" in newest
        assert "denied" in newest
        assert "rule proj1-small" in oldest
        assert f"user {alice.user.fedid[:8]}, asked for by fm.a.test" in oldest
        whole = await browser.run(
            "return [...document.querySelectorAll('#decisions .fedid')].map((code) => code.title)"
        )
        assert {lending.home.key.fedid, alice.user.fedid, bob.user.fedid} <= set(whole)

        told = await opened(browser, allowed)
        assert "by rule proj1-small" in told
        assert f"site-a {a} says that alice {alice.user.fedid[:8]} is in project proj1." in told
        assert f"says that whoever is in project proj1 according to site-a {a} may use rule proj1-small." in told
        drawn = await boxes(browser)
        assert drawn[0] == ["rule proj1-small", f"of fm.b.test {b}"]
        assert sorted(drawn[1:5]) == [
            ["agents", f"of alice {alice.user.fedid[:8]}"],
            ["project proj1", f"of site-a {a}"],
            ["user alice", f"of site-a {a}"],
            ["users", f"of site-a {a}"],
        ]
        assert sorted(drawn[5:]) == [["alice", alice.user.fedid[:8]], ["site-a", a]]
        assert await count(browser, "dialog[open] .arrow") == await count(browser, "dialog[open] .number") == 5
        await browser.click("#decision .bar button")
        await browser.until("return location.hash === '#audit'")

        told = await opened(browser, denied)
        assert f"site-a {a} would have to say that bob {bob.user.fedid[:8]} is in project proj1." in told
        assert f"{lending.home.key.fedid}.project_proj1 <- {bob.user.fedid}" in told
        assert await browser.console() == []


async def test_linked_roles_and_intersections_are_drawn_by_what_they_rest_on(
    lending: Lending, browser: Browser
) -> None:
    carol, reseller = lending.somebody("proj2/carol"), PrivateKey.generate()
    preferred = (lending.acme, f"{lending.acme.fedid}.preferred <- {reseller.fedid}")
    customer = (reseller, f"{reseller.fedid}.customer <- {carol.user.fedid}")
    number = await lending.ask(carol, "large", (preferred, customer))
    async with dashboard(lending.lender) as url:
        await sign_in(browser, f"{url}/#audit/{number}")
        await browser.find("#decision-content dl")
        drawn = [lines[0] for lines in await boxes(browser)]
        assert drawn[:2] == ["rule customers", "all of these"]
        assert drawn[2].startswith("customer of its pre")
        roles = ["agents", "customer", "preferred", "project proj2", "user carol", "users"]
        assert sorted(drawn[3:9]) == roles
        assert sorted(drawn[9:]) == sorted(["carol", "site-a", reseller.fedid[:8]])
        assert await count(browser, "dialog[open] .number") == 7
        assert await count(browser, "dialog[open] .arrow.rests") == 4
        told = await browser.text("#decision-content .credentials")
        assert "whoever has the role customer according to anybody who has the role preferred according to acme" in told


async def test_a_long_log_comes_in_pages(lending: Lending, browser: Browser) -> None:
    bob = lending.somebody("proj2/bob")
    numbers = [await lending.ask(bob) for _ in range(27)]
    async with dashboard(lending.lender) as url:
        await sign_in(browser, f"{url}/#audit")
        assert len(await rows(browser)) == 25
        assert await browser.run("return document.getElementById('audit-newer').disabled")
        await browser.click("#audit-older")
        await browser.find(f"tr[data-decision='{numbers[0]}']")
        assert len(await rows(browser)) == 2
        assert await browser.run("return document.getElementById('audit-older').disabled")
        newest = await lending.ask(bob)
        await browser.click("#audit-newest")
        await browser.find(f"tr[data-decision='{newest}']")


async def test_a_changed_log_is_told(lending: Lending, browser: Browser) -> None:
    bob = lending.somebody("proj2/bob")
    first, second = await lending.ask(bob), await lending.ask(bob)
    async with dashboard(lending.lender) as url:
        await sign_in(browser, f"{url}/#audit/{second}")
        await browser.find("#decision-check")
        assert await browser.text("#decision-check") == "Not checked since you signed in."
        await browser.click("#decision-content button")
        await browser.until("return document.getElementById('decision-check').textContent.includes('decided again')")

        change = update(log).where(log.c.sequence == first).values(hash="0" * 64)
        await lending.lender.db.run(lambda tx: tx.conn.execute(change))
        await browser.click("#decision-content button")
        await browser.until(
            "return document.getElementById('decision-check').textContent.includes(arguments[0])",
            f"broken at entry {first}",
        )


async def test_hostile_texts_in_the_log_are_shown_as_text(lending: Lending, browser: Browser) -> None:
    long = lending.somebody(f"proj1/{'w' * 120}")
    number = await lending.ask(long)
    (entry,) = await lending.lender.audit("decision")
    said: dict[str, Any] = {key: value for key, value in entry.said.items() if key not in ("sequence", "at", "kind")}
    said |= {"action": said["action"] | {"image": EVIL}, "rule": EVIL}
    said["applicant"] = said["applicant"] | {"address": EVIL}
    kind = audit.Kind.DECISION
    changed = await lending.lender.db.run(lambda tx: audit.append(tx, entry.at, kind, said))
    said |= {"allowed": False, "reason": EVIL, "missing": []}
    refused = await lending.lender.db.run(lambda tx: audit.append(tx, entry.at, kind, said))
    async with dashboard(lending.lender) as url:
        await sign_in(browser, f"{url}/#audit")
        assert all(EVIL in row for row in (await rows(browser))[:2])
        for one in (number, changed, refused):
            told = await opened(browser, one)
            assert (EVIL in told) == (one != number)
            await browser.click("#decision .bar button")
            await browser.until("return location.hash === '#audit'")
        await browser.command("/window/rect", {"width": 400, "height": 900})
        await opened(browser, number)
        fits = "return [...document.querySelectorAll('dialog[open] .box')].every((box) => {"
        fits += " const [rect, first, second] = ['rect', '.first', '.second'].map((css) => box.querySelector(css).getBBox());"
        fits += " return first.width < rect.width && second.width < rect.width; })"
        assert await browser.run(fits)
        wide = "const dialog = document.getElementById('decision'); return dialog.scrollWidth <= dialog.clientWidth"
        assert await browser.run(wide)
        assert await browser.run("return document.title") == "fedmesh"
        assert await browser.console() == []


async def test_only_operators_are_offered_the_audit_log(lending: Lending, browser: Browser) -> None:
    async with dashboard(lending.lender) as url:
        await sign_in(browser, f"{url}/#audit", "ulf")
        assert "Only operators" in await browser.text("#notice")
        assert await count(browser, "#views [href='#audit'][hidden]") == 1
        await browser.find("#orders-title")
        await browser.click("#sign-out")
        await sign_in(browser, f"{url}/#audit")
        await browser.until("return document.getElementById('audit-state').textContent.includes('No decisions yet')")


async def test_what_cannot_be_had_is_said_where_one_looks(lending: Lending, browser: Browser) -> None:
    number = await lending.ask(lending.somebody("proj2/bob"))
    async with dashboard(lending.lender) as url:
        await sign_in(browser, f"{url}/#audit/{number + 1000}")
        await browser.find("#decision-content .notice")
        assert f"no entry {number + 1000}" in await browser.text("#decision-content .notice")
        await browser.click("#decision .bar button")
        await browser.run("kept = window.fetch; window.fetch = () => Promise.reject(new Error('unreachable'))")
        await browser.click("#audit-newest")
        await browser.until("return document.getElementById('audit-state').textContent === 'Not loaded.'")
        assert await browser.text("#notice") == "unreachable"
        await browser.run("window.fetch = kept")
        await lending.lender.accounts.set_password("olga", PASSWORD + "2")
        await browser.click("#audit-newest")
        await browser.find("#sign-in-form")
        assert "sign in again" in await browser.text("#notice")
        assert await count(browser, "#decisions tr") == 0


async def test_a_user_sees_by_which_proof_one_lender_lends_and_what_another_one_missed(
    lending: Lending, browser: Browser
) -> None:
    home, lender = lending.home, lending.lender
    async with dashboard(home) as url:
        (lent,) = await home.orders.create(ULF, machine(flavour="small", name="lent", location="b.test"), None)
        (refused,) = await home.orders.create(ULF, machine(flavour="large", name="refused"), None)
        await browser.open(url)
        await home.federation.settle(lambda: _settled(home, lent.id, refused.id))
        await sign_in(browser, url, "ulf")
        await browser.click(f"tr[data-order='{lent.id}'] .actions button")
        await browser.find("#why-content h3")
        told = await browser.text("#why-content")
        assert "b.test as proj1/ulf running" in told
        assert "Lent by its rule proj1-small" in told
        drawn = await boxes(browser)
        assert drawn[0] == ["rule proj1-small", f"of b.test {lender.key.fedid[:8]}"]
        assert ["project proj1", f"of a.test {home.key.fedid[:8]}"] in drawn
        assert "ulf" in [lines[0] for lines in drawn]
        await browser.click("#why .bar button")

        await browser.click(f"tr[data-order='{refused.id}'] .actions button")
        await browser.find("#why-content .missing")
        told = await browser.text("#why-content")
        assert "b.test as proj1/ulf refused" in told
        assert f"{lending.acme.fedid[:8]} would have to say that a.test" in told
        assert await browser.console() == []


async def _settled(home: Member, lent: str, refused: str) -> bool:
    states = [await home.orders.get(ULF, order_id) for order_id in (lent, refused)]
    return states[0].state is OrderState.FULFILLED and states[1].code == "member.not_allowed"
