"""The script of an experiment's machine, run by real shells in namespaces of its own."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from fedkit.node.kit.conf import write
from fedkit.node.script import PLAIN_LIMIT, ROOM, NodeConfig, node_script
from fedkit.topology.shaping import Shape, Way

NASTY = """echo 'it'"'"'s' "$(echo inside)"; printf '%s\\n' `echo x` >&2; echo 'END
END_OF_ROUTES'"""
SHELLS = {"dash": "dash", "bash": "bash --posix", "busybox": "busybox sh"}
NETWORK = "ip link add d0 type bridge; ip address add 10.1.1.2/24 dev d0; ip link set d0 up"
DUEL = """
at() { where=$1; shift; nsenter -t $(eval echo \\$HOLDER$where) -n "$@"; }
for n in 1 2; do
    unshare -n sleep 300 >/dev/null 2>&1 &
    eval HOLDER$n=$!
    HOLDERS="$HOLDERS $!"
    until [ "$(readlink /proc/$!/ns/net)" != "$(readlink /proc/self/ns/net)" ]; do sleep 0.1; done
    ip link add r$n type veth peer name e$n netns $!
    ip address add 10.1.$n.1/24 dev r$n; ip link set r$n up
    at $n ip link set lo up; at $n ip address add 10.1.$n.2/24 dev e$n; at $n ip link set e$n up
    at $n ip route add default via 10.1.$n.1
done
echo 1 >/proc/sys/net/ipv4/ip_forward
at 1 ping -c 1 -w 20 -q 10.1.2.2 >&2 && echo joined
"""
WRITABLE = "mount -t tmpfs none /usr/local; mount -t tmpfs none /var/lib"  # what the kit writes to
pytestmark = pytest.mark.skipif(shutil.which("bwrap") is None, reason="bubblewrap is not installed")


def run(
    folder: Path, config: NodeConfig, shell: str = "dash", after: str = "", before: str = NETWORK
) -> tuple[str, str]:
    """Run a script as root of namespaces that have one interface, or what `before` makes; what it logged, and `after` prints."""
    (folder / "hosts").write_text("127.0.0.1 localhost\n")
    (folder / "tmp").mkdir()
    (folder / "mnt").mkdir(exist_ok=True)
    (folder / "mnt" / "script").write_text(node_script(config))
    argv = ["bwrap", "--unshare-all", "--uid", "0", "--gid", "0", "--cap-add", "ALL", "--ro-bind", "/", "/"]
    argv += ["--proc", "/proc", "--dev", "/dev", "--bind", str(folder / "tmp"), "/tmp"]
    argv += ["--bind", str(folder / "mnt"), "/mnt", "--bind", str(folder / "hosts"), "/etc/hosts"]
    inside = f"{before}\n{SHELLS[shell]} /mnt/script\n{after}"
    done = subprocess.run([*argv, "sh", "-c", inside], capture_output=True, text=True, timeout=60, check=False)
    log = folder / "tmp" / "federate"
    assert log.exists(), done.stderr
    return log.read_text(), done.stdout


@pytest.mark.parametrize("shell", [shell for shell in SHELLS if shutil.which(shell)])
def test_hosts_routes_forwarding_and_the_command(tmp_path: Path, shell: str) -> None:
    config = NodeConfig(
        "node-1",
        {"10.1.1.2": ["node-1"], "10.1.2.3": ["b", "b-lan0"]},
        [("10.1.2.0/24", "10.1.1.3"), ("10.1.3.0/24", "10.1.1.3")],
        forwards=True,
        startup="hostname; echo done >&2",
    )
    log, shown = run(tmp_path, config, shell, "sleep 0.5; ip route; cat /proc/sys/net/ipv4/ip_forward")
    assert log.splitlines()[-2:] == ["node-1", "done"]
    assert "10.1.2.0/24 via 10.1.1.3" in shown
    assert "10.1.3.0/24 via 10.1.1.3" in shown
    assert shown.endswith("1\n")
    assert "10.1.2.3 b b-lan0\n" in (tmp_path / "hosts").read_text()


@pytest.mark.parametrize("shell", [shell for shell in SHELLS if shutil.which(shell)])
def test_parties_are_kept_apart_before_anything_is_forwarded(tmp_path: Path, shell: str) -> None:
    config = NodeConfig("r", apart=[("10.1.1.2", "10.1.2.0/24")], forwards=True)
    again = f"{SHELLS[shell]} /mnt/script; ip rule; cat /proc/sys/net/ipv4/ip_forward"
    log, shown = run(tmp_path, config, shell, again)
    assert log == "node r\n"
    rules = [" ".join(line.split()) for line in shown.splitlines()]
    assert rules[0].startswith("1: from all to 10.1.2.0/24 iif d0")
    assert rules[1].startswith("1: from 10.1.2.0/24 iif d0")
    assert all("blackhole" in rule for rule in rules[:2])
    usual = ["32766: from all lookup main", "32767: from all lookup default"]
    assert rules[2:] == ["2: from all lookup local", *usual, "1"]


