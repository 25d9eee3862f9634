"""The kit on a bare Debian: a root file system of Python, busybox and the libraries that they need, and nothing else."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.image.packages import closure, fetch
from fedkit.node.kit.conf import write
from tests.support.nodes import make_root, node, until

ROOTS = ("python3-minimal", "python3.11-minimal", "libpython3.11-stdlib", "busybox-static", "base-files")
pytestmark = [
    pytest.mark.root,
    pytest.mark.timeout(400),
    pytest.mark.skipif(not all(map(shutil.which, ("apt-get", "dpkg-deb", "nsenter"))), reason="no Debian"),
]
CONF = [
    ("Name", "bare"),
    ("Host", "10.1.1.2 bare"),
    ("Host", "10.1.2.2 far"),
    ("Route", "10.1.2.0/24 10.1.1.9"),
    ("Forward", "yes"),
    ("Group", "tied 20100"),
    ("Account", "rosa 20101 tied"),
    ("SSHKey", "rosa ssh-ed25519 AAAA rosa@home"),
    ("ControlKey", "secret"),
    ("Listen", "10.1.1.2:16505"),
    ("Startup", "id -un >/tmp/started"),
]


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The root file system, unpacked from packages; no maintainer script runs."""
    root = tmp_path_factory.mktemp("bare")
    debs = tmp_path_factory.mktemp("debs")
    for name in ("bin", "sbin", "lib", "lib64"):
        (root / "usr" / name).mkdir(parents=True)
        (root / name).symlink_to(f"usr/{name}")
    for deb in fetch(closure(ROOTS), debs):
        archive = subprocess.run(["dpkg-deb", "--fsys-tarfile", deb], stdout=subprocess.PIPE, check=True).stdout
        subprocess.run(["tar", "-x", "-C", root, "--keep-directory-symlink"], input=archive, check=True)
    for command in subprocess.run([root / "bin/busybox", "--list"], stdout=subprocess.PIPE, check=True).stdout.split():
        if not (root / "bin" / command.decode()).exists():
            (root / "bin" / command.decode()).symlink_to("busybox")
    make_root(root)
    yield root
    shutil.rmtree(root)


def test_the_kit_installs_on_a_bare_root_file_system(bare: Path) -> None:
    assert not list(bare.rglob("site-packages"))
    with node(bare) as machine:
        machine.sh("ip link add eth0 type bridge && ip address add 10.1.1.2/24 dev eth0 && ip link set eth0 up")
        (machine.root / "opt/client.conf").write_text(write(CONF))
        before = machine.tree(), machine.sh("ip route"), machine.sh("hostname")
        machine.kit("apply")
        assert machine.sh("hostname; ip route; id rosa").splitlines()[0] == "bare"
        assert "10.1.2.0/24 via 10.1.1.9" in machine.sh("ip route")
        assert "10.1.2.2 far" in machine.sh("cat /etc/hosts")
        assert machine.sh("id rosa").startswith("uid=20101(rosa) gid=20100(tied)")
        until(lambda: machine.sh("cat /tmp/started", check=False) == "root\n", "the start command")
        until(lambda: "bare" in machine.kit("ask", "nodes"), "the agent")
        machine.kit("apply")
        machine.sh("rm /tmp/started")
        machine.kit("undo")
        assert dict(machine.tree().items() ^ before[0].items()) == {}
        assert (machine.sh("ip route"), machine.sh("hostname")) == before[1:]


def test_what_an_image_lacks_is_told_and_hinders_nothing_else(bare: Path) -> None:
    share = [("ControlGateway", "10.1.1.9"), ("ProjectUser", "rosa"), ("ProjectName", "tied"), ("SMBPassword", "x")]
    with node(bare) as machine:
        said = machine.kit("apply", conf=write([*CONF[:1], *share, ("SMBShare", "tied"), CONF[-1]]), check=False)
        assert "install cifs-utils or smbnetfs" in said
        until(lambda: machine.sh("cat /tmp/started", check=False) == "root\n", "the start command")
        machine.kit("undo")
        assert not machine.sh("ls -d /proj /var/lib/federation 2>/dev/null", check=False)
