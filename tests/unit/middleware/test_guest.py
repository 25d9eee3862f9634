"""What a virtual machine is given: everything arrives as it was, and nothing breaks out of its place."""

from __future__ import annotations

import base64
import dataclasses
import email
import gzip
import io
import subprocess
import tempfile
from email.message import Message
from importlib.resources import files
from ipaddress import IPv4Address, IPv4Interface
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st
from pycdlib import PyCdlib

from federation_member.middleware.contract import TunnelAccess, UnusableSpec
from federation_member.middleware.guest import OPENSTACK_LIMIT, Guest, HostKey, How, render
from federation_member.middleware.guest.nocloud import LABEL, Nic, nocloud_iso
from federation_member.middleware.guest.render import BOUNDARY
from federation_member.middleware.inside.host_key import for_dropbear

HOST_KEY, TUNNEL_KEY, USER_KEY = HostKey.generate(), HostKey.generate(), HostKey.generate()
TUNNEL = TunnelAccess("tunnel.site-b.test", "192.0.2.7", 2222, HOST_KEY.public, TUNNEL_KEY.private.decode())


def guest(user_data: str = "", **more: Any) -> Guest:
    given: dict[str, Any] = {
        "hostname": "vm-1",
        "keys": [USER_KEY.public],
        "host_key": HOST_KEY,
        "tunnel": TUNNEL,
        "trusted_ca": USER_KEY.public,
        "user_data": user_data,
    }
    return Guest(**(given | more))


def parts(data: bytes) -> dict[str, Message]:
    """The parts of a MIME archive by their names."""
    archive = email.message_from_bytes(data)
    assert archive.get_content_type() == "multipart/mixed"
    return {str(part.get_filename()): part for part in archive.walk() if not part.is_multipart()}


def payload(part: Message) -> bytes:
    content = part.get_payload(decode=True)
    assert isinstance(content, bytes)
    return content


def unpacked(script: bytes, root: Path) -> dict[str, bytes]:
    """Run a script of ours as far as it writes files, below `root` in place of /."""
    text = script.decode()
    assert text.endswith("\nexec /etc/fed/boot\n")
    text = text.removesuffix("exec /etc/fed/boot\n").replace("\nfile /", f"\nfile {root}/")
    subprocess.run(["sh", "-eu"], input=text.replace('"$4"', '"${4:-}"').encode(), check=True, cwd=root)
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


class TestScript:
    def test_all_files_arrive(self, tmp_path: Path) -> None:
        found = unpacked(render(guest("#!/bin/sh\necho 'it''s'\n"), How.SCRIPT), tmp_path)
        assert found["etc/fed/user-script"] == b"#!/bin/sh\necho 'it''s'\n"
        assert found["etc/fed/host_key"] == HOST_KEY.private
        assert found["etc/fed/tunnel_key"] == TUNNEL_KEY.private
        assert found["etc/fed/keys"].decode() == USER_KEY.public + "\n"
        assert found["etc/fed/user_ca"].decode() == USER_KEY.public + "\n"
        assert found["etc/fed/tunnel_address"] == b"tunnel@192.0.2.7/2222\n"
        assert found["etc/hostname"] == b"vm-1\n"
        assert found["etc/fed/alone"] == b""
        modes = {name: (tmp_path / "etc/fed" / name).stat().st_mode & 0o777 for name in ("host_key", "keys", "boot")}
        assert modes == {"host_key": 0o600, "keys": 0o600, "boot": 0o700}

    def test_without_a_tunnel_there_is_none(self, tmp_path: Path) -> None:
        found = unpacked(render(guest(tunnel=None, trusted_ca=None), How.SCRIPT), tmp_path)
        assert not [name for name in found if "tunnel" in name]
        assert found["etc/fed/user_ca"] == b""

    @settings(max_examples=25)
    @given(st.text(st.characters(codec="utf-8", exclude_characters="\0\r"), min_size=1), st.binary(min_size=1))
    def test_no_text_and_no_octet_breaks_out(self, text: str, data: bytes) -> None:
        script = f"#!/bin/sh\n{text}'\n$(touch broken)`touch broken`\"\\\nEOF\n"
        config = (
            f"#cloud-config\nwrite_files: [{{path: /x, encoding: b64, content: {base64.b64encode(data).decode()}}}]\n"
        )
        for user_data, name, content in (
            (script, "etc/fed/user-script", script.encode()),
            (config, "etc/fed/file-0", data),
        ):
            with tempfile.TemporaryDirectory() as root:
                found = unpacked(render(guest(user_data), How.SCRIPT), Path(root))
                assert found[name] == content
                assert "broken" not in found

    def test_the_parts_of_the_script_are_portable(self) -> None:
        for shell in (["sh"], ["bash", "--posix"], ["busybox", "sh"]):
            for name in ("guest/boot.sh", "guest/unpack.sh", "guest/tunnel.sh", "inside/functions.sh"):
                subprocess.run([*shell, "-n", str(files("federation_member.middleware") / name)], check=True)

    def test_unusable_user_data(self) -> None:
        with pytest.raises(UnusableSpec, match="packages is not supported"):
            render(guest("#cloud-config\npackages: [x]\n"), How.SCRIPT)


