"""Pieces as testbeds take them: the seed's worked example line by line, without the slips that it has itself."""

from __future__ import annotations

import pytest

from deploy.cli import main
from fedkit.topology import topdl
from fedkit.topology.model import Computer
from fedkit.topology.ns2 import reader, writer
from fedkit.topology.split import split
from fedkit.topology.sub_experiment import GATEWAY, Manner, sub_experiments

SEED = """\
# simple DETER topology for playing with SEER
set ns [new Simulator]
source tb_compat.tcl
set a [$ns node]
set b [$ns node]
set c [$ns node]
set d [$ns node]
set e [$ns node]
set deter_os "FC6-STD"
set deter_hw "pc"
set ucb_os "FC6-SMB"
set ucb_hw "bvx2200"
foreach {node testbed} [list $a deter $b deter $c ucb $d ucb $e ucb] {
    tb-set-node-os $node [set ${testbed}_os]
    tb-set-node-testbed $node $testbed
    tb-set-hardware $node [set ${testbed}_hw]
}
set link0 [ $ns duplex-link $a $b 100Mb 0ms DropTail]
set link1 [ $ns duplex-link $c $b 100Mb 0ms DropTail]
set lan0 [ $ns make-lan "$c $d $e" 100Mb 0ms ]
$ns rtproto Static
$ns run
"""
MANNER = Manner("bwfed", {"deter": "emulab-ops", "ucb": "Deter"})


def node(name: str, hardware: str, system: str, testbed: str, project: str, command: str) -> list[str]:
    """The lines of one node, as the seed prints them."""
    return [
        f"set {name} [$ns node]",
        f"tb-set-hardware ${name} {hardware}",
        f"tb-set-node-os ${name} {system}",
        f"tb-set-node-tarfiles ${name} /usr /proj/{project}/tarfiles/bwfed/fedkit.tgz",
        f"# tb-set-node-testbed ${name} {testbed}",
        f'tb-set-node-startcmd ${name} "sudo -H {command}"',
        f"tb-set-node-failure-action ${name} fatal",
    ]


def portal(name: str, testbed: str, project: str, peer: str) -> list[str]:
    """The lines of a connector."""
    command = (
        f"/usr/local/federation/bin/fed-tun.pl -f /proj/{project}/exp/bwfed/tmp/`hostname`.gw.conf >& /tmp/bridge.log"
    )
    lines = node(name, "pc3000_tunnel", "FBSD7-TVF", testbed, project, command)
    return [*lines, f"# tb-add-node-attribute ${name} {GATEWAY} {peer}"]


BEGIN = ["set ns [new Simulator]", "source tb_compat.tcl"]
END = ["$ns rtproto Session", "$ns run"]
HOSTS = r"/usr/local/federation/bin/make_hosts /proj/emulab-ops/exp/bwfed/tmp/hosts >& /tmp/federate \$USER"
FEDERATE = r"/bin/sh /usr/local/federation/bin/federate.sh >& /tmp/startup \$USER"
DETER = [
    *BEGIN,
    *node("a", "pc", "FC6-STD", "deter", "emulab-ops", HOSTS),
    *node("b", "pc", "FC6-STD", "deter", "emulab-ops", HOSTS),
    *node("control", "pc", "FC6-STD", "deter", "emulab-ops", HOSTS),
    *portal("ucbtunnel0", "deter", "emulab-ops", "ucb"),
    "set link0 [$ns duplex-link $a $b 100000kb 0.0ms DropTail]",
    "tb-set-ip-link $a $link0 10.1.1.2",
    "tb-set-ip-link $b $link0 10.1.1.3",
    "set link1 [$ns duplex-link $b $ucbtunnel0 100000kb 0.0ms DropTail]",
    "tb-set-ip-link $b $link1 10.1.3.3",
    "tb-set-ip-link $ucbtunnel0 $link1 10.1.3.2",
    *END,
]
UCB = [
    *BEGIN,
    *[line for name in "cde" for line in node(name, "bvx2200", "FC6-SMB", "ucb", "Deter", FEDERATE)],
    *portal("detertunnel0", "ucb", "Deter", "deter"),
    "set link1 [$ns duplex-link $c $detertunnel0 100000kb 0.0ms DropTail]",
    "tb-set-ip-link $c $link1 10.1.3.2",
    "tb-set-ip-link $detertunnel0 $link1 10.1.3.3",
    'set lan0 [$ns make-lan "$c $d $e" 100000kb 0.0ms]',
    *[f"tb-set-ip-lan ${name} $lan0 10.1.2.{number}" for number, name in enumerate("cde", 2)],
    *[f"tb-set-lan-simplex-params $lan0 ${name} 0.0ms 100000kb 0 0.0ms 100000kb 0" for name in "cde"],
    *END,
]


