"""What one member asks of another: to lend, to say how it goes, to take back.

The borrower names every lease itself (`lease_id`, a UUID made before the first attempt), so that repeating a request
is harmless. Operations (borrower → lender unless said otherwise):

| operation        | kind    | body           | answer       |
|------------------|---------|----------------|--------------|
| `lease.create`   | command | LeaseCreate    | LeaseView    | at once: accepted (state `accepted`) or refused with a reason
| `lease.release`  | command | LeaseRelease   | LeaseView    | also for a lease never seen: it can then never be created
| `lease.change`   | command | LeaseChange    | LeaseView    | how it is to be from now on: power, security rules
| `lease.console`  | query   | LeaseConsole   | Console      | what the machine said last
| `segment.operate`| query   | Operate        | Operated     | stops, starts, looks at nodes of a segment (protocol/segments.py)
| `lease.sync`     | query   | LeaseSync      | LeaseSynced  | renews what is named, tells the state of each
| `lease.changed`  | command | LeaseChanged   | Empty        | lender → borrower
| `lease.room`     | command | Empty          | Empty        | lender → borrower that it turned away: ask again
| `offer.get`      | query   | Empty          | Offer        |
| `quota.get`      | query   | QuotaGet       | QuotaView    | of the account that a user is mapped to
| `tunnel.open`    | command | TunnelOpen     | LeaseView    |
| `tunnel.close`   | command | TunnelClose    | LeaseView    |
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from ipaddress import ip_network
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, AwareDatetime, Field, StringConstraints, model_validator

from fedkit.protocol import Body
from fedkit.protocol.segments import FEDERATION_KIT, KitName, SegmentGo, SegmentInfo, SegmentSpec

USER_DATA_LIMIT = 256 * 1024  # octets of UTF-8
CREDENTIALS_LIMIT = 64  # that come with one request
CREDENTIALS_SIZE = 32 * 1024  # characters of all of them
Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")]
Fedid = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{40}$")]
Uuid = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Ipv4 = Annotated[str, StringConstraints(pattern=r"^\d{1,3}(\.\d{1,3}){3}$")]
Port = Annotated[int, Field(ge=1, le=65535)]
RULES_LIMIT = 64  # security rules of one network or public address
SNAPSHOT = "snapshot:"  # before the id of a snapshot, where an image is named
Line = Annotated[str, StringConstraints(min_length=1, max_length=16 * 1024, pattern=r"^[ -~]*$")]
CONSOLE_LIMIT = 32 * 1024
SPELL_LIMIT = 2**31 - 1  # of each number in a spell
SshKey = Annotated[str, StringConstraints(max_length=4096, pattern=r"^(ssh-|ecdsa-|sk-)[^\n\r]+$")]


def _check_size(credentials: list[str]) -> list[str]:
    if sum(map(len, credentials)) > CREDENTIALS_SIZE:
        raise ValueError(f"the credentials of a request have at most {CREDENTIALS_SIZE} characters together")
    return credentials


Credentials = Annotated[list[str], Field(max_length=CREDENTIALS_LIMIT), AfterValidator(_check_size)]


class Flavour(Body):
    """A size of machine that a member lends."""

    name: str = Field(max_length=128)
    vcpu: int = Field(ge=1)
    ram_mb: int = Field(ge=1, description="MiB")
    disk_gb: int = Field(ge=0, description="GiB")


class Image(Body):
    """An image that a member can boot."""

    name: str = Field(max_length=128)
    description: str = Field(default="", max_length=512)
    portal: bool = Field(default=False, description="portals of experiments run in it: OpenSSH, taps and bridges")
    delays: bool = Field(
        default=False,
        exclude=True,  # nobody is told: it is its lender's own affair
        description="the federation's portal program is in it, so its portals can delay frames and lose them",
    )


class Ability(StrEnum):
    """What a lender can do beyond making and removing; each is a capability of its middleware."""

    POWER = "power"  # stop, start, pause
    RULES = "rules"  # change security rules while they are in use
    CONSOLE = "console"
    QUOTA = "quota"  # say what an account may have and has
    IMAGE_URLS = "image_urls"  # fetch an image from where its user says
    ADDRESSES = "addresses"  # every machine has a public address, and needs no tunnel
    TUNNELS = "tunnels"  # a port of a machine can be reached from outside, by a tunnel server


class Offer(Body):
    """What a member lends, as it announces it."""

    kinds: list[str] = Field(default_factory=list, max_length=32, description="order kinds: compute, network, …")
    flavours: list[Flavour] = Field(default_factory=list, max_length=256)
    images: list[Image] = Field(default_factory=list, max_length=1024)
    abilities: list[Ability | str] = Field(
        default_factory=list, max_length=32, description="what can be done with what is lent; unknown ones are ignored"
    )
    attributes: dict[str, str | int | float | bool] = Field(
        default_factory=dict, max_length=64, description="names for requirement expressions, such as arch or gpu"
    )
    kits: list[KitName] = Field(
        default_factory=lambda: [FEDERATION_KIT],
        max_length=32,
        exclude_if=lambda kits: kits == [FEDERATION_KIT],
        description="federation kits that segments can have",
    )

    @property
    def portal_image(self) -> Image | None:
        """What portals run in: the first image that is marked for them."""
        return next((image for image in self.images if image.portal), None)


class Power(StrEnum):
    """Whether a machine works. A stopped one keeps its disk, its addresses and its lease."""

    RUNNING = "running"
    PAUSED = "paused"
    STOPPED = "stopped"


class SecurityRule(Body):
    """One kind of traffic that is let through; whatever no rule names is not."""

    direction: Literal["in", "out"] = "in"
    protocol: Literal["tcp", "udp", "icmp", "any"] = "tcp"
    ports: tuple[Port, Port] | None = Field(default=None, description="first and last, of tcp and udp; none: all")
    cidr: str | None = Field(default=None, max_length=43, description="the other side's prefix; none: everybody")

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        if self.ports is not None and self.protocol not in ("tcp", "udp"):
            raise ValueError(f"{self.protocol} has no ports")
        if self.ports is not None and self.ports[0] > self.ports[1]:
            raise ValueError("the first port comes before the last")
        if self.cidr is not None:
            ip_network(self.cidr)
        return self


Rules = Annotated[list[SecurityRule], Field(max_length=RULES_LIMIT)]


class ComputeSpec(Body):
    """A machine. The lender chooses its smallest flavour that fits `flavour` and `requirements`."""

    kind: Literal["compute"] = "compute"
    name: Name = "machine"
    image: str = Field(
        min_length=1,
        max_length=2048,
        description="a name that the member offers, an http(s) URL, or `snapshot:` and the id of a snapshot",
    )
    image_sha256: Sha256 | None = Field(default=None, description="of what the URL gives; a URL needs it")
    flavour: str | None = Field(default=None, max_length=128)
    requirements: str = Field(default="", max_length=4096, description="a CEL expression; empty accepts all")
    user_data: str = Field(default="", max_length=USER_DATA_LIMIT)
    ssh_keys: list[SshKey] = Field(default_factory=list, max_length=32)
    networks: list[Uuid] = Field(default_factory=list, max_length=32, description="lease ids of networks, same lender")
    addresses: dict[Uuid, Ipv4] = Field(
        default_factory=dict, max_length=32, description="its address in a network, where it must be that one"
    )
    carries_frames: bool = Field(
        default=False,
        description="it forwards others' frames between its networks, as portals do, and may administer its network; "
        "it has an address only in networks where `addresses` says so",
    )
    tunnel_ports: int = Field(default=4, ge=1, le=64, description="how many tunnel ports its machine may hold")

    @property
    def from_url(self) -> bool:
        """Whether the image is to be fetched."""
        return self.image.startswith(("http://", "https://"))

    @model_validator(mode="after")
    def _is_certain(self) -> Self:
        if not self.addresses.keys() <= set(self.networks):
            raise ValueError("addresses are in networks that it joins")
        if self.from_url != (self.image_sha256 is not None):
            raise ValueError("image_sha256 belongs to an image from a URL, and such an image needs it")
        return self


class NetworkSpec(Body):
    """A private network at one lender; machines join it by its order."""

    kind: Literal["network"] = "network"
    name: Name = "network"
    cidr: str = Field(max_length=43, description="IPv4 prefix, such as 10.8.0.0/24")
    gateway: str | None = Field(default=None, max_length=39)
    verbatim: bool = Field(
        default=False,
        description="frames pass as they are, whoever they say they are from: a portal joins it to another",
    )
    rules: Rules = Field(default_factory=list, description="what may pass between its machines and others")
    requirements: str = Field(default="", max_length=4096)


class VolumeSpec(Body):
    """A disk that outlives the machines it is attached to."""

    kind: Literal["volume"] = "volume"
    name: Name = "volume"
    size_gb: int = Field(ge=1, le=1 << 20, description="GiB")
    requirements: str = Field(default="", max_length=4096)


class AttachmentSpec(Body):
    """A volume in a machine, at the lender of both."""

    kind: Literal["attachment"] = "attachment"
    name: Name = "attachment"
    machine: Uuid
    volume: Uuid
    device: str | None = Field(default=None, pattern=r"^/dev/[a-z0-9]{1,16}$", description="a wish, not a promise")


class PublicIpSpec(Body):
    """A public address for a machine, at its lender."""

    kind: Literal["public_ip"] = "public_ip"
    name: Name = "address"
    machine: Uuid
    rules: Rules = Field(default_factory=list, description="what may come in by it; none given: ssh and icmp")


class SnapshotSpec(Body):
    """The disk of a machine as it is at one moment, to be used as an image at the same lender."""

    kind: Literal["snapshot"] = "snapshot"
    name: Name = "snapshot"
    machine: Uuid


SSH_AND_ICMP = (SecurityRule(protocol="tcp", ports=(22, 22)), SecurityRule(protocol="icmp"))

UserSpec = (
    ComputeSpec | NetworkSpec | VolumeSpec | AttachmentSpec | PublicIpSpec | SnapshotSpec
)  # what users order one by one
AnySpec = UserSpec | SegmentSpec
Spec = Annotated[AnySpec, Field(discriminator="kind")]


def references(spec: AnySpec) -> dict[str, str]:
    """What else `spec` needs: id (of orders at home, of leases at the lender) to the kind that it must be."""
    match spec:
        case ComputeSpec():
            needed = dict.fromkeys(spec.networks, "network")
            if spec.image.startswith(SNAPSHOT):
                needed[spec.image.removeprefix(SNAPSHOT)] = "snapshot"
            return needed
        case AttachmentSpec():
            return {spec.machine: "compute", spec.volume: "volume"}
        case PublicIpSpec() | SnapshotSpec():
            return {spec.machine: "compute"}
        case NetworkSpec() | VolumeSpec() | SegmentSpec():
            return {}


def with_references(spec: AnySpec, named: Mapping[str, str]) -> AnySpec:
    """The same, each reference replaced by what it is `named` elsewhere."""
    match spec:
        case ComputeSpec():
            changes: dict[str, Any] = {
                "networks": [named[network] for network in spec.networks],
                "addresses": {named[network]: address for network, address in spec.addresses.items()},
            }
            if spec.image.startswith(SNAPSHOT):
                changes["image"] = SNAPSHOT + named[spec.image.removeprefix(SNAPSHOT)]
            return spec.model_copy(update=changes)
        case AttachmentSpec():
            return spec.model_copy(update={"machine": named[spec.machine], "volume": named[spec.volume]})
        case PublicIpSpec() | SnapshotSpec():
            return spec.model_copy(update={"machine": named[spec.machine]})
        case NetworkSpec() | VolumeSpec() | SegmentSpec():
            return spec


def first_rules(spec: AnySpec) -> tuple[SecurityRule, ...]:
    """The rules that are in force once `spec` is made, until they are changed."""
    match spec:
        case NetworkSpec():
            return tuple(spec.rules)
        case PublicIpSpec():
            return tuple(spec.rules) or SSH_AND_ICMP
        case _:
            return ()


class LeaseState(StrEnum):
    """Where a lease is at its lender. `released`, `failed` and `refused` are final and hold no instance."""

    ACCEPTED = "accepted"
    RUNNING = "running"
    FAILING = "failing"
    FAILED = "failed"
    RELEASING = "releasing"
    RELEASED = "released"


class Tunnel(Body):
    """A port of the machine, reachable at `host:port` of a DMZ."""

    name: str = Field(max_length=64)
    host: str = Field(max_length=253)
    port: int = Field(ge=1, le=65535)
    up: bool = Field(description="whether the machine holds it open now")
    address: str | None = Field(default=None, max_length=45, description="of `host`, for machines that can ask nobody")


class Instance(Body):
    """What the middleware made, as its borrower may see it."""

    name: str = Field(max_length=128)
    flavour: Flavour | None = None
    address: str | None = Field(default=None, description="inside the lender's intranet")
    user: str | None = Field(default=None, description="account that holds the ssh keys")
    host_keys: list[str] = Field(default_factory=list, max_length=8, description="of the machine's ssh server")
    cidr: str | None = None
    public_address: str | None = Field(default=None, description="reachable from everywhere, without a tunnel")
    size_gb: int | None = Field(default=None, description="GiB, of a volume or snapshot")
    device: str | None = Field(
        default=None, max_length=64, description="what an attached volume is called in its machine"
    )
    power: Power | None = Field(default=None, description="of a machine, as it is now")
    segment: SegmentInfo | None = None


class LeaseCreate(Body):
    """Ask for one instance, for a user for whom the borrower acts.

    A refusal by the lender's policy has the code `member.not_allowed` and, in its details, `missing`: the smallest sets of
    statements that would do, each a list of texts. The borrower may ask again with credentials that say so.
    """

    lease_id: Uuid
    name: str = Field(
        min_length=3,
        max_length=400,
        description="three-level name of the user, asserted by the sender: FEDID/project/user",
    )
    principal: Fedid = Field(description="the user's own fedid; everything is proved of it")
    credentials: Credentials = Field(
        default_factory=list,
        description="compact: what the name and the lender's rule need, U.acting_for <- sender too",
    )
    spec: Spec
    seconds: int = Field(ge=10, le=7 * 86400, description="how long the lease lasts if it is not renewed")


class LeaseRelease(Body):
    """Take the instance back, whatever state it is in."""

    lease_id: Uuid


class ProofStep(Body):
    """`subject` has `role`, by the credential that says `statement` and because of the steps with these indexes."""

    role: Line
    subject: Line
    statement: Line
    credential: str = Field(pattern=r"^[0-9a-f]{64}$", description="its id")
    expires: datetime
    because: list[int] = Field(max_length=256, description="indexes of earlier steps")


def _check_steps(steps: list[ProofStep]) -> list[ProofStep]:
    if not all(0 <= earlier < index for index, step in enumerate(steps) for earlier in step.because):
        raise ValueError("a step of a proof rests on earlier steps only")
    return steps


class Grounds(Body):
    """Why something is lent: by which of the lender's rules, and proofs of the user's name and, last, of the rule's goal."""

    rule: Line
    proofs: list[Annotated[list[ProofStep], Field(min_length=1), AfterValidator(_check_steps)]] = Field(
        min_length=1, max_length=64
    )


