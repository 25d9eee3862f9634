"""`policy.toml`: who may have what of this member.

[principals]                aliases: site-a = "<fedid>"
[roles]                     roles that this member gives: partner = ["site-a/*/*", "acme.preferred.customer"]
[[rule]]                    who may have what, in which account; the first that fits decides
[[expect]]                  what the rules have to decide for somebody; `fed config check` looks
"""

from __future__ import annotations

import hashlib
import re
import tomllib
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from string import Formatter
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, StringConstraints, model_validator

from federation_member.access.errors import UnusablePolicy
from federation_member.access.hours import Hours
from federation_member.access.model import AccountMapping, Action, How
from federation_member.access.rules import Expectation, Rule, Rules
from federation_member.access.who import LIMIT as WHO_LIMIT
from federation_member.access.who import SELF, Who
from fedkit.config import Section, UnusableConfig, validate
from fedkit.identity.keys import is_fedid

SIZE_LIMIT = 1024 * 1024  # octets of the file
LINE_LIMIT = 8192  # octets; a long key with dots costs TOML's reader the square of its length
MANY = 1000  # rules, aliases, roles, expectations
ACCOUNT_TEXT_LIMIT = 63  # characters
_LITERAL = re.compile(r"[A-Za-z0-9._-]*\Z", re.ASCII)
_BEGIN = re.compile(r"[A-Za-z0-9]", re.ASCII)
OWN_ROLES = ("member", "testbed_", "rule_")  # these the compiler gives itself


def _not_reserved(name: str) -> str:
    if name == OWN_ROLES[0] or name.startswith(OWN_ROLES[1:]):
        raise ValueError(f"{name} is a role that this member gives by itself; call yours otherwise")
    return name


def _alias(name: str) -> str:
    if name == SELF or is_fedid(name):
        raise ValueError(f"{name} cannot be an alias: `self` is this member, and a fedid is itself")
    return name


def instant(at: datetime) -> datetime:
    """A time that was told, in UTC if it names no zone; raises `ValueError` for one that some zone's clock cannot show."""
    if not 1970 <= at.year < 9999:
        raise ValueError("a time lies in the years 1970 to 9998")
    return at if at.tzinfo is not None else at.replace(tzinfo=UTC)


Fedid = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{40}$")]
Label = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,62}$")]
RoleName = Annotated[
    str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,127}$"), AfterValidator(_not_reserved)
]
Alias = Annotated[Label, AfterValidator(_alias)]
WhoLine = Annotated[str, StringConstraints(min_length=1, max_length=WHO_LIMIT)]
Patterns = Annotated[list[Annotated[str, StringConstraints(min_length=1, max_length=128)]], Field(max_length=256)]
Word = Annotated[str, StringConstraints(max_length=512)]
Kind = Literal["compute", "network", "volume", "attachment", "public_ip", "snapshot", "segment"]
When = Annotated[datetime, AfterValidator(instant)]


class AccountSection(Section):
    """The local account that a rule's people get; exactly one of these."""

    name: str | None = Field(default=None, description="exists, with the rights that it has")
    rights: str | None = Field(default=None, description="exists; rights and keys are added while something is granted")
    create: str | None = Field(default=None, description="made with the first grant, removed with the last")
    certificate: str | None = Field(default=None, description="access level, of a pool of certificates")

    @model_validator(mode="after")
    def _check(self) -> AccountSection:
        given = {how: text for how, text in self if text is not None}
        if len(given) != 1:
            raise ValueError('write account = "name", or one of {rights = …}, {create = …}, {certificate = …}')
        ((how, text),) = given.items()
        fields = set() if how != How.CREATE else {"testbed", "project", "user"}
        _check_account(text, fields)
        return self

    def mapping(self) -> AccountMapping:
        """The same as the controller uses it."""
        return next(AccountMapping(How(how), text) for how, text in self if text is not None)


def _check_account(text: str, fields: set[str]) -> None:
    """A made account begins with letters of the operator's, so no name from outside makes it `root` or an option."""
    try:
        parsed = list(Formatter().parse(text))
    except ValueError as error:
        raise ValueError(f"{text!r} is no template: {error}") from error
    for literal, field, form, conversion in parsed:
        if field is not None and (field not in fields or form or conversion):
            raise ValueError(f"{{{field}}} cannot stand in this account; here stand {sorted(fields) or 'plain names'}")
        if not _LITERAL.match(literal):
            raise ValueError(f"an account is written with letters, digits and ._- ; {literal!r} is not")
    if len(text) > ACCOUNT_TEXT_LIMIT or not (parsed and _BEGIN.match(parsed[0][0])):
        raise ValueError(
            f"an account begins with a letter or digit, as in fed-{{project}}, and has at most {ACCOUNT_TEXT_LIMIT} characters"
        )


def _account(value: Any) -> Any:
    return {"name": value} if isinstance(value, str) else value


