"""`tunnel.toml`."""

from __future__ import annotations

from ipaddress import ip_address
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field

from fedkit.config import Section
from fedkit.mesh.config import Identity, Store, Xmpp
from fedkit.protocol.lending import Fedid


def _check_ports(text: str) -> str:
    first, _, last = text.partition("-")
    if not (first.isdecimal() and last.isdecimal() and 1024 <= int(first) <= int(last) <= 65535):
        raise ValueError("write FIRST-LAST, both between 1024 and 65535, such as 20000-20099")
    return text


def _check_address(text: str) -> str:
    ip_address(text)
    return text


PortRange = Annotated[str, AfterValidator(_check_ports)]
Address = Annotated[str, AfterValidator(_check_address)]


class HttpSection(Section):
    """Where `/healthz`, `/readyz` and `/metrics` answer; keep it inside the site."""

    listen: str = Field(default="127.0.0.1:9091", description="HOST:PORT")


class TunnelSection(Section):
    """Where machines dial, what the public reaches, and who may let machines in."""

    listen: str = Field(description="HOST:PORT of the ssh server")
    host: str = Field(max_length=253, description="name under which machines and the public reach this server")
    address: Address = Field(description="public numeric address of `host`")
    bind: Address = Field(description="the one local address on which public ports are opened")
    ports: PortRange = Field(description="public ports, FIRST-LAST")
    host_key: Path = Field(description="OpenSSH private key; made at the first start if it is missing")
    controllers: list[Fedid] = Field(description="fedids of the members that may grant leases")

    @property
    def port_range(self) -> range:
        """The public ports as numbers."""
        first, _, last = self.ports.partition("-")
        return range(int(first), int(last) + 1)


class LimitsSection(Section):
    """What one address, one machine or one port may take. The defaults suit a site of some thousand machines."""

    login_seconds: float = Field(default=20, gt=0, description="a connection that has not logged in by then is cut")
    keepalive_seconds: float = Field(default=15, gt=0, description="a silent machine is asked after so long")
    keepalive_count: int = Field(default=3, ge=1, description="and cut after so many unanswered questions")
    logins_at_once: int = Field(default=256, ge=1, description="connections that have not logged in yet, in all")
    logins_per_address: int = Field(default=32, ge=1, description="the same, from one address")
    failures_per_minute: int = Field(default=30, ge=1, description="failed logins from an address that holds no tunnel")
    channels: int = Field(default=256, ge=1, description="public connections through one ssh connection")
    connections_per_port: int = Field(default=256, ge=1, description="public connections to one port")


class TunnelConfig(Section):
    """The whole file."""

    identity: Identity
    xmpp: Xmpp
    store: Store
    http: HttpSection = HttpSection()
    tunnel: TunnelSection
    limits: LimitsSection = LimitsSection()
