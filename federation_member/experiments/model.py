"""Experiments: the types, without any I/O.

    allocating ─► starting ─► joining ─► active          every lender has promised; nodes come up; portals join; it is whole
         └───────────┴───────────┴────────┴──► terminating ──► terminated, or failed if it did not end by its user's wish

`terminated` and `failed` are final: nothing is left anywhere. While it is `terminating`, code and reason say why.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints

from federation_member.orders.model import Order, User
from fedkit.mesh.api import Peer
from fedkit.protocol.lending import Name, SshKey, Tunnel
from fedkit.protocol.segments import FEDERATION_KIT, SSH_KEYS_LIMIT, KitName, SegmentSpec, TestbedName
from fedkit.protocol.tunnel import TunnelServer
from fedkit.topology.formats import Form
from fedkit.topology.services import LINE_LIMIT

TEXT_LIMIT = 256 * 1024  # characters of a description, or of a file that comes with it
FILES_LIMIT = 16
FIRST, LAST = (
    datetime(2000, 1, 1, tzinfo=UTC),
    datetime(9000, 1, 1, tzinfo=UTC),
)  # what is certainly a mistake is refused
Moment = Annotated[AwareDatetime, Field(ge=FIRST, le=LAST)]
FileName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$")]


class State(StrEnum):
    """How far an experiment is."""

    ALLOCATING = "allocating"
    STARTING = "starting"
    JOINING = "joining"
    ACTIVE = "active"
    TERMINATING = "terminating"
    TERMINATED = "terminated"
    FAILED = "failed"


FINAL = frozenset({State.TERMINATED, State.FAILED})
ALIVE = frozenset({State.ALLOCATING, State.STARTING, State.JOINING, State.ACTIVE})


class Party(BaseModel):
    """Some of the testbeds are one party's alone: nobody of another one sees or reaches them."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    testbeds: list[TestbedName] = Field(
        min_length=1, max_length=256, description="NAME stands for all of NAME/… that no party has by their full names"
    )
    ssh_keys: list[SshKey] = Field(
        default_factory=list, max_length=32, description="who, besides the owner, may enter the nodes of these testbeds"
    )


class NewExperiment(BaseModel):
    """What a researcher asks for."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Name = Field(description="the experimenter's own; no two of theirs that run have the same")
    description: str = Field(max_length=TEXT_LIMIT, description="an ns2 program, a topdl file or an RSpec request")
    file: FileName = Field(default="experiment", description="what the description is called where it is wrong")
    form: Form | None = Field(default=None, description="what the description is; found out if it is not said")
    files: dict[FileName, Annotated[str, StringConstraints(max_length=TEXT_LIMIT)]] = Field(
        default_factory=dict, max_length=FILES_LIMIT, description="what an ns2 program sources"
    )
    project: Name | None = Field(default=None, description="one of the user's; without it, their default project")
    members: dict[TestbedName, Annotated[str, StringConstraints(min_length=1, max_length=253)]] = Field(
        default_factory=dict,
        max_length=256,
        description="testbed to name, address or fedid of its member; a testbed called like a member is that one, "
        "and any other goes to whoever lends it",
    )
    places: dict[TestbedName, int | None] = Field(
        default_factory=dict,
        max_length=256,
        description="where computers that name no testbed may go, and how many at most; without it, all members",
    )
    portals: int = Field(default=1, ge=1, le=64, description="between two testbeds, at most")
    services: list[Annotated[str, StringConstraints(max_length=LINE_LIMIT)]] = Field(
        default_factory=list, max_length=64, description="name:exporters:importers:attribute=value;…"
    )
    kit: KitName = Field(
        default=FEDERATION_KIT, description="what joins its pieces and runs on its nodes: one that is installed here"
    )
    ssh_keys: list[SshKey] = Field(
        default_factory=list,
        max_length=SSH_KEYS_LIMIT,
        description="who may enter its nodes, besides whoever has the experiment's key",
    )
    parties: dict[Name, Party] = Field(
        default_factory=dict, max_length=16, description="testbeds of no party are shared by all of them"
    )
    valid_until: Moment | None = Field(default=None, description="terminated at this time")


class Extension(BaseModel):
    """What an experiment is being extended by: what it will be like, and by their numbers the pieces that change or are new."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    description: str
    routing: str | None
    services: tuple[str, ...]
    specs: dict[int, SegmentSpec]
    before: dict[int, SegmentSpec]
    added: tuple[int, ...]
    since: datetime
    is_made: bool = False


@dataclass(frozen=True)
class Planned:
    """A piece and where it goes; `member` is None if anybody may lend it."""

    spec: SegmentSpec
    member: str | None


@dataclass(frozen=True)
class Experiment:
    """One experiment."""

    id: str
    name: str
    owner: User
    state: State
    code: str
    reason: str
    fedid: str
    description: str
    routing: str | None
    services: tuple[str, ...]
    portals: int
    created: datetime
    changed: datetime
    valid_until: datetime | None
    warned: bool
    events: int
    parties: Mapping[str, Party] = field(default_factory=dict)
    about: tuple[str, ...] | None = None
    """The testbeds that code and reason are about; None: whoever sees but a part of it is not told."""
    extension: Extension | None = None
    kit: str = FEDERATION_KIT


@dataclass(frozen=True)
class RelayPort:
    """A port of our own tunnel server, which a portal of a closed site holds by its key.

    `port` is None until the server granted it, `described` until it said where it is dialled. `reason`: why it refused, if it did.
    """

    id: str
    experiment_id: str
    testbed: str
    connector: str
    public_key: str
    server: Peer
    expires: datetime
    revision: int = 0
    port: Tunnel | None = None
    described: TunnelServer | None = None
    reason: str = ""
    retry: datetime | None = None


@dataclass(frozen=True)
class Segment:
    """One of its pieces: the order that has it lent (None: forgotten long after it ended) and what its lender was told last.

    Its order tells, besides what the lender does, where portals are reached by `relays` of ours (by connector).
    `started` is when that lender was told to start it, or to make it another; code and reason say why it was given up for good, if it was.
    """

    number: int
    testbed: str
    order_id: str
    told_lease: str | None
    told: str | None
    order: Order | None
    started: datetime | None = None
    code: str = ""
    reason: str = ""
    relays: Mapping[str, RelayPort] = field(default_factory=dict)


@dataclass(frozen=True)
class Event:
    """One line of an experiment's log."""

    number: int
    at: datetime
    state: State
    code: str
    reason: str
    about: tuple[str, ...] | None = None
    """As an experiment's."""


@dataclass(frozen=True)
class Whole:
    """An experiment with its segments."""

    experiment: Experiment
    segments: tuple[Segment, ...]


@dataclass(frozen=True)
class Grant:
    """A credential that gives somebody a role in an experiment."""

    principal: str
    expires: datetime
    credential: str
