"""Where nodes may have shares mounted."""

from __future__ import annotations

from federation_member.orders.segments.shares import mounts
from fedkit.node.kit.conf import write
from fedkit.protocol.segments import Ban
from tests.support.segments import piece

SERVER = [("ControlGateway", "10.1.1.2"), ("ProjectName", "tied"), ("ProjectUser", "rosa"), ("SMBPassword", "s")]
MOUNTING = write([*SERVER, ("SMBShare", "tied"), ("SMBShare", "data"), ("SMBShare", "tied")])


def test_where_its_services_say() -> None:
    spec = piece(("a", "b"), settings={"a": MOUNTING, "b": write([*SERVER, ("SMBExport", "tied")])})
    assert mounts(spec, "a") == ("/proj/tied", "/share/data")
    assert mounts(spec, "b") == ()


def test_nowhere_in_a_node_that_parties_share() -> None:
    ban = Ban(address="10.0.0.1", network="10.0.1.0/24")
    assert mounts(piece(("a", "b"), settings={"a": MOUNTING}, apart={"a": [ban]}), "a") == ()


def test_nowhere_by_settings_that_no_node_can_read() -> None:
    assert mounts(piece(("a", "b"), settings={"a": "SMBShare: ../etc\n"}), "a") == ()
