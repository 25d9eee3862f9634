"""Options of the `openstack` kind, `[middleware.options]` in member.toml.

    site = "site-b"                              marks what is ours in the cloud; two members need two of them
    auth_url = "https://keystone.site-b.test:5000/v3"
    network = "intranet"                         every machine stands in it, and reaches the tunnel server from it
    [middleware.options.accounts.federation]     local accounts that policy rules may name: one project each
    user = "federation"
    password_file = "/etc/fedmesh/federation.password"
    project = "federation"
    [middleware.options.admin]                   only where rules make accounts of their own (`create`)

Secrets stand in files of their own, and are read again whenever the cloud no longer takes what was read before.
"""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from federation_member.middleware.guest import How
from federation_member.middleware.images import ImagesConfig
from fedkit.config import Section

AccountName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9_][a-z0-9_.-]{0,62}$")]
CloudName = Annotated[str, StringConstraints(min_length=1, max_length=255)]  # a name or an id in the cloud
Seconds = Annotated[float, Field(gt=0, le=3600)]


class Credentials(Section):
    """How to sign in to Keystone: a user's password, or an application credential (which is bound to its project)."""

    user: CloudName | None = None
    user_domain: CloudName = "Default"
    password_file: Path | None = None
    project: CloudName | None = Field(default=None, description="name of the project, or its id")
    project_domain: CloudName = "Default"
    application_credential: CloudName | None = Field(default=None, description="its id")
    secret_file: Path | None = Field(default=None, description="holds the application credential's secret")

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if self.application_credential is not None:
            if self.secret_file is None or self.user or self.password_file or self.project:
                raise ValueError("an application credential needs secret_file, and neither user, password nor project")
        elif self.user is None or self.password_file is None or self.project is None or self.secret_file:
            raise ValueError("give user, password_file and project, or application_credential and secret_file")
        return self

    @property
    def secret(self) -> Path:
        """The file that holds the secret."""
        path = self.secret_file or self.password_file
        assert path is not None
        return path


class Admin(Credentials):
    """Who makes accounts: a user that may make projects in a domain, and use the role in them. Needs a password."""

    domain: CloudName = Field(default="Default", description="where projects are made: a domain's name or id")
    role: CloudName = Field(default="member", description="what the user is in a project that it made")

    @model_validator(mode="after")
    def _can_change_projects(self) -> Self:
        if self.application_credential is not None:
            raise ValueError(
                "an application credential is bound to one project; the admin needs user and password_file"
            )
        return self


class OfferedImage(Section):
    """One image on offer."""

    image: CloudName = Field(description="its name or id in Glance")
    user_data: How | None = Field(default=None, description="how it treats user data, if unlike the others")
    portal: bool = Field(default=False, description="portals of experiments run in it: OpenSSH, taps and bridges")
    delays: bool = Field(default=False, description="the federation's portal program is in it (docs/portals.md)")
    description: str = Field(default="", max_length=512)


class Timeouts(Section):
    """How long is waited for the cloud, in seconds."""

    connect: Seconds = Field(default=5.0, description="for a connection")
    answer: Seconds = Field(default=30.0, description="for the answer to one call, from its first octet to its last")
    call: Seconds = Field(default=45.0, description="for one call in all, its turn among the others included")
    removal: Seconds = Field(default=180.0, description="until something that was deleted is gone")
    stalled: Seconds = Field(
        default=1800.0, description="until what is being made, and has not changed in any way since, has failed"
    )


class OpenStackConfig(Section):
    """Which cloud, as whom, and what of it is lent."""

    site: str = Field(
        pattern=r"^[a-z0-9]([a-z0-9.-]{0,38}[a-z0-9])?$",
        description="marks what is ours in this cloud; never change it while something is lent",
    )
    auth_url: str = Field(
        pattern=r"^https?://[^\s]+$", max_length=512, description="Keystone, such as https://HOST:5000/v3"
    )
    region: str | None = Field(default=None, max_length=255)
    interface: Literal["public", "internal", "admin"] = "public"
    ca: Path | None = Field(default=None, description="PEM file of the authorities that sign the cloud's certificates")
    accounts: dict[AccountName, Credentials] = Field(default_factory=dict, max_length=1000)
    admin: Admin | None = None

    network: CloudName = Field(description="name or id of the network that every machine stands in; has a subnet")
    public_network: CloudName | None = Field(
        default=None, description="external network that public addresses come from"
    )
    public_addresses: bool = Field(default=False, description="every machine gets one at once, and no tunnel")
    routed: bool = Field(default=False, description="an ordered network with a gateway gets a router to public_network")
    ssh_from: list[IPv4Network | IPv6Network] = Field(
        default=[IPv4Network("0.0.0.0/0"), IPv6Network("::/0")],
        max_length=32,
        description="prefixes from which a machine's ssh and ping can be reached, as far as its network can",
    )

    flavours: list[str] = Field(
        default=["*"], max_length=256, description="which are lent, by name; * and ? mean public ones"
    )
    images: dict[CloudName, OfferedImage] = Field(
        default_factory=dict, max_length=1024, description="which are lent; without any, all that the accounts see"
    )
    user_data: How = Field(default=How.CLOUD_INIT, description="how images treat user data")
    images_from_urls: ImagesConfig | None = Field(
        default=None,
        description="if given, users may name images by URL and checksum, and this is how they are fetched",
    )

    connections: int = Field(default=8, ge=1, le=64, description="calls at the same time, all accounts together")
    timeouts: Timeouts = Timeouts()
    poll: Seconds = Field(default=5.0, description="between two looks for machines that changed by themselves")

    @model_validator(mode="after")
    def _addresses_come_from_somewhere(self) -> Self:
        if self.public_network is None and (self.public_addresses or self.routed):
            raise ValueError("public_addresses and routed need public_network")
        return self
