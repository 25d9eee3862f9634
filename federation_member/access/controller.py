"""Grants access, follows it while it is used, and takes it back: the lender's side of every lease.

    lease.create ─► grant: verdict, local account, key pair, audit entry      (one transaction with the lease)
    lease.sync   ─► renew: as long as its proof holds and its rule is open
    lease over   ─► release: the key is destroyed
    revocation   ─► every grant whose proof used a revoked credential ends at once

A grant lasts no longer than the first credential of its proof. It is proved again when policy or members have changed, and when
it is to last longer; what cannot be proved any more is not renewed and so ends with its lease, never in the middle of it. Only a
revocation ends a lease before its time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, insert, select, update

from federation_member.access import audit, grants
from federation_member.access.audit import Kind
from federation_member.access.certificates import Handed, certify, holder, openssh
from federation_member.access.compile import Member
from federation_member.access.decision import Held
from federation_member.access.grants import Grant, LocalAccount, action_json
from federation_member.access.mapping import MACHINE, lending_machines
from federation_member.access.model import Action, How
from federation_member.access.rules import Rule, Rules
from federation_member.access.tables import revocations
from federation_member.access.verdict import OWN_USERS, Applicant, Verdict, judge
from federation_member.access.world import Known, State, World
from federation_member.errors import NotAllowed
from fedkit.clock import Clock
from fedkit.identity.keys import PrivateKey
from fedkit.policy import compact, revocation
from fedkit.policy.model import Credential
from fedkit.policy.revocation import RevocationList
from fedkit.protocol.lending import Grounds
from fedkit.store import Tx

PROOF_SIZE = 16 * 1024  # characters of a proof that goes along with the answer


@dataclass(frozen=True)
class Ended:
    """A lease that a revocation ends."""

    lease_id: str
    reason: str


class Controller:
    """The access controller of one member; everything runs inside the caller's transaction and does not block.

    `account_changed(name)` is called after a commit that changed who uses an account.
    """

    def __init__(self, world: World, clock: Clock, account_changed: Callable[[str], None] = lambda _name: None) -> None:
        self._world = world
        self._clock = clock
        self._account_changed = account_changed

    def connect(self, account_changed: Callable[[str], None]) -> None:
        """Name who looks after local accounts."""
        self._account_changed = account_changed

    def know(self, members: Iterable[Member]) -> None:
        """These members are known now."""
        self._world.set_members((Known(one.fedid, one.address) for one in members), self._clock())

    # Grant

    def grant(
        self, tx: Tx, lease_id: str, applicant: Applicant, action: Action, keys: Sequence[str], until: datetime
    ) -> Grant:
        """Decide, and write down what was decided; raises `NotAllowed`."""
        audit.lock(tx)
        now = self._clock()
        with self._world.still() as state:
            counts = grants.counts(tx.conn)
            verdict = self._judge(state.policy.rules, applicant, action, now, _counted(counts))
        said = {
            "lease": lease_id,
            "applicant": applicant.as_json(),
            "action": action_json(action),
            "held": counts,
            **state.names,
        }
        sent = [credential.raw.decode() for credential in applicant.credentials]
        account = None if verdict.rule is None else self._account(tx.conn, state, verdict.rule, applicant, until)
        if verdict.rule is None or not isinstance(account, LocalAccount):
            refused = verdict if account is None else Verdict(None, reason=str(account))
            said |= refused.as_json() | ({} if account is None else {"lacks": "account"})
            raise NotAllowed(
                refused.reason,
                missing=[list(texts) for texts in refused.missing],
                record=lambda tx: self._note(tx, now, said, sent, state),
            )
        lasts = min(until, *(credential.expires for credential in verdict.credentials))
        grant = self._new(lease_id, applicant, action, keys, verdict, account, state, lasts, now)
        self._note(tx, now, said | verdict.as_json() | _granted(grant), sent, state)
        grants.add(tx.conn, grant, verdict.credentials, now)
        self._tell_account(tx, grant)
        return grant

    def account_of(
        self, conn: Connection, applicant: Applicant, flavours: Sequence[str], images: Sequence[str]
    ) -> LocalAccount:
        """The account that somebody's machine would get, had they one of these; grants nothing. Raises `NotAllowed`."""
        now = self._clock()
        with self._world.still() as state:
            rules = lending_machines(state.policy.rules, flavours, images)
            verdict = self._judge(rules, applicant, MACHINE, now, _nothing)
        if verdict.rule is None:
            raise NotAllowed(verdict.reason, missing=[list(texts) for texts in verdict.missing])
        account = self._account(conn, state, verdict.rule, applicant, now)
        if isinstance(account, str):
            raise NotAllowed(account)
        return account

    def lent_by(self, conn: Connection, lease_id: str) -> Rule | None:
        """The rule under which something is lent, as it is now; None if there is none any more."""
        grant = grants.load(conn, lease_id)
        if grant is None:
            return None
        with self._world.still() as state:
            return OWN_USERS if grant.rule == OWN_USERS.name else state.policy.rules.rule(grant.rule)

    def _judge(self, rules: Rules, applicant: Applicant, action: Action, at: datetime, held: Held) -> Verdict:
        return judge(rules, self._world.prover, self._world.own, applicant, action, at, held)

    def _new(
        self,
        lease_id: str,
        applicant: Applicant,
        action: Action,
        keys: Sequence[str],
        verdict: Verdict,
        account: LocalAccount,
        state: State,
        until: datetime,
        now: datetime,
    ) -> Grant:
        assert verdict.rule is not None
        key = PrivateKey.generate()
        return Grant(
            lease_id=lease_id,
            key=key,
            allocation=key.fedid,
            authority=openssh(key),
            member=applicant.member,
            name=applicant.name,
            principal=applicant.principal,
            action=action,
            keys=tuple(keys),
            rule=verdict.rule.name,
            account=account,
            world=state.id,
            credentials=tuple(audit.sha256(one.raw.decode()) for one in applicant.credentials),
            proof=verdict.proof(),
            proved_until=min(credential.expires for credential in verdict.credentials),
            problem="",
            until=until,
            active=True,
            created=now,
        )

    def _account(
        self, conn: Connection, state: State, rule: Rule, applicant: Applicant, until: datetime
    ) -> LocalAccount | str:
        """The local account that the rule's mapping comes to, or why there is none."""
        mapping = rule.account
        if mapping.how is How.CERTIFICATE:
            chosen = state.policy.pool.choose(mapping.text, grants.uses_of_certificates(conn), until)
            if chosen is None:
                return (
                    f"Rule {rule.name} lends with a certificate of level {mapping.text}, and none is valid that long."
                )
            return LocalAccount(mapping.how, chosen.name, chosen.path)
        name = mapping.account_of(applicant.name)
        if mapping.how is How.CREATE and (other := grants.other_user_of(conn, name, applicant.name)):
            return f"The account {name} exists for {other}; let rule {rule.name} make one with {{testbed}} in its name."
        return LocalAccount(mapping.how, name)

    def _note(self, tx: Tx, at: datetime, said: dict[str, Any], sent: Sequence[str], state: State) -> None:
        audit.keep(tx, [*sent, *state.texts])
        audit.append(tx, at, Kind.DECISION, said | {"credentials": [audit.sha256(text) for text in sent]})

    def _tell_account(self, tx: Tx, grant: Grant) -> None:
        if grant.account.how in grants.KINDS:
            tx.after_commit(lambda: self._account_changed(grant.account.name))

    # Use

    def handed(self, grant: Grant, user: str | None) -> Handed:
        """Sign what the borrower is given, valid as long as the grant; `user` is the machine's account, once there is one."""
        if grant.key is None:
            return Handed(grant.allocation)
        label = f"{grant.name} {grant.lease_id}"
        certificates = certify(grant.key, grant.keys, user, label, self._clock(), grant.until) if user else []
        return Handed(grant.allocation, tuple(certificates), (holder(grant.key, grant.principal, grant.until),))

    def renew(self, tx: Tx, lease_id: str, until: datetime, fresh: Sequence[Credential] = ()) -> Grant | None:
        """Let a grant last until then, or as long as it may; `problem` says why it may not. None: there is no such grant."""
        grant = grants.load(tx.conn, lease_id, lock=True)
        if grant is None or not grant.active:
            return None
        now = self._clock()
        with self._world.still() as state:
            rule = OWN_USERS if grant.rule == OWN_USERS.name else state.policy.rules.rule(grant.rule)
            closed = None if rule is None else rule.refusal(grant.action, now, 0)
            as_it_was = grant.world == state.id and until <= grant.proved_until and not grant.problem
            if as_it_was and closed is None and not fresh:
                return grants.save(tx.conn, grant, now, until=max(until, grant.until))
            applicant = self._applicant(tx.conn, grant, fresh)
            verdict = self._again(state, rule, applicant, grant.action, now, until)
        return self._renewed(tx, grant, applicant, verdict, until, state, now)

    def _again(
        self, state: State, rule: Rule | None, applicant: Applicant, action: Action, now: datetime, until: datetime
    ) -> Verdict:
        """Decide about one rule again; what counts is whether it holds, at best until then."""
        if rule is None:
            return Verdict(None, reason="The rule under which it was granted is gone.")
        rules = replace(state.policy.rules, rules=() if rule is OWN_USERS else (replace(rule, hours=None),))
        closed = rule.refusal(action, now, 0)
        if closed is not None:
            return Verdict(None, reason=closed)
        valid = replace(applicant, credentials=tuple(one for one in applicant.credentials if one.holds_at(now)))
        longest = self._judge(rules, valid, action, until, _nothing)
        return longest if longest.rule is not None else self._judge(rules, valid, action, now, _nothing)

    def _renewed(
        self, tx: Tx, grant: Grant, applicant: Applicant, verdict: Verdict, until: datetime, state: State, now: datetime
    ) -> Grant:
        if verdict.rule is None:
            changes: dict[str, Any] = {"problem": verdict.reason}
        else:
            proved_until = min(credential.expires for credential in verdict.credentials)
            changes = {
                "problem": "",
                "world": state.id,
                "proof": verdict.proof(),
                "proved_until": proved_until,
                "until": max(min(until, proved_until), grant.until),
            }
        sent = [credential.raw.decode() for credential in applicant.credentials]
        changes["credentials"] = tuple(audit.sha256(text) for text in sent)
        told = ("problem", "world", "proof")
        if any(changes.get(name, getattr(grant, name)) != getattr(grant, name) for name in told):
            self._note_renewal(tx, grant, verdict, sent, state, now)
        elif changes["credentials"] != grant.credentials:
            audit.keep(tx, sent)
        used = None if verdict.rule is None else verdict.credentials
        return grants.save(tx.conn, grant, now, used, **changes)

    def _note_renewal(
        self, tx: Tx, grant: Grant, verdict: Verdict, sent: Sequence[str], state: State, now: datetime
    ) -> None:
        names = audit.keep(tx, [*sent, *state.texts])[: len(sent)]
        said = {"lease": grant.lease_id, "allocation": grant.allocation, **state.names, **verdict.as_json()}
        audit.append(tx, now, Kind.RENEWAL, said | {"credentials": names})

    def _applicant(self, conn: Connection, grant: Grant, fresh: Sequence[Credential]) -> Applicant:
        """Who had it granted, with the credentials of then, each replaced by the fresh one that says the same for longer."""
        texts = [text for name in grant.credentials if (text := audit.text_of(conn, name)) is not None]
        best = {credential.statement: credential for credential in map(compact.read, texts)}
        for credential in fresh:
            known = best.get(credential.statement)
            if known is not None and known.expires < credential.expires:
                best[credential.statement] = credential
        return Applicant(grant.member, grant.name, grant.principal, tuple(best.values()))

    # Release

    def release(self, tx: Tx, lease_id: str, code: str = "", reason: str = "") -> None:
        """End a grant: its key is destroyed, and what it signed is worth nothing any more. None there is success."""
        grant = grants.load(tx.conn, lease_id, lock=True)
        if grant is None or not grant.active:
            return
        now = self._clock()
        grants.release(tx.conn, grant, now)
        said = {"lease": lease_id, "allocation": grant.allocation, "rule": grant.rule, "code": code, "reason": reason}
        audit.append(tx, now, Kind.RELEASE, said)
        self._tell_account(tx, grant)

    # Policy and revocation

    def begin(self, tx: Tx) -> list[Ended]:
        """Recall the lists that were taken in, and note the policy in force; returns what has to end."""
        ended: list[Ended] = []
        for text in tx.conn.execute(select(revocations.c.text)).scalars():
            listing = revocation.read(text)
            self._world.revoke(listing)
            ended += self._hit_by(tx.conn, listing)
        self.note_policy(tx)
        return ended

    def note_policy(self, tx: Tx) -> None:
        """Write down that this policy is in force, if the last entry of that kind tells of another."""
        with self._world.still() as state:
            text = state.policy.text
        last = audit.page(tx.conn, before=None, limit=1, kind=Kind.POLICY)
        name = audit.sha256(text)
        if not last or last[0].said["policy"] != name:
            audit.keep(tx, [text])
            audit.append(tx, self._clock(), Kind.POLICY, {"policy": name})

    def revoke(self, tx: Tx, listing: RevocationList) -> list[Ended]:
        """Take in an issuer's list; returns the leases that it ends. An older list than the known one changes nothing."""
        t = revocations
        issuer = listing.issuer.fingerprint
        known = tx.conn.execute(select(t.c.serial).where(t.c.issuer == issuer).with_for_update()).scalar()
        if known is not None and known >= listing.serial:
            return []
        self._world.revoke(listing)
        values = {"serial": listing.serial, "text": listing.text}
        if known is None:
            tx.conn.execute(insert(t).values(issuer=issuer, **values))
        else:
            tx.conn.execute(update(t).where(t.c.issuer == issuer).values(**values))
        ended = self._hit_by(tx.conn, listing)
        said = {"issuer": listing.issuer.fedid, "serial": listing.serial, "ends": [one.lease_id for one in ended]}
        names = audit.keep(tx, [listing.text])
        audit.append(tx, self._clock(), Kind.REVOCATION, said | {"list": names[0]})
        return ended

    def _hit_by(self, conn: Connection, listing: RevocationList) -> list[Ended]:
        now = self._clock()
        alive = [name for name, until in listing.revoked.items() if until > now]
        hit: dict[str, str] = {}
        for lease_id, credential_id in grants.resting_on(conn, listing.issuer.fingerprint, alive):
            hit.setdefault(lease_id, credential_id)
        return [Ended(lease_id, self._why(conn, lease_id, name, listing)) for lease_id, name in hit.items()]

    def _why(self, conn: Connection, lease_id: str, credential_id: str, listing: RevocationList) -> str:
        grant = grants.load(conn, lease_id)
        assert grant is not None
        steps = (step for proof in grant.proof["proofs"] for step in proof)
        said = next((step["statement"] for step in steps if step["credential"] == credential_id), credential_id)
        return f"{listing.issuer.fedid} has revoked what it rested on: {said} (credential {credential_id})."


def proof_to_tell(grant: Grant) -> Grounds | None:
    """The proof, if it is small enough to go along with the answer."""
    return Grounds.model_validate(grant.proof) if len(audit.canonical(grant.proof)) <= PROOF_SIZE else None


def _counted(counts: Mapping[str, int]) -> Held:
    return lambda rule: counts.get(rule.name, 0)


def _nothing(_rule: Rule) -> int:
    """The count of a rule is not looked at again: what exists under it stays."""
    return 0


def _granted(grant: Grant) -> dict[str, Any]:
    return {
        "allocation": grant.allocation,
        "account": {"how": grant.account.how.value, "name": grant.account.name},
        "until": grant.until.isoformat(),
    }
