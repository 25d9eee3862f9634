"""What an order names and the cloud knows by an id: flavours and networks."""

from __future__ import annotations

from fnmatch import fnmatchcase

import structlog
from pydantic import Field

from federation_member.middleware.contract import Unavailable, UnknownFlavour
from federation_member.middleware.openstack.connection import Cloud
from federation_member.middleware.openstack.kinds import Context, Described, Remembered, Thing
from fedkit.protocol.lending import Flavour

log = structlog.get_logger()
KEPT = 60.0  # seconds


class NovaFlavour(Thing):
    """As Nova tells it."""

    name: str = Field(max_length=255)
    vcpus: int
    ram: int
    disk: int
    is_public: bool = Field(default=True, alias="os-flavor-access:is_public")


class Network(Described):
    """As Neutron tells it."""

    subnets: tuple[str, ...] = ()
    port_security_enabled: bool = True


class Flavours:
    """Sizes that are lent."""

    def __init__(self, context: Context) -> None:
        self._wanted = context.config.flavours
        self._all = Remembered(self._look, KEPT)
        self._warned: set[str] = set()

    async def offered(self, cloud: Cloud) -> list[Flavour]:
        """Those that can be ordered."""
        return [
            Flavour(name=one.name, vcpu=one.vcpus, ram_mb=one.ram, disk_gb=one.disk)
            for one in await self._all.get(cloud)
            if self._is_usable(one)
        ]

    async def id_of(self, cloud: Cloud, flavour: Flavour) -> str:
        """What the account's cloud calls it; raises `UnknownFlavour`."""
        known = [one for one in await self._all.get(cloud) if self._is_usable(one)]
        for one in known:
            if one.name == flavour.name:
                return one.id
        names = ", ".join(one.name for one in known)
        raise UnknownFlavour(f"The account {cloud.account} has no flavour {flavour.name}; it has {names}.")

    def _is_usable(self, flavour: NovaFlavour) -> bool:
        if not any(fnmatchcase(flavour.name, pattern) for pattern in self._wanted):
            return False
        if not flavour.is_public and flavour.name not in self._wanted:
            return False  # a wild card means what everybody may have
        if flavour.vcpus >= 1 and flavour.ram >= 1 and flavour.disk >= 0 and len(flavour.name) <= 128:
            return True
        if flavour.name not in self._warned:
            self._warned.add(flavour.name)
            log.warning(
                "flavour_ignored", flavour=flavour.name, reason="it has no processor, no memory or too long a name"
            )
        return False

    def forget(self, cloud: Cloud) -> None:
        """They have changed."""
        self._all.forget(cloud)

    async def _look(self, cloud: Cloud) -> list[NovaFlavour]:
        return await cloud.all("compute", "/flavors/detail", "flavors", NovaFlavour, limit=1000)


class Networks:
    """The networks that the configuration names."""

    def __init__(self, context: Context) -> None:
        config = context.config
        self._site = Remembered(lambda cloud: _network(cloud, config.network), KEPT)
        self._public = Remembered(lambda cloud: _network(cloud, config.public_network or ""), KEPT)

    async def site(self, cloud: Cloud) -> Network:
        """The one that every machine stands in."""
        return await self._site.get(cloud)

    async def public(self, cloud: Cloud) -> Network:
        """The one that public addresses come from."""
        return await self._public.get(cloud)

    def forget(self, cloud: Cloud) -> None:
        """They have changed."""
        self._site.forget(cloud)
        self._public.forget(cloud)


async def _network(cloud: Cloud, name: str) -> Network:
    for field in ("name", "id"):
        query: dict[str, str] = {field: name}
        found = await cloud.all("network", "/networks", "networks", Network, **query)
        if found:
            return min(found, key=lambda network: network.id)
    raise Unavailable(
        f"The account {cloud.account} sees no network {name!r} in the cloud; share it with the account's project, or correct "
        "[middleware.options]."
    )
