"""`fed config`: what the sample says is what the models accept."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from deploy.cli import main
from deploy.commands.config import Component, _model
from fedkit.identity.keys import PrivateKey


@pytest.mark.parametrize("component", list(Component))
def test_a_sample_is_accepted_by_its_model(component: Component, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "sample", component]) == 0
    _model(component).model_validate(tomllib.loads(capsys.readouterr().out))


@pytest.mark.parametrize("component", list(Component))
def test_a_sample_with_everything_switched_on_is_toml_of_known_keys(
    component: Component, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["config", "sample", component])
    lines = [line.removeprefix("# ") for line in capsys.readouterr().out.splitlines() if _is_setting(line)]
    _model(component).model_validate(tomllib.loads("\n".join(lines)))


def _is_setting(line: str) -> bool:
    bare = line.removeprefix("# ")
    if bare.endswith("= ..."):
        return False  # nothing stands there by default
    return bare.startswith("[") or " = " in bare.split("`")[0].split('"')[0]


def _configuration(tmp_path: Path, sample: str) -> Path:
    key, secret = tmp_path / "key.pem", tmp_path / "secret"
    PrivateKey.generate().save(key)
    secret.write_text("secret\n")
    file = tmp_path / "site.toml"
    file.write_text(sample.replace("/etc/fedmesh/key.pem", str(key)).replace("/etc/fedmesh/xmpp.secret", str(secret)))
    return file


@pytest.mark.parametrize("component", [one for one in Component if one is not Component.POLICY])
def test_check_tells_whose_file_it_is(component: Component, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["config", "sample", component])
    file = _configuration(tmp_path, capsys.readouterr().out)
    assert main(["config", "check", str(file)]) == 0
    assert f"a {component} with the fedid" in capsys.readouterr().err


def test_check_names_the_nearest_key(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["config", "sample", "rendezvous"])
    file = _configuration(tmp_path, capsys.readouterr().out)
    file.write_text(file.read_text().replace("host =", "hots ="))
    assert main(["config", "check", str(file)]) == 2
    told = capsys.readouterr().err
    assert "did you mean host?" in told
    assert "[config.invalid]" in told


def test_check_reads_the_key_that_the_file_names(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["config", "sample", "rendezvous"])
    file = _configuration(tmp_path, capsys.readouterr().out)
    (tmp_path / "key.pem").chmod(0o644)
    assert main(["config", "check", str(file)]) == 2
    assert "chmod 600" in capsys.readouterr().err


@pytest.mark.parametrize("content", ["= nonsense", "\0", "a = " + "[" * 100_000], ids=["nonsense", "nul", "deep"])
def test_a_file_that_is_not_toml_is_unusable(content: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "site.toml"
    file.write_text(content)
    assert main(["config", "check", str(file)]) == 2
    assert "TOML" in capsys.readouterr().err
