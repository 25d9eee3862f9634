"""The configuration that every component of the mesh has: who it is, where its XMPP server is, where it stores.

[identity]  key = "/etc/fedmesh/site-a.pem"
[xmpp]      address = "fm.site-a.test"   host = "192.0.2.1"   secret_file = "/etc/fedmesh/xmpp.secret"
[store]     url = "sqlite:////var/lib/fedmesh/member.db"
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field, StringConstraints

from fedkit.config import Section, UnusableConfig

Address = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$")]
BareJid = Annotated[str, StringConstraints(max_length=512, pattern=r"^[^@/\s]+(@[^@/\s]+)?$")]


class Identity(Section):
    """Who this component is."""

    key: Path = Field(description="PEM private key, readable by its owner alone; see `fed id create`")


class Xmpp(Section):
    """The component link (XEP-0114) to the site's own XMPP server."""

    address: Address = Field(description="our address in the mesh: a domain that the XMPP server serves for us")
    host: str = Field(max_length=253, description="name or address of the XMPP server, on the inside")
    port: int = Field(default=5347, ge=1, le=65535)
    secret_file: Path = Field(description="file with the component secret")
    keepalive: list[Address] = Field(
        default_factory=list,
        max_length=64,
        description="peers pinged every 25 s, so that a server-to-server connection that only we can open stays open",
    )
    operators: list[BareJid] = Field(
        default_factory=list, max_length=64, description="bare JIDs that may run ad-hoc commands (XEP-0050) here"
    )
    requests_per_second: float = Field(default=500.0, gt=0, description="accepted from one known peer")

    def secret(self) -> str:
        """Read the component secret; raise `UnusableConfig` naming the file."""
        try:
            return self.secret_file.read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            raise UnusableConfig(f"[xmpp] secret_file {self.secret_file} cannot be read: {error}.") from error


class Store(Section):
    """Where the component keeps what it must not forget."""

    url: str = Field(description="sqlite:///PATH or postgresql://USER@HOST/NAME", pattern=r"^(sqlite|postgresql)")
