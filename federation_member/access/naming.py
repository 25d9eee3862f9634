"""What the principals of a decision are called, for people: nothing is decided by these names."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from federation_member.access.world import Policy, members_of
from fedkit.errors import FedError
from fedkit.identity.names import Name


def names_of(said: Mapping[str, Any], texts: Mapping[str, str]) -> dict[str, str]:
    """Name the fedids of an entry: as this site's policy does, else by a member's address, else as the user was asked for.

    `texts` are those that the entry names. Where somebody has changed the log, fewer have names; its check tells what is wrong.
    """
    names: dict[str, str] = {}
    for source in (_of_applicant, _of_members, _of_policy):
        with suppress(FedError, KeyError, TypeError, ValueError, AttributeError):
            names |= source(said, texts)
    return names


def _of_applicant(said: Mapping[str, Any], _texts: Mapping[str, str]) -> dict[str, str]:
    who = said["applicant"]
    return {who["member"]: who["address"], who["principal"]: Name.parse(who["name"]).user}


def _of_members(said: Mapping[str, Any], texts: Mapping[str, str]) -> dict[str, str]:
    return {member.fedid: member.address for member in members_of(texts[said["members"]])}


def _of_policy(said: Mapping[str, Any], texts: Mapping[str, str]) -> dict[str, str]:
    principals = Policy.parse(texts[said["policy"]], "the policy of this entry").rules.principals
    return {fedid: alias for alias, fedid in principals.items()}
