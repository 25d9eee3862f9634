"""The package runs on a root file system that has Python, iproute2 and a C library, and no Python package at all."""

from __future__ import annotations

import shutil
import sysconfig
from pathlib import Path

import pytest

from deploy.portal.build import build
from tests.component.portal.test_planes import FRAMES, passes
from tests.component.portal.world import SIDES, World, end, eventually, lacks, run

pytestmark = [
    pytest.mark.skipif(lacks() is not None, reason=str(lacks())),
    pytest.mark.skipif(shutil.which("bwrap") is None, reason="needs bubblewrap"),
    pytest.mark.skipif(not Path("/usr/bin/python3").exists(), reason="needs the distribution's Python"),
]


def test_it_is_the_same_file_each_time(tmp_path: Path) -> None:
    for name in ("one", "two"):
        build(tmp_path / name)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def bare(folder: Path) -> list[str]:
    """A root with Python's own library, and the test's folder in it; no site-packages."""
    stdlib = sysconfig.get_path("stdlib")
    shown = ["/usr/bin", "/usr/sbin", "/lib", "/lib64", "/usr/lib/x86_64-linux-gnu", stdlib]
    binds = [option for path in shown if Path(path).exists() for option in ("--ro-bind", path, path)]
    links = ["--symlink", "usr/bin", "/bin", "--symlink", "usr/sbin", "/sbin"]
    return ["bwrap", *binds, *links, "--tmpfs", "/tmp", "--proc", "/proc", "--dev", "/dev", "--dev-bind", "/dev/net/tun",
            "/dev/net/tun", "--bind", str(folder), str(folder), "--cap-add", "ALL", "--die-with-parent"]  # fmt: skip


def test_it_runs_on_a_bare_root(world: World) -> None:
    build(world.folder / "portal.tar.gz")
    run("tar", "xzf", str(world.folder / "portal.tar.gz"), "-C", str(world.folder))
    root = bare(world.folder)
    missing = world.at("portal-a", *root, "python3", "-c", "import asyncssh", check=False)
    assert missing == ""
    program = str(world.folder / "fedmesh-portal" / "portal")
    running = [world.start(side, world.config(side), *root, program) for side in SIDES]
    world.joined("superframes")
    eventually(world.pings, "a ping")
    passes(world, {name: FRAMES[name] for name in ("arp", "vlan")})
    for process in running:
        end(process)
