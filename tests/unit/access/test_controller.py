"""Grant, use, release: what the controller decides, hands over and writes down."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta

import pytest
from sqlalchemy import select

from federation_member.access import audit, grants
from federation_member.access.audit import Kind
from federation_member.access.controller import PROOF_SIZE, proof_to_tell
from federation_member.access.grants import Grant
from federation_member.access.model import Action, How
from federation_member.access.tables import revocations
from federation_member.access.verdict import Applicant
from federation_member.access.world import Known
from federation_member.errors import NotAllowed
from fedkit.identity.names import Name
from fedkit.mesh.api import Peer
from fedkit.policy import revocation
from fedkit.policy.compact import issue
from fedkit.policy.model import Statement
from fedkit.store import Tx
from tests.support.policies import NOTHING, rule
from tests.unit.access.book import ALICE, BOB, HOME, SMALL, SSH_KEY, START, A, B, Book, alice, said, usual

ALL = rule("all", f"{A.fedid}/*/*")


def revoke(book: Book, listing: revocation.RevocationList) -> list[tuple[str, str]]:
    with book.engine.begin() as conn:
        return [(one.lease_id, one.reason) for one in book.controller.revoke(Tx(conn), listing)]


def stored(grant: Grant) -> tuple[Grant, bytes]:
    """A grant and its key, to compare."""
    assert grant.key is not None
    return replace(grant, key=None), grant.key.pem


def listed(*ids: str, serial: int = 1, days: float = 2) -> revocation.RevocationList:
    return revocation.issue(A, serial, START, dict.fromkeys(ids, START + timedelta(days=days)))


def test_a_grant_is_written_with_all_that_it_is() -> None:
    book = Book(ALL)
    given = book.grant()
    assert stored(given) == stored(book.load(given.lease_id))
    assert given.key is not None
    assert given.allocation == given.key.fedid
    assert given.authority.startswith("ssh-ed25519 ")
    assert (given.member, str(given.name), given.principal) == (HOME, f"{A.fedid}/proj1/alice", ALICE.fedid)
    assert (given.action, given.keys, given.rule) == (SMALL, (SSH_KEY,), "all")
    assert (given.account.how, given.account.name, given.account.certificate) == (How.STATIC, "federation", None)
    assert given.until == START + timedelta(hours=1)
    assert given.proved_until == START + timedelta(days=1)
    assert (given.active, given.problem, given.created) == (True, "", START)
    assert book.accounts == []
    with book.read() as conn:
        assert [audit.text_of(conn, name) for name in given.credentials] == [one.raw.decode() for one in usual()]


def test_the_decision_is_in_the_log() -> None:
    book = Book(ALL)
    first, second = book.grant(), book.grant()
    entries = book.entries(Kind.DECISION)
    assert [entry.said["lease"] for entry in entries] == [first.lease_id, second.lease_id]
    assert [entry.said["held"] for entry in entries] == [{}, {"all": 1}]
    said_ = entries[0].said
    assert said_["allowed"] is True
    assert said_["rule"] == "all"
    assert said_["proofs"] == first.proof["proofs"]
    assert said_["allocation"] == first.allocation
    assert said_["account"] == {"how": "name", "name": "federation"}
    assert said_["until"] == first.until.isoformat()
    assert said_["action"]["flavour"] == "small"
    assert said_["applicant"] == {
        "member": A.fedid,
        "address": "fm.a.test",
        "name": f"{A.fedid}/proj1/alice",
        "principal": ALICE.fedid,
    }
    assert said_["credentials"] == list(first.credentials)
    with book.read() as conn:
        assert audit.text_of(conn, said_["policy"]) == ALL
        assert json.loads(str(audit.text_of(conn, said_["members"]))) == [[B.fedid, "fm.b.test"]]


def test_a_refusal_is_in_the_log_and_nothing_else_is_written() -> None:
    book = Book(NOTHING)
    with pytest.raises(NotAllowed) as caught:
        book.grant()
    assert caught.value.message == "There are no rules: nothing is lent here."
    assert caught.value.details == {"missing": []}
    (entry,) = book.entries(Kind.DECISION)
    assert entry.said["allowed"] is False
    assert entry.said["reason"] == caught.value.message
    assert "lacks" not in entry.said
    with book.read() as conn:
        assert grants.active(conn) == []
        assert [audit.text_of(conn, name) for name in entry.said["credentials"]] == [c.raw.decode() for c in usual()]


def test_what_is_missing_is_told() -> None:
    book = Book(rule("partners", f"{A.fedid}.partner"))
    with pytest.raises(NotAllowed) as caught:
        book.grant()
    assert caught.value.details["missing"] == [[f"{A.fedid}.partner <- {ALICE.fedid}"]]


def test_a_grant_lasts_no_longer_than_its_proof() -> None:
    book = Book(ALL)
    short = said(A, "A.user_alice <- ALICE", START + timedelta(minutes=10))
    given = book.grant(alice(*usual()[:2], short, usual()[3]))
    assert given.until == given.proved_until == START + timedelta(minutes=10)


def test_the_count_is_of_grants_that_are_there() -> None:
    book = Book(rule("one", f"{A.fedid}/*/*", count=1))
    given = book.grant()
    with pytest.raises(NotAllowed, match="lends 1 at the same time, and 1 exist"):
        book.grant()
    book.release(given.lease_id)
    assert book.grant().active


def test_release_destroys_the_key_once() -> None:
    book = Book(ALL)
    given = book.grant()
    book.release(given.lease_id, "lease.expired", "not renewed")
    book.release(given.lease_id)
    book.release("unknown")
    released = book.load(given.lease_id)
    assert (released.key, released.active) == (None, False)
    (entry,) = book.entries(Kind.RELEASE)
    assert entry.said["lease"] == given.lease_id
    assert entry.said["allocation"] == given.allocation
    assert (entry.said["rule"], entry.said["code"], entry.said["reason"]) == ("all", "lease.expired", "not renewed")
    with book.engine.begin() as conn:
        assert grants.resting_on(conn, A.public.fingerprint, [usual()[0].id]) == []
        assert book.controller.renew(Tx(conn), given.lease_id, START) is None
        assert book.controller.renew(Tx(conn), "unknown", START) is None
    assert book.controller.handed(released, "fed").certificates == ()
    assert book.controller.handed(released, "fed").credentials == ()


def test_forgetting_takes_only_what_was_released() -> None:
    book = Book(ALL)
    given = book.grant()
    with book.engine.begin() as conn:
        grants.forget(conn, given.lease_id)
    assert book.load(given.lease_id).active
    book.release(given.lease_id)
    with book.engine.begin() as conn:
        grants.forget(conn, given.lease_id)
        assert grants.load(conn, given.lease_id) is None


def test_what_is_handed_over() -> None:
    book = Book(ALL)
    given = book.grant()
    assert book.controller.handed(given, None).certificates == ()
    handed = book.controller.handed(given, "fed")
    assert handed.allocation == given.allocation
    assert len(handed.certificates) == len(handed.credentials) == 1
    assert handed.certificates[0].startswith("ssh-ed25519-cert-v01@openssh.com ")


# Accounts


@pytest.mark.parametrize(("how", "told"), [("create", True), ("rights", True), ("name", False)])
def test_who_looks_after_accounts_is_told_after_grant_and_release(how: str, told: bool) -> None:
    book = Book(rule("all", f"{A.fedid}/*/*", account={how: "shared"}))
    given = book.grant()
    assert book.accounts == ["shared"] * told
    book.release(given.lease_id)
    assert book.accounts == ["shared", "shared"] * told
    with book.read() as conn:
        assert grants.wanted(conn, "shared") is None
        assert grants.managed_accounts(conn) == set()


def test_a_made_account_is_not_shared_by_projects_that_are_called_alike() -> None:
    made = {"create": "fed-all"}
    book = Book(rule("all", f"{A.fedid}/*/*", account=made))
    first = book.grant()
    with pytest.raises(NotAllowed) as caught:
        book.grant(alice(*usual("proj2"), project="proj2"))
    assert f"exists for {A.fedid}/proj1/alice" in caught.value.message
    entry = book.entries(Kind.DECISION)[-1]
    assert entry.said["lacks"] == "account"
    assert entry.said["reason"] == caught.value.message
    assert entry.said["missing"] == caught.value.details["missing"] == []
    assert book.grant().account.name == "fed-all"
    book.release(first.lease_id)


def test_without_a_certificate_of_that_level_nothing_is_lent() -> None:
    book = Book(rule("all", f"{A.fedid}/*/*", account={"certificate": "gold"}))
    with pytest.raises(
        NotAllowed, match="Rule all lends with a certificate of level gold, and none is valid that long"
    ):
        book.grant()


def test_how_an_account_is_wanted_follows_from_its_grants() -> None:
    book = Book(rule("all", f"{A.fedid}/*/*", account={"rights": "shared"}))
    book.grant(keys=("ssh-ed25519 b",))
    book.grant(action=Action("compute", "large", "pc", "debian", ("nfs",)), keys=("ssh-ed25519 a",))
    with book.read() as conn:
        wanted = grants.wanted(conn, "shared")
        assert grants.managed_accounts(conn) == {"shared"}
    assert wanted is not None
    assert wanted.keys == ("ssh-ed25519 a", "ssh-ed25519 b")
    assert wanted.rights == ("flavour:large", "flavour:small", "kind:compute", "node_type:pc", "service:nfs")


# Renewal


def test_a_renewal_within_the_proof_only_moves_the_end() -> None:
    book = Book(ALL)
    given = book.grant()
    book.wait(minutes=30)
    renewed = book.renew(given.lease_id)
    assert renewed.until == START + timedelta(hours=1.5)
    assert renewed.proof == given.proof
    assert book.renew(given.lease_id, hours=0.1).until == renewed.until  # never earlier
    assert book.entries(Kind.RENEWAL) == []


def test_it_ends_with_its_proof_unless_fresh_credentials_replace_what_ends() -> None:
    book = Book(ALL)
    given = book.grant()
    day = START + timedelta(days=1)
    assert book.renew(given.lease_id, hours=30).until == day
    assert book.renew(given.lease_id, hours=30).problem == ""
    assert book.renew(given.lease_id, usual(days=2)[1:], hours=30).until == day  # one is still the old one
    renewed = book.renew(given.lease_id, usual(days=2)[:1], hours=30)
    assert renewed.until == START + timedelta(hours=30)
    assert renewed.proved_until == START + timedelta(days=2)
    assert stored(renewed) == stored(book.load(given.lease_id))
    assert book.entries(Kind.RENEWAL)[-1].said["allowed"] is True
    assert book.renew(given.lease_id, usual(days=1.5), hours=30).proved_until == START + timedelta(days=2)


def test_fresh_credentials_are_kept_even_if_they_are_not_needed_yet() -> None:
    book = Book(ALL)
    given = book.grant()
    book.renew(given.lease_id, usual(days=3))
    book.wait(days=2)
    assert book.renew(given.lease_id).until == START + timedelta(days=2, hours=1)


def test_fresh_credentials_that_say_something_else_are_not_taken() -> None:
    book = Book(ALL)
    given = book.grant()
    other = said(A, "A.user <- BOB", START + timedelta(days=9))
    renewed = book.renew(given.lease_id, (other,))
    assert renewed.credentials == given.credentials


def test_a_credential_that_begins_later_does_not_count_now() -> None:
    book = Book(ALL)
    given = book.grant()
    statement = Statement.parse(f"{A.fedid}.user <- {ALICE.fedid}")
    later = issue(A, statement, START + timedelta(days=9), not_before=START + timedelta(hours=2))
    assert "Nothing shows" in book.renew(given.lease_id, (later,)).problem


def test_a_rule_that_is_gone_or_changed_is_not_renewed_and_comes_back() -> None:
    book = Book(ALL)
    given = book.grant()
    book.policy(NOTHING)
    book.wait(minutes=30)
    kept = book.renew(given.lease_id)
    assert kept.until == given.until
    assert kept.problem == "The rule under which it was granted is gone."
    assert book.renew(given.lease_id).problem == kept.problem
    book.policy(rule("all", f"{A.fedid}/proj2/*"))
    assert "It would do to show" in book.renew(given.lease_id).problem
    book.policy(rule("all", f"{A.fedid}/*/*", flavours=["large"]))
    assert book.renew(given.lease_id).problem == "Rule all lends the flavour large, not small."
    book.policy(ALL)
    back = book.renew(given.lease_id)
    assert (back.problem, back.until) == ("", START + timedelta(hours=1.5))
    assert [entry.said["allowed"] for entry in book.entries(Kind.RENEWAL)] == [False, False, False, True]


def test_a_rule_of_any_name_is_gone_when_it_is_gone() -> None:
    book = Book(rule("zeta", f"{A.fedid}/*/*"))
    given = book.grant()
    book.policy(NOTHING)
    assert book.renew(given.lease_id).problem == "The rule under which it was granted is gone."


def test_a_fresh_credential_that_the_proof_does_not_need_is_kept_all_the_same() -> None:
    book = Book(ALL)
    extra = said(A, "A.partner <- ALICE")
    given = book.grant(alice(*usual(), extra))
    fresh = said(A, "A.partner <- ALICE", START + timedelta(days=5))
    renewed = book.renew(given.lease_id, (fresh,))
    assert renewed.proof == given.proof
    with book.read() as conn:
        assert fresh.raw.decode() in [audit.text_of(conn, name) for name in renewed.credentials]


def test_another_rule_does_not_take_over_and_the_count_is_not_looked_at() -> None:
    book = Book(ALL)
    first, second = book.grant(), book.grant()
    book.policy(rule("all", f"{A.fedid}/*/*", count=1) + rule("other", f"{A.fedid}/*/*"))
    assert book.renew(first.lease_id).problem == book.renew(second.lease_id).problem == ""
    book.policy(rule("other", f"{A.fedid}/*/*"))
    assert book.renew(first.lease_id).problem


def test_out_of_hours_it_is_not_renewed() -> None:
    book = Book(rule("office", f"{A.fedid}/*/*", hours="mon-fri 08:00-10:30"))
    given = book.grant()
    book.wait(minutes=20)
    assert book.renew(given.lease_id).until == START + timedelta(minutes=80)
    book.wait(minutes=20)
    closed = book.renew(given.lease_id)
    assert closed.until == START + timedelta(minutes=80)
    assert "mon-fri 08:00-10:30" in closed.problem


def test_when_the_members_change_it_is_proved_again() -> None:
    book = Book(rule("known", "*/*/*"))
    book.controller.know([Known(A.fedid, "fm.a.test")])
    given = book.grant()
    world = given.world
    book.controller.know([Known(A.fedid, "fm.a.test"), Known("9" * 40, "fm.z.test")])
    again = book.renew(given.lease_id)
    assert again.problem == ""
    assert again.world != world
    book.controller.know([])
    assert book.renew(given.lease_id).problem


def test_own_users_are_renewed_whatever_the_policy() -> None:
    book = Book(NOTHING)
    mine = alice_at_home()
    given = book.grant(mine)
    assert given.rule == "own users"
    book.policy(ALL)
    book.wait(minutes=30)
    assert book.renew(given.lease_id).until == START + timedelta(hours=1.5)


def alice_at_home() -> Applicant:
    """A user of the lender itself."""
    credentials = [said(B, f"B.{role} <- ALICE") for role in ("user", "project_proj1", "user_alice")]
    acting = said(ALICE, "ALICE.acting_for <- B")
    return Applicant(Peer(B.fedid, "fm.b.test"), Name(B.fedid, "proj1", "alice"), ALICE.fedid, (*credentials, acting))


# Revocation


def test_a_revocation_hits_what_rests_on_it() -> None:
    book = Book(ALL)
    given = book.grant()
    other = usual("proj2")
    book.grant(alice(*other, project="proj2"))
    (hit,) = revoke(book, listed(usual()[1].id))
    assert hit[0] == given.lease_id
    assert hit[1] == (
        f"{A.fedid} has revoked what it rested on: {A.fedid}.project_proj1 <- {ALICE.fedid} (credential {usual()[1].id})."
    )
    with pytest.raises(NotAllowed, match=r"project_proj1"):
        book.grant()
    (entry,) = book.entries(Kind.REVOCATION)
    assert (entry.said["issuer"], entry.said["serial"], entry.said["ends"]) == (A.fedid, 1, [given.lease_id])
    with book.read() as conn:
        assert audit.text_of(conn, entry.said["list"]) == listed(usual()[1].id).text


def test_each_lease_is_named_once_and_the_newest_list_counts() -> None:
    book = Book(ALL)
    given = book.grant()
    every = [one.id for one in usual()]
    assert [lease for lease, _ in revoke(book, listed(*every, serial=5))] == [given.lease_id]
    assert revoke(book, listed(*every, serial=5)) == []
    assert revoke(book, listed(serial=4)) == []
    assert [lease for lease, _ in revoke(book, listed(*every, serial=6))] == [given.lease_id]
    assert len(book.entries(Kind.REVOCATION)) == 2
    book.release(given.lease_id)
    assert revoke(book, listed(*every, serial=7)) == []


def test_after_a_new_proof_it_is_the_new_credential_that_counts() -> None:
    book = Book(ALL)
    given = book.grant()
    fresh = usual(days=2)
    book.renew(given.lease_id, fresh, hours=30)
    assert revoke(book, listed(*(one.id for one in usual()), serial=1, days=4)) == []
    assert [lease for lease, _ in revoke(book, listed(fresh[0].id, serial=2, days=4))] == [given.lease_id]


def test_what_could_not_be_proved_again_still_rests_on_what_it_did() -> None:
    book = Book(ALL)
    given = book.grant()
    book.policy(NOTHING)
    assert book.renew(given.lease_id).problem
    assert [lease for lease, _ in revoke(book, listed(usual()[0].id))] == [given.lease_id]


def test_of_each_issuer_the_newest_list_is_kept_and_no_other_is_touched() -> None:
    book = Book(ALL)
    newest: dict[str, tuple[int, str]] = {}
    for serial in (1, 2):
        for issuer in (A, ALICE, BOB):
            listing = revocation.issue(issuer, serial, START, {})
            revoke(book, listing)
            newest[issuer.public.fingerprint] = (serial, listing.text)
    with book.read() as conn:
        assert {row.issuer: (row.serial, row.text) for row in conn.execute(select(revocations))} == newest


def test_what_has_expired_anyway_ends_nothing() -> None:
    book = Book(ALL)
    book.grant()
    listing = listed(usual()[0].id, days=1)
    book.wait(days=1)
    assert revoke(book, listing) == []


def test_another_issuers_word_does_not_count() -> None:
    book = Book(ALL)
    book.grant()
    listing = revocation.issue(BOB, 1, START, {usual()[0].id: START + timedelta(days=1)})
    assert revoke(book, listing) == []
    assert book.grant().active


def test_what_was_revoked_is_known_after_a_restart() -> None:
    book = Book(ALL)
    given = book.grant()
    revoke(book, listed(usual()[0].id))
    book.restart(ALL)
    with book.engine.begin() as conn:
        ended = book.controller.begin(Tx(conn))
    assert [one.lease_id for one in ended] == [given.lease_id]
    with pytest.raises(NotAllowed):
        book.grant()
    book.release(given.lease_id)
    with book.engine.begin() as conn:
        assert book.controller.begin(Tx(conn)) == []


def test_a_policy_is_noted_when_it_is_another() -> None:
    book = Book(ALL)
    for text in (ALL, ALL, NOTHING, ALL):
        book.policy(text)
        with book.engine.begin() as conn:
            book.controller.note_policy(Tx(conn))
    assert [entry.said["policy"] for entry in book.entries(Kind.POLICY)] == [
        audit.sha256(text) for text in (ALL, NOTHING, ALL)
    ]
    with book.engine.begin() as conn:
        book.controller.begin(Tx(conn))
    assert len(book.entries(Kind.POLICY)) == 3


def test_a_proof_goes_along_unless_it_is_large() -> None:
    given = Book(ALL).grant()
    told = proof_to_tell(given)
    assert told is not None
    assert told.rule == "all"
    assert [step.statement for step in told.proofs[-1]] == [step["statement"] for step in given.proof["proofs"][-1]]
    room = PROOF_SIZE - len(audit.canonical(given.proof))
    for more, goes in ((room, True), (room + 1, False)):
        padded = {**given.proof, "rule": given.proof["rule"] + "x" * more}
        assert (proof_to_tell(replace(given, proof=padded)) is not None) == goes


def test_who_looks_after_accounts_can_be_named_later() -> None:
    book = Book(rule("all", f"{A.fedid}/*/*", account={"create": "made"}))
    told: list[str] = []
    book.controller.connect(told.append)
    book.grant()
    assert told == ["made"]
