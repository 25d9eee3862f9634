"""What the API shows of experiments."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from pydantic import Field

from federation_member.experiments.failing import nodes_told
from federation_member.experiments.granting import Granted
from federation_member.experiments.joining import info_of
from federation_member.experiments.model import ALIVE, Event, Experiment, Grant, Segment, State, Whole
from federation_member.orders.model import OrderState
from federation_member.web.views import View
from fedkit.protocol.segments import LOGIN, NodeInfo, PortalInfo
from fedkit.topology import topdl


class ExperimentView(View):
    """An experiment. While it is `terminating`, code and reason say why; `failed` is an end, and leaves nothing."""

    id: str
    name: str
    project: str
    user: str
    state: State
    code: str
    reason: str
    fedid: str = Field(description="the experiment's own; its key says who may operate it")
    kit: str = Field(description="what joins its pieces and runs on its nodes")
    created: datetime
    changed: datetime
    valid_until: datetime | None
    ends_soon: bool = Field(description="that it ends unless it is renewed; its log says so too")
    extending: bool = Field(description="that more is being added to it; its log says what comes of that")


class ExperimentList(View):
    """The caller's own, newest first."""

    items: list[ExperimentView]


class SegmentPart(View):
    """The piece of one testbed."""

    testbed: str
    order: str
    member: str | None
    state: OrderState | None
    code: str
    reason: str
    nodes: list[NodeInfo]
    portals: list[PortalInfo]


class WholeView(ExperimentView):
    """An experiment with its pieces."""

    segments: list[SegmentPart]


class MadeView(WholeView):
    """A new one; its key is not shown again."""

    credential: str = Field(description="compact: by which its owner may operate it, wherever they are")
    private_key: str = Field(
        description="of the experiment itself, two PEM blocks. Whoever has the first (Ed25519) may let others operate it; the "
        "second (X25519), which is kept nowhere else, opens what its lenders sealed"
    )


class ExtensionView(WholeView):
    """An experiment that is being extended."""

    wanted: list[str] = Field(description="the nodes that it will have, if it can be extended so")


class SegmentLogin(View):
    """How the nodes of one testbed are entered by ssh."""

    testbed: str
    sealed: str | None = Field(
        description="HPKE (RFC 9180; X25519, HKDF-SHA256, AES-128-GCM), base64, to the experiment's second key, with the info "
        f"`{LOGIN}`: JSON with `user` and `private_key`. None until its lender has promised it"
    )
    nodes: list[NodeInfo]


class CredentialsView(View):
    """All that is needed to use an experiment's nodes, and to operate it from elsewhere."""

    id: str
    name: str
    fedid: str
    credential: str | None = Field(description="compact: by which its owner, who asks, may operate it")
    segments: list[SegmentLogin]


class GrantView(View):
    """What lets somebody operate an experiment."""

    principal: str
    expires: datetime
    credential: str


class GrantedView(View):
    """What was granted to somebody and has not expired; revoked, it counts no more."""

    id: str = Field(description="the credential's")
    principal: str
    party: str | None = Field(description="whose part alone; none: all of it")
    expires: datetime
    granted: datetime
    revoked: datetime | None


class GrantList(View):
    """The newest first."""

    items: list[GrantedView]


class ExperimentEventView(View):
    """One line of an experiment's log."""

    number: int
    at: datetime
    state: State
    code: str
    reason: str


class ExperimentLog(View):
    """What happened, oldest first."""

    items: list[ExperimentEventView]


class OperatedView(View):
    """What came of an operation, node by node: what it printed, or why it could not be done."""

    output: dict[str, str]
    failed: dict[str, str]
    status: dict[str, int] = Field(description="with which a command ended; 128 + a signal")


class TopologyView(View):
    """What the experiment looks like, as `fed topology convert --to json` writes it."""

    computers: list[dict[str, Any]]
    substrates: list[dict[str, Any]]
    services: list[dict[str, Any]]
    routing: str | None


def experiment_view(experiment: Experiment) -> ExperimentView:
    """Show one without its pieces."""
    return ExperimentView(**_fields(experiment))


def whole_view(whole: Whole) -> WholeView:
    """Show one with its pieces."""
    return WholeView(**_fields(whole.experiment), segments=[_segment(segment) for segment in whole.segments])


def extension_view(whole: Whole) -> ExtensionView:
    """Show one whose extension has begun."""
    extension = whole.experiment.extension
    computers = () if extension is None else topdl.read(extension.description.encode()).computers
    shown = whole_view(whole).model_dump() | {"wanted": [computer.name for computer in computers]}
    return ExtensionView.model_validate(shown)


def credentials_view(whole: Whole, grant: Grant | None) -> CredentialsView:
    """Show how its nodes are entered."""
    experiment = whole.experiment
    logins = []
    for segment in whole.segments:
        sealed = info_of(segment.order).credentials
        logins.append(SegmentLogin(testbed=segment.testbed, sealed=sealed, nodes=nodes_told(segment.order)))
    return CredentialsView(
        id=experiment.id,
        name=experiment.name,
        fedid=experiment.fedid,
        credential=None if grant is None else grant.credential,
        segments=logins,
    )


def grant_list(granted: Iterable[Granted]) -> GrantList:
    """Show what was granted."""
    return GrantList(items=[GrantedView(**vars(one)) for one in granted])


def event_view(event: Event) -> ExperimentEventView:
    """Show a line of a log."""
    return ExperimentEventView(
        number=event.number, at=event.at, state=event.state, code=event.code, reason=event.reason
    )


def _fields(experiment: Experiment) -> dict[str, Any]:
    return {
        "id": experiment.id,
        "name": experiment.name,
        "project": experiment.owner.project,
        "user": experiment.owner.name,
        "state": experiment.state,
        "code": experiment.code,
        "reason": experiment.reason,
        "fedid": experiment.fedid,
        "kit": experiment.kit,
        "created": experiment.created,
        "changed": experiment.changed,
        "valid_until": experiment.valid_until,
        "extending": experiment.extension is not None,
        "ends_soon": experiment.warned and experiment.state in ALIVE,
    }


def _segment(segment: Segment) -> SegmentPart:
    order, info = segment.order, info_of(segment.order)
    return SegmentPart(
        testbed=segment.testbed,
        order=segment.order_id,
        member=None if order is None else order.member,
        state=None if order is None else order.state,
        code=segment.code or ("" if order is None else order.code),
        reason=segment.reason or ("" if order is None else order.reason),
        nodes=info.nodes,
        portals=info.portals,
    )