@pytest.mark.parametrize("party", [1, 2])
def test_whatever_one_party_sends_the_other_gets_none_of_it(tmp_path: Path, party: int) -> None:
    mine, theirs = f"10.1.{party}", f"10.1.{3 - party}"
    config = NodeConfig("r", apart=[("10.1.1.1", "10.1.2.0/24"), ("10.1.2.1", "10.1.1.0/24")], forwards=True)
    ping = f"at {party} ping -c 1 -q"
    tries = [f"{ping} -w 2 {theirs}.2", f"{ping} -w 2 {theirs}.1", f"{ping} -w 20 {mine}.1"]  # they, r there, r here
    tries += [f"at {party} ip address add {theirs}.2/32 dev lo && {ping} -w 2 -I {theirs}.2 {mine}.1"]  # in their name
    said = "".join(f"{{ {attempt}; }} >&2 && echo done {number}\n" for number, attempt in enumerate(tries))
    heard = f"at {3 - party} grep Icmp: /proc/net/snmp"
    quiet = f'before=$({heard})\n{said}[ "$({heard})" = "$before" ] && echo silence\nkill $HOLDERS'
    log, shown = run(tmp_path, config, after=quiet, before=DUEL)
    assert log == "node r\n"
    assert shown.splitlines() == ["joined", "done 2", "silence"]


def test_hostile_texts_are_texts(tmp_path: Path) -> None:
    log, _ = run(tmp_path, NodeConfig("$(reboot)'", startup=NASTY), after="sleep 0.5")
    assert log.startswith("node $(reboot)'\n")
    assert log.endswith("it's inside\nx\nEND\nEND_OF_ROUTES\n")


def test_a_second_run_changes_nothing(tmp_path: Path) -> None:
    config = NodeConfig("a", {"10.1.1.2": ["a"]}, startup="echo up")
    run(tmp_path, config, after="sh /mnt/script; sleep 0.5")
    lines = (tmp_path / "hosts").read_text().splitlines()
    assert lines.count("10.1.1.2 a") == 1
    assert lines[0] == "127.0.0.1 localhost"


def test_a_long_script_is_packed_and_does_the_same(tmp_path: Path) -> None:
    hosts = {f"10.{n // 250 + 1}.{n % 250 + 1}.2": [f"node-{n}", f"node-{n}-link0"] for n in range(5000)}
    config = NodeConfig("a", hosts, startup="echo up")
    assert PLAIN_LIMIT < len(node_script(config)) < 64 * 1024
    log, _ = run(tmp_path, config, after="sleep 0.5")
    assert log.endswith("up\n")
    assert "10.20.250.2 node-4999 node-4999-link0" in (tmp_path / "hosts").read_text()


@pytest.mark.parametrize("name", ["", "a b", "a\nb", "a\0b"])
def test_names_are_words(name: str) -> None:
    with pytest.raises(ValueError, match="one word"):
        node_script(NodeConfig("a", {"10.1.1.2": [name]}))


def test_services_are_the_kits_business_where_there_is_python(tmp_path: Path) -> None:
    settings = write(
        [
            ("Name", "a"),
            ("File", '/tmp/told 644 it\'s "so"\nand so'),
            ("ControlGateway", "10.1.1.2"),
            ("PortalAlias", "fs"),
        ]
    )
    config = NodeConfig("a", {"10.1.1.2": ["a"]}, settings=settings, startup="cat /tmp/told")
    script = node_script(config)
    assert len(script.encode()) < 48 * 1024
    log, _ = run(tmp_path, config, before=f"{NETWORK}\n{WRITABLE}", after="sleep 1")
    assert log.splitlines()[-5:] == [
        "node a",
        "this node is as it shall be",
        "starting: cat /tmp/told",
        'it\'s "so"',
        "and so",
    ]
    assert (tmp_path / "hosts").read_text().endswith("10.1.1.2 fs\n# names of the federation kit end\n")


def test_without_python_the_start_command_runs_all_the_same(tmp_path: Path) -> None:
    config = NodeConfig("a", settings="Name: a\n", startup="echo up")
    log, _ = run(
        tmp_path, config, before=f"{NETWORK}\n{WRITABLE}\nmount --bind /bin/false /usr/bin/python3", after="sleep 1"
    )
    assert "this machine has no Python, so it takes part in no service" in log
    assert log.endswith("up\n")


