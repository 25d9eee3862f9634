"""What a part of a native segment is made anew for."""

from __future__ import annotations

from dataclasses import dataclass, replace

from federation_member.middleware.containers.segments import _digest
from federation_member.middleware.contract import NodeRequest, PortalRequest, WireEnd
from fedkit.protocol.lending import Flavour

FLAVOUR = Flavour(name="small", vcpu=1, ram_mb=64, disk_gb=1)
NODE = NodeRequest("a", "debian", FLAVOUR, "way", (WireEnd("link0", "10.1.1.2"),))
PORTAL = PortalRequest("p", "debian", FLAVOUR, ("link0",), "script")


@dataclass(frozen=True)
class Newer(NodeRequest):
    """As a later version of the member may have it."""

    further: str = ""


def test_a_field_that_is_new_makes_nothing_anew_that_has_no_use_for_it() -> None:
    newer = Newer(NODE.name, NODE.image, NODE.flavour, NODE.way, NODE.ends)
    assert _digest(newer) == _digest(NODE)
    assert _digest(replace(newer, further="something")) != _digest(NODE)


def test_another_image_size_wire_or_script_does() -> None:
    others = [
        replace(NODE, image="testbed"),
        replace(NODE, flavour=FLAVOUR.model_copy(update={"ram_mb": 128})),
        replace(NODE, ends=(WireEnd("link0", "10.1.1.3"),)),
        replace(NODE, ends=()),
    ]
    assert len({_digest(one) for one in [NODE, *others]}) == len(others) + 1
    portals = [PORTAL, replace(PORTAL, script="another"), replace(PORTAL, wires=("link0", "link1"))]
    assert len({_digest(one) for one in portals}) == len(portals)


def test_what_a_running_node_can_be_told_does_not() -> None:
    told = replace(NODE, routes=(("10.9.0.0/24", "10.1.1.3"),), forwards=True, startup="true", script="another")
    assert _digest(told) == _digest(NODE)
