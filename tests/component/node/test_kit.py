"""Nodes of an experiment, made by the kit with real Samba and FRR, and unmade."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest

from fedkit.node.archive import archive
from fedkit.node.kit.conf import write
from tests.support.nodes import DONE, KIT, STATE, Node, Tree, node, switched, until

pytestmark = [
    pytest.mark.root,
    pytest.mark.timeout(300),
    pytest.mark.skipif(
        not all(map(shutil.which, ("smbd", "smbnetfs", "nsenter"))), reason="samba or smbnetfs is not installed"
    ),
]
HOSTS = [("Host", "10.1.1.2 a a-link0"), ("Host", "10.1.1.3 e e-link0"), ("Host", "10.1.1.4 spy")]
PEOPLE = [
    ("Service", "userconfig"),
    ("Group", "tied 20100"),
    ("Account", "rosa 20101 tied"),
    ("SSHKey", "rosa ssh-ed25519 AAAA rosa@home"),
]
FILES = [
    ("Service", "SMB"),
    ("ControlGateway", "10.1.1.2"),
    ("PortalAlias", "fs"),
    ("ProjectName", "tied"),
    ("ProjectUser", "rosa"),
    ("SMBPassword", "s3cret"),
]
A = [("Name", "a"), *HOSTS, ("Hide", "spy"), *PEOPLE, *FILES, ("SMBExport", "tied"), ("SMBExport", "data")]
E = [("Name", "e"), *HOSTS, *PEOPLE, *FILES, ("SMBShare", "tied"), ("SMBShare", "data")]
KILLER = """
import os, runpy, signal, sys
left = int(sys.argv[1])
SEEN = {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.chmod", "os.chown", "subprocess.Popen",
        "shutil.rmtree", "os.kill", "socket.sethostname", "os.truncate"}
