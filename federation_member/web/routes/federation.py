"""Who is in the federation, and what it has on offer."""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import BaseModel, ConfigDict, Field

from federation_member.directory.errors import UnknownMember
from federation_member.web.routing import Call, Routes
from federation_member.web.services import Services
from federation_member.web.views import FlavourPage, FlavourView, ImagePage, ImageView, MemberPage, MemberView

routes = Routes("federation")


class OfferQuery(BaseModel):
    """Whose offer."""

    model_config = ConfigDict(extra="forbid")

    member: str | None = Field(
        default=None, min_length=1, max_length=253, description="name, address or fedid; without it, everybody's"
    )


class MemberPath(BaseModel):
    """Which member: name, address or fedid."""

    name: str = Field(min_length=1, max_length=253, pattern=r"^[A-Za-z0-9._-]+$")


def _members(services: Services, wanted: str | None = None) -> Iterator[MemberView]:
    for known in services.federation.members():
        if wanted is None or wanted in (known.name, known.address, known.fedid):
            yield MemberView(
                name=known.name,
                fedid=known.fedid,
                address=known.address,
                alive=known.alive,
                last_seen=known.last_seen,
                self=known.fedid == services.fedid,
                kinds=known.offer.kinds,
                flavours=known.offer.flavours,
                images=known.offer.images,
                abilities=sorted(map(str, known.offer.abilities)),
                attributes=known.offer.attributes,
                kits=known.offer.kits,
            )


@routes.add("GET", "/members")
async def list_members(call: Call[Services], query: OfferQuery) -> MemberPage:
    """List the members of the federation and what they lend."""
    return MemberPage(items=list(_members(call.services, query.member)), state=call.services.federation.freshness())


@routes.add("GET", "/members/{name}", errors=(UnknownMember,))
async def show_member(call: Call[Services], path: MemberPath) -> MemberView:
    """Show one member and what it lends."""
    found = next(_members(call.services, path.name), None)
    if found is None:
        raise UnknownMember(f"No member is called {path.name[:80]}.")
    return found


@routes.add("GET", "/images")
async def list_images(call: Call[Services], query: OfferQuery) -> ImagePage:
    """List the images on offer, by member."""
    return ImagePage(
        items=[
            ImageView(member=member.name, name=image.name, description=image.description)
            for member in _members(call.services, query.member)
            for image in member.images
        ]
    )


@routes.add("GET", "/flavours")
async def list_flavours(call: Call[Services], query: OfferQuery) -> FlavourPage:
    """List the sizes of machines on offer, by member."""
    return FlavourPage(
        items=[
            FlavourView(member=member.name, **flavour.model_dump())
            for member in _members(call.services, query.member)
            for flavour in member.flavours
        ]
    )
