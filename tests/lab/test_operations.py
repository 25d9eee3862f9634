"""What runs at another site is looked at, paused and counted there as easily as at home."""

from __future__ import annotations

import pytest

from deploy.lab.client import Lab
from deploy.lab.person import Person, until

pytestmark = pytest.mark.lab
LENDER = "site-b.test"


def test_a_machine_elsewhere_is_paused_looked_at_and_counted(lab: Lab) -> None:
    alice = Person(lab, "site-a", "olga")
    until(lambda: LENDER in [m["name"] for m in alice.ask("members") if m["alive"]], "the lender is known")
    assert {"power", "console", "quota"} <= set(alice.ask("members")[0]["abilities"])
    order = alice.order("--location", LENDER)
    try:
        assert alice.ssh(order, "echo kept > ~/kept; echo done").strip() == "done"
        refused = alice.fed_status("order", "stop", order["id"], "--wait")
        assert (refused.returncode, "[middleware.unusable_spec]" in refused.stderr) == (1, True)
        paused = alice.fed_status("order", "pause", order["id"], "--wait", "-o", "json")
        if paused.returncode == 0:
            assert alice.ask("order", "show", order["id"])["power"] == "paused"
            lab.restart("site-b/member")  # who knows it again
            assert alice.ask("order", "start", order["id"], "--wait")["power"] == "running"
        else:
            assert "freezer" in paused.stderr  # this host's kernel, not the federation, has none to give
        assert alice.ssh(order, "cat ~/kept").strip() == "kept"
        assert isinstance(alice.ask("order", "console", order["id"])["text"], str)
        told = {one["member"]: one for one in alice.ask("quota")}
        assert told[LENDER]["mine"]["machines"] == 1
        assert told[LENDER]["used"]["machines"] >= 1
        assert told[LENDER]["total"]["machines"] > told[LENDER]["used"]["machines"]
    finally:
        alice.delete(order)


def test_a_lender_that_is_cut_off_is_told_as_such_and_costs_nobody_else_an_answer(lab: Lab) -> None:
    alice = Person(lab, "site-a", "oleg")
    order = alice.order("--location", LENDER)
    try:
        lab.partition("site-b")
        told = {one["member"]: one for one in alice.ask("quota")}
        assert told["site-a.test"]["code"] == ""
        assert told[LENDER]["code"].startswith("mesh.")
        lost = alice.fed_status("order", "console", order["id"])
        assert lost.returncode in (3, 4), lost.stderr
        assert "[mesh." in lost.stderr
        late = alice.fed_status("order", "pause", order["id"])
        assert late.returncode in (3, 4), late.stderr
        lab.heal("site-b")
        assert alice.ask("order", "show", order["id"])["state"] == "fulfilled"
    finally:
        lab.heal("site-b")
        alice.delete(order)
