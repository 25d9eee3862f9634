"""`fed member`, `fed rendezvous`, `fed tunnel-server`: the processes of a site."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

member = typer.Typer(
    no_args_is_help=True,
    help="""The Federation Member: orders, what is lent, REST API and dashboard.

    fed config sample member > member.toml

    fed member user add alice --project physics -c member.toml

    fed member serve -c member.toml
""",
)
rendezvous = typer.Typer(
    no_args_is_help=True,
    help="""The Rendezvous: who is alive in the federation.

    fed config sample rendezvous > rendezvous.toml

    fed rendezvous serve -c rendezvous.toml
""",
)
tunnel_server = typer.Typer(
    no_args_is_help=True,
    help="""The reverse tunnel server: ports of the intranet, reachable at the DMZ.

    fed config sample tunnel > tunnel.toml

    fed tunnel-server serve -c tunnel.toml
""",
)

ConfigOption = Annotated[Path, typer.Option("-c", "--config", help="The configuration file.")]


@rendezvous.callback()
@tunnel_server.callback()
def group() -> None:
    """Keep a group with one verb a group."""


@member.command("serve")
def serve_member(config: ConfigOption) -> None:
    """Run the Federation Member until SIGTERM.

    Example: `fed member serve -c /etc/fedmesh/member.toml`
    """
    from federation_member.config import MemberConfig
    from federation_member.service import open_member
    from fedkit import service
    from fedkit.config import load

    loaded = load(config, MemberConfig, "MEMBER")
    raise typer.Exit(service.run(lambda: open_member(loaded)))


@rendezvous.command("serve")
def serve_rendezvous(config: ConfigOption) -> None:
    """Run the Rendezvous until SIGTERM.

    Example: `fed rendezvous serve -c /etc/fedmesh/rendezvous.toml`
    """
    from fedkit import service
    from fedkit.config import load
    from rendezvous.config import RendezvousConfig
    from rendezvous.service import open_rendezvous

    loaded = load(config, RendezvousConfig, "RENDEZVOUS")
    raise typer.Exit(service.run(lambda: open_rendezvous(loaded)))


@tunnel_server.command("serve")
def serve_tunnel_server(config: ConfigOption) -> None:
    """Run the reverse tunnel server until SIGTERM.

    Example: `fed tunnel-server serve -c /etc/fedmesh/tunnel.toml`
    """
    from fedkit import service
    from fedkit.config import load
    from reverse_tunnel.config import TunnelConfig
    from reverse_tunnel.service import open_tunnel_server

    loaded = load(config, TunnelConfig, "TUNNEL")
    raise typer.Exit(service.run(lambda: open_tunnel_server(loaded)))
