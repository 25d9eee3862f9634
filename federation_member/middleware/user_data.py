"""User data as cloud-init reads it, for middlewares whose images have no cloud-init.

Understood: a script (`#!` first), and `#cloud-config` with `users`, `ssh_authorized_keys`, `write_files`, `runcmd`. Everything
else is refused before anything is made, with the name of what is not understood; what is silently ignored here would be
missed much later, inside a machine. Source: cloud-init's reference, "User data formats" and "Module reference".

The text is hostile: it is bounded in size, depth and number of nodes, and YAML's aliases (the way to make a small text
expand without end) are refused. Scalars stay text (YAML 1.1 would read 0644 as 420 and `no` as false).
"""

from __future__ import annotations

import base64
import binascii
import shlex
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from federation_member.middleware.contract import UnusableSpec
from fedkit.protocol.lending import USER_DATA_LIMIT, SshKey

DEPTH_LIMIT = 8
NODE_LIMIT = 10_000
KNOWN = "a script that begins with #!, or #cloud-config with users, ssh_authorized_keys, write_files and runcmd"

AccountName = Annotated[str, StringConstraints(pattern=r"^[a-z_][a-z0-9_-]{0,31}$")]
NoColon = Annotated[str, StringConstraints(pattern=r"^[^:\n\r\x00]*$", max_length=256)]
AbsolutePath = Annotated[str, StringConstraints(pattern=r"^/[^\n\r\x00]*$", max_length=4096)]
ShellPath = Annotated[str, StringConstraints(pattern=r"^/[^:\n\r\x00]+$", max_length=256)]
YES, NO = ("true", "yes", "on"), ("false", "no", "off")


def _empty_is_none(value: Any) -> Any:
    return [] if value == "" else value


def _truth(value: Any) -> Any:
    word = str(value).lower()
    if word not in YES + NO:
        raise ValueError("true or false")
    return word in YES


Truth = Annotated[bool, BeforeValidator(_truth)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class User(_Part):
    """An account to add; an account that exists only gets the keys."""

    name: AccountName
    gecos: NoColon = ""
    shell: ShellPath = "/bin/sh"
    homedir: ShellPath | None = None
    ssh_authorized_keys: list[SshKey] = []
    lock_passwd: Truth = True

    @model_validator(mode="after")
    def _no_password(self) -> User:
        if not self.lock_passwd:
            raise ValueError("lock_passwd: accounts here have keys, never passwords")
        return self


class File(_Part):
    """A file to write before the machine is reachable."""

    path: AbsolutePath
    content: str = ""
    encoding: Literal["text/plain", "b64", "base64"] = "text/plain"
    owner: Annotated[str, StringConstraints(pattern=r"^[a-z0-9_][a-z0-9_-]*(:[a-z0-9_][a-z0-9_-]*)?$")] = "root:root"
    permissions: Annotated[str, StringConstraints(pattern=r"^(0o?)?[0-7]{3,4}$")] = "0644"
    append: Truth = False
    defer: Truth = False  # to after the accounts were made; here that is always so

    @property
    def data(self) -> bytes:
        """The content, decoded."""
        return self.content.encode() if self.encoding == "text/plain" else base64.b64decode(self.content, validate=True)

    @model_validator(mode="after")
    def _decodes(self) -> File:
        try:
            _ = self.data
        except binascii.Error as error:
            raise ValueError(f"content is not base64: {error}") from error
        return self

    @property
    def mode(self) -> str:
        """Permissions in octal digits, as chmod takes them."""
        return self.permissions.replace("o", "")


def _user(value: Any) -> Any:
    """`users` may name accounts in short: `- alice`."""
    return {"name": value} if isinstance(value, str) else value


class UserData(_Part):
    """What to do inside the machine: accounts, keys for the usual account, files, and then the script, as root."""

    users: Annotated[list[Annotated[User, BeforeValidator(_user)]], BeforeValidator(_empty_is_none)] = []
    ssh_authorized_keys: Annotated[list[SshKey], BeforeValidator(_empty_is_none)] = []
    write_files: Annotated[list[File], BeforeValidator(_empty_is_none)] = []
    runcmd: Annotated[list[str | list[str]], BeforeValidator(_empty_is_none)] = []
    script: str = Field(default="", exclude=True)

    def program(self) -> str:
        """The script to run at the end of boot; empty if there is none."""
        if not self.runcmd:
            return self.script
        lines = [command if isinstance(command, str) else shlex.join(command) for command in self.runcmd]
        return "\n".join(["#!/bin/sh", *lines, ""])


def parse(text: str) -> UserData:
    """Return what `text` asks for; raise `UnusableSpec` that names what is not understood."""
    if len(text.encode()) > USER_DATA_LIMIT:
        raise UnusableSpec(
            f"User data is larger than {USER_DATA_LIMIT} octets; let it fetch the rest.", limit=USER_DATA_LIMIT
        )
    if not text.strip():
        return UserData()
    if "\0" in text:
        raise UnusableSpec(f"User data holds a zero octet; this middleware understands {KNOWN}.")
    if text.startswith("#!"):
        return UserData(script=text)
    first_line = text.split("\n", 1)[0].strip()
    if first_line != "#cloud-config":
        raise UnusableSpec(f"User data begins with {first_line[:60]!r}; this middleware understands {KNOWN}.")
    return _cloud_config(text)


def _cloud_config(text: str) -> UserData:
    try:
        _check_bounds(text)
        data = yaml.load(text, yaml.CBaseLoader)  # noqa: S506  the base loader makes text, lists and mappings only
    except yaml.YAMLError as error:
        raise UnusableSpec(f"User data is not YAML: {' '.join(str(error).split())[:300]}") from error
    if data in (None, ""):
        return UserData()
    if not isinstance(data, dict):
        raise UnusableSpec("User data: #cloud-config must be a mapping of keys such as runcmd.")
    if unknown := sorted(str(key)[:60] for key in data.keys() - (UserData.model_fields.keys() - {"script"})):
        raise UnusableSpec(
            f"User data: {', '.join(unknown[:10])} is not supported; this middleware understands {KNOWN}.", keys=unknown
        )
    if isinstance(data.get("users"), list):
        data["users"] = [user for user in data["users"] if user != "default"]  # the usual account is always there
    try:
        return UserData.model_validate(data)
    except ValidationError as error:
        raise UnusableSpec("User data: " + "; ".join(_explain(item) for item in error.errors()[:5])) from error


def _check_bounds(text: str) -> None:
    """Walk the events, which costs no more than the text's length, before anything is built from them."""
    depth = 0
    for count, event in enumerate(yaml.parse(text, yaml.CBaseLoader)):
        if isinstance(event, yaml.AliasEvent):
            raise UnusableSpec("User data: YAML aliases (*name) are not supported; write the value out.")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > DEPTH_LIMIT or count > NODE_LIMIT:
            raise UnusableSpec(f"User data: nested deeper than {DEPTH_LIMIT} or more than {NODE_LIMIT} nodes.")


def _explain(item: Any) -> str:
    place = ".".join(str(part) for part in item["loc"] if not str(part).startswith(("function-", "str", "list[")))
    if item["type"] == "extra_forbidden":
        models: dict[str, type[_Part]] = {"users": User, "write_files": File}
        return f"{place} is not supported; supported there: {', '.join(models[item['loc'][0]].model_fields)}"
    return f"{place}: {item['msg']}"
