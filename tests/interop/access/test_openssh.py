"""What a grant signs is what OpenSSH takes: its server lets in whom the grant's key certifies, as long as it says, and nobody else."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from federation_member.access.certificates import certify, openssh
from fedkit.identity.keys import PrivateKey

SSHD = shutil.which("sshd", path="/usr/sbin:/usr/bin")
KINDS = [("ed25519", "256"), ("rsa", "3072"), ("ecdsa", "256")]
HOUR = timedelta(hours=1)
PATIENCE = 20.0  # seconds
pytestmark = pytest.mark.skipif(SSHD is None, reason="needs OpenSSH's server; apt-get install openssh-server")


def me() -> str:
    """The account that the tests run under."""
    return pwd.getpwuid(os.geteuid()).pw_name


def run(*command: str) -> tuple[int, str]:
    """Run a program; its status and all that it said."""
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    return done.returncode, done.stdout


def make_key(folder: Path, kind: str = "ed25519", bits: str = "256") -> Path:
    """A user's key, made by ssh-keygen."""
    path = folder / f"id_{kind}"
    status, said = run("ssh-keygen", "-q", "-t", kind, "-b", bits, "-N", "", "-C", "alice", "-f", str(path))
    assert status == 0, said
    return path


@dataclass
class Server:
    """A real sshd that trusts one grant's key, and no authorized keys."""

    port: int

    def lets_in(self, key: Path, certificates: list[str]) -> bool:
        """Whether somebody with this key and certificate gets in."""
        certificate = Path(f"{key}-cert.pub")
        certificate.write_text("".join(f"{line}\n" for line in certificates))
        options = ["BatchMode=yes", "IdentitiesOnly=yes", "StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null"]
        options += [f"IdentityFile={key}", f"CertificateFile={certificate}", "IdentityAgent=none"]
        flags = [flag for option in options for flag in ("-o", option)]
        status, said = run("ssh", "-F", "/dev/null", *flags, "-p", str(self.port), f"{me()}@127.0.0.1", "echo in")
        return status == 0 and said.strip().endswith("in")


@contextmanager
def serving(folder: Path, trusted: str) -> Iterator[Server]:
    """Run sshd on a free port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / "host_key"))
    (folder / "ca").write_text(f"{trusted}\n")
    (folder / "config").write_text(
        f"ListenAddress 127.0.0.1\nPort {port}\nHostKey {folder}/host_key\nPidFile none\nUsePAM no\nStrictModes no\n"
        f"PasswordAuthentication no\nKbdInteractiveAuthentication no\nPermitRootLogin prohibit-password\n"
        f"AuthorizedKeysFile none\nTrustedUserCAKeys {folder}/ca\n"
    )
    assert SSHD is not None
    Path("/run/sshd").mkdir(exist_ok=True)  # it insists on that folder, for privilege separation
    process = subprocess.Popen([SSHD, "-D", "-e", "-f", str(folder / "config")], stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + PATIENCE
        while not _answers(port) and time.monotonic() < deadline:
            time.sleep(0.05)
        yield Server(port)
    finally:
        process.terminate()
        process.wait()


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.mark.parametrize(("kind", "bits"), KINDS)
def test_sshd_lets_in_whom_the_grant_certifies(tmp_path: Path, kind: str, bits: str) -> None:
    grant, other, now = PrivateKey.generate(), PrivateKey.generate(), datetime.now(UTC)
    key = make_key(tmp_path, kind, bits)
    public = Path(f"{key}.pub").read_text().strip()
    with serving(tmp_path, openssh(grant)) as server:
        assert server.lets_in(key, certify(grant, [public], me(), "alice", now, now + HOUR))
        assert not server.lets_in(key, certify(other, [public], me(), "alice", now, now + HOUR))
        assert not server.lets_in(key, certify(grant, [public], me(), "alice", now - 2 * HOUR, now - HOUR))
        assert not server.lets_in(key, [])


def test_ssh_keygen_reads_what_the_certificate_says(tmp_path: Path) -> None:
    grant, now = PrivateKey.generate(), datetime.now(UTC)
    key = make_key(tmp_path)
    certificate = tmp_path / "cert.pub"
    lines = certify(grant, [Path(f"{key}.pub").read_text().strip()], "fed", "A/proj1/alice lease", now, now + HOUR)
    certificate.write_text(lines[0] + "\n")
    status, said = run("ssh-keygen", "-L", "-f", str(certificate))
    assert status == 0, said
    assert "user certificate" in said
    assert 'Key ID: "A/proj1/alice lease"' in said
    principals = said.partition("Principals:")[2].partition("Critical")[0].split()
    assert principals == ["fed", "root"]
    assert "permit-pty" in said
    assert "X11" not in said


def test_only_what_openssh_can_certify_is_certified() -> None:
    now = datetime.now(UTC)
    hardware = "sk-ssh-ed25519@openssh.com AAAAGnNrLXNzaC1lZDI1NTE5QG9wZW5zc2guY29tAAAAIA== alice"
    assert certify(PrivateKey.generate(), [hardware, "ssh-ed25519 nonsense"], "fed", "x", now, now + HOUR) == []
