"""Signing in through an identity provider: it checks the password, and the account follows what it says."""

from __future__ import annotations

from collections.abc import Mapping

from federation_member.accounts.errors import NoProject, UnknownProvider
from federation_member.accounts.providers import IdentityProvider
from federation_member.accounts.service import Accounts
from federation_member.accounts.store import Account, Token


class SignIn:
    """Ways in that are not local accounts, by the name that the site gave each."""

    def __init__(self, accounts: Accounts, providers: Mapping[str, IdentityProvider]) -> None:
        self._accounts = accounts
        self._providers = providers

    @property
    def names(self) -> list[str]:
        """What may be chosen, in the order of the configuration."""
        return list(self._providers)

    async def sign_in(
        self, provider: str, user: str, password: str, address: str, label: str, days: int
    ) -> tuple[Account, Token, str]:
        """Sign in; returns the account and a token for it, which ends when the provider's word does, and its secret.

        Raises `UnknownProvider`, `TooManyAttempts`, `WrongPassword`, `ProviderUnavailable`, `NoProject`, `AccountExists` or
        `UnusableAccount`.
        """
        known = self._providers.get(provider)
        if known is None:
            raise UnknownProvider(f"There is no identity provider {provider!r} here; GET /api/v1/providers lists them.")
        attempt = f"{user}@{provider}"
        self._accounts.admit(attempt, address)
        found = await known.sign_in(user, password)
        self._accounts.forgive(attempt)
        account = await self._accounts.follow(provider, found)
        if account is None or not account.projects:
            raise NoProject(f"{user} is in no project of {provider} that counts at this site; ask its operator.")
        token, secret = await self._accounts.issue(account.name, label, days, until=found.until)
        return account, token, secret
