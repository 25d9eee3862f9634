"""How a segment that runs is changed: what it may become, what that makes of its state, and the way back.

    SegmentGo(spec, promise) ──► promised, or refused                    nothing has changed
    SegmentGo(spec)          ──► the spec is the lease's; parts come and go, nodes that stay are told of the others
                                     └─ a new part fails whose loss is fatal ──► refused; the spec is what it was before

What stays keeps its machine, networks and addresses. A part that goes, and may come again, is another one then, so it has another
turn; so has a portal whose crossings changed. Pure functions, but for new portals' keys.
"""

from __future__ import annotations

from dataclasses import replace

from federation_member.orders.segments.errors import UnusableSegment
from federation_member.orders.segments.lines import lines, portal_lines
from federation_member.orders.segments.plan import check, network_part, node_config, node_part
from federation_member.orders.segments.state import SegmentState
from federation_member.orders.segments.ways import ways
from federation_member.orders.segments.wiring import read
from federation_member.orders.ssh_keys import new_key
from fedkit.errors import FedError
from fedkit.protocol.lending import Offer
from fedkit.protocol.segments import Refused, SegmentGo, SegmentSpec

REASON_LIMIT, CODE_LIMIT = 512, 128


def grown(spec: SegmentSpec, state: SegmentState, go: SegmentGo, offer: Offer) -> tuple[SegmentSpec, SegmentState]:
    """A segment's spec and state after its borrower's word of how it is to be. Repeating is harmless."""
    wanted = go.spec
    if wanted is None or wanted.version <= spec.version:
        return spec, state
    if state.refused is not None and state.refused.version == wanted.version:
        return spec, state
    try:
        _check_kept(spec, wanted)
        check(wanted, offer)
        _check_lines(spec, wanted, state)
        if state.hosted:
            ways(wanted)
    except FedError as error:
        return spec, replace(state, promised=None, refused=_refused(wanted, error.code, error.message))
    if go.promise:
        return spec, replace(state, promised=wanted.version, refused=None)
    return wanted, _become(spec, wanted, replace(state, promised=None, refused=None, before=spec))


def undone(spec: SegmentSpec, state: SegmentState, code: str, reason: str) -> tuple[SegmentSpec, SegmentState]:
    """A segment's spec and state after a change that failed: as before."""
    assert state.before is not None
    back = replace(state, before=None, refused=_refused(spec, code, reason))
    return state.before, _become(spec, state.before, back)


def parts_of(spec: SegmentSpec) -> frozenset[str]:
    """What its networks and nodes are called."""
    wiring = read(spec.description)
    return frozenset((*map(network_part, wiring.networks), *map(node_part, wiring.computers)))


def _check_kept(spec: SegmentSpec, wanted: SegmentSpec) -> None:
    """Raise `UnusableSegment` if something that stays would be another."""
    old, new = read(spec.description), read(wanted.description)
    for name in old.computers.keys() & new.computers.keys():
        if old.plugs[name] != new.plugs[name]:
            raise UnusableSegment(f"{name} runs, and cannot be joined to other networks, or have other addresses, now.")
    for name in old.networks.keys() & new.networks.keys():
        if old.networks[name] != new.networks[name]:
            raise UnusableSegment(f"{name} is there, and cannot have another prefix now.")
    if any(getattr(spec, name) != getattr(wanted, name) for name in ("testbed", "ssh_keys", "seal_to", "kit")):
        raise UnusableSegment("Whose a segment is, who may enter it, and the kit that it has cannot be changed.")


def _check_lines(spec: SegmentSpec, wanted: SegmentSpec, state: SegmentState) -> None:
    """Raise `UnusableSegment` if a portal would have to see to what a node that stays does now, or the other way round."""
    before, after = lines(spec, state), lines(wanted, state)
    old, new = read(spec.description), read(wanted.description)
    for name in old.computers.keys() & new.computers.keys():
        if any(before.get(plug.substrate) != after.get(plug.substrate) for plug in old.plugs[name]):
            raise UnusableSegment(
                f"{name} runs, and its links cannot have other delays or losses, or their portals more to join, now."
            )


def _become(old: SegmentSpec, new: SegmentSpec, state: SegmentState) -> SegmentState:
    before, after = _carried(old, state), _carried(new, state)
    rewired = {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}
    there, wanted = read(old.description).computers.keys(), read(new.description).computers.keys()
    stay = there & wanted
    told = {name for name in stay if node_config(old, name) != node_config(new, name)}
    if state.hosted:
        told |= wanted - there  # a host's nodes share what the segment was when it was made
    return replace(
        state,
        keys={name: state.keys.get(name) or new_key() for name in after},
        connections={name: one for name, one in state.connections.items() if name in after},
        stale=sorted(told | (wanted & set(state.stale))),
    ).turned((parts_of(old) - parts_of(new)) | rewired)


def _carried(spec: SegmentSpec, state: SegmentState) -> dict[str, tuple[object, ...]]:
    """What makes each portal the one that it is; of whom it stands for it is told nothing."""
    late = lines(spec, state)
    return {
        connector.name: (
            connector.active,
            [(one.substrate, one.tag) for one in connector.crossings],
            portal_lines(connector, late),
        )
        for connector in spec.connectors
    }


def _refused(spec: SegmentSpec, code: str, reason: str) -> Refused:
    return Refused(version=spec.version, code=code[:CODE_LIMIT], reason=reason[:REASON_LIMIT])
