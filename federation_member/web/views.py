"""What the API shows: the shapes of answers, and how they are made of the member's own types.

User data is write-only: it may hold secrets and may be large, so only its size is shown.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from federation_member.orders.model import Attempt, AttemptState, Explanation, Order, OrderEvent, OrderState, OrderType
from fedkit.protocol.lending import (
    Amounts,
    AnySpec,
    ComputeSpec,
    Flavour,
    Image,
    Instance,
    Power,
    SecurityRule,
    Tunnel,
    first_rules,
    references,
)

RULED = ("network", "public_ip")  # kinds that have security rules
SSH = "ssh"  # the name of the tunnel that every machine opens by itself


class View(BaseModel):
    """Base of answers."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class ComputeView(View):
    """The machine that was asked for."""

    kind: Literal["compute"]
    name: str
    image: str = Field(description="a name, a URL, or `snapshot:` and the order of a snapshot")
    image_sha256: str | None
    flavour: str | None
    requirements: str
    user_data_octets: int
    ssh_keys: list[str]
    networks: list[str]
    tunnel_ports: int


class NetworkView(View):
    """The network that was asked for."""

    kind: Literal["network"]
    name: str
    cidr: str
    gateway: str | None
    rules: list[SecurityRule]
    requirements: str


class VolumeView(View):
    """The disk that was asked for."""

    kind: Literal["volume"]
    name: str
    size_gb: int = Field(description="GiB")
    requirements: str


class AttachmentView(View):
    """Which disk is to be in which machine."""

    kind: Literal["attachment"]
    name: str
    machine: str = Field(description="its order")
    volume: str = Field(description="its order")
    device: str | None


class PublicIpView(View):
    """Which machine is to have a public address."""

    kind: Literal["public_ip"]
    name: str
    machine: str = Field(description="its order")
    rules: list[SecurityRule]


class SnapshotView(View):
    """The machine whose disk is kept."""

    kind: Literal["snapshot"]
    name: str
    machine: str = Field(description="its order")


class SegmentView(View):
    """The piece of an experiment that one testbed runs; the experiment itself tells more."""

    kind: Literal["segment"]
    name: str
    testbed: str


AnySpecView = ComputeView | NetworkView | VolumeView | AttachmentView | PublicIpView | SnapshotView | SegmentView
SpecView = Annotated[AnySpecView, Field(discriminator="kind")]
SPEC_VIEWS: dict[str, type[AnySpecView]] = {
    "compute": ComputeView,
    "network": NetworkView,
    "volume": VolumeView,
    "attachment": AttachmentView,
    "public_ip": PublicIpView,
    "snapshot": SnapshotView,
    "segment": SegmentView,
}


class TunnelView(View):
    """A port of the machine, reachable from outside at `host:port`."""

    name: str
    host: str
    port: int
    up: bool = Field(description="whether the machine holds it open now")
    command: str | None = Field(description="how to get there, where that can be said")


class OrderView(View):
    """One order."""

    id: str
    project: str
    user: str
    type: OrderType
    state: OrderState
    code: str = Field(description="stable error code that belongs to the reason; empty where nothing is wrong")
    reason: str = Field(description="why it is in this state")
    spec: SpecView
    location: str | None
    batch: str = Field(description="orders made by one request share it")
    valid_from: datetime | None
    valid_until: datetime | None
    lease_seconds: int
    created: datetime
    changed: datetime
    revision: int
    member: str | None = Field(description="name of the lender that holds the instance or works on it")
    member_fedid: str | None
    lease_id: str | None
    lease_expires: datetime | None
    instance: Instance | None
    tunnels: list[TunnelView]
    allocation: str | None = Field(description="fedid of the lender's grant, while there is one")
    certificates: list[str] = Field(description="OpenSSH certificates over the user's keys, for this machine only")
    credentials: list[str] = Field(description="what the lender says of who handles the machine; compact")
    uses: list[str] = Field(
        description="orders that it needs: it goes where they are, and they cannot be deleted before it"
    )
    used_by: list[str] = Field(description="orders that need this one")
    command: str | None = Field(description="how to sign in to the machine, where that can be said")
    power: Power | None = Field(description="of a machine, as it is now")
    wanted_power: Power | None = Field(description="while its lender is making it so")
    rules: list[SecurityRule] | None = Field(description="of a network or public address, as they are in force")
    wanted_rules: list[SecurityRule] | None = Field(description="while its lender is making it so")


class ConsoleView(View):
    """The end of what a machine wrote, without control characters."""

    text: str


class QuotaShown(View):
    """What the caller may have at a member, in the account that its policy maps them to; or why that is not known."""

    member: str
    fedid: str
    account: str | None
    total: Amounts | None = Field(description="what the account may have; null where nothing is counted or limited")
    used: Amounts | None = Field(description="what it has, whoever ordered it")
    mine: Amounts | None = Field(description="what the caller has of that")
    code: str = Field(description="stable error code; empty where there is an answer")
    reason: str


class QuotaPage(View):
    """Quotas, by member."""

    items: list[QuotaShown]


class OrderPage(View):
    """Some orders; `next` is the cursor of the page that follows, null at the end."""

    items: list[OrderView]
    next: str | None = None


class EventView(View):
    """One line of an order's history; `sequence` is the cursor of the event stream."""

    sequence: int
    order: str
    at: datetime
    state: OrderState
    code: str
    reason: str


class EventPage(View):
    """An order's history, oldest first."""

    items: list[EventView]


class SentView(View):
    """A credential that a member was shown; `kept` ones are the user's own, added because that member asked for them."""

    id: str
    statement: str
    kept: bool


