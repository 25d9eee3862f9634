"""The ns2 dialect, by cases whose results follow from Emulab's rules; and programs that mean harm."""

from __future__ import annotations

import pytest

from fedkit.topology.errors import BadDescription
from fedkit.topology.json_form import as_json
from fedkit.topology.model import Described, Service
from fedkit.topology.ns2.reader import SIZE_LIMIT, read

HEAD = "set ns [new Simulator]\nsource tb_compat.tcl\n"
RUN = "$ns run\n"
SEED = f"""{HEAD}
set a [$ns node]
set b [$ns node]
set c [$ns node]
set d [$ns node]
set e [$ns node]
set ucb_os "FC6-SMB"
tb-set-node-os $a "FC6-STD"
tb-set-node-testbed $a "deter"
tb-set-node-testbed $b "deter"
tb-set-node-os $c $ucb_os
tb-set-node-testbed $c "ucb"
tb-set-hardware $c "bvx2200"
tb-set-node-testbed $d "ucb"
tb-set-node-testbed $e "ucb"
set link0 [ $ns duplex-link $a $b 100Mb 0ms DropTail]
set link1 [ $ns duplex-link $c $b 100Mb 0ms DropTail]
set lan0 [ $ns make-lan "$c $d $e" 100Mb 0ms ]
$ns rtproto Static
{RUN}"""


async def described(body: str, **files: bytes) -> Described:
    return await read((HEAD + body + RUN).encode(), "x.ns", files)


async def problems(text: str | bytes) -> list[tuple[int | None, str]]:
    with pytest.raises(BadDescription) as caught:
        await read(text if isinstance(text, bytes) else text.encode(), "x.ns")
    return [(problem.line, problem.code) for problem in caught.value.problems]


async def test_the_seeds_example_has_the_addresses_that_the_seed_gives() -> None:
    shown = as_json(await read(SEED.encode()))
    assert [
        (computer["name"], computer["testbed"], [(i["substrate"], i["ip4"]) for i in computer["interfaces"]])
        for computer in shown["computers"]
    ] == [
        ("a", "deter", [("link0", "10.1.1.2")]),
        ("b", "deter", [("link0", "10.1.1.3"), ("link1", "10.1.3.3")]),
        ("c", "ucb", [("link1", "10.1.3.2"), ("lan0", "10.1.2.2")]),
        ("d", "ucb", [("lan0", "10.1.2.3")]),
        ("e", "ucb", [("lan0", "10.1.2.4")]),
    ]
    assert shown["substrates"] == [
        {"name": "link0", "kind": "link", "capacity_kbps": 100000, "latency_ms": 0},
        {"name": "link1", "kind": "link", "capacity_kbps": 100000, "latency_ms": 0},
        {"name": "lan0", "kind": "lan", "capacity_kbps": 100000, "latency_ms": 0},
    ]
    c = shown["computers"][2]
    assert (c["os"], c["hardware"], c["failure_action"]) == ("FC6-SMB", "bvx2200", "fatal")
    assert (shown["routing"], shown["warnings"]) == ("Static", [])


async def test_objects_are_named_by_their_first_global_variable() -> None:
    body = """
set first [$ns node]
set second $first
set fe(1) [$ns node]
$ns node
proc make {} { global ns; set local [$ns node]; return $local }
set made [make]
proc keep {} { global ns kept; set kept [$ns node] }
keep
set l [$ns duplex-link $first $fe(1) 1Gb 0ms DropTail]
$ns make-lan "$made $kept" 100Mb 0ms
"""
    topology = (await described(body)).topology
    assert [computer.name for computer in topology.computers] == ["first", "fe-1", "tbnode-n3", "made", "kept"]
    assert [substrate.name for substrate in topology.substrates] == ["l", "tblan-lan7"]