@pytest.mark.parametrize(
    ("frr", "metric", "said"),
    [
        ("", "", "this machine has no FRR, so its ways are as computed"),
        ("chmod 755 zebra ospfd", " metric 2013265920", ""),
    ],
)
def test_computed_ways_hold_while_daemons_find_none(tmp_path: Path, frr: str, metric: str, said: str) -> None:
    """The daemons here, if there are any, find nothing: they end at once."""
    config = NodeConfig("a", routes=[("10.1.2.0/24", "10.1.1.3")], networks=["10.1.1.0/24"])
    made = f"mount -t tmpfs none /usr/lib/frr; (cd /usr/lib/frr; echo '#!/bin/sh' | tee zebra >ospfd; {frr})"
    log, shown = run(tmp_path, config, before=f"{NETWORK}\n{WRITABLE}\n{made}", after="ip route")
    assert [line.strip() for line in shown.splitlines() if "via" in line] == [
        f"10.1.2.0/24 via 10.1.1.3 dev d0 proto 250{metric}"
    ]
    assert said in log
    assert ("FEDERATION" in log or "this node is" in log or "failed" in log) is bool(metric)


@pytest.mark.parametrize("shell", [shell for shell in SHELLS if shutil.which(shell)])
def test_what_is_asked_for_no_longer_is_taken_back(tmp_path: Path, shell: str) -> None:
    """As after an extension that was undone: what stands besides is somebody else's."""
    larger = NodeConfig(
        "r",
        routes=[("10.1.5.0/24", "10.1.1.3"), ("10.1.6.0/24", "10.1.1.3"), ("10.1.7.7/32", "10.1.1.3")],
        apart=[("10.1.1.2", "10.1.2.0/24"), ("10.1.1.2", "10.1.3.0/24"), ("10.1.1.2", "10.1.4.4/32")],
    )
    smaller = NodeConfig("r", routes=[("10.1.6.0/24", "10.1.1.4")], apart=[("10.1.1.2", "10.1.3.0/24")])
    look = "ip rule; ip route show via 10.1.1.3; ip route show via 10.1.1.4; echo ==\n"
    again = "".join(f"{SHELLS[shell]} /mnt/{name}; {look}" for name in ("script", "smaller", "none"))
    (tmp_path / "mnt").mkdir()
    (tmp_path / "mnt/smaller").write_text(node_script(smaller))
    (tmp_path / "mnt/none").write_text(node_script(NodeConfig("r")))
    foreign = "ip route add 10.1.8.0/24 via 10.1.1.3"
    _, shown = run(tmp_path, larger, shell, again, before=f"{NETWORK}; {foreign}")
    before, after, end, _ = (" ".join(part.split()) for part in shown.split("=="))
    assert [net in before for net in ("10.1.2.0", "10.1.3.0", "10.1.4.4", "10.1.5.0", "10.1.7.7")] == [True] * 5
    assert [net in after for net in ("10.1.2.0", "10.1.4.4")] == [False] * 2
    assert after.count("10.1.3.0/24 iif d0") == 2
    assert "10.1.6.0/24" in after
    rules = "0: from all lookup local 32766: from all lookup main 32767: from all lookup default"
    assert end.startswith(f"{rules} 10.1.")
    if shell != "busybox":  # which does not tell whose a route is
        assert [net in after for net in ("10.1.5.0", "10.1.7.7")] == [False] * 2
        assert end == f"{rules} 10.1.8.0/24 dev d0"


def test_a_device_may_have_a_long_name(tmp_path: Path) -> None:
    network = NETWORK.replace("d0", "enx0123456789ab")
    shapes = {"10.1.1.2": Shape(Way(2000), Way(0.1))}
    log, shown = run(tmp_path, NodeConfig("a", shapes=shapes), before=network, after="tc qdisc show")
    assert "not as described" not in log
    assert "rate 2Mbit" in shown
    assert "rate 96bit" in shown  # 12 octets a second


def test_what_only_daemons_need_stays_behind_where_there_is_no_room(tmp_path: Path) -> None:
    hosts = {f"10.{n // 250 + 1}.{n % 250 + 1}.2": [f"node-{n}", f"node-{n}-link0"] for n in range(2000)}
    config = NodeConfig("a", hosts, [("10.99.2.0/24", "10.1.1.3")], networks=["10.1.1.0/24"])
    assert len(node_script(config)) < ROOM
    log, shown = run(tmp_path, config, after="ip route")
    assert "too large for FRR" in log
    assert "10.99.2.0/24 via 10.1.1.3 dev d0" in shown
