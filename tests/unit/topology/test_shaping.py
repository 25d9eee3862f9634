"""What a description wants done to frames, each way of each interface."""

from __future__ import annotations

import pytest

from fedkit.node.queues import MOST, PACKET, SMALLEST_BURST, words
from fedkit.topology.formats import Form, read
from fedkit.topology.model import Attribute, Capacity, Interface, Latency, Substrate
from fedkit.topology.shaping import Shape, Way, shape_of

NOWHERE: dict[str, Substrate] = {}
PROGRAM = """\
source tb_compat.tcl
set ns [new Simulator]
set a [$ns node]
set b [$ns node]
set link [$ns duplex-link $a $b 10Mb 20ms DropTail]
tb-set-link-loss $link 0.19
[[$ns link $a $b] queue] set limit_ 20
set c [$ns node]
set lan [$ns make-lan "$b $c" 100Mb 0ms]
tb-set-node-lan-bandwidth $c $lan 1Mb
tb-set-lan-simplex-params $lan $b 10ms 2Mb 0.1 30ms 3Mb 0.2
$ns run
"""


def interface(*said: tuple[str, str], **more: object) -> Interface:
    """An interface on `wire` with these attributes."""
    return Interface("inf000", ("wire",), attributes=tuple(Attribute(*one) for one in said), **more)  # type: ignore[arg-type]


def test_nothing_said_is_nothing_done() -> None:
    assert not shape_of(interface(), NOWHERE)
    assert not shape_of(interface(("loss", "0")), {"wire": Substrate("wire")})


def test_what_the_interface_does_not_say_its_substrate_does() -> None:
    substrates = {"wire": Substrate("wire", Capacity(100.0), Latency(5.0))}
    assert shape_of(interface(), substrates).to == Way(100.0, 5.0)
    assert shape_of(interface(capacity=Capacity(7.0)), substrates).back == Way(7.0, 5.0)
    assert shape_of(interface(("bandwidth", "*")), substrates).to == Way(None, 5.0)


def test_directions_may_differ() -> None:
    said = interface(
        ("to_rate", "1000"), ("to_delay", "10"), ("from_loss", "0.5"), ("loss", "0.1"), ("from_rate", "-1")
    )
    assert shape_of(said, NOWHERE) == Shape(Way(1000.0, 10.0, 0.1), Way(None, 0.0, 0.5))


@pytest.mark.parametrize("text", ["", "much", "1e", "--1"])
def test_what_is_no_number_is_not_said(text: str) -> None:
    assert not shape_of(interface(("to_rate", text), ("queue:limit_", text)), NOWHERE)


async def test_an_experimenters_words() -> None:
    topology = (await read(PROGRAM.encode(), "x.ns", Form.NS2)).topology
    substrates = {one.name: one for one in topology.substrates}
    shapes = {
        (computer.name, one.substrates[0]): shape_of(one, substrates)
        for computer in topology.computers
        for one in computer.interfaces
    }
    each = Way(10_000.0, 10.0, pytest.approx(0.1))  # type: ignore[arg-type]
    assert shapes["a", "link"] == Shape(each, each, 20)
    assert shapes["b", "lan"] == Shape(Way(2000.0, 10.0, 0.1), Way(3000.0, 30.0, 0.2))
    assert shapes["c", "lan"] == Shape(Way(1000.0), Way(1000.0))


def test_the_words_of_tc() -> None:
    assert words(None, 0, 0, None) == ""
    assert words(100_000, 0, 0, None) == "tbf rate 100000kbit burst 125000 limit 276400"
    assert words(100, 0, 0, 1) == "tbf rate 100kbit burst 6056 limit 7570"
    assert words(None, 12.5, 0.015, None) == "netem limit 1133 delay 12.5ms loss 1.5%"
    assert words(1000, 5, 0, 7) == "netem limit 8 delay 5ms loss 0% rate 1000kbit"
    assert words(1000, 5, 0.1, 7, netem=False).startswith("tbf rate 1000kbit")


def test_what_is_on_the_way_takes_no_place_in_the_queue() -> None:
    assert words(100_000, 50, 0, 10).startswith("netem limit 423 ")  # 5,000,000 bit are 413 packets
    assert words(None, 0, 0.5, None) == "netem limit 100 delay 0ms loss 50%"


def test_no_description_makes_a_kernel_keep_as_much_as_it_likes() -> None:
    assert words(None, 1e9, 0, 1 << 40).startswith(f"netem limit {2 * MOST} ")
    assert words(1000, 0, 0, 1 << 40).endswith(f"limit {MOST * PACKET + SMALLEST_BURST}")


@pytest.mark.parametrize("name", ["queue:limit_", "to_rate", "from_delay", "to_loss"])
@pytest.mark.parametrize("text", ["inf", "-inf", "nan", "1e999", "fast"])
def test_what_is_no_number_counts_as_not_said(name: str, text: str) -> None:
    assert shape_of(interface((name, text)), NOWHERE) == Shape()


@pytest.mark.parametrize("text", ["x", "nan", "inf", "-3", "1.5"])
def test_a_loss_that_is_no_rate_counts_as_not_said(text: str) -> None:
    told = interface(("loss", text))
    assert (told.loss, shape_of(told, NOWHERE)) == (0.0, Shape())