async def test_a_program_is_a_tcl_program() -> None:
    body = """
set lanstr ""
for {set i 0} {$i < 3} {incr i} {
    set n($i) [$ns node]
    append lanstr "$n($i) "
}
foreach {i os} {0 A 1 B 2 C} { tb-set-node-os $n($i) [format "%s-STD" $os] }
if {[llength $lanstr] == [expr 1 + 2]} { set big [$ns make-lan $lanstr 1.5Mb 10ms] }
puts "made [array size n]"
"""
    made = await described(body)
    assert [computer.osid for computer in made.topology.computers] == ["A-STD", "B-STD", "C-STD"]
    (lan,) = made.topology.substrates
    assert (lan.name, lan.capacity and lan.capacity.rate, lan.latency and lan.latency.time) == ("big", 1500, 5)
    assert made.output == "made 3"


async def test_files_sent_along_can_be_sourced() -> None:
    made = await described("source lib.tcl\nset b [$ns node]\n", **{"lib.tcl": b"set a [$ns node]\n"})
    assert [computer.name for computer in made.topology.computers] == ["a", "b"]


async def test_services_stand_in_comments() -> None:
    made = await described("# SERVICE: project_export:deter:ucb,isi:project=TIED;x=1\nset a [$ns node]\n")
    (service,) = made.topology.services
    assert isinstance(service, Service)
    assert (service.name, service.exporters, service.importers) == ("project_export", ("deter",), ("ucb", "isi"))
    assert (service.get("project"), service.get("x")) == ("TIED", "1")


async def test_losses_and_delays_are_put_on_each_side() -> None:
    body = """
set a [$ns node]
set b [$ns node]
set l [$ns duplex-link $a $b 10Mb 20ms DropTail]
tb-set-link-loss $l 0.19
set m [$ns make-lan "$a $b" 10Mb 0ms]
tb-set-lan-simplex-params $m $a 2ms 1Mb 0.1 4ms 2Mb 0.2
tb-set-node-lan-params $b $m 6ms 3Mb 0.3
"""
    a, b = (await described(body)).topology.computers
    on_link, on_lan = a.interfaces
    assert (on_link.latency and on_link.latency.time, round(on_link.loss, 9)) == (10, 0.1)
    assert [on_lan.get(name) for name in ("to_delay", "to_rate", "to_loss")] == ["2", "1000", "0.1"]
    assert [on_lan.get(name) for name in ("from_delay", "from_rate", "from_loss")] == ["4", "2000", "0.2"]
    assert (b.interfaces[1].capacity and b.interfaces[1].capacity.rate, b.interfaces[1].loss) == (3000, 0.3)


async def test_failure_actions_have_a_default() -> None:
    body = """
set a [$ns node]
set b [$ns node]
tb-set-node-failure-action $a "fatal"
tb-set-default-failure-action "nonfatal"
"""
    assert [c.failure_action for c in (await described(body)).topology.computers] == ["fatal", "nonfatal"]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("set x 1\nforeach i {1 2} {\n  set z $nope\n}\n", [(5, "ns2.undefined")]),
        ("set a [$ns node]\ntb-set-node-oss $a x\n", [(4, "ns2.unknown_command")]),
        ("tb-set-node-os $ns x\n", [(3, "ns2.wrong_object")]),
        ("set a [$ns node]\nset a1 [$ns node]\ntb-set-ip $a 10.1.1.2\n", [(5, "ns2.ambiguous")]),
        ("set a-b [$ns node]\nset c_d [$ns node]\n", [(5, "ns2.bad_name")]),
        ("set ops [$ns node]\n", [(4, "ns2.bad_name")]),
        ("set a [$ns node]\nset n [$ns node]\n$ns run\n", [(6, "ns2.second_run")]),
        ("set x {\n", [(3, "ns2.tcl_error")]),
        (
            "set a [$ns node]\nset b [$ns node]\nset l [$ns duplex-link $a $b 100m 0ms DropTail]\n",
            [(5, "ns2.bad_unit")],
        ),
        ("set a [$ns node]\nset b [$ns node]\nset l [$ns duplex-link $a $b 9kb 0ms DropTail]\n", [(5, "ns2.bad_unit")]),
        ("set a [$ns node]\nset b [$ns node]\nset l [$ns duplex-link $a $b 1Mb 1ms DropTail]\n", [(5, "ns2.bad_unit")]),
        ("set a [$ns node]\ntb-set-node-failure-action $a fine\n", [(4, "ns2.bad_failure_action")]),
        ("set a [$ns node]\ntb-set-node-tarfiles $a usr x.tgz\n", [(4, "ns2.bad_tarfile")]),
        ("# SERVICE: 9:\n", [(3, "topology.bad_service")]),
    ],
)
async def test_mistakes_are_told_with_their_line(body: str, expected: list[tuple[int, str]]) -> None:
    assert await problems(HEAD + body + RUN) == expected