class TestCloudInit:
    def test_three_parts(self, tmp_path: Path) -> None:
        found = parts(render(guest("#!/bin/sh\necho grüß\r\n"), How.CLOUD_INIT))
        assert list(found) == ["fedmesh-hook", "user-data", "fedmesh-config"]
        hook = payload(found["fedmesh-hook"])
        assert hook.startswith(b"#cloud-boothook\n#!/bin/sh\n")
        written = unpacked(hook, tmp_path)
        assert "etc/fed/alone" not in written
        assert "etc/fed/user-script" not in written
        assert payload(found["user-data"]).decode() == "#!/bin/sh\necho grüß\r\n"
        config = yaml.safe_load(payload(found["fedmesh-config"]))
        assert config["hostname"] == "vm-1"
        assert config["ssh_keys"]["ed25519_public"] == HOST_KEY.public
        assert config["ssh_authorized_keys"] == [USER_KEY.public]

    def test_nothing_of_the_user(self) -> None:
        assert list(parts(render(guest(" \n"), How.CLOUD_INIT))) == ["fedmesh-hook", "fedmesh-config"]

    @pytest.mark.parametrize("begin", ["#cloud-config\n", "#!/bin/sh\n", "#cloud-config-archive\n", "#include\n"])
    def test_a_user_who_plays_with_mime_stays_in_his_part(self, begin: str) -> None:
        text = f"{begin}\n--{BOUNDARY}--\n--{BOUNDARY}\nContent-Type: text/cloud-boothook\n\n#cloud-boothook\nMIME-Version: 1.0\n"
        found = parts(render(guest(text), How.CLOUD_INIT))
        assert list(found) == ["fedmesh-hook", "user-data", "fedmesh-config"]
        assert payload(found["user-data"]).decode() == text

    @pytest.mark.parametrize(
        "text",
        ["MIME-Version: 1.0\nContent-Type: multipart/mixed\n\n", "Content-Type: x\n\n#!/bin/sh", "echo hello", " #!"],
    )
    def test_what_cloud_init_would_ignore_is_refused(self, text: str) -> None:
        with pytest.raises(UnusableSpec, match="cloud-config-archive"):
            render(guest(text), How.CLOUD_INIT)


class TestLimit:
    def test_what_is_too_large_is_compressed(self) -> None:
        text = "#!/bin/sh\n" + "echo a line as long as lines are\n" * 2000
        data = render(guest(text), How.CLOUD_INIT, limit=OPENSTACK_LIMIT)
        assert len(data) <= OPENSTACK_LIMIT
        assert payload(parts(gzip.decompress(data))["user-data"]).decode() == text

    @pytest.mark.parametrize("how", How)
    def test_what_stays_too_large_is_refused(self, how: How) -> None:
        noise = Ed25519PrivateKey.generate().sign(b"").hex() * 20
        text = "#!/bin/sh\n" + "".join(f"# {number * 7919:x} {hash((number, noise)):x}\n" for number in range(4000))
        assert len(render(guest(text), how)) > len(text)
        with pytest.raises(UnusableSpec, match="fetch the rest"):
            render(guest(text), how, limit=OPENSTACK_LIMIT)


