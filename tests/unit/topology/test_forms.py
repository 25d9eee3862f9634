"""A description keeps its meaning from one form to another."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from deploy.cli import main
from fedkit.topology import formats
from fedkit.topology.json_form import as_json
from fedkit.topology.model import Computer
from fedkit.topology.ns2 import writer
from tests.unit.topology.test_ns2 import HEAD, RUN, SEED

RICH = f"""{HEAD}
# SERVICE: SMB:x:y:share=a
set opt(rate) "5 Mb"
for {{set i 0}} {{$i < 4}} {{incr i}} {{ set n($i) [$ns node]; tb-set-node-testbed $n($i) "t[expr $i % 2]/s" }}
tb-set-node-os $n(0) A-STD
tb-set-node-tarfiles $n(0) /opt http://x.test/a.tgz /usr /proj/p/b.tar.bz2
tb-set-node-rpms $n(1) /proj/p/c.rpm /proj/p/d.rpm
tb-set-node-startcmd $n(1) {{echo "hi $USER" [x] > /tmp/log; true}}
tb-set-node-failure-action $n(2) nonfatal
tb-add-node-attribute $n(2) colour "deep {{red"
tb-fix-node $n(3) pc17
tb-set-node-memory-size $n(3) 512
set l [$ns duplex-link $n(0) $n(1) 1.5Mb 20ms RED]
tb-set-link-loss $l 0.05
set m [$ns duplex-link $n(0) $n(2) 10Mb 10ms DropTail]
tb-set-link-simplex-params $m $n(0) 30ms 2Mb 0.1
set pair [$ns make-lan "$n(2) $n(3)" 1Gb 0ms]
tb-set-netmask $pair 255.255.255.248
tb-set-ip-lan $n(3) $pair 10.9.0.5
set big [$ns make-lan "$n(0) $n(1) $n(2) $n(3)" * 8ms]
tb-set-node-lan-params $n(1) $big 6ms 3Mb 0.3
tb-set-lan-simplex-params $big $n(2) 2ms 1Mb 0.1 4ms 2Mb 0.2
$n(0) add-route $pair $n(2)
$ns at 10.5 "$l down"
tb-set-security-level Blue
$ns rtproto Session
{RUN}"""


@pytest.mark.parametrize("text", [SEED, RICH])
async def test_ns2_written_and_read_again_is_the_same(text: str) -> None:
    first = await formats.read(text.encode(), "x.ns")
    again = await formats.read(writer.write(first.topology).encode(), "x.ns")
    assert as_json(again) == as_json(first)
    assert again.topology.attributes == first.topology.attributes


@pytest.mark.parametrize("text", [SEED, RICH])
async def test_topdl_carries_all_but_services_and_routing(text: str) -> None:
    first = await formats.read(text.encode(), "x.ns")
    xml = formats.WRITERS[formats.Form.TOPDL](first.topology)
    again = as_json(await formats.read(xml.encode(), "x.xml"))
    assert again == as_json(first) | {"services": [], "routing": None}


async def test_topdl_without_addresses_gets_emulabs_subnets() -> None:
    topology = (await formats.read(SEED.encode(), "x.ns")).topology
    bare = replace(topology, elements=tuple(without_addresses(computer) for computer in topology.computers))
    xml = formats.WRITERS[formats.Form.TOPDL](bare)
    assert "ip4" not in xml
    again = (await formats.read(xml.encode(), "x.xml")).topology
    shown = [(c.name, [(i.substrates[0], i.ip4) for i in c.interfaces]) for c in again.computers]
    assert shown == [
        ("a", [("link0", "10.1.1.2")]),
        ("b", [("link0", "10.1.1.3"), ("link1", "10.1.3.2")]),  # topdl does not say who came first on a link
        ("c", [("link1", "10.1.3.3"), ("lan0", "10.1.2.2")]),
        ("d", [("lan0", "10.1.2.3")]),
        ("e", [("lan0", "10.1.2.4")]),
    ]


def without_addresses(computer: Computer) -> Computer:
    nothing = {"ip4_address": None, "ip4_netmask": None}
    return replace(computer, interfaces=tuple(i.with_attributes(nothing) for i in computer.interfaces))


def test_fed_topology_convert_tells_errors_as_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bad = tmp_path / "bad.ns"
    bad.write_text(HEAD + "tb-set-node-oss a b\n" + RUN)
    assert main(["topology", "convert", "--to", "json", str(bad)]) == 2
    told = capsys.readouterr()
    (error,) = json.loads(told.out)["errors"]
    assert (error["file"], error["line"], error["code"]) == (str(bad), 3, "ns2.unknown_command")
    assert f"{bad}:3" in told.err


def test_fed_experiment_split_prints_the_pieces(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "seed.ns"
    file.write_text(SEED)
    assert main(["experiment", "split", str(file), "-o", "json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert [piece["testbed"] for piece in shown["pieces"]] == ["deter", "ucb"]
    assert shown["crossings"] == ["link1"]
    assert main(["experiment", "check", str(file)]) == 0
    assert "deter, ucb" in capsys.readouterr().out
