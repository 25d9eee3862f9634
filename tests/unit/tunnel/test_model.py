"""What `ssh -R` asks for, and which keys may be a machine's."""

from __future__ import annotations

import asyncssh
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reverse_tunnel.errors import BadName, UnusableMachineKey
from reverse_tunnel.model import Wanted, key_id, key_id_of, read_wanted


@pytest.mark.parametrize("host", ["", "*", "localhost", "0.0.0.0", "::", "127.0.0.1", "192.0.2.7"])
def test_an_address_is_no_name(host: str) -> None:
    assert read_wanted(host, 20001) == Wanted("", 20001)
    assert read_wanted(host, 0) == Wanted("", 0)


@pytest.mark.parametrize("name", ["ssh", "web", "a", "port-1", "80", "x" * 63])
def test_a_name_is_a_name_whatever_port_is_beside_it(name: str) -> None:
    assert read_wanted(name, 0) == read_wanted(name, 80) == Wanted(name, 0)


@pytest.mark.parametrize("name", ["-a", "a-", "a.b", "a_b", "x" * 64, "ä", "a b", "../etc", "a\n"])
def test_other_names_are_refused(name: str) -> None:
    with pytest.raises(BadName) as refusal:
        read_wanted(name, 0)
    assert refusal.value.code == "tunnel.bad_name"


@given(st.text(max_size=80), st.integers(0, 2**32 - 1))
def test_whatever_a_client_says_is_read_or_refused(host: str, port: int) -> None:
    try:
        wanted = read_wanted(host, port)
    except BadName:
        return
    assert wanted.name == "" or wanted == Wanted(host, 0)


@pytest.mark.parametrize("kind", ["ssh-ed25519", "ecdsa-sha2-nistp256", "ssh-rsa"])
def test_a_key_has_one_id_however_it_is_written(kind: str) -> None:
    key = asyncssh.generate_private_key(kind)
    line = key.export_public_key().decode().strip()
    assert key_id(line) == key_id(line + " a comment") == key_id_of(key.convert_to_public())


def test_weak_and_foreign_keys_are_refused() -> None:
    with pytest.raises(UnusableMachineKey):
        key_id(asyncssh.generate_private_key("ssh-rsa", key_size=1024).export_public_key().decode())
    with pytest.raises(UnusableMachineKey):
        key_id("ssh-ed25519 AAAA")
    with pytest.raises(UnusableMachineKey):
        key_id("ssh-dss " + "A" * 4000)


def test_a_certificate_is_no_key() -> None:
    authority = asyncssh.generate_private_key("ssh-ed25519")
    user = asyncssh.generate_private_key("ssh-ed25519")
    certificate = authority.generate_user_certificate(user, "anybody", principals=["tunnel"])
    with pytest.raises(UnusableMachineKey):
        key_id(certificate.export_certificate().decode())
