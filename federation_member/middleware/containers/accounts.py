"""The local accounts of the `containers` kind: who machines run for.

An account is a folder of state with what it was given, and a control group around the machines that run under it, so that
the site's own tools see and limit a whole account at once. The site's accounts stand in the configuration; those that the
federation makes live in their folder alone.

    state/accounts/NAME/account.json        an AccountSpec
    CGROUP/fedmesh-account-STATE-NAME/      there while machines run under it; STATE tells members of one host apart
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Collection
from pathlib import Path

from pydantic import TypeAdapter

from federation_member.middleware.containers.config import ACCOUNT
from federation_member.middleware.containers.folders import Folders
from federation_member.middleware.contract import (
    AccountInUse,
    AccountKind,
    AccountSpec,
    UnknownAccount,
    UnusableSpec,
)

FILE = "account.json"
PREFIX = "fedmesh-account-"
_NAME = re.compile(ACCOUNT)


class AccountBook:
    """Accounts, in memory and on disk alike; `existing` are the site's, `used` tells under which machines run."""

    def __init__(self, folder: Path, existing: Collection[str], used: Callable[[], Collection[str]]) -> None:
        self._existing = frozenset(existing)
        self._used = used
        self._groups = f"{PREFIX}{hashlib.sha256(bytes(folder)).hexdigest()[:8]}-"
        self._given = Folders(folder, FILE, TypeAdapter(AccountSpec))

    def load(self) -> None:
        """Read what is there."""
        self._given.load()

    def check(self, name: str) -> None:
        """Raise `UnknownAccount` unless machines can run under this account."""
        given = self._given.get(name)
        if name not in self._existing and (given is None or given.kind is not AccountKind.CREATED):
            raise UnknownAccount(
                f"There is no account {name} here; add it to `accounts` in [middleware.options], or let the policy's rule "
                f'make one: account = {{ create = "{name}" }}.'
            )

    def ensure(self, spec: AccountSpec) -> None:
        """Make the account so; see `KeepsAccounts`."""
        if not _NAME.match(spec.name):
            raise UnusableSpec(f"{spec.name!r} cannot be the name of an account here: {ACCOUNT}.")
        if spec.kind is AccountKind.CREATED and spec.name in self._existing:
            raise AccountInUse(f"The account {spec.name} is the site's own; let the rule make one of another name.")
        if spec.kind is AccountKind.EXISTING:
            self.check(spec.name)
        if self._given.get(spec.name) != spec:
            self._given.put(spec.name, spec)

    def remove(self, name: str) -> None:
        """Take back what it was given; see `KeepsAccounts`."""
        given = self._given.get(name)
        if given is None:
            return
        if given.kind is AccountKind.CREATED and name in self._used():
            raise AccountInUse(f"Machines still run under the account {name}.")
        self._given.remove(name)

    def group(self, name: str) -> str:
        """The control group of an account."""
        return self._groups + name

    def given(self) -> list[AccountSpec]:
        """All that the federation made or gave."""
        return list(self._given)
