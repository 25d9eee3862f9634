"""The audit log, for this site's operators: who asked for what, what was decided, and by which proof."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from federation_member.access.audit import Entry, Kind
from federation_member.access.naming import names_of
from federation_member.web.errors import NoSuchPath, OperatorsOnly
from federation_member.web.routing import Call, Routes
from federation_member.web.services import Services
from federation_member.web.views import View

LIMIT = 100
LAST = 2**62
routes = Routes("audit")


class AuditQuery(BaseModel):
    """Which page."""

    model_config = ConfigDict(extra="forbid")

    before: int | None = Field(default=None, ge=1, le=LAST, description="entries with a smaller number")
    limit: int = Field(default=50, ge=1, le=LIMIT)
    kind: Kind | None = None


class EntryPath(BaseModel):
    """Which entry."""

    sequence: int = Field(ge=1, le=LAST)


class EntryView(View):
    """One entry. `said` is what was hashed, together with the hash of the entry before."""

    sequence: int
    at: datetime
    kind: Kind
    hash: str
    said: dict[str, JsonValue] = Field(
        description="of a decision: applicant, action, allowed, rule and proofs, or reason and missing"
    )


class EntryWithTexts(EntryView):
    """One entry with the texts that it names by their SHA-256: credentials, policy, members, revocation list."""

    texts: dict[str, str]
    names: dict[str, str] = Field(description="what fedids are called here, for people to read")


class AuditPage(View):
    """Entries, newest first; `next` is the `before` of the page that follows, null at the end."""

    items: list[EntryView]
    next: int | None


class CheckView(View):
    """Whether the chain holds, and whether the decisions follow from what stands beside them."""

    good: bool
    entries: int = Field(description="how many hold, from the first on")
    hash: str = Field(
        description="of the last of them; keep it elsewhere, then nothing before it can be changed unseen"
    )
    broken_at: int | None
    problem: str
    differing: list[int] = Field(description="decisions that are not made so again")


def _for_operators(call: Call[Services]) -> None:
    if not call.user.operator:
        raise OperatorsOnly("Only operators of this site read this; `fed member user add --operator` makes one.")


def _fields(entry: Entry) -> dict[str, Any]:
    return {"sequence": entry.sequence, "at": entry.at, "kind": entry.kind, "hash": entry.hash, "said": entry.said}


@routes.add("GET", "/audit", errors=(OperatorsOnly,))
async def read_audit(call: Call[Services], query: AuditQuery) -> AuditPage:
    """Read the audit log, newest entries first."""
    _for_operators(call)
    found = await call.services.audit.page(query.before, query.limit + 1, query.kind)
    items = [EntryView(**_fields(entry)) for entry in found[: query.limit]]
    return AuditPage(items=items, next=items[-1].sequence if len(found) > query.limit else None)


@routes.add("GET", "/audit/check", errors=(OperatorsOnly,))
async def check_audit(call: Call[Services]) -> CheckView:
    """Check the whole log: walk its chain, and make every decision again."""
    _for_operators(call)
    checked = await call.services.audit.check()
    chain = checked.chain
    return CheckView(
        good=chain.broken_at is None and not checked.differing,
        entries=chain.entries,
        hash=chain.hash,
        broken_at=chain.broken_at,
        problem=chain.problem,
        differing=list(checked.differing),
    )


@routes.add("GET", "/audit/{sequence}", errors=(OperatorsOnly, NoSuchPath))
async def read_audit_entry(call: Call[Services], path: EntryPath) -> EntryWithTexts:
    """Read one entry with all that it names."""
    _for_operators(call)
    found = await call.services.audit.entry(path.sequence)
    if found is None:
        raise NoSuchPath(f"The audit log has no entry {path.sequence}.")
    entry, texts = found
    return EntryWithTexts(**_fields(entry), texts=texts, names=names_of(entry.said, texts))
