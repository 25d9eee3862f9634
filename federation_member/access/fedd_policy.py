"""fedd's databases as a policy.

    fedd made of them (ABAC)                                            here
    ac.project_proj1_user_user1 <- ec.project_proj1 & ec.user_user1     rule project_proj1_user_user1, who = ["ec/proj1/user1"]
    ac.access <- ac.project_proj1_user_user1                            [roles] access = ["self.rule_project_proj1_user_user1"]
    map file: that role -> (local project, users)                       the rule's account
    ec.user_user1 <- X,  ec.project_proj1 <- X                          [roles] user_user1 = ["X"], project_proj1 = ["X"]
    component: ac.attribute <- X                                        [roles] attribute = ["X"]

The order of lines stays the order of rules. What has no place in a policy becomes a warning.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from itertools import count

from federation_member.access.fedd_databases import AccessLine, Databases, Local
from fedkit.identity.keys import is_fedid
from fedkit.identity.names import role_part
from fedkit.identity.patterns import NamePattern

NAME_LIMIT = 63  # characters of a rule's name
OURS = ("member", "rule_", "testbed_")  # roles that no policy can give


def convert(found: Databases) -> tuple[str, list[str]]:
    """Return the policy's text, and what could not be carried over."""
    conversion = _Conversion(found)
    return conversion.text(), conversion.warnings


class _Conversion:
    def __init__(self, found: Databases) -> None:
        self.warnings: list[str] = []
        self._found = found
        self._aliases = {fedid: f"testbed-{number}" for fedid, number in zip(_testbeds(found), count(1))}
        self._roles: dict[str, list[str]] = {}
        self._names: set[str] = set()

    def text(self) -> str:
        """The whole file."""
        rules = [line for one in self._found.access for line in self._line(one)]
        for user in self._found.users:
            self._give(f"user_{role_part(user.user)}", user.fedid, str(user.where))
            self._give(f"project_{role_part(user.project)}", user.fedid, str(user.where))
        for fedid, attribute in self._found.simple:
            self._give(attribute, fedid, attribute)
        self._warn_of_the_rest()
        return "\n".join([*self._principals(), *self._own_roles(), *rules]) + "\n"

    def _principals(self) -> Iterator[str]:
        yield "# Converted from fedd's databases by `fed policy import-fedd`. Give the testbeds their names."
        yield "[principals]"
        yield from (f"{alias} = {_toml(fedid)}" for fedid, alias in self._aliases.items())
        for name, uri in self._found.testbeds.items():
            yield f'# {name} = "<fedid>"    # the fedd at {uri}'

    def _own_roles(self) -> Iterator[str]:
        if self._roles:
            yield from ("", "[roles]")
        yield from (f"{role} = {_toml(who)}" for role, who in self._roles.items())

    def _line(self, line: AccessLine) -> list[str]:
        """A line that maps to something local is a rule; one that only gives an attribute is a role."""
        if not line.who.user:
            self.warnings.append(
                f"{line.where}: nobody asks without a user here; write <any> where any is meant. Left out."
            )
            return []
        who = self._who(line.who)
        if line.local is None:
            if line.others:
                self.warnings.append(f"{line.where}: the list ({', '.join(line.others)}) is a plug-in's own; left out.")
            self._give(line.attribute, who, str(line.where))
            return []
        name = self._rule_name(line.who)
        self._give(line.attribute, f"self.rule_{name}", str(line.where))
        users = f"{line.local.creation_user}, service user {line.local.service_user}"
        return ["", f"# {line.where}; creation user {users}", "[[rule]]", *self._rule(line, line.local, name, who)]

    def _rule(self, line: AccessLine, local: Local, name: str, who: str) -> Iterator[str]:
        yield f"name = {_toml(name)}"
        yield f"who = {_toml([who])}"
        yield 'may = ["*"]'
        forbidden = [kind for kind in self._found.restricted if kind not in local.node_types]
        if forbidden:
            yield f"node_types = {_toml(['*', *(f'!{kind}' for kind in forbidden)])}"
        yield f"account = {self._account(line, local)}"

    def _account(self, line: AccessLine, local: Local) -> str:
        if local.project == "<dynamic>" or (local.project == "<same>" and not _plain(line.who.project)):
            if local.project == "<same>":
                self.warnings.append(
                    f"{line.where}: <same> for several projects would let others choose an account; made anew."
                )
            return '{create = "fed-{testbed}-{project}"}'
        project = line.who.project if local.project == "<same>" else local.project
        return f"{{rights = {_toml(project)}}}" if local.node_types else _toml(project)

    def _who(self, who: NamePattern) -> str:
        parts = list(who.parts)
        parts[who.level] = self._aliases.get(who.asserter, who.asserter)
        return "/".join(parts)

    def _rule_name(self, who: NamePattern) -> str:
        inner = [("project", who.project), ("user", who.user)][max(0, who.level - 1) :]
        said = [f"{what}_{role_part(part)}" for what, part in inner if part not in ("", "*") and not is_fedid(part)]
        wanted = ("_".join(said) or f"everybody_of_{role_part(self._aliases.get(who.asserter, 'any'))}")[
            : NAME_LIMIT - 4
        ]
        name = next(name for name in (wanted, *(f"{wanted}_{n}" for n in range(2, 1000))) if name not in self._names)
        self._names.add(name)
        return name

    def _give(self, role: str, who: str, place: str) -> None:
        if role == OURS[0] or role.startswith(OURS[1:]):
            self.warnings.append(f"{place}: {role} is a role that a member gives by itself; left out.")
        elif who not in self._roles.setdefault(role, []):
            self._roles[role].append(who)

    def _warn_of_the_rest(self) -> None:
        found = self._found
        if any(line.local for line in found.access):
            self.warnings.append("Creation and service users are kept as comments: a rule has one account.")
        for where, name, value in found.attributes:
            self.warnings.append(f"{where}: {name}: {value} was handed to requesters; a policy has no place for it.")
        for name, uri in found.testbeds.items():
            self.warnings.append(f"{name} is at {uri}; which fedid it has must be asked there.")
        if found.users:
            self.warnings.append(
                "Users of this site become roles; to let them order, add them: fed member user add USER --project PROJECT"
            )


def _testbeds(found: Databases) -> Iterable[str]:
    """Whoever vouches for names, in the order of the lines; who vouches only for themselves needs no alias."""
    vouching = (line.who.asserter for line in found.access if line.who.level < 2)
    return dict.fromkeys(fedid for fedid in vouching if is_fedid(fedid))


def _plain(part: str) -> bool:
    return part not in ("", "*") and not is_fedid(part)


def _toml(value: object) -> str:
    """A JSON text without control characters is a TOML value."""
    return json.dumps(value)
