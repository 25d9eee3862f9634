"""`fed config`: samples made from the models themselves, and a check before the start."""

from __future__ import annotations

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
""",
)


class Component(StrEnum):
    """Whose configuration."""

    MEMBER = "member"
    RENDEZVOUS = "rendezvous"
    TUNNEL = "tunnel"


@app.command()
def sample(component: Component) -> None:
    """Print a commented configuration file with every key.

    Example: `fed config sample member > member.toml`
    """
    from deploy.commands.sample import sample as text

    tables: dict[str, type[BaseModel]] = {}
    if component is Component.MEMBER:
        from federation_member.config import MiddlewareSection
        from federation_member.plugins import find_middleware

        tables["middleware.options"] = find_middleware(MiddlewareSection().kind).Config
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
    loaded: Any = load(file, _model(component), component.name)
    if component is Component.MEMBER:
        from federation_member.plugins import load_middleware

        load_middleware(loaded.middleware.kind, loaded.middleware.options)
    try:
        key = PrivateKey.load(loaded.identity.key)
    except OSError as error:
        raise UnusableConfig(f"[identity] key {loaded.identity.key} cannot be read: {error.strerror}.") from error
    loaded.xmpp.secret()
    say(f"{file} is good: a {component} with the fedid {key.fedid}.")


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


def _component_of(file: Path) -> Component:
    """Only a member has a name of its own; only a tunnel server tells in `[tunnel]` where it listens."""
    import tomllib

    from fedkit.config import UnusableConfig

    try:
        data = tomllib.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise UnusableConfig(f"{file} cannot be read as TOML: {error}.") from error
    if "name" in data or "api" in data:
        return Component.MEMBER
    return Component.RENDEZVOUS if "rendezvous" in data else Component.TUNNEL
