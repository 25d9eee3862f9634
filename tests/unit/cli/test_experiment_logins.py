"""What lenders gave becomes files that ssh obeys, and nothing that they say gets in there but names, numbers and keys."""

from __future__ import annotations

import stat
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy.commands.errors import UnusableFile
from deploy.commands.experiment_logins import write
from federation_member.experiments.keys import ExperimentKey
from fedkit.identity import sealing
from fedkit.identity.keys import UnusableKey
from fedkit.protocol.segments import LOGIN, Login

KEY = ExperimentKey.generate()
HOST_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIFZ3vXvM5Yy0m2mD0Yc0v9u0m6J7s7n0wq0m2mD0Yc0v"


def node(**changes: Any) -> dict[str, Any]:
    """One that can be entered."""
    return {"name": "n1", "host": "dmz.site-a.test", "port": 20001, "host_keys": [HOST_KEY]} | changes


def answer(*nodes: dict[str, Any], testbed: str = "deter/inner", user: str = "root") -> dict[str, Any]:
    """What a member tells, of one testbed."""
    login = Login(testbed=testbed, user=user, private_key="secret\n").model_dump_json().encode()
    part = {"testbed": testbed, "sealed": sealing.seal(KEY.seal_to, LOGIN, login), "nodes": list(nodes)}
    return {"segments": [part], "credential": "abc.def.ghi"}


def settings(directory: Path, name: str) -> dict[str, str]:
    """How ssh understands the file."""
    command = ["ssh", "-G", "-F", str(directory / "ssh_config"), name]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return dict(line.split(" ", 1) for line in told.splitlines() if " " in line)


def test_ssh_knows_each_node_its_key_and_nobody_elses(tmp_path: Path) -> None:
    directory = tmp_path / "100% of it"
    (found,) = write(directory, answer(node()), KEY.pem)
    told = settings(directory, "n1")
    assert {name: told[name] for name in ("hostname", "port", "user", "hostkeyalias", "stricthostkeychecking")} == {
        "hostname": "dmz.site-a.test",
        "port": "20001",
        "user": "root",
        "hostkeyalias": "n1",
        "stricthostkeychecking": "true",
    }
    assert found.identity.read_text() == "secret\n"
    assert (directory / "known_hosts").read_text() == f"n1 {HOST_KEY}\n"
    assert (directory / "experiment.cred").read_text() == "abc.def.ghi\n"
    assert {stat.S_IMODE(path.stat().st_mode) for path in directory.iterdir()} == {0o600}
    assert settings(directory, "n2")["hostname"] == "n2"


def test_it_may_be_repeated_when_a_node_has_moved(tmp_path: Path) -> None:
    write(tmp_path, answer(node()), KEY.pem)
    write(tmp_path, answer(node(port=20002)), KEY.pem)
    assert settings(tmp_path, "n1")["port"] == "20002"
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


@pytest.mark.parametrize(
    "changes",
    [
        {"host": "x\nProxyCommand touch /tmp/gotcha"},
        {"host": "-oProxyCommand=touch"},
        {"host": None},
        {"name": "n1\nMatch all"},
        {"name": "*"},
        {"port": None},
        {"host_keys": []},
        {"host_keys": [f"{HOST_KEY}\n* {HOST_KEY}"]},
        {"host_keys": ["@cert-authority *"]},
    ],
)
def test_what_could_say_more_than_it_should_is_left_out(tmp_path: Path, changes: dict[str, Any]) -> None:
    assert write(tmp_path, answer(node(**changes)), KEY.pem) == []
    assert "Host " not in (tmp_path / "ssh_config").read_text().replace("# ", "")


@given(st.text(max_size=80), st.text(max_size=80), st.text(max_size=20))
def test_no_text_of_a_lenders_adds_a_line(host: str, name: str, user: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder), answer(node(host=host, name=name), user=user), KEY.pem)
        lines = (Path(folder) / "ssh_config").read_text().splitlines()
        assert len(lines) in (1, 13)
        assert len((Path(folder) / "known_hosts").read_text().splitlines()) <= 1


def test_what_is_sealed_for_others_or_is_nonsense_costs_its_own_testbed_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert write(tmp_path, answer(node()), ExperimentKey.generate().pem) == []
    found = answer(node())
    nonsense = {"testbed": "odd", "sealed": sealing.seal(KEY.seal_to, LOGIN, b"[]"), "nodes": [node(name="n2")]}
    found["segments"].insert(0, nonsense)
    assert [one.name for one in write(tmp_path, found, KEY.pem)] == ["n1"]
    assert "odd" in capsys.readouterr().err


def test_a_node_that_two_testbeds_claim_is_nobodys(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = answer(node(), node(name="n2"))
    thief = answer(node(host="elsewhere.test"), node(name="n3"), testbed="thief")
    found["segments"].insert(0, *thief["segments"])
    assert {one.name for one in write(tmp_path, found, KEY.pem)} == {"n2", "n3"}
    assert settings(tmp_path, "n1")["hostname"] == "n1"
    assert "n1" in capsys.readouterr().err


def test_a_key_file_without_the_key_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnusableKey):
        write(tmp_path, answer(node()), KEY.identity.pem)


def test_a_directory_that_ssh_cannot_be_told_of_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnusableFile):
        write(tmp_path / 'a"b', answer(node()), KEY.pem)
