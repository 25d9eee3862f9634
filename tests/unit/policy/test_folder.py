"""Folders of credentials: what bounds them. What they hold, tests/unit/cli/test_abac.py shows."""

from __future__ import annotations

import datetime
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from fedkit.identity.keys import PrivateKey, PublicKey
from fedkit.policy.errors import BadCredential, MissingIssuer, TwoKeys
from fedkit.policy.formats import Form, folder, write
from fedkit.policy.formats.identities import self_signed
from fedkit.policy.model import Statement

NOW = datetime.datetime(2026, 11, 22, 12, tzinfo=datetime.UTC)
KEY = PrivateKey.generate("p256")
STATEMENT = Statement.parse(f"{KEY.fedid}.a <- {KEY.fedid}.b")


def credential(form: Form) -> bytes:
    """One credential."""
    return write(form, KEY, STATEMENT, NOW)


def test_too_many_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder, "FILES_LIMIT", 2)
    for number in range(3):
        assert folder.read_folder(tmp_path).unusable == []
        (tmp_path / f"{number}.cred").write_bytes(credential(Form.COMPACT))
    with pytest.raises(BadCredential):
        folder.read_folder(tmp_path)


def test_too_much_in_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = credential(Form.COMPACT)
    monkeypatch.setattr(folder, "TOTAL_LIMIT", 2 * len(data))
    for number in range(3):
        assert len(folder.read_folder(tmp_path).credentials) == number
        (tmp_path / f"{number}.cred").write_bytes(data)
    with pytest.raises(BadCredential):
        folder.read_folder(tmp_path)


def test_the_order_of_names_does_not_matter(tmp_path: Path) -> None:
    """An attribute certificate is read although its issuer comes later, with another credential or as an identity."""
    (tmp_path / "a.der").write_bytes(credential(Form.X509))
    (unusable,) = folder.read_folder(tmp_path).unusable
    assert isinstance(unusable.error, MissingIssuer)
    for name, data in (
        ("b.xml", credential(Form.GENI_1_1)),
        ("b_ID.pem", self_signed(KEY, "Acme", NOW).public_bytes(Encoding.PEM)),
    ):
        (tmp_path / name).write_bytes(data)
        found = folder.read_folder(tmp_path)
        assert found.unusable == []
        assert tmp_path / "a.der" in [entry.file for entry in found.entries]
        (tmp_path / name).unlink()


def test_two_carried_keys_with_one_fedid_stop_everything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if SHA-1 had been broken."""
    (tmp_path / "a.cred").write_bytes(credential(Form.COMPACT))
    other = PrivateKey.generate("p256")
    statement = Statement.parse(f"{other.fedid}.a <- {other.fedid}.b")
    (tmp_path / "b.cred").write_bytes(write(Form.COMPACT, other, statement, NOW))
    assert len(folder.read_folder(tmp_path).credentials) == 2
    monkeypatch.setattr(PublicKey, "fedid", property(lambda _: "0" * 40))
    with pytest.raises(TwoKeys):
        folder.read_folder(tmp_path)


def test_hidden_files_and_folders_are_none_of_ours(tmp_path: Path) -> None:
    (tmp_path / ".hidden").write_text("hello")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "a.cred").write_bytes(credential(Form.COMPACT))
    found = folder.read_folder(tmp_path)
    assert (found.entries, found.unusable) == ([], [])