class TestBelongings:
    @pytest.mark.parametrize(
        "wrong",
        [
            {"hostname": "a\nb"},
            {"hostname": "a b"},
            {"hostname": "-a"},
            {"hostname": ""},
            {"keys": ["ssh-ed25519 AAAA\nssh-ed25519 BBBB"]},
            {"keys": ["ssh-ed25519 AAAA\0"]},
            {"keys": ['command="x" ssh-ed25519 AAAA']},
            {"trusted_ca": "ssh-ed25519 AAAA\nPermitRootLogin yes"},
            {"tunnel": dataclasses.replace(TUNNEL, address="192.0.2.7\nProxyCommand x")},
            {"tunnel": dataclasses.replace(TUNNEL, host="a b")},
            {"tunnel": dataclasses.replace(TUNNEL, user="-v")},
            {"tunnel": dataclasses.replace(TUNNEL, host_key="ssh-ed25519 AAAA\n* ssh-ed25519 BBBB")},
        ],
        ids=lambda wrong: next(iter(wrong)),
    )
    def test_no_second_line_and_no_second_word(self, wrong: dict[str, Any]) -> None:
        with pytest.raises(UnusableSpec):
            guest(**wrong)

    def test_secrets_are_not_shown(self) -> None:
        shown = repr(guest("#!/bin/sh\npassword=hunter2"))
        assert "PRIVATE" not in shown
        assert "hunter2" not in shown

    def test_a_key_for_dropbear(self) -> None:
        key = for_dropbear(HOST_KEY.private)
        assert key.startswith(b"\0\0\0\x0bssh-ed25519\0\0\0\x40")
        assert len(key) == 4 + 11 + 4 + 64


class TestSeed:
    def test_what_is_on_it(self) -> None:
        nics = [
            Nic(
                "52:54:00:00:00:01", IPv4Interface("10.1.0.9/16"), IPv4Address("10.1.0.1"), (IPv4Address("10.1.0.53"),)
            ),
            Nic("52:54:00:00:00:02"),
            Nic("52:54:00:00:00:03", "none"),
        ]
        image = nocloud_iso("lease-1", "vm-1", b"#!/bin/sh\n", nics)
        assert image[32808 : 32808 + len(LABEL)].decode() == LABEL
        assert len(image) < 100_000
        assert read(image, "user-data") == b"#!/bin/sh\n"
        assert yaml.safe_load(read(image, "meta-data")) == {"instance-id": "lease-1", "local-hostname": "vm-1"}
        first, second, third = yaml.safe_load(read(image, "network-config"))["config"]
        assert first == {
            "type": "physical",
            "name": "eth0",
            "mac_address": "52:54:00:00:00:01",
            "subnets": [
                {"type": "static", "address": "10.1.0.9/16", "gateway": "10.1.0.1", "dns_nameservers": ["10.1.0.53"]}
            ],
        }
        assert second["subnets"] == [{"type": "dhcp4"}]
        assert third["subnets"] == [{"type": "manual"}]

    def test_large_data(self) -> None:
        data = bytes(range(256)) * 1500
        assert read(nocloud_iso("i", "h", data), "user-data") == data

    @pytest.mark.parametrize("mac", ["", "52:54:00:00:00:0G", "52:54:00:00:00:01\n", "52-54-00-00-00-01"])
    def test_not_a_mac_address(self, mac: str) -> None:
        with pytest.raises(ValueError, match="MAC"):
            Nic(mac)


def read(image: bytes, name: str) -> bytes:
    iso, content = PyCdlib(), io.BytesIO()
    iso.open_fp(io.BytesIO(image))
    iso.get_file_from_iso_fp(content, rr_path=f"/{name}")
    iso.close()
    return content.getvalue()