async def test_the_seeds_example_line_by_line() -> None:
    pieces = sub_experiments(split((await reader.read(SEED.encode())).topology), MANNER)
    written = {name: writer.write(piece, as_piece=True).split("\n") for name, piece in pieces.items()}
    assert {name: [line for line in lines if line] for name, lines in written.items()} == {"deter": DETER, "ucb": UCB}


async def test_a_piece_is_a_description_that_can_be_read_again() -> None:
    pieces = sub_experiments(split((await reader.read(SEED.encode())).topology), MANNER)
    for piece in pieces.values():
        addresses = {c.name: [i.ip4 for i in c.interfaces] for c in piece.computers}
        for again in (
            (await reader.read(writer.write(piece, as_piece=True).encode())).topology,
            topdl.read(topdl.write(piece), "piece"),
        ):
            assert {c.name: [i.ip4 for i in c.interfaces] for c in again.computers} == addresses
            assert [c.startup for c in again.computers] == [c.startup for c in piece.computers]


async def test_a_users_own_command_software_and_failure_action_stay() -> None:
    more = 'tb-set-node-startcmd $d "echo mine"\ntb-set-node-tarfiles $d /opt /proj/x/mine.tgz\n'
    more += "tb-set-node-failure-action $d nonfatal\n$ns rtproto"
    text = SEED.replace("$ns rtproto", more)
    ucb = sub_experiments(split((await reader.read(text.encode())).topology), MANNER)["ucb"]
    d = next(computer for computer in ucb.computers if computer.name == "d")
    assert str(d.startup).endswith("$USER echo mine")
    assert [(s.install, s.location.rpartition("/")[2]) for s in d.software] == [
        ("/usr", "fedkit.tgz"),
        ("/opt", "mine.tgz"),
    ]
    assert d.failure_action == "nonfatal"


async def test_a_connector_has_the_address_of_all_that_it_stands_for() -> None:
    text = SEED.replace('make-lan "$c $d $e"', 'make-lan "$a $c $d $e"')
    pieces = sub_experiments(split((await reader.read(text.encode())).topology), MANNER)
    tunnel: Computer = next(c for c in pieces["deter"].computers if c.get(GATEWAY))
    lan = next(interface for interface in tunnel.interfaces if interface.substrates == ("lan0",))
    aliases = [attribute.value for attribute in lan.attributes if attribute.name == "ip4_alias"]
    assert [lan.ip4, *aliases] == ["10.1.2.3", "10.1.2.4", "10.1.2.5"]


async def test_the_master_is_who_exports_or_who_is_named() -> None:
    topology = (await reader.read(SEED.replace("$ns run", "# SERVICE: project_export:ucb\n$ns run").encode())).topology
    for manner, master in ((MANNER, "ucb"), (Manner(master="deter"), "deter")):
        pieces = sub_experiments(split(topology), manner)
        assert [name for name, p in pieces.items() if any(c.name == "control" for c in p.computers)] == [master]


def test_the_command(tmp_path: object, capsys: pytest.CaptureFixture[str]) -> None:
    file = f"{tmp_path}/exp.ns"
    with open(file, "w") as out:
        out.write(SEED)
    ask = ["experiment", "split", file, "--to", "ns2", "--name", "bwfed", "--project", "ucb=Deter"]
    assert main([*ask, "--project", "deter=emulab-ops"]) == 0
    lines = [line for line in capsys.readouterr().out.split("\n") if line]
    assert lines == ["# deter", *DETER, "# ucb", *UCB]
    assert main([*ask, "--testbed", "ucb"]) == 0
    assert [line for line in capsys.readouterr().out.split("\n") if line] == UCB
    assert main([*ask, "--testbed", "isi"]) == 2
    assert "there are pieces for deter, ucb" in capsys.readouterr().err
