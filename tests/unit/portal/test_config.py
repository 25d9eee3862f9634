"""A portal's file."""

from __future__ import annotations

from pathlib import Path

import pytest

from fedkit.portal.config import load
from fedkit.portal.errors import UnusableConfig
from fedkit.portal.line import LineShape
from fedkit.portal.planes.contract import PlaneName

SEED = """
active = true
nat_partner = false
tunnelip = false
peer = ["portal.b.example", "192.0.2.7"]
ssh_pubkey = "/k/peer.pub"
ssh_privkey = "/k/key"
host_key = "/k/host.pub"
state = "/s"
"""
CROSSING = '[[crossing]]\ntag = 7\ninterface = "eth1"\nbridge = "br7"\n'


def written(folder: Path, text: str) -> Path:
    path = folder / "portal.toml"
    path.write_text(text)
    return path


def test_the_seeds_keys_and_ours(tmp_path: Path) -> None:
    more = 'permit = ["a:445"]\n[[forward]]\nlisten = "10.0.0.2:445"\nto = "a:445"\n' + CROSSING + "rate_kbps = 1000\n"
    config = load(written(tmp_path, SEED + more))
    assert config.peer == ("portal.b.example", "192.0.2.7")
    assert config.planes == tuple(PlaneName)
    assert config.crossing[0].rate_kbps == 1000
    assert config.crossing[0].tap == "tap7"
    assert config.forward[0].to == "a:445"
    assert config.local == ""
    assert not config.crossing[0].out
    assert not config.crossing[0].back


def test_what_a_crossing_does_to_frames(tmp_path: Path) -> None:
    (crossing,) = load(
        written(tmp_path, SEED + CROSSING + "delay_ms = 20\nloss = 0.5\ndelay_back_ms = 0.25\n")
    ).crossing
    assert (crossing.out, crossing.back) == (LineShape(0.02, 0.5), LineShape(0.00025, 0))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (SEED, "crossing"),
        (SEED.replace("192.0.2.7", "") + CROSSING, "peer: '' is neither"),
        (SEED.replace("portal.b.example", "portal..example") + CROSSING, "peer: 'portal..example' is neither"),
        (SEED.replace("portal.b.example", 64 * "ü") + CROSSING, "is neither an address nor a name"),
        (SEED + f'permit = ["{64 * "a"}.example:80"]\n' + CROSSING, "is not HOST:PORT"),
        (SEED.replace("nat_partner", "nat_parner") + CROSSING, "did you mean nat_partner"),
        (SEED.replace("active = true\n", "") + CROSSING, "active: is missing"),
        (SEED.replace("true", '"yes"', 1) + CROSSING, "active: must be of type bool"),
        (SEED.replace("tunnelip = false", "tunnelip = true") + CROSSING, "which address"),
        (SEED + "port = 65536\n" + CROSSING, "port"),
        (SEED + 'planes = ["carrier-pigeon"]\n' + CROSSING, "carrier-pigeon"),
        (SEED + CROSSING.replace("eth1", "eth1; reboot"), "no name of an interface"),
        (SEED + CROSSING.replace("7", "4095", 1), "crossing.tag|tag"),
        (SEED + CROSSING + "delay_ms = -1\n", "delay_ms"),
        (SEED + CROSSING + "delay_back_ms = 10001\n", "delay_back_ms"),
        (SEED + CROSSING + "loss = nan\n", "loss"),
        (SEED + CROSSING + "loss_back = 1.01\n", "loss_back"),
        (SEED + CROSSING + "loss = true\n", "loss"),
        (SEED + CROSSING + CROSSING, "belongs to one crossing"),
        (SEED + CROSSING + '[[forward]]\nlisten = "10.0.0.2"\nto = "a:1"\n', "not HOST:PORT"),
        (SEED + CROSSING + '[relay]\nhost = "d"\nport = 22\nhost_key = "/h"\nkey = "/k"\n', "the end that waits"),
        ("active = ", "not TOML"),
    ],
)
def test_refused(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(UnusableConfig, match=told):
        load(written(tmp_path, text))


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(UnusableConfig, match="cannot be read"):
        load(tmp_path / "none")


@pytest.mark.parametrize("place", ["a:0", "a:65536", "a:99999", "a:445\\n", "a", ":445"])
def test_what_is_no_place_is_refused(tmp_path: Path, place: str) -> None:
    with pytest.raises(UnusableConfig, match="HOST:PORT"):
        load(written(tmp_path, f'permit = ["{place}"]\n' + SEED + CROSSING))


@pytest.mark.parametrize("port", [1, 80, 9999, 10000, 59999, 65535])
def test_a_place_has_any_port(tmp_path: Path, port: int) -> None:
    assert load(written(tmp_path, f'permit = ["a:{port}"]\n' + SEED + CROSSING)).permit == (f"a:{port}",)