class Spell(Body):
    """A time in which a lease held the same: what accounts are made of. A stopped machine holds its disk alone.

    Spells of a lease are numbered from 1 and follow one another; there is none while the lease does not run.
    """

    number: Annotated[int, Field(ge=1, le=SPELL_LIMIT)]
    vcpu: Annotated[int, Field(ge=0, le=SPELL_LIMIT)]
    ram_mb: Annotated[int, Field(ge=0, le=SPELL_LIMIT, description="MiB")]
    disk_gb: Annotated[int, Field(ge=0, le=SPELL_LIMIT, description="GiB")]
    began: AwareDatetime
    ended: AwareDatetime | None = None

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.ended is not None and self.ended < self.began:
            raise ValueError("a spell ends after it began")
        return self


class LeaseView(Body):
    """A lease as its lender sees it; `revision` grows with every change, so that a late message is recognised."""

    lease_id: Uuid
    state: LeaseState
    revision: int
    code: str = Field(default="", description="stable error code where state is failed")
    reason: str = Field(default="", max_length=1024)
    expires: datetime
    instance: Instance | None = None
    tunnels: list[Tunnel] = Field(default_factory=list, max_length=64)
    allocation: Fedid | None = Field(default=None, description="the grant's own fedid, while it is used")
    certificates: list[str] = Field(
        default_factory=list,
        max_length=32,
        description="OpenSSH certificates over the user's keys, for this machine only",
    )
    credentials: list[str] = Field(
        default_factory=list, max_length=4, description="compact: what the lender says of who handles what it lent"
    )
    proof: Grounds | None = Field(default=None, description="why it is lent; in the answer to lease.create alone")
    wanted_power: Power | None = Field(default=None, description="of a machine, while it is not yet so")
    rules: Rules = Field(default_factory=list, description="of a network or public address, as they are in force")
    wanted_rules: Rules | None = Field(default=None, description="while they are not yet in force")
    spells: list[Spell] = Field(
        default_factory=list, max_length=2, description="the last two; every change of one is told, none is left out"
    )