class RuleSection(Section):
    """One rule. Patterns are those of a shell; `!pattern` takes away."""

    name: Label = Field(description="what proofs and answers call it")
    who: list[WhoLine] = Field(min_length=1, max_length=256, description="names such as site-a/proj1/*, or roles")
    may: list[Kind | Literal["*"]] = Field(min_length=1, max_length=16, description="kinds of order")
    flavours: Patterns = Field(default=["*"], description="sizes of machine")
    node_types: Patterns = Field(default=["*"], description="types of a testbed's nodes")
    images: Patterns = Field(default=["*"], description="what a machine boots")
    services: Patterns = Field(default=["*"], description="what an experiment may share with it")
    count: int | None = Field(default=None, ge=1, le=1_000_000, description="at the same time, under this rule")
    hours: str | None = Field(
        default=None, description="when, such as mon-fri 08:00-18:00 Europe/Berlin; UTC by default"
    )
    account: Annotated[AccountSection, BeforeValidator(_account)] = Field(
        default=AccountSection(name="federation"),
        description="local account; also {rights=}, {create=}, {certificate=}",
    )


class ExpectSection(Section):
    """A test of the rules above: what they have to decide."""

    who: str = Field(max_length=WHO_LIMIT, description="a three-level name; its asserter vouches for it")
    action: Kind = Field(description="kind of order")
    flavour: Word = ""
    node_type: Word = ""
    image: Word = ""
    services: list[Word] = Field(default=[], max_length=64)
    at: When | None = Field(default=None, description="when it is asked for")
    held: int = Field(default=0, ge=0, description="what exists already under the rule")
    has: list[WhoLine] = Field(default=[], max_length=64, description="roles that the user has besides")
    result: Literal["allow", "deny"]


class PolicyFile(Section):
    """The whole file."""

    principals: dict[Alias, Fedid] = Field(default={}, max_length=MANY)
    roles: dict[RoleName, Annotated[list[WhoLine], Field(max_length=256)]] = Field(default={}, max_length=MANY)
    rule: list[RuleSection] = Field(default=[], max_length=MANY)
    expect: list[ExpectSection] = Field(default=[], max_length=MANY)


def load(path: Path) -> Rules:
    """Read a policy; raise `UnusablePolicy` or `UnusableConfig` that name the file and the place in it."""
    try:
        with path.open("rb") as file:
            data = file.read(SIZE_LIMIT + 1)
    except OSError as error:
        raise UnusableConfig(f"{path} cannot be read: {error.strerror}.") from error
    return read(data, str(path))


def read(data: bytes, source: str) -> Rules:
    """Read a policy's text; `source` is what errors call it."""
    if len(data) > SIZE_LIMIT:
        raise UnusablePolicy(f"{source}: a policy has at most {SIZE_LIMIT} octets.")
    if max(map(len, data.splitlines()), default=0) > LINE_LIMIT:
        raise UnusablePolicy(f"{source}: a line of a policy has at most {LINE_LIMIT} octets.")
    try:
        tables = tomllib.loads(data.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UnusableConfig(f"{source} is not TOML: {error}.") from error
    except RecursionError as error:
        raise UnusableConfig(f"{source} is nested too deeply.") from error
    file = validate(tables, PolicyFile, source)
    try:
        return _rules(file, hashlib.sha256(data).hexdigest())
    except UnusablePolicy as error:
        raise UnusablePolicy(f"{source}: {error.message}") from error


def _rules(file: PolicyFile, version: str) -> Rules:
    return Rules(
        principals=file.principals,
        roles={name: _who(lines, file, f"roles.{name}") for name, lines in file.roles.items()},
        rules=tuple(_each_once(_rule(section, file, number) for number, section in enumerate(file.rule))),
        expectations=tuple(_expectation(section) for section in file.expect),
        version=version,
    )


def _each_once(rules: Iterator[Rule]) -> Iterator[Rule]:
    seen: set[str] = set()
    for rule in rules:
        if rule.name in seen:
            raise UnusablePolicy(f"Two rules are called {rule.name}; proofs and answers must tell them apart.")
        seen.add(rule.name)
        yield rule


def _rule(section: RuleSection, file: PolicyFile, number: int) -> Rule:
    place = f"rule.{number} ({section.name})"
    try:
        hours = None if section.hours is None else Hours.parse(section.hours)
    except UnusablePolicy as error:
        raise UnusablePolicy(f"{place}.hours: {error.message}") from error
    return Rule(
        name=section.name,
        who=_who(section.who, file, f"{place}.who"),
        may=tuple(section.may),
        flavours=tuple(section.flavours),
        node_types=tuple(section.node_types),
        images=tuple(section.images),
        services=tuple(section.services),
        count=section.count,
        hours=hours,
        account=section.account.mapping(),
    )


def _who(lines: list[str], file: PolicyFile, place: str) -> tuple[Who, ...]:
    try:
        return tuple(Who.parse(line, file.principals) for line in lines)
    except UnusablePolicy as error:
        raise UnusablePolicy(f"{place}: {error.message}") from error


def _expectation(section: ExpectSection) -> Expectation:
    action = Action(section.action, section.flavour, section.node_type, section.image, tuple(section.services))
    return Expectation(section.who, action, section.result == "allow", section.at, section.held, tuple(section.has))
