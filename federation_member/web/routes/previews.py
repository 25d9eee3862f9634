"""What an experiment would be, before anything is asked of anybody; and what one that runs looks like."""

from __future__ import annotations

from asyncio import to_thread

from aiohttp import web
from pydantic import Field

from federation_member.experiments.joining import info_of
from federation_member.experiments.model import NewExperiment
from federation_member.web.at_once import PICTURES, PREVIEWS, one_of_few
from federation_member.web.errors import TooManyPreviews
from federation_member.web.picture_views import LayoutView, PreviewView, layout_view, preview_view
from federation_member.web.routes.experiments import SEEING, CredentialHeader, ExperimentPath
from federation_member.web.routing import Call, Routes
from federation_member.web.services import Services
from fedkit.protocol.lending import Name
from fedkit.topology.layout import lay_out
from fedkit.topology.picture import Condition, draw

routes = Routes("experiments")


class Wanted(NewExperiment):
    """What would be asked for; the same as for a new experiment, which need not have a name yet."""

    name: Name = Field(default="preview", description="the experimenter's own")


@routes.add("POST", "/previews", errors=(TooManyPreviews,))
async def preview_experiment(call: Call[Services], body: Wanted) -> PreviewView:
    """Tell what would come of a description: pieces, addresses, portals and a picture, or every error with file, line and code.

    Nothing is asked of anybody and nothing is kept.
    """
    with one_of_few(call, PREVIEWS):
        return await to_thread(preview_view, await call.services.experiments.preview(body))


@routes.add("GET", "/experiments/{experiment}/layout", errors=(*SEEING, TooManyPreviews))
async def get_experiment_layout(call: Call[Services], path: ExperimentPath, headers: CredentialHeader) -> LayoutView:
    """Tell where everything stands in a picture of the experiment; who draws it adds how each node is."""
    experiments = call.services.experiments
    with one_of_few(call, PICTURES):
        whole = await experiments.get(call.user, path.experiment, headers.shown)
        topology = await experiments.topology(call.user, whole.experiment.id, headers.shown)
        return await to_thread(lambda: layout_view(lay_out(topology, whole.experiment.portals)))


@routes.add("GET", "/experiments/{experiment}/picture", media_type="image/svg+xml", errors=(*SEEING, TooManyPreviews))
async def get_experiment_picture(
    call: Call[Services], path: ExperimentPath, headers: CredentialHeader
) -> web.StreamResponse:
    """Draw the experiment: a box for each testbed, portals at its edges, nodes as they are now."""
    experiments = call.services.experiments
    with one_of_few(call, PICTURES):
        whole = await experiments.get(call.user, path.experiment, headers.shown)
        topology = await experiments.topology(call.user, whole.experiment.id, headers.shown)
        nodes = [node for one in whole.segments for node in info_of(one.order).nodes]
        conditions = {node.name: Condition(node.status, node.reason) for node in nodes}
        drawn = await to_thread(draw, topology, whole.experiment.portals, conditions)
    return web.Response(text=drawn, content_type="image/svg+xml")
