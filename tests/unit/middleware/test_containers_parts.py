"""The parts of the `containers` kind that decide without touching anything."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from federation_member.middleware.containers.cgroups import Cgroups
from federation_member.middleware.containers.config import ContainersConfig
from federation_member.middleware.containers.ids import FIRST, RANGE, IdSpace
from federation_member.middleware.containers.network import (
    Plug,
    address_in,
    batches,
    free_address,
    hardware_address,
    hardware_address_of,
    parse_network,
)
from federation_member.middleware.contract import NoCapacity, UnusableSpec

INTRANET = IPv4Network("10.1.0.0/16")


def space(tmp_path: Path, text: str) -> IdSpace:
    """What a process with such a map has."""
    for name in ("uid_map", "gid_map"):
        (tmp_path / name).write_text(text)
    return IdSpace.of_this_process(tmp_path)


class TestIds:
    def test_real_root_gives_each_machine_its_own(self, tmp_path: Path) -> None:
        ids = space(tmp_path, "         0          0 4294967295\n")
        assert ids.separate
        one, two = ids.of_machine(1), ids.of_machine(2)
        assert one.first == FIRST + RANGE
        assert one.uids == ((0, FIRST + RANGE, RANGE),)
        assert two.first == one.first + RANGE
        assert not one.only_one

    def test_one_id(self, tmp_path: Path) -> None:
        ids = space(tmp_path, "0 1000 1\n")
        assert not ids.separate
        assert ids.of_machine(7).uids == ((0, 0, 1),)
        assert ids.of_machine(7).only_one

    def test_a_range_in_two_pieces(self, tmp_path: Path) -> None:
        machine = space(tmp_path, "0 1000 1\n1 100000 65536\n").of_machine(7)
        assert machine.uids == ((0, 0, 1), (1, 1, 65535))
        assert not machine.only_one

    def test_a_gap_ends_it(self, tmp_path: Path) -> None:
        assert space(tmp_path, "0 1000 10\n20 100000 65536\n").of_machine(7).uids == ((0, 0, 10),)


class TestNetworks:
    def test_a_network(self) -> None:
        assert parse_network("10.8.0.0/24", "10.8.0.1", INTRANET) == IPv4Network("10.8.0.0/24")

    @pytest.mark.parametrize(
        ("cidr", "gateway", "says"),
        [
            ("nonsense", None, "10.8.0.0/24"),
            ("fd00::/64", None, "IPv4"),
            ("10.8.0.1/24", None, "host bits"),
            ("10.8.0.0/30", None, "prefix length"),
            ("0.0.0.0/0", None, "prefix length"),
            ("10.1.3.0/24", None, "overlaps"),
            ("10.8.0.0/24", "10.9.0.1", "gateway"),
            ("10.8.0.0/24", "10.8.0.255", "gateway"),
        ],
    )
    def test_refused(self, cidr: str, gateway: str | None, says: str) -> None:
        with pytest.raises(UnusableSpec, match=says):
            parse_network(cidr, gateway, INTRANET)

    @given(st.sets(st.integers(1, 6)))
    def test_addresses_are_given_once_until_none_is_left(self, taken: set[int]) -> None:
        pool = IPv4Network("10.8.0.0/29")
        used = {pool[index] for index in taken}
        if len(taken) == 6:
            with pytest.raises(NoCapacity):
                free_address(pool, used)
        else:
            address = free_address(pool, used)
            assert address in pool
            assert address not in used | {pool.network_address, pool.broadcast_address}

    def test_a_wanted_address_is_had_or_refused(self) -> None:
        pool = IPv4Network("10.8.0.0/24")
        taken, reserved = {IPv4Address("10.8.0.7")}, {IPv4Address("10.8.0.1")}
        assert address_in(pool, "10.8.0.9", taken, reserved) == "10.8.0.9"
        assert address_in(pool, "10.8.0.1", taken, reserved) == "10.8.0.1"  # whoever asks for it is the gateway
        assert address_in(pool, None, taken, reserved) == "10.8.0.2"
        with pytest.raises(NoCapacity, match=r"10\.8\.0\.7"):
            address_in(pool, "10.8.0.7", taken, reserved)
        for wrong in ("10.8.0.0", "10.8.0.255", "10.9.0.1", "10.8.0.999"):
            with pytest.raises(UnusableSpec):
                address_in(pool, wrong, taken, reserved)

    def test_only_the_first_interface_is_isolated_and_routed(self) -> None:
        address = IPv4Interface("10.1.0.9/16")
        mac = hardware_address(address.ip)
        first = Plug("br0", address, mac, "fm1n0", isolated=True, gateway=IPv4Address("10.1.0.1"))
        second = Plug("fn2", None, hardware_address_of(1, 1), "fm1n1", isolated=False)
        inside, outside = batches([first, second])
        assert "link add eth0 address 02:fe:0a:01:00:09 type veth peer name fm1n0 netns @OUTSIDE@" in inside
        assert inside.count("route add default via 10.1.0.1 dev eth0") == 1
        assert inside.count("address add") == 1
        assert outside.count("isolated on") == 1
        assert "link set fm1n1 addrgenmode none master fn2 up" in outside


class TestCgroups:
    def mounts(self, tmp_path: Path, *kinds: str) -> Path:
        """A mountinfo file; the hierarchies are folders."""
        lines = []
        for index, kind in enumerate(kinds):
            (root := tmp_path / f"h{index}").mkdir()
            controllers = kind.partition(":")[2]
            if kind.startswith("cgroup2"):
                (root / "cgroup.controllers").write_text(controllers)
            name = kind.partition(":")[0]
            lines.append(f"31 23 0:28 / {root} rw,relatime - {name} none rw,{controllers.replace(' ', ',')}")
        file = tmp_path / "mountinfo"
        file.write_text("\n".join(lines))
        return file

    def test_version_1(self, tmp_path: Path) -> None:
        found = Cgroups.find(
            self.mounts(tmp_path, "cgroup:cpu,cpuacct", "cgroup:memory", "cgroup:pids", "cgroup2:", "tmpfs:")
        )
        assert found
        assert len(found.roots) == 4

    def test_version_2(self, tmp_path: Path) -> None:
        assert Cgroups.find(self.mounts(tmp_path, "cgroup2:cpuset cpu io memory pids"))

    def test_not_all_that_is_needed(self, tmp_path: Path) -> None:
        assert Cgroups.find(self.mounts(tmp_path, "cgroup2:cpu pids")) is None
        assert Cgroups.find(Path("/dev/null")) is None


class TestConfig:
    GIVEN: dict[str, Any] = {"base": "/b", "state": "/s", "subnet": "10.1.0.0/16"}  # noqa: RUF012

    def test_the_base_is_the_first_image(self) -> None:
        config = ContainersConfig.model_validate(self.GIVEN | {"images": {"other": "/o"}})
        assert config.all_images == {"debian": Path("/b"), "other": Path("/o")}

    def test_the_pool_must_be_reachable(self) -> None:
        with pytest.raises(ValidationError, match="pool must be part of subnet"):
            ContainersConfig.model_validate(self.GIVEN | {"pool": "10.2.0.0/24"})
