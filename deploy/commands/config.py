"""`fed config`: samples made from the models themselves, and a check before the start."""

from __future__ import annotations

from collections.abc import Collection
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from deploy.commands.output import say

if TYPE_CHECKING:
    from pydantic import BaseModel

    from fedkit.config import Section

app = typer.Typer(
    no_args_is_help=True,
    help="""Configuration files.

    fed config sample member > member.toml

    fed config check member.toml

    fed config sample policy > policy.toml
""",
)


class Component(StrEnum):
    """Whose configuration."""

    MEMBER = "member"
    RENDEZVOUS = "rendezvous"
    TUNNEL = "tunnel"
    POLICY = "policy"


@app.command()
def sample(component: Component) -> None:
    """Print a commented configuration file with every key.

    Example: `fed config sample member > member.toml`
    """
    from deploy.commands.sample import sample as text
    from deploy.commands.sample_policy import POLICY

    if component is Component.POLICY:
        print(POLICY, end="")
        return
    tables: dict[str, type[BaseModel]] = {}
    if component is Component.MEMBER:
        from federation_member.config import MiddlewareSection
        from federation_member.plugins import find_identity_provider, find_middleware

        tables["middleware.options"] = find_middleware(MiddlewareSection().kind).Config
        tables["identity_provider.options"] = find_identity_provider("keystone").Config
    print(text(_model(component), tables), end="")


@app.command()
def check(
    file: Annotated[Path, typer.Argument(metavar="FILE")],
    component: Annotated[
        Component | None, typer.Option("--component", help="Whose file it is; told by its tables otherwise.")
    ] = None,
) -> None:
    """Check a configuration file, and the files that it names.

    Example: `fed config check member.toml`
    """
    from fedkit.config import UnusableConfig, load
    from fedkit.identity.keys import PrivateKey

    component = component or _component_of(file)
    if component is Component.POLICY:
        say(f"{file} is good: {_check_policy(file)}.")
        return
    loaded: Any = load(file, _model(component), component.name)
    kinds: frozenset[str] = frozenset()
    if component is Component.MEMBER:
        from federation_member.plugins import load_identity_provider, load_middleware

        for provider in loaded.identity_provider:
            load_identity_provider(provider.kind, provider.options)
        kinds = load_middleware(loaded.middleware.kind, loaded.middleware.options).kinds()
    try:
        key = PrivateKey.load(loaded.identity.key)
    except OSError as error:
        raise UnusableConfig(f"[identity] key {loaded.identity.key} cannot be read: {error.strerror}.") from error
    loaded.xmpp.secret()
    policy = getattr(loaded, "policy", None)
    lends = f" {policy.file}: {_check_policy(policy.file, key.fedid, kinds)}." if policy else ""
    say(f"{file} is good: a {component} with the fedid {key.fedid}.{lends}")


def _check_policy(file: Path, own: str | None = None, kinds: Collection[str] = ()) -> str:
    """Compile a policy and run its expectations; return how much there is of it. `kinds` are those that the member lends."""
    from federation_member.access.advice import advise
    from federation_member.access.compile import statements
    from federation_member.access.expectations import check as check_expectations
    from federation_member.access.policy_file import load as load_policy
    from federation_member.access.suppose import UNKNOWN

    rules, own = load_policy(file), own or UNKNOWN
    statements(rules, own, ())
    met = check_expectations(rules, own)
    for warning in advise(rules, kinds):
        say(f"warning: {warning}")
    return f"{len(rules.rules)} rules, {met} expectations met"


def _model(component: Component) -> type[Section]:
    match component:
        case Component.MEMBER:
            from federation_member.config import MemberConfig

            return MemberConfig
        case Component.RENDEZVOUS:
            from rendezvous.config import RendezvousConfig

            return RendezvousConfig
        case Component.TUNNEL:
            from reverse_tunnel.config import TunnelConfig

            return TunnelConfig
        case Component.POLICY:
            from federation_member.access.policy_file import PolicyFile

            return PolicyFile


def _component_of(file: Path) -> Component:
    """Only a member has a name of its own, only a policy rules; only a tunnel server tells in `[tunnel]` where it listens."""
    import tomllib

    from fedkit.config import UnusableConfig

    try:
        data = tomllib.loads(file.read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise UnusableConfig(f"{file} cannot be read as TOML: {error}.") from error
    if "name" in data or "api" in data:
        return Component.MEMBER
    if data.keys() & {"principals", "roles", "rule", "expect"}:
        return Component.POLICY
    return Component.RENDEZVOUS if "rendezvous" in data else Component.TUNNEL
