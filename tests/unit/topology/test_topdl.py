"""topdl 1.0: what is written is read again, and what the schema forbids is told with its line."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedkit.topology import topdl
from fedkit.topology.errors import BadDescription
from fedkit.topology.model import (
    Attribute,
    Capacity,
    Computer,
    Cpu,
    Element,
    ElementService,
    Id,
    Interface,
    Latency,
    OperatingSystem,
    Other,
    Parameter,
    Segment,
    Software,
    Storage,
    Substrate,
    Testbed,
    Topology,
    unnamed_interfaces_named,
)
from fedkit.topology.xml import SIZE_LIMIT

PAIR = b"""<?xml version="1.0"?>
<experiment>
  <version>1.0</version>
  <substrates>
    <name>link0</name>
    <capacity><rate>100000</rate><kind>max</kind></capacity>
    <latency><time>2.5</time><kind>average</kind></latency>
    <attribute><attribute>loss</attribute><value>0.01</value></attribute>
  </substrates>
  <elements>
    <computer>
      <name>a</name>
      <cpu count="2"><type>x86</type></cpu>
      <os><attribute><attribute>osid</attribute><value>FC6-STD</value></attribute></os>
      <software><location>http://x.test/f.tgz</location><install>/usr</install></software>
      <storage><amount>512</amount><persistence>persistent</persistence></storage>
      <interface>
        <substrate>link0</substrate>
        <attribute><attribute>ip4_address</attribute><value>10.1.1.2</value></attribute>
        <attribute><attribute>ip4_netmask</attribute><value>255.255.255.0</value></attribute>
      </interface>
      <attribute><attribute>testbed</attribute><value>deter</value></attribute>
      <attribute><attribute>failureaction</attribute><value>nonfatal</value></attribute>
      <localname>pc17.deter.test</localname>
      <status>active</status>
      <service><name>SMB</name><importer>ucb</importer><param><name>port</name><type>int</type></param></service>
      <operation>reboot</operation>
    </computer>
  </elements>
  <elements><testbed><uri>https://ucb.test</uri><type>emulab</type><interface><substrate>link0</substrate><name>up</name></interface></testbed></elements>
  <elements><segment><id><localname>seg</localname></id><type>emulab</type><uri>https://x.test</uri></segment></elements>
  <elements><other><attribute><attribute>k</attribute><value>v</value></attribute></other></elements>
  <attribute><attribute>whole</attribute><value>1</value></attribute>