def count(event, arguments):
    global left
    if event in SEEN and not (event == "open" and arguments[2] & 3 == 0):
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(count)
sys.argv = sys.argv[2:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def test_a_file_of_one_node_is_read_at_another_under_the_same_account() -> None:
    with switched("10.1.1.2", "10.1.1.3") as (a, e):
        (a.root / "opt/client.conf").write_text(write(A))
        (e.root / "opt/client.conf").write_text(write(E))
        before = [(each.tree(), each.kernel()) for each in (a, e)]
        a.kit("apply")
        e.kit("apply")
        for path in ("/proj/tied", "/share/data"):
            a.by("rosa", f"echo from a >{path}/written && mkdir {path}/folder")
            assert e.by("rosa", f"cat {path}/written && echo from e >{path}/folder/back") == "from a\n"
            assert a.by("rosa", f"cat {path}/folder/back") == "from e\n"
            owners = [each.sh(f"stat -c %U:%u {path}/folder/back") for each in (a, e)]
            assert owners == ["rosa:20101\n"] * 2
        assert e.sh("cat /home/rosa/.ssh/authorized_keys") == "ssh-ed25519 AAAA rosa@home\n"
        assert "10.1.1.2 fs" in e.sh("cat /etc/hosts")
        assert "spy" in e.sh("cat /etc/hosts")
        assert "spy" not in a.sh("cat /etc/hosts")
        assert not e.sh(
            "smbclient -s /dev/null -m SMB3 -U rosa%wrong //10.1.1.2/tied -c ls >/dev/null 2>&1 && echo in; true"
        )
        for each in (e, a):
            each.kit("undo")
        check_as_before((a, e), before)


def test_a_second_time_changes_nothing_and_mends_what_died() -> None:
    with switched("10.1.1.2", "10.1.1.3") as (a, e):
        a.kit("apply", conf=write([*A, ("Startup", "date +%N >>/tmp/started")]))
        e.kit("apply", conf=write(E))
        until(lambda: a.sh("cat /tmp/started", check=False), "the start command")
        once = {path: said for path, said in a.tree().items() if path != "tmp/federate"}, a.kernel()
        a.kit("apply")
        again = {path: said for path, said in a.tree().items() if path != "tmp/federate"}, a.kernel()
        assert again == once
        a.by("rosa", "echo once >/proj/tied/file")
        e.sh("kill -9 $(pidof smbnetfs)")
        until(lambda: not e.sh("cat /proj/tied/file", check=False), "the mount is dead")
        e.kit("apply")
        assert e.by("rosa", "cat /proj/tied/file") == "once\n"


def test_killed_at_any_step_it_is_undone() -> None:
    wanted = [*A, ("Route", "10.1.9.0/24 10.1.1.3"), ("Forward", "yes"), ("Startup", "sleep 1000")]
    wanted += [("File", "/etc/new/motd 644 hello"), ("Daemon", "waiter sleep 1000")]
    with switched("10.1.1.2") as (a,):
        a.run("ip", "route", "add", "10.1.9.0/24", "via", "10.1.1.77")
        (a.root / "opt/client.conf").write_text(write(wanted))
        (a.root / "opt/killer.py").write_text(KILLER)
        before = a.tree(), a.kernel()
        step, dead = 1, True
        while dead:
            dead = killed(a, step, "apply")
            if step % 2:
                killed(a, 1 + step % 23, "undo")
            a.kit("undo")
            (a.root / "tmp/federate").unlink(missing_ok=True)
            assert (a.tree(), a.kernel()) == before, f"killed at step {step}"
            step += 7
        assert step > 100


def check_as_before(nodes: Sequence[Node], before: Sequence[tuple[Tree, list[str]]]) -> None:
    """Nothing is left, and nothing is missing."""
    for each, (files, kernel) in zip(nodes, before, strict=True):
        assert dict(each.tree().items() ^ files.items()) == {}
        assert each.kernel() == kernel


def killed(machine: Node, step: int, verb: str) -> bool:
    """Run the kit and kill it at a step; whether it came so far."""
    command = [
        "/usr/bin/python3",
        "/opt/killer.py",
        str(step),
        KIT,
        verb,
        "--conf",
        "/opt/client.conf",
        "--patience",
        "5",
    ]
    machine.run(*command, check=False)
    log = machine.root / "tmp/federate"
    return verb == "apply" and not (log.exists() and DONE in log.read_text())


def test_what_is_wanted_no_longer_goes() -> None:
    with node() as machine:
        people = [("Name", "a"), *HOSTS, *PEOPLE]
        machine.kit("apply", conf=write([*people, ("Account", "bob 20101 tied"), ("Daemon", "one sleep 1000")]))
        assert machine.sh("id -u bob; pidof sleep | wc -w").split()[0] == "20102"  # rosa has the number
        machine.kit("apply", conf=write(people))
        assert "bob" not in machine.sh("cat /etc/passwd /etc/shadow; ls /home")
        assert "sleep 1000" not in machine.sh("ps -e -o args")
        kept = [one["change"] for one in json.loads(machine.kit("status"))]
        assert "records of /etc/passwd" in kept
        assert not any("bob" in change for change in kept)


def test_a_conf_that_cannot_be_read_changes_nothing() -> None:
    with node() as machine:
        before = machine.tree(), machine.kernel()
        said = machine.kit("apply", conf="Name: a\nTeleport: yes\n", check=False)
        assert said == ""
        machine.sh(f"test ! -e {STATE}")
        (machine.root / "opt/client.conf").write_text("")
        assert (machine.tree(), machine.kernel()) == before


@pytest.mark.skipif(not Path("/usr/lib/frr/ospfd").exists(), reason="frr is not installed")
def test_session_routing_finds_ways_and_forgets_them() -> None:
    with switched("10.1.1.2", "10.1.1.3") as (a, e):
        for each, inner in ((a, "10.1.2.1"), (e, "10.1.3.1")):
            each.sh(f"ip link add eth1 type bridge && ip address add {inner}/24 dev eth1 && ip link set eth1 up")
        before = [(each.tree(), each.kernel()) for each in (a, e)]
        common = [
            ("Routing", "Session"),
            ("Forward", "yes"),
            ("Network", "10.1.1.0/24"),
            ("Route", "10.1.8.0/24 10.1.1.9"),
        ]
        confs = [
            [("Name", "a"), *common, ("Network", "10.1.2.0/24")],
            [("Name", "e"), *common, ("Network", "10.1.3.0/24")],
        ]
        for each, conf in zip((a, e), confs, strict=True):
            each.kit("apply", conf=write(conf))
        until(lambda: "10.1.3.0/24 nhid" in a.sh("ip route") or "10.1.3.0/24 via" in a.sh("ip route"), "a learns")
        until(lambda: "10.1.2.0/24" in e.sh("ip route"), "e learns")
        assert "10.1.8.0" not in a.sh("ip route")  # what is found is not set
        daemons = a.sh("pidof zebra ospfd")
        a.sh("ip link set eth1 down")
        a.kit("apply", conf=write(confs[0]))  # a link that is down now belongs to the experiment all the same
        assert a.sh("pidof zebra ospfd") == daemons
        a.sh("ip link set eth1 up")
        a.sh("kill -9 $(pidof zebra)")  # so it cannot take its routes back
        for each in (a, e):
            each.kit("undo")
            (each.root / "opt/client.conf").write_text("")
        check_as_before((a, e), before)


def test_without_frr_the_ways_are_as_computed_and_it_is_said() -> None:
    with switched("10.1.1.2") as (a,):
        a.sh("sed -i /^frr/d /etc/passwd")
        conf = [("Name", "a"), ("Routing", "ospf"), ("Network", "10.1.1.0/24"), ("Route", "10.1.8.0/24 10.1.1.9")]
        said = a.kit("apply", conf=write(conf))
        assert "there is no account frr; they are as computed" in said
        assert "10.1.8.0/24 via 10.1.1.9" in a.sh("ip route")


def test_manual_routing_sets_nothing_and_static_what_is_said() -> None:
    with switched("10.1.1.2") as (a,):
        route = ("Route", "10.1.8.0/24 10.1.1.9")
        a.kit("apply", conf=write([("Name", "a"), ("Routing", "Manual"), route]))
        assert "10.1.8.0" not in a.sh("ip route")
        a.kit("apply", conf=write([("Name", "a"), ("Routing", "Static"), route]))
        assert "10.1.8.0/24 via 10.1.1.9" in a.sh("ip route")


def test_the_archive_is_the_same_each_time() -> None:
    assert archive() == archive()