async def test_one_run_shows_all_that_is_wrong() -> None:
    body = "set a [$ns node]\ntb-set-ip $a 1.2.3\nfor {set i 0} {$i < 2} {incr i} {\n  tb-set-hardware $a\n}\n"
    found = await problems(HEAD + body + RUN)
    assert found == [(4, "ns2.ambiguous"), (6, "ns2.wrong_arguments"), (6, "ns2.wrong_arguments")]


async def test_what_was_warned_of_before_a_mistake_is_told_with_it() -> None:
    with pytest.raises(BadDescription) as told:
        await described("set a [$ns nodee]\nset b [$ns node]\n$ns duplex-link $a $b 1Mb 0ms DropTail\n")
    assert [(one.line, one.code) for one in told.value.problems] == [(5, "ns2.wrong_object")]
    assert [(one.line, one.code) for one in told.value.warnings] == [(3, "ns2.unknown_method")]


async def test_unknown_classes_and_methods_are_warned_of_and_swallow_calls() -> None:
    made = await described("set a [$ns node]\nset x [new Nonsense]\n$x do things\n[$a frobnicate] more\n")
    assert [(w.line, w.code) for w in made.warnings] == [(4, "ns2.unknown_class"), (6, "ns2.unknown_method")]


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (HEAD, "ns2.no_run"),
        ("", "ns2.empty"),
        ("<html><body>404</body></html>", "ns2.not_ns2"),
        ("set a 1\n<<<<<<< HEAD\n", "ns2.merge_conflict"),
        (b"\xff\xfe", "ns2.not_text"),
        (" " * (SIZE_LIMIT + 1), "ns2.too_large"),
        ("exec ls\n", "ns2.unknown_command"),
        ("open /etc/passwd\n", "ns2.unknown_command"),
        ("socket localhost 80\n", "ns2.unknown_command"),
        ("interp create x\n", "ns2.unknown_command"),
        ("after 100000\n", "ns2.unknown_command"),
        ("vwait forever\n", "ns2.unknown_command"),
        ("load x.so\n", "ns2.unknown_command"),
        ("source /etc/passwd\n", "ns2.unknown_file"),
        ("proc r {} { r }\nr\n", "ns2.too_deep"),
        ("set x [string repeat a 2000000000]\n", "ns2.limit"),
        ("set x a\nwhile 1 { append x $x }\n", "ns2.limit"),
        ("while 1 { new Program }\n", "ns2.too_large"),
        ("while 1 { tb-set-ip a b }\n", "ns2.unknown_object"),
        ("rename set old\nset x 1\n", "ns2.unknown_command"),
    ],
)
async def test_programs_that_mean_harm_end_with_an_error(text: str | bytes, code: str) -> None:
    assert (await problems(text))[0][1] == code


@pytest.mark.parametrize(
    "text", ["while 1 {}\n", "while 1 { catch { tb-x } }\n", "set x {}\nwhile 1 { lappend x $x$x }\n"]
)
async def test_endless_programs_are_stopped_by_the_kernel(text: str) -> None:
    with pytest.raises(BadDescription) as caught:
        await read(text.encode(), "x.ns", cpu_seconds=1)
    assert [problem.code for problem in caught.value.problems] == ["ns2.limit"]