class LeaseChange(Body):
    """How a lease is to be from now on; what is not named stays. Told to the machine's lender, who makes it so."""

    lease_id: Uuid
    power: Power | None = None
    rules: Rules | None = None
    segment: SegmentGo | None = None


class LeaseConsole(Body):
    """Ask for the end of what a machine wrote on its console."""

    lease_id: Uuid


class Console(Body):
    """The end of it, at most `CONSOLE_LIMIT` characters."""

    text: str = Field(max_length=CONSOLE_LIMIT)


class Amounts(Body):
    """So much of everything; None where nothing is counted or limited."""

    machines: int | None = Field(default=None, ge=0)
    vcpu: int | None = Field(default=None, ge=0)
    ram_mb: int | None = Field(default=None, ge=0)
    volumes: int | None = Field(default=None, ge=0)
    volume_gb: int | None = Field(default=None, ge=0)
    networks: int | None = Field(default=None, ge=0)
    public_ips: int | None = Field(default=None, ge=0)


class QuotaGet(Body):
    """Ask for the quota of the account that this user would be mapped to, if they asked for a machine."""

    name: str = Field(min_length=3, max_length=400, description="three-level name, asserted by the sender")
    principal: Fedid
    credentials: Credentials = Field(default_factory=list, description="compact: as in lease.create")


