"""How far an experiment is, once its segments were told to start: a pure function of them.

    starting ──► joining ──► active ◄──► joining        a portal loses its partner and finds it again

What may fail is waited for until the experiment is first active, or until the time for joining is over; from then on it is reported.
What is fatal is waited for at any time, so an experiment is called active only while all of that runs and is joined.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from federation_member.experiments.errors import Why
from federation_member.experiments.failing import Loss, Said, failure_action, reports
from federation_member.experiments.joining import apart
from federation_member.experiments.model import Segment, State
from federation_member.orders.model import OrderState
from fedkit.topology.model import FailureAction

SETTLED = frozenset({State.JOINING, State.ACTIVE})
NAMED = 5  # testbeds, portals or nodes that a reason names
GRAVITY: dict[FailureAction, int] = {"ignore": 0, "nonfatal": 1, "fatal": 2}


class Outlook(NamedTuple):
    """A state, why it is in it, and which testbeds that tells of.

    `hopeless`: what is fatal was not joined in all the time that it had.
    """

    state: State
    code: str
    reason: str
    about: tuple[str, ...] = ()
    hopeless: bool = False


class Gap(NamedTuple):
    """A portal without its partner; that is as grave as the loss of the less important of the two sides."""

    portal: str
    action: FailureAction
    ends: tuple[str, str]


def outlook(was: State, segments: Sequence[Segment], losses: Mapping[int, Loss], *, overdue: bool) -> Outlook:
    """Judge segments, of which `losses` are lost; `overdue`: the time for joining is over."""
    waiting = [s for s in segments if s.number not in losses and _is_awaited(s, was)]
    if waiting:
        lost = reports([segment for segment in segments if segment.number in losses], losses)
        told = [Said(f"{s.testbed}: {s.order.reason}", s.testbed) for s in waiting if s.order is not None]
        return _outlook(State.STARTING, [*told[:NAMED], *lost])
    gaps, said = _gaps(segments), reports(segments, losses)
    grave = [gap for gap in gaps if gap.action == "fatal"]
    if grave or (gaps and was is not State.ACTIVE and not overdue):
        new = _outlook(State.JOINING, [*_waits("waits for the portals", gaps), *_unrelayed(segments, gaps), *said])
        return new._replace(hopeless=bool(grave) and overdue)
    missed = [gap for gap in gaps if gap.action == "nonfatal"]
    said += [*_waits("not joined:", missed), *_unrelayed(segments, missed)]
    if said:
        return _outlook(State.ACTIVE, said)._replace(code=Why.INCOMPLETE)
    return Outlook(State.ACTIVE, "", "everything runs and is joined")


def asking(testbeds: Sequence[str]) -> Outlook:
    """While somebody has not answered yet."""
    return Outlook(State.ALLOCATING, "", f"asks for {listed(testbeds)}", tuple(testbeds))


def _outlook(state: State, said: Sequence[Said]) -> Outlook:
    about = tuple(dict.fromkeys(one.testbed for one in said))
    return Outlook(state, "", "; ".join(dict.fromkeys(one.sentence for one in said[: 2 * NAMED])), about)


def _waits(how: str, gaps: Sequence[Gap]) -> list[Said]:
    """One sentence, that is about all of them."""
    sentence = f"{how} {listed([gap.portal for gap in gaps])}"
    return [Said(sentence, testbed) for testbed in dict.fromkeys(end for gap in gaps for end in gap.ends)]


def _unrelayed(segments: Sequence[Segment], gaps: Sequence[Gap]) -> list[Said]:
    """What our tunnel server says of the ports that missing portals would hold there."""
    missed = {gap.portal for gap in gaps}
    return [
        Said(f"no port for {segment.testbed}/{connector} at our tunnel server: {problem}", segment.testbed)
        for segment in segments
        for connector, relay in segment.relays.items()
        if f"{segment.testbed}/{connector}" in missed
        and (problem := relay.reason or ("" if relay.port and relay.described else "it has not answered yet"))
    ]


def _is_awaited(segment: Segment, was: State) -> bool:
    runs = segment.order is not None and segment.order.state is OrderState.FULFILLED
    return not runs and (was not in SETTLED or failure_action(segment) == "fatal")


def _gaps(segments: Sequence[Segment]) -> list[Gap]:
    found = []
    for one, connector, other in apart(segments):
        action = min(map(failure_action, (one, other)), key=GRAVITY.__getitem__)
        found.append(Gap(f"{one.testbed}/{connector}", action, (one.testbed, other.testbed)))
    return found


def listed(names: Sequence[str]) -> str:
    """The first of some names."""
    return ", ".join(names[:NAMED]) + (", …" if len(names) > NAMED else "")
