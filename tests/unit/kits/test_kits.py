"""Which kits there are, and what those who know of none but the federation's read and write."""

from __future__ import annotations

import pytest

from fedkit.kits.errors import UnknownKit
from fedkit.kits.installed import installed, kit_named
from fedkit.node.script import NodeConfig
from fedkit.protocol.lending import Offer
from fedkit.protocol.segments import FEDERATION_KIT, SegmentSpec
from fedkit.services.installed import installed as services

PIECE = SegmentSpec(testbed="here", description="")


def test_the_federations_own_is_installed_and_has_all_services() -> None:
    assert FEDERATION_KIT in installed()
    assert sorted(kit_named(FEDERATION_KIT).services()) == sorted(services())


@pytest.mark.parametrize(
    ("wanted", "hint"), [("federatoin", "did you mean federation?"), ("x", "there are federation")]
)
def test_an_unknown_one_is_refused_with_the_nearest_name(wanted: str, hint: str) -> None:
    with pytest.raises(UnknownKit, match=hint.replace("?", r"\?")) as refused:
        kit_named(wanted)
    assert refused.value.code == "kits.unknown"


def test_whoever_knows_one_kit_alone_is_told_of_no_other_word() -> None:
    assert "kit" not in PIECE.model_dump()
    assert "kits" not in Offer().model_dump()
    assert SegmentSpec.model_validate_json(PIECE.model_dump_json()).kit == FEDERATION_KIT
    assert Offer.model_validate({}).kits == [FEDERATION_KIT]


def test_another_one_travels_with_the_piece_and_the_offer() -> None:
    other = PIECE.model_copy(update={"kit": "strings"})
    assert SegmentSpec.model_validate_json(other.model_dump_json()) == other
    offer = Offer(kits=[FEDERATION_KIT, "strings"])
    assert Offer.model_validate_json(offer.model_dump_json()) == offer


def test_a_node_with_names_ways_and_a_command_alone_needs_no_script() -> None:
    kit = kit_named(FEDERATION_KIT)
    assert kit.is_plain(NodeConfig("a", {"10.1.1.2": ["a"]}, [("10.1.2.0/24", "10.1.1.3")], forwards=True, startup="x"))
    assert not kit.is_plain(NodeConfig("a", settings="Name: a\n"))
    assert not kit.is_plain(NodeConfig("a", networks=["10.1.1.0/24"]))
    assert not kit.is_plain(NodeConfig("a", apart=[("10.1.1.2", "10.1.2.0/24")]))