class QuotaView(Body):
    """Of one account at a lender: what it may have, what it has, and what the asking user has of that."""

    account: str = Field(max_length=128)
    total: Amounts
    used: Amounts
    mine: Amounts


class LeaseChanged(Body):
    """The lender tells its borrower the new state."""

    lease: LeaseView


class LeaseSync(Body):
    """Renew these leases (those not final) and tell their states.

    No lease is renewed beyond the end of a credential in its proof. Before that comes, `credentials` brings fresh ones for the
    users of these leases; the lender proves again what they replace, and leaves as it is a lease for which that fails.
    """

    lease_ids: list[Uuid] = Field(max_length=200)
    seconds: int = Field(ge=10, le=7 * 86400)
    credentials: Credentials = Field(default_factory=list, description="compact: as in lease.create, of later expiry")


class LeaseSynced(Body):
    """The states of what was asked; `unknown` names leases that the lender has never seen or has forgotten."""

    leases: list[LeaseView] = Field(max_length=200)
    unknown: list[Uuid] = Field(max_length=200)


class TunnelOpen(Body):
    """Reserve a port under a name for the machine of this lease."""

    lease_id: Uuid
    name: Name


class TunnelClose(Body):
    """Give the port of that name back."""

    lease_id: Uuid
    name: Name
