"""Experiments: make, look at, grant, renew and terminate them.

Whoever is not the owner shows a credential of the experiment's in a header, or keeps it here (`POST /credentials`).
"""

from __future__ import annotations

from typing import Literal, Self

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field, model_validator

from federation_member.errors import NotYourProject
from federation_member.experiments.errors import (
    HasEnded,
    NameTaken,
    NotContained,
    NotExtensible,
    NotGranted,
    NothingToRun,
    NoWay,
    TooLarge,
    UnknownExperiment,
    UnusableMapping,
    UnusableParty,
)
from federation_member.experiments.extending import LargerDescription
from federation_member.experiments.model import Moment, NewExperiment
from federation_member.experiments.planning import NODES
from federation_member.web.at_once import DESCRIPTIONS, one_of_few
from federation_member.web.errors import TooManyPreviews, TooManyStreams
from federation_member.web.experiment_stream import stream_experiment
from federation_member.web.experiment_views import (
    CredentialsView,
    ExperimentList,
    ExperimentLog,
    ExtensionView,
    GrantList,
    GrantView,
    MadeView,
    OperatedView,
    TopologyView,
    WholeView,
    credentials_view,
    event_view,
    experiment_view,
    extension_view,
    grant_list,
    whole_view,
)
from federation_member.web.routes.orders import StreamHeader
from federation_member.web.routing import Call, Routes
from federation_member.web.services import Services
from fedkit.policy.errors import BadCredential
from fedkit.protocol.lending import Fedid, Name
from fedkit.protocol.segments import COMMAND_LIMIT, NodeName, Operation
from fedkit.services.errors import UnknownService, UnusableService
from fedkit.topology.errors import BadDescription
from fedkit.topology.json_form import topology_as_json
from fedkit.topology.placement import CannotPlace
from fedkit.topology.services import BadService
from fedkit.topology.split import CannotSplit
from fedkit.topology.views import PartiesMeet

CREDENTIALS_SIZE = 4096  # characters of what a header may hold
SEEING = (UnknownExperiment, NotGranted, BadCredential)
DESCRIBING = (
    BadDescription,
    BadService,
    CannotPlace,
    CannotSplit,
    NothingToRun,
    NoWay,
    TooLarge,
    UnknownService,
    UnusableMapping,
    UnusableParty,
    UnusableService,
    PartiesMeet,
)

routes = Routes("experiments")


class ExperimentPath(BaseModel):
    """Which experiment."""

    experiment: Name = Field(description="its id, or the name that the caller gave it")


class TopologyQuery(BaseModel):
    """Which topology."""

    model_config = ConfigDict(extra="forbid")

    services: bool = Field(default=False, description="with the nodes and LANs that its services brought")


class GrantPath(ExperimentPath):
    """Whose grants."""

    principal: Fedid = Field(description="the fedid of who was let in")


class CredentialHeader(BaseModel):
    """What lets somebody else than the owner operate it."""

    credentials: str = Field(
        default="",
        alias="Experiment-Credential",
        max_length=CREDENTIALS_SIZE,
        pattern=r"^[!-~]*(, *[!-~]+)*$",
        description="compact credentials of the experiment's, with commas between them",
    )

    @property
    def shown(self) -> list[str]:
        """Each by itself."""
        return [text.strip() for text in self.credentials.split(",") if text.strip()]


class FollowingHeaders(CredentialHeader, StreamHeader):
    """As who, and where to go on."""


class NewGrant(BaseModel):
    """Who may operate an experiment, and until when."""

    model_config = ConfigDict(extra="forbid")

    principal: Fedid
    expires: Moment
    party: Name | None = Field(default=None, description="what this party may know, and its nodes, alone")


class NewOperation(BaseModel):
    """What is done to nodes."""

    model_config = ConfigDict(extra="forbid")

    operation: Literal["stop", "start", "reboot", "run", "console"]
    nodes: list[NodeName] = Field(default_factory=list, max_length=NODES, description="none named: all")
    command: str = Field(default="", max_length=COMMAND_LIMIT, description="what `run` runs, in a shell as root")

    @model_validator(mode="after")
    def _is_complete(self) -> Self:
        if bool(self.command.strip()) != (self.operation == "run"):
            raise ValueError("a command belongs to `run`, and to nothing else")
        return self


class Renewal(BaseModel):
    """When an experiment ends."""

    model_config = ConfigDict(extra="forbid")

    valid_until: Moment | None = Field(description="none: not by itself")


@routes.add(
    "POST",
    "/experiments",
    status=201,
    makes=("experiment", "$response.body#/id"),
    errors=(*DESCRIBING, NotYourProject, NameTaken, TooManyPreviews),
)
async def create_experiment(call: Call[Services], body: NewExperiment) -> MadeView:
    """Split a description over testbeds and ask for every piece; nothing starts before all are promised.

    What is wrong with the description stands in the details of the answer, each with file, line and code.
    """
    with one_of_few(call, DESCRIPTIONS):
        whole, grant, key = await call.services.experiments.create(call.user, body)
    shown = whole_view(whole).model_dump()
    return MadeView.model_validate(shown | {"credential": grant.credential, "private_key": key.pem.decode()})


@routes.add("GET", "/experiments")
async def list_experiments(call: Call[Services]) -> ExperimentList:
    """List the caller's own experiments, newest first."""
    found = await call.services.experiments.page(call.user)
    return ExperimentList(items=[experiment_view(experiment) for experiment in found])


@routes.add("GET", "/experiments/{experiment}", errors=SEEING)
async def get_experiment(call: Call[Services], path: ExperimentPath, headers: CredentialHeader) -> WholeView:
    """Show an experiment with its pieces, nodes and portals."""
    return whole_view(await call.services.experiments.get(call.user, path.experiment, headers.shown))


