"""Shows lenders who a user is: the names in turn, what is said of them, and what the wallet adds where a lender asks for more.

    A.user <- U     A.user_<u> <- U     A.project_<p> <- U (or A.no_project)     said by this member A
    U.acting_for <- A                                                            said by U; by A with U's key where it keeps that

Nothing else goes along by itself. Everything runs inside the caller's transaction and depends on its tables alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import Connection

from federation_member.accounts import store as accounts
from federation_member.accounts.store import Account
from federation_member.credentials import signing, wallet
from federation_member.credentials.errors import NoAccount, NoMandate, NotYourProject, Suspended
from federation_member.credentials.signing import Said
from federation_member.orders.identities import Identity, Shown
from federation_member.orders.model import User
from fedkit.clock import Clock
from fedkit.identity.keys import PrivateKey
from fedkit.identity.names import Name
from fedkit.policy.model import Credential, Statement
from fedkit.store import Tx


class HomeIdentities:
    """The users of the member whose key this is; see `federation_member.orders.identities.Identities`."""

    def __init__(self, member: PrivateKey, clock: Clock) -> None:
        self._member = member
        self._clock = clock

    def names(self, conn: Connection, user: User) -> tuple[User, ...]:
        """See `Identities`."""
        account = self._account(conn, user)
        if not account.custodial and self._mandate(conn, account) is None:
            raise NoMandate(
                f"The key of {account.name} has not said that this member acts for them, or only until now; "
                "log in with `fed login URL --user NAME --key FILE`."
            )
        projects = sorted(account.projects, key=lambda project: project != user.project) or [""]
        return tuple(User(project, user.name) for project in projects)

    def of(self, tx: Tx, user: User) -> Identity:
        """See `Identities`."""
        account = self._account(tx.conn, user)
        if user.project not in (account.projects or ("",)):
            raise NotYourProject(f"{user.name} is not in the project {user.project or 'without a name'} any more.")
        now = self._clock()
        statements = signing.vouching(self._member.fedid, account.principal, user.project, user.name)
        said = signing.say(tx, account.name, self._member, statements, now)
        mandate = self._acting_for(tx, account, now)
        if mandate is not None:
            said.append(mandate)
        name = Name(self._member.fedid, user.project, user.name)
        return Identity(str(name), account.principal, tuple(Shown(s.id, s.statement, s.text, s.expires) for s in said))

    def complete(self, conn: Connection, user: User, missing: Sequence[Sequence[str]]) -> tuple[Shown, ...]:
        """See `Identities`."""
        return _shown(wallet.complete(self._kept(conn, user), missing, self._clock()))

    def successors(self, conn: Connection, user: User, statements: Sequence[str]) -> tuple[Shown, ...]:
        """See `Identities`."""
        return _shown(wallet.successors(self._kept(conn, user), statements, self._clock()))

    def stands(self, conn: Connection, user: User, statements: Sequence[str]) -> bool:
        """See `Identities`."""
        said = [Statement.parse(statement) for statement in statements]
        return len(signing.valid(conn, user.name, said, self._clock())) == len(set(said))

    def _kept(self, conn: Connection, user: User) -> list[Credential]:
        return [kept.credential for kept in wallet.content(conn, user.name)]

    def _account(self, conn: Connection, user: User) -> Account:
        account = accounts.load_account(conn, user.name)
        if account is None:
            raise NoAccount(f"There is no account {user.name} any more.")
        if account.suspended is not None:
            raise Suspended(f"The account {user.name} is suspended since {account.suspended:%F %T} UTC.")
        return account

    def _mandate(self, conn: Connection, account: Account) -> Said | None:
        statement = signing.mandate(account.principal, self._member.fedid)
        return signing.valid(conn, account.name, [statement], self._clock()).get(str(statement))

    def _acting_for(self, tx: Tx, account: Account, now: datetime) -> Said | None:
        key = accounts.private_key_of(tx.conn, account.name) if account.custodial else None
        if key is None:
            return self._mandate(tx.conn, account)
        return signing.say(tx, account.name, key, [signing.mandate(account.principal, self._member.fedid)], now)[0]


def _shown(credentials: Sequence[Credential]) -> tuple[Shown, ...]:
    return tuple(Shown(c.id, str(c.statement), c.raw.decode(), c.expires) for c in credentials)