</experiment>
"""


def problems_of(data: bytes) -> list[tuple[int | None, str]]:
    with pytest.raises(BadDescription) as caught:
        topdl.read(data, "x.xml")
    return [(problem.line, problem.code) for problem in caught.value.problems]


def test_every_kind_of_element_is_read() -> None:
    topology = topdl.read(PAIR)
    (substrate,) = topology.substrates
    assert substrate.capacity == Capacity(100000)
    assert substrate.latency == Latency(2.5, "average")
    a = next(topology.computers)
    assert (a.name, a.osid, a.testbed, a.failure_action) == ("a", "FC6-STD", "deter", "nonfatal")
    assert a.cpus == (Cpu("x86", 2),)
    assert a.software == (Software("http://x.test/f.tgz", "/usr"),)
    assert a.storage == (Storage(512, "persistent"),)
    assert (a.interfaces[0].name, a.interfaces[0].ip4, a.interfaces[0].netmask) == (
        "inf000",
        "10.1.1.2",
        "255.255.255.0",
    )
    assert a.services == (ElementService("SMB", ("ucb",), (Parameter("port", "int"),)),)
    assert (a.local_names, a.status, a.operations) == (("pc17.deter.test",), "active", ("reboot",))
    assert [type(element) for element in topology.elements] == [Computer, Testbed, Segment, Other]
    assert [element for element, _interface in topology.ends["link0"]] == list(topology.elements[:2])
    assert topology.attributes == (Attribute("whole", "1"),)
    assert topdl.read(topdl.write(topology)) == topology


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (b"<name>a</name>", b"", [(11, "topology.bad_structure")]),
        (b"<rate>100000</rate>", b"<rate>fast</rate>", [(6, "topology.bad_value")]),
        (b"<rate>100000</rate>", b"<rate>nan</rate>", [(6, "topology.bad_value")]),
        (b"<kind>max</kind>", b"<kind>least</kind>", [(6, "topology.bad_value")]),
        (b'count="2"', b'count="0"', [(13, "topology.bad_value")]),
        (b"<status>active</status>", b"<colour>red</colour>", [(25, "topology.bad_structure")]),
        (b"<version>1.0</version>", b"<version>1.0</version><version>1.0</version>", [(3, "topology.bad_structure")]),
        (b"<substrate>link0</substrate>\n", b"<substrate>link9</substrate>\n", [(18, "topology.unknown_substrate")]),
        (b"<substrate>link0</substrate>\n", b"", [(17, "topology.bad_structure")]),
        (b"<testbed>", b"<testbed/><testbed>", [(30, "topology.bad_structure")]),
        (b"<localname>seg</localname>", b"<nickname>seg</nickname>", [(31, "topology.bad_structure")]),
        (b"</experiment>", b"", [(35, "topology.not_xml")]),
        (b"<experiment>", b"<!DOCTYPE experiment><experiment>", [(None, "topology.document_type")]),
    ],
)
def test_what_the_schema_forbids_is_told_with_its_line(old: bytes, new: bytes, expected: list[Any]) -> None:
    assert old in PAIR
    assert problems_of(PAIR.replace(old, new, 1)) == expected


def test_elements_out_of_order_are_refused() -> None:
    swapped = PAIR.replace(b"<status>active</status>", b"").replace(
        b"<name>a</name>", b"<status>active</status><name>a</name>"
    )
    assert (13, "topology.bad_structure") in problems_of(swapped)


def test_names_occur_once() -> None:
    twice = topdl.read(PAIR)
    doubled = Topology(
        substrates=twice.substrates * 2, elements=(*twice.elements, twice.elements[0]), version=twice.version
    )
    written = topdl.write(doubled)
    names = [
        number
        for number, line in enumerate(written.splitlines(), 1)
        if b"<name>link0</" in line or b"<name>a</" in line
    ]
    assert problems_of(written) == [(names[1], "topology.duplicate_name"), (names[3], "topology.duplicate_name")]


def test_a_bomb_of_entities_is_refused() -> None:
    entities = b"".join(b'<!ENTITY e%d "%s">' % (n, b"&e%d;" % (n - 1) * 10) for n in range(1, 10))
    bomb = b'<!DOCTYPE x [<!ENTITY e0 "ha">' + entities + b"]><x><version>&e9;</version></x>"
    assert problems_of(bomb)[0][1] in {"topology.document_type", "topology.not_xml"}


def test_size_depth_and_number_of_problems_are_bounded() -> None:
    assert problems_of(b" " * (SIZE_LIMIT + 1)) == [(None, "topology.too_large")]
    assert problems_of(b"<a>" * 100_000)[0][1] == "topology.not_xml"
    assert len(problems_of(b"<x>" + b"<bad/>" * 5000 + b"</x>")) == topdl.PROBLEMS_LIMIT


names = st.text("abcdefghijklmnopqrstuvwxyz0123456789-", min_size=1, max_size=8)
texts = st.text(
    st.characters(codec="utf-8", exclude_categories=("Cc", "Cs", "Zs", "Zl", "Zp", "Cn", "Co")), max_size=12
)
numbers = st.floats(0, 1e9, allow_subnormal=False).map(lambda x: float(f"{x:.15g}"))
kinds = st.sampled_from(["max", "average"])
attributes = st.lists(st.builds(Attribute, names, texts), max_size=3).map(tuple)
optional = st.none() | names
services = st.lists(
    st.builds(
        ElementService,
        names,
        st.lists(names, max_size=2).map(tuple),
        st.lists(st.builds(Parameter, names, st.sampled_from(["string", "int", "float"])), max_size=2).map(tuple),
        optional,
        optional,
    ),
    max_size=2,
).map(tuple)
rates = st.none() | st.builds(Capacity, numbers, kinds)
delays = st.none() | st.builds(Latency, numbers, kinds)
served: dict[str, Any] = {
    "local_names": st.lists(names, max_size=2).map(tuple),
    "status": optional,
    "services": services,
    "operations": st.lists(names, max_size=2).map(tuple),
}


@st.composite
def topologies(draw: st.DrawFn) -> Topology:
    substrates = draw(
        st.lists(
            st.builds(Substrate, names, rates, delays, attributes, **served), max_size=4, unique_by=lambda s: s.name
        )
    )
    elements: list[Element] = []
    where = st.sampled_from([s.name for s in substrates] or ["none"])
    interface = st.builds(
        Interface, names, st.lists(where, min_size=1, max_size=2).map(tuple), rates, delays, attributes
    )
    ends = st.lists(interface, max_size=3 if substrates else 0).map(tuple)
    for number in range(draw(st.integers(0, 4))):
        computer = st.builds(
            Computer,
            name=st.just(f"n{number}"),
            cpus=st.lists(st.builds(Cpu, names, st.integers(1, 9), attributes), max_size=2).map(tuple),
            os=st.lists(st.builds(OperatingSystem, optional, optional, optional, optional, attributes), max_size=2).map(
                tuple
            ),
            software=st.lists(st.builds(Software, names, optional, attributes), max_size=2).map(tuple),
            storage=st.lists(
                st.builds(Storage, numbers, st.sampled_from(["temporary", "persistent"]), attributes), max_size=1
            ).map(tuple),
            interfaces=ends,
            attributes=attributes,
            **served,
        )
        testbed = st.builds(Testbed, uri=names, type=names, interfaces=ends, attributes=attributes, **served)
        segment = st.builds(
            Segment, id=st.builds(Id, st.sampled_from(["uuid", "uri"]), names), type=names, uri=names, interfaces=ends
        )
        elements.append(draw(computer | testbed | segment | st.builds(Other, interfaces=ends, attributes=attributes)))
    return Topology(tuple(substrates), tuple(elements), draw(attributes))


@given(topologies())
def test_what_is_written_is_read_again(topology: Topology) -> None:
    assert topdl.read(topdl.write(topology)) == topology


@given(st.lists(st.sampled_from(["", "", "inf000", "inf002", "eth0"]), max_size=6))
def test_unnamed_interfaces_get_names_of_their_own(given_names: list[str]) -> None:
    named = unnamed_interfaces_named(Interface(name, ("x",)) for name in given_names)
    fresh = [new.name for old, new in zip(given_names, named, strict=True) if not old]
    assert len(set(fresh)) == len(fresh)
    assert not set(fresh) & set(given_names)
    assert [new.name for old, new in zip(given_names, named, strict=True) if old] == [
        name for name in given_names if name
    ]


@given(st.binary(max_size=200) | st.text(max_size=200).map(lambda text: f"<x>{text}</x>".encode(errors="replace")))
def test_garbage_is_refused_not_raised(data: bytes) -> None:
    with suppress(BadDescription):
        topdl.read(data)