class AttemptView(View):
    """One member that was asked, as whom and with what, and what came of it."""

    member: str
    fedid: str
    name: str = Field(description="the three-level name under which it was asked")
    sent: list[SentView]
    missing: list[list[str]] = Field(description="sets of statements, each of which would have done")
    proof: dict[str, JsonValue] | None = Field(description="by which it lends")
    state: AttemptState
    code: str
    reason: str
    started: datetime
    changed: datetime


class WhyView(View):
    """Why an order is where it is: who was asked, what they said, and when the next try is due."""

    order: OrderView
    attempts: list[AttemptView]
    events: list[EventView]
    next_try: datetime | None


class MemberView(View):
    """A member of the federation, and what it lends."""

    name: str
    fedid: str
    address: str
    alive: bool
    last_seen: datetime
    self: bool = Field(description="whether it is the member that answers")
    kinds: list[str]
    flavours: list[Flavour]
    images: list[Image]
    abilities: list[str] = Field(description="what can be done with what it lends: power, rules, console, quota, …")
    attributes: dict[str, str | int | float | bool]
    kits: list[str] = Field(description="federation kits that pieces of experiments can have there")


class MemberPage(View):
    """The federation as this member knows it."""

    items: list[MemberView]
    state: str = Field(description="whether the list is fresh, and why not if it is not")


class ImageView(View):
    """An image, and where it is on offer."""

    member: str
    name: str
    description: str


class ImagePage(View):
    """Images on offer."""

    items: list[ImageView]


class FlavourView(View):
    """A size of machine, and where it is on offer."""

    member: str
    name: str
    vcpu: int
    ram_mb: int = Field(description="MiB")
    disk_gb: int = Field(description="GiB")


class FlavourPage(View):
    """Sizes on offer."""

    items: list[FlavourView]


class TunnelPage(View):
    """The tunnels of one machine."""

    items: list[TunnelView]


def tunnel_view(order: Order, tunnel: Tunnel) -> TunnelView:
    """Show one tunnel with the command that uses it."""
    user = order.instance.user if order.instance else None
    command = _ssh_command(user, tunnel.host, tunnel.port) if tunnel.name == SSH and user else None
    return TunnelView(name=tunnel.name, host=tunnel.host, port=tunnel.port, up=tunnel.up, command=command)


def _command(order: Order) -> str | None:
    """How to sign in to a machine: by its public address, else by its tunnel."""
    machine = order.instance
    if machine is None or machine.user is None:
        return None
    if machine.public_address is not None:
        return _ssh_command(machine.user, machine.public_address, 22)
    tunnel = next((tunnel for tunnel in order.tunnels if tunnel.name == SSH), None)
    return None if tunnel is None else _ssh_command(machine.user, tunnel.host, tunnel.port)


def _ssh_command(user: str, host: str, port: int) -> str:
    """What to type."""
    return f"ssh{'' if port == 22 else f' -p {port}'} {user}@{host}"


def _spec_view(spec: AnySpec) -> AnySpecView:
    """What a view has a place for; user data it has none."""
    shown = spec.model_dump(exclude={"user_data"})
    if isinstance(spec, ComputeSpec):
        shown["user_data_octets"] = len(spec.user_data.encode())
    view = SPEC_VIEWS[spec.kind]
    return view.model_validate({name: shown[name] for name in view.model_fields})


def _rules(rules: Iterable[SecurityRule] | None, order: Order) -> list[SecurityRule] | None:
    return None if rules is None or order.spec.kind not in RULED else list(rules)


def order_view(order: Order) -> OrderView:
    """Show one order."""
    return OrderView(
        id=order.id,
        project=order.owner.project,
        user=order.owner.name,
        type=order.type,
        state=order.state,
        code=order.code,
        reason=order.reason,
        spec=_spec_view(order.spec),
        location=order.location,
        batch=order.batch,
        valid_from=order.valid_from,
        valid_until=order.valid_until,
        lease_seconds=order.lease_seconds,
        created=order.created,
        changed=order.changed,
        revision=order.revision,
        member=order.member,
        member_fedid=order.member_fedid,
        lease_id=order.lease_id,
        lease_expires=order.lease_expires,
        instance=order.instance,
        tunnels=[tunnel_view(order, tunnel) for tunnel in order.tunnels],
        allocation=order.handle.allocation if order.handle else None,
        certificates=list(order.handle.certificates) if order.handle else [],
        credentials=list(order.handle.credentials) if order.handle else [],
        uses=list(references(order.spec)),
        used_by=list(order.used_by),
        command=_command(order),
        power=order.instance.power if order.instance else None,
        wanted_power=order.wishes.power,
        rules=_rules(first_rules(order.spec) if order.rules is None else order.rules, order),
        wanted_rules=_rules(order.wishes.rules, order),
    )


def event_view(event: OrderEvent) -> EventView:
    """Show one event."""
    return EventView(
        sequence=event.sequence,
        order=event.order_id,
        at=event.at,
        state=event.state,
        code=event.code,
        reason=event.reason,
    )


def _attempt_view(attempt: Attempt) -> AttemptView:
    return AttemptView(
        member=attempt.member,
        fedid=attempt.fedid,
        name=attempt.name,
        sent=[SentView(id=sent.id, statement=sent.statement, kept=sent.kept) for sent in attempt.sent],
        missing=[list(wanted) for wanted in attempt.access.missing],
        proof=attempt.access.proof,
        state=attempt.state,
        code=attempt.code,
        reason=attempt.reason,
        started=attempt.started,
        changed=attempt.changed,
    )


def why_view(explanation: Explanation) -> WhyView:
    """Show why an order is where it is."""
    return WhyView(
        order=order_view(explanation.order),
        attempts=[_attempt_view(attempt) for attempt in explanation.attempts],
        events=[event_view(event) for event in explanation.events],
        next_try=explanation.next_try,
    )
