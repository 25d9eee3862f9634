"""`fed policy -c member.toml`: what the store knows of members and decisions is asked, while nobody runs."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import pytest
from sqlalchemy import delete

from deploy.cli import main
from deploy.lab.components import to_toml
from federation_member.access.controller import Controller
from federation_member.access.model import Action
from federation_member.access.tables import texts
from federation_member.access.verdict import Applicant
from federation_member.access.world import Known, Policy, World
from federation_member.directory import store
from federation_member.errors import NotAllowed
from fedkit.identity.keys import PrivateKey
from fedkit.identity.names import Name
from fedkit.mesh.api import Peer
from fedkit.migrations import upgrade
from fedkit.protocol.announcement import sign_announcement
from fedkit.protocol.lending import Offer
from fedkit.protocol.rendezvous import Announcement
from fedkit.protocol.rendezvous import Member as Listed
from fedkit.store import Database, Tx
from tests.support.policies import rule
from tests.support.requester import Somebody

T = TypeVar("T")
OWN, HOME = PrivateKey.generate(), PrivateKey.generate()
Output = pytest.CaptureFixture[str]


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A member that knows one other, and lends its project proj1 one machine."""
    (tmp_path / "secret").write_text("secret\n")
    (tmp_path / "policy.toml").write_text(rule("proj1", "fm.*.test/proj1/*", count=1))
    OWN.save(tmp_path / "key.pem")
    config = {
        "name": "b.test",
        "identity": {"key": str(tmp_path / "key.pem")},
        "xmpp": {"address": "fm.b.test", "host": "127.0.0.1", "secret_file": str(tmp_path / "secret")},
        "store": {"url": f"sqlite:///{tmp_path / 'store.db'}"},
        "policy": {"file": str(tmp_path / "policy.toml")},
    }
    (tmp_path / "member.toml").write_text(to_toml(config))
    _with_store(tmp_path, _know_home)
    return tmp_path


def _with_store(site: Path, work: Callable[[Tx], T]) -> T:
    async def run() -> T:
        async with Database(f"sqlite:///{site / 'store.db'}") as db:
            await asyncio.to_thread(upgrade, db.engine, "federation_member.migrations")
            return await db.run(work)

    return asyncio.run(run())


def _know_home(tx: Tx) -> None:
    now = datetime.now(UTC)
    home = Announcement(
        fedid=HOME.fedid, name="a.test", address="fm.a.test", serial=1, protocol=[1], issued=now, offer=Offer()
    )
    listed = Listed(fedid=HOME.fedid, signed=sign_announcement(HOME, home), alive=True, last_seen=now, revision=1)
    store.begin(tx, "0" * 40)
    store.apply(tx, [listed], now, whole=True)


def _ask(site: Path, *projects: str) -> None:
    """Somebody of each project asked for a machine; the member decided, and wrote it down."""
    now = datetime.now(UTC)
    world = World(OWN, "fm.b.test")
    world.set_members([Known(HOME.fedid, "fm.a.test")], now)
    world.set_policy(Policy.parse((site / "policy.toml").read_text(), "policy.toml"), now)
    controller = Controller(world, lambda: datetime.now(UTC))

    def one(project: str) -> Callable[[Tx], None]:
        who = Somebody(now, HOME, name=f"{project}/u")
        name = Name.parse(f"{HOME.fedid}/{who.name}")
        applicant = Applicant(Peer(HOME.fedid, "fm.a.test"), name, who.user.fedid, tuple(who.usual()))

        def work(tx: Tx) -> None:
            lease = f"00000000-0000-4000-8000-{abs(hash(project)) % 10**12:012}"
            try:
                controller.grant(tx, lease, applicant, Action("compute", "small"), [], now + timedelta(hours=1))
            except NotAllowed as refusal:
                refusal.record(tx)

        return work

    for project in projects:
        _with_store(site, one(project))


def fed(capsys: Output, *arguments: object) -> tuple[int, str, str]:
    status = main([str(argument) for argument in arguments])
    told = capsys.readouterr()
    return status, told.out, told.err


def test_the_members_own_policy_is_checked_with_the_members_that_it_knows(site: Path, capsys: Output) -> None:
    status, out, err = fed(capsys, "policy", "check", "-c", site / "member.toml", "-o", "json")
    assert (status, json.loads(out)["warnings"]) == (0, [])
    assert err == f"{site / 'policy.toml'} is good: 1 rules, 0 expectations met.\n"
    assert "self.testbed_fm_x2e__x2a__x2e_test <- fm.a.test" in json.loads(out)["statements"]
    (site / "policy.toml").write_text(rule("proj1", "fm.*.org/proj1/*"))
    status, _out, err = fed(capsys, "policy", "check", "-c", site / "member.toml")
    assert (status, "warning: Rule proj1: no known member has an address like fm.*.org." in err) == (0, True)


def test_a_member_is_known_by_its_address(site: Path, capsys: Output) -> None:
    arguments = ["policy", "why-not", f"{HOME.fedid}/proj1/u", "compute", "-c", site / "member.toml"]
    assert fed(capsys, *arguments)[0] == 0
    assert fed(capsys, *arguments, "-f", site / "policy.toml")[0] == 0
    assert fed(capsys, "policy", "who-could", "compute", "-c", site / "member.toml")[0] == 0


def test_simulate_tells_what_would_have_been_otherwise(site: Path, capsys: Output) -> None:
    _ask(site, "proj1", "proj2")
    new = site / "new.toml"
    new.write_text(rule("proj2", f"{HOME.fedid}/proj2/*"))
    status, out, err = fed(capsys, "policy", "simulate", new, "-c", site / "member.toml", "-o", "json")
    told: dict[str, Any] = json.loads(out)
    assert (status, told["decisions"]) == (0, 2)
    assert [(one["was"]["rule"], one["would_be"]["rule"]) for one in told["changes"]] == [("proj1", ""), ("", "proj2")]
    assert err == "2 decisions in 31 days; 2 would have been others.\n"
    status, out, _err = fed(capsys, "policy", "simulate", new, "-c", site / "member.toml")
    assert out.splitlines()[0].endswith("REASON")
    assert len(out.splitlines()) == 3
    status, out, err = fed(capsys, "policy", "simulate", site / "policy.toml", "-c", site / "member.toml")
    assert (status, err) == (0, "2 decisions in 31 days; 0 would have been others.\n")
    new.write_text("x")
    assert fed(capsys, "policy", "simulate", new, "-c", site / "member.toml")[0] == 2


def test_a_log_that_lacks_what_it_names_is_no_ground_for_an_answer(site: Path, capsys: Output) -> None:
    _ask(site, "proj1")
    _with_store(site, lambda tx: tx.conn.execute(delete(texts)))
    status, out, err = fed(capsys, "policy", "simulate", site / "policy.toml", "-c", site / "member.toml")
    assert (status, out, "[access.incomplete_log]" in err) == (2, "", True)


def test_a_member_without_a_policy_says_so(site: Path, capsys: Output) -> None:
    config = site / "member.toml"
    config.write_text(config.read_text().replace("[policy]", "[offer.attributes]"))
    status, _out, err = fed(capsys, "policy", "check", "-c", config)
    assert status == 2
    assert "names no policy" in err
    (site / "key.pem").unlink()
    status, _out, err = fed(capsys, "policy", "check", site / "policy.toml", "-c", config)
    assert status == 2
    assert "key.pem cannot be read" in err
