"""Who used how much: users see their own, operators everything, also what was lent."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from typing import Annotated, Any

from pydantic import AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from federation_member.usage.model import By, Role, Sum
from federation_member.usage.report import Line, Question, total
from federation_member.web.errors import OperatorsOnly, UnusableRequest
from federation_member.web.routing import Call, Routes
from federation_member.web.services import Services
from federation_member.web.views import View
from fedkit.clock import now

USUAL = timedelta(days=30)
LONGEST_DAILY = timedelta(days=366)
_BY = "|".join(By)
_ABBREVIATED = 12  # digits of a fedid that nobody here has a name for
routes = Routes("usage")


def _written_out(value: Any) -> Any:
    """A number would be read as seconds since 1970, which nobody means."""
    if isinstance(value, str) and "T" not in value.upper():
        raise ValueError("a time is written as in RFC 3339, such as 2026-11-22T12:00:00Z")
    return value


Time = Annotated[AwareDatetime, BeforeValidator(_written_out)]


class UsageQuery(BaseModel):
    """Of when, and what sums are made for each of."""

    model_config = ConfigDict(extra="forbid", populate_by_name=False)

    begin: Time | None = Field(default=None, alias="from", description="else 30 days before `to`")
    to: Time | None = Field(default=None, description="else now")
    by: str = Field(
        default="user",
        pattern=rf"^(({_BY})(,({_BY})){{0,3}})?$",
        description="any of member, project, user, kind; joined by commas",
    )
    role: Role = Field(default=Role.BORROWED, description="`lent`, what others had here, is for operators")
    daily: bool = Field(default=False, description="sums for each day, in UTC; of 366 days at most")

    @model_validator(mode="after")
    def _in_order(self) -> UsageQuery:
        if self.begin is not None and self.to is not None and self.begin >= self.to:
            raise ValueError("`from` must be before `to`")
        return self


class Amounts(View):
    """Hours, and hours times what was held in them; memory and disk in GiB. Exact to the second, shown to 6 digits."""

    hours: float
    vcpu_hours: float
    ram_gb_hours: float
    disk_gb_hours: float


class UsageLine(Amounts):
    """What one of those that sums are made for used; what they are not made for is null."""

    day: date | None
    member: str | None = Field(description="the other side's name: who lent it, or who borrowed it")
    member_fedid: str | None
    project: str | None
    user: str | None
    kind: str | None


class UsageReport(View):
    """Sums over a span of time; what still runs is counted until now."""

    begin: datetime
    end: datetime
    role: Role
    items: list[UsageLine]
    total: Amounts


@routes.add("GET", "/usage", errors=(OperatorsOnly,))
async def read_usage(call: Call[Services], query: UsageQuery) -> UsageReport:
    """Add up what was used: a user's own, or, for an operator, everybody's."""
    if query.role is Role.LENT and not call.user.operator:
        raise OperatorsOnly("Only operators of this site see what others had here.")
    question = _question(query, None if call.user.operator else call.user.name)
    lines = await call.services.usage.add_up(question)
    names = {member.fedid: member.name for member in call.services.federation.members()}
    return UsageReport(
        begin=question.begin,
        end=question.end,
        role=question.role,
        items=[_line(line, question, names) for line in lines],
        total=_amounts(total(lines)),
    )


def _question(query: UsageQuery, user: str | None) -> Question:
    end = query.to or now()
    begin = query.begin or end - USUAL
    if begin >= end:
        raise UnusableRequest("`from` is in the future.")
    if query.daily and end - begin > LONGEST_DAILY:
        raise UnusableRequest(f"Sums for each day are made for {LONGEST_DAILY.days} days at most.")
    by = frozenset(By(word) for word in query.by.split(",") if word)
    return Question(query.role, begin, end, by, user, query.daily)


def _line(line: Line, question: Question, names: dict[str, str]) -> UsageLine:
    values = dict(zip(question.keys, line.key, strict=True))
    fedid = values.get(By.MEMBER)
    return UsageLine(
        day=line.day,
        member=None if fedid is None else names.get(fedid, f"{fedid[:_ABBREVIATED]}…"),
        member_fedid=fedid,
        project=values.get(By.PROJECT),
        user=values.get(By.USER),
        kind=values.get(By.KIND),
        **line.sum.hours(),
    )


def _amounts(amount: Sum) -> Amounts:
    return Amounts(**amount.hours())