@routes.add("GET", "/experiments/{experiment}/topology", errors=SEEING)
async def get_experiment_topology(
    call: Call[Services], path: ExperimentPath, headers: CredentialHeader, query: TopologyQuery
) -> TopologyView:
    """Show the experiment's topology, addresses and testbeds included."""
    experiments = call.services.experiments
    topology = await experiments.topology(call.user, path.experiment, headers.shown, services=query.services)
    return TopologyView.model_validate(topology_as_json(topology))


@routes.add("GET", "/experiments/{experiment}/log", errors=SEEING)
async def get_experiment_log(call: Call[Services], path: ExperimentPath, headers: CredentialHeader) -> ExperimentLog:
    """Show what happened to the experiment, oldest first; the newest 1000 lines."""
    events = await call.services.experiments.log(call.user, path.experiment, headers.shown)
    return ExperimentLog(items=[event_view(event) for event in events])


@routes.add(
    "GET",
    "/experiments/{experiment}/events",
    media_type="text/event-stream",
    errors=(*SEEING, TooManyStreams),
)
async def follow_experiment(
    call: Call[Services], path: ExperimentPath, headers: FollowingHeaders
) -> web.StreamResponse:
    """Follow one experiment as it changes (server-sent events).

    A `log` event is a new line of its log, with the line's number as its `id`; `now`, without an `id`, is the whole experiment,
    at the beginning and after each change; `end`, the last one, tells why the caller may not follow it any more.
    """
    shown, after = headers.shown, headers.last_event_id
    return await stream_experiment(call.request, call.services, call.user, path.experiment, shown, after)


@routes.add("GET", "/experiments/{experiment}/credentials", errors=SEEING)
async def get_experiment_credentials(
    call: Call[Services], path: ExperimentPath, headers: CredentialHeader
) -> CredentialsView:
    """Show how the experiment's nodes are entered by ssh; the keys are sealed to whoever has the experiment's own."""
    whole, grant = await call.services.experiments.credentials(call.user, path.experiment, headers.shown)
    return credentials_view(whole, grant)


@routes.add(
    "POST",
    "/experiments/{experiment}/grants",
    status=201,
    errors=(UnknownExperiment, UnusableParty, NotGranted, HasEnded),
)
async def grant_experiment(call: Call[Services], path: ExperimentPath, body: NewGrant) -> GrantView:
    """Let somebody operate the caller's experiment until a time: give them the credential."""
    experiments = call.services.experiments
    grant = await experiments.grant(call.user, path.experiment, body.principal, body.expires, body.party)
    return GrantView(principal=grant.principal, expires=grant.expires, credential=grant.credential)


@routes.add("GET", "/experiments/{experiment}/grants", errors=(UnknownExperiment,))
async def list_experiment_grants(call: Call[Services], path: ExperimentPath) -> GrantList:
    """List what the caller granted of an experiment of theirs."""
    return grant_list(await call.services.experiments.grants(call.user, path.experiment))


@routes.add("DELETE", "/experiments/{experiment}/grants/{principal}", errors=(UnknownExperiment,))
async def revoke_experiment_grants(call: Call[Services], path: GrantPath) -> GrantList:
    """Let somebody into the caller's experiment no more, whatever they show, until they are granted something anew.

    Repeating is harmless.
    """
    return grant_list(await call.services.experiments.revoke(call.user, path.experiment, path.principal))


@routes.add(
    "POST",
    "/experiments/{experiment}/extend",
    status=202,
    errors=(*SEEING, NotContained, NotExtensible, HasEnded, *DESCRIBING, TooManyPreviews),
)
async def extend_experiment(
    call: Call[Services], path: ExperimentPath, headers: CredentialHeader, body: LargerDescription
) -> ExtensionView:
    """Add to an active experiment what a larger description of the whole has more: nodes, links, testbeds.

    What there is stays as it is; a description that would change it is refused, and the refusal names what. Everything is added or
    nothing, in two steps as at the creation; the log and the events tell what comes of it.
    """
    with one_of_few(call, DESCRIPTIONS):
        return extension_view(await call.services.experiments.extend(call.user, path.experiment, body, headers.shown))


@routes.add("POST", "/experiments/{experiment}/renew", errors=(*SEEING, HasEnded))
async def renew_experiment(
    call: Call[Services], path: ExperimentPath, headers: CredentialHeader, body: Renewal
) -> WholeView:
    """Let the experiment end at another time."""
    experiments = call.services.experiments
    return whole_view(await experiments.renew(call.user, path.experiment, body.valid_until, headers.shown))


@routes.add("POST", "/experiments/{experiment}/operate", errors=SEEING)
async def operate_experiment(
    call: Call[Services], path: ExperimentPath, headers: CredentialHeader, body: NewOperation
) -> OperatedView:
    """Stop, start or reboot nodes, run a command in them, or read the ends of their consoles.

    Of each node it is told what came of it, or why not; that may take a minute, and a minute more for every 64 nodes of a testbed.
    """
    operation, experiments = Operation(body.operation), call.services.experiments
    done = await experiments.operate(call.user, path.experiment, operation, body.nodes, headers.shown, body.command)
    return OperatedView(output=done.output, failed=done.failed, status=done.status)


@routes.add("DELETE", "/experiments/{experiment}", status=202, errors=SEEING)
async def terminate_experiment(call: Call[Services], path: ExperimentPath, headers: CredentialHeader) -> WholeView:
    """Give everything back. It is `terminated` once every lender has confirmed that nothing is left. Repeating is harmless."""
    return whole_view(await call.services.experiments.terminate(call.user, path.experiment, headers.shown))
