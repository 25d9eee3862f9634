"""RSpec requests: those of others are understood, ours mean the same when they are read again, bad ones are told by line."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deploy.cli import main
from fedkit.topology import formats, rspec
from fedkit.topology.errors import BadDescription
from fedkit.topology.json_form import as_json
from fedkit.topology.model import Interface, Substrate, Topology
from fedkit.topology.ways import Way, told_of_ends, way_between
from tests.unit.topology.test_forms import RICH
from tests.unit.topology.test_placement import description
from tests.unit.topology.test_sub_experiment import SEED

JACKS = """\
<?xml version="1.0"?>
<rspec xmlns="http://www.geni.net/resources/rspec/3" xmlns:emulab="http://www.protogeni.net/resources/rspec/ext/emulab/1"
       type="request">
  <node client_id="client" component_manager_id="urn:publicid:IDN+utah.cloudlab.us+authority+cm" exclusive="false">
    <sliver_type name="emulab-xen"><disk_image name="urn:publicid:IDN+emulab.net+image+emulab-ops//UBUNTU22-64-STD"/></sliver_type>
    <services><install url="http://x.test/a.tgz" install_path="/local"/><execute shell="sh" command="/local/go"/></services>
    <interface client_id="client:if0"><ip address="192.168.1.1" netmask="255.255.255.0" type="ipv4"/></interface>
    <interface client_id="client:if1"/>
    <emulab:routable_control_ip/>
  </node>
  <node client_id="server" component_manager_id="urn:publicid:IDN+ch.geni.net:edu+authority+cm">
    <hardware_type name="pc3000"/>
    <interface client_id="server:if0"><ip address="192.168.1.2" netmask="255.255.255.0" type="ipv4"/></interface>
  </node>
  <link client_id="center">
    <interface_ref client_id="client:if0"/><interface_ref client_id="server:if0"/>
    <property source_id="client:if0" dest_id="server:if0" capacity="100000" latency="10" packet_loss="0.19"/>
    <property source_id="server:if0" dest_id="client:if0" capacity="50000" latency="10"/>
  </link>
</rspec>
"""


async def test_a_request_of_somebody_else() -> None:
    described = await formats.read(JACKS.encode(), "jacks.xml")
    shown = as_json(described)
    client, server = shown["computers"]
    assert (client["testbed"], server["testbed"]) == ("utah.cloudlab.us", "ch.geni.net/edu")
    assert (client["os"], server["hardware"]) == ("UBUNTU22-64-STD", "pc3000")
    assert (client["startup"], client["software"]) == (
        "/local/go",
        [{"location": "http://x.test/a.tgz", "install": "/local"}],
    )
    assert [i["ip4"] for i in client["interfaces"]] == ["192.168.1.1"]
    assert [(w.line, w.code) for w in described.warnings] == [(8, "topology.left_out"), (9, "topology.left_out")]
    (link,) = described.topology.substrates
    there, back = _between(described.topology, link)
    assert (there.rate, there.delay, round(there.loss, 12)) == (100000, 10, 0.19)
    assert (back.rate, back.delay, back.loss) == (50000, 10, 0)


def _between(topology: Topology, substrate: Substrate) -> tuple[Way, Way]:
    (_, one), (_, other) = topology.ends[substrate.name]
    return way_between(substrate, one, other), way_between(substrate, other, one)


@pytest.mark.parametrize("text", [SEED, RICH])
async def test_what_an_rspec_can_carry_comes_back(text: str) -> None:
    first = (await formats.read(text.encode(), "x.ns")).topology
    again = (await formats.read(rspec.write(first), "x.xml")).topology
    assert rspec.write(again) == rspec.write(first)
    for one, other in zip(first.computers, again.computers, strict=True):
        assert (one.name, one.testbed, one.osid, one.hardware, one.startup) == (
            other.name, other.testbed, other.osid, other.hardware, other.startup,
        )  # fmt: skip
        assert one.software == other.software
        assert {a for a in one.attributes if a.name != "fixed"} == {a for a in other.attributes if a.name != "fixed"}
        assert [(i.name, i.ip4, i.netmask) for i in one.interfaces] == [
            (i.name, i.ip4, i.netmask) for i in other.interfaces
        ]
    for substrate, twin in zip(first.substrates, again.substrates, strict=True):
        assert first.kind_of(substrate) == again.kind_of(twin)


figures = st.tuples(
    st.sampled_from([0.0, 1000.0, 50_000.0]), st.integers(0, 40).map(float), st.sampled_from([0.0, 0.1, 0.25])
).map(lambda three: Way(*three))


@settings(max_examples=80, deadline=None)
@given(st.lists(st.tuples(figures, figures), min_size=3, max_size=6))
def test_hops_are_found_again_from_the_ways_between_ends(hops: list[tuple[Way, Way]]) -> None:
    number = len(hops)
    topology = description(number, [range(number)])
    ends = [(f"c{n}", "i0") for n in range(number)]
    ways = {
        (ends[a], ends[b]): Way(
            min((r for r in (hops[a][0].rate, hops[b][1].rate) if r), default=0.0),
            hops[a][0].delay + hops[b][1].delay,
            1 - (1 - hops[a][0].loss) * (1 - hops[b][1].loss),
        )
        for a in range(number)
        for b in range(number)
        if a != b
    }
    told = told_of_ends(topology, "w0", ways)
    interfaces: dict[str, Interface] = {c.name: c.interfaces[0] for c in told.computers}
    for (source, target), way in ways.items():
        found = way_between(told.substrates[0], interfaces[source[0]], interfaces[target[0]])
        assert found.rate == way.rate
        assert found.delay == pytest.approx(way.delay, abs=1e-6)
        assert found.loss == pytest.approx(way.loss, abs=1e-6)


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ('client_id="server"', 'client_id="client"', (11, "topology.duplicate_name")),
        (
            '<interface_ref client_id="server:if0"/>',
            '<interface_ref client_id="x"/>',
            (None, "topology.unknown_interface"),
        ),
        ('capacity="50000"', 'capacity="fast"', (18, "topology.bad_value")),
        ('capacity="50000"', 'capacity="-1"', (18, "topology.bad_value")),
        ('<node client_id="server"', "<node", (11, "topology.bad_structure")),
        ("rspec/3", "rspec/2", (3, "topology.bad_structure")),
        ("</rspec>", "", (21, "topology.not_xml")),
        ('<?xml version="1.0"?>', '<!DOCTYPE rspec [<!ENTITY a "b">]>', (None, "topology.document_type")),
    ],
)
def test_what_is_wrong_is_told_with_its_line(old: str, new: str, problem: tuple[int | None, str]) -> None:
    assert old in JACKS
    with pytest.raises(BadDescription) as caught:
        rspec.read(JACKS.replace(old, new).encode())
    assert problem in [(p.line, p.code) for p in caught.value.problems]


def test_the_command(tmp_path: object, capsys: pytest.CaptureFixture[str]) -> None:
    file = f"{tmp_path}/exp.ns"
    with open(file, "w") as out:
        out.write(SEED)
    assert main(["topology", "convert", "--to", "rspec", file]) == 0
    with open(f"{tmp_path}/exp.xml", "w") as out:
        out.write(capsys.readouterr().out)
    assert main(["topology", "convert", "--from", "rspec", "--to", "ns2", f"{tmp_path}/exp.xml"]) == 0
    assert "tb-set-ip-link $c $link1 10.1.3.2" in capsys.readouterr().out
