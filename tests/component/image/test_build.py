"""The base is built from the packages of this machine's own mirror, without root and the same each time."""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
from pathlib import Path

import pytest

from deploy.image import packages
from deploy.image.build import EPOCH, PROGRAMS, STAMP, build
from deploy.image.packages import ImageError
from deploy.portal.build import TOP
from tests.component.middleware.conftest import base

__all__ = ["base"]


def digest(root: Path) -> str:
    """Names, kinds, modes, times and contents of all that is below `root`."""
    whole = hashlib.sha256()
    for path in sorted(root.rglob("*")):
        state = path.lstat()
        content = os.readlink(path).encode() if path.is_symlink() else path.read_bytes() if path.is_file() else b""
        whole.update(f"{path.relative_to(root)} {state.st_mode} {int(state.st_mtime)} ".encode() + content)
    return whole.hexdigest()


@pytest.fixture
def quiet() -> list[str]:
    """What the builder says."""
    return []


def test_built_again_is_the_same(base: Path, tmp_path: Path, quiet: list[str]) -> None:
    if shutil.which("apt-get") is None:
        pytest.skip("the base is built with apt, which is not here")
    here = shutil.copytree(base, tmp_path / "base", symlinks=True)
    build(here, quiet.append)
    assert quiet == []  # it is there: nothing to do, nothing to say
    whole = digest(here)
    (here / STAMP).write_text("of another recipe\n")
    build(here, quiet.append)
    assert quiet
    assert digest(here) == whole
    assert not [path for path in here.rglob("*") if path.lstat().st_mode & (stat.S_ISUID | stat.S_ISGID)]
    assert sum(path.lstat().st_size for path in here.rglob("*")) < 100 << 20
    for program in ("sh", "bash", "ssh", "dbclient", "dropbear", "nc", "wget"):
        assert (
            (here / "usr/bin" / program).is_symlink()
            or (here / "usr/bin" / program).exists()
            or (here / "usr/sbin" / program).exists()
        )


def test_another_portal_is_put_on_the_same_packages(base: Path, tmp_path: Path, quiet: list[str]) -> None:
    shutil.copytree(base, here := tmp_path / "base", symlinks=True)
    whole = digest(build(here, quiet.append))
    (here / "etc" / "hostname").write_text("of these packages\n")
    recipe, _, *packages = (here / STAMP).read_text().splitlines()
    (here / STAMP).write_text("\n".join([recipe, "of another portal", *packages, ""]))
    (here / PROGRAMS / TOP / "old").write_text("")
    build(here, quiet.append)
    assert (here / "etc" / "hostname").read_text() == "of these packages\n"
    assert not (here / PROGRAMS / TOP / "old").exists()
    assert (tmp_path / "base.before" / PROGRAMS / TOP / "old").exists()
    (here / "etc" / "hostname").unlink()
    os.utime(here / "etc", (EPOCH, EPOCH))
    assert digest(here) == whole


def test_without_package_lists_the_next_step_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    config = tmp_path / "apt.conf"
    config.write_text(f'Dir::State "{tmp_path}";\nDir::State::status "/dev/null";\nDir::Cache "{tmp_path}";\n')
    (tmp_path / "lists").mkdir()
    monkeypatch.setenv("APT_CONFIG", str(config))
    with pytest.raises(ImageError, match="apt-get update"):
        packages.closure()


def test_without_apt(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ImageError, match="Debian"):
        packages.closure()


def test_a_mirror_that_hiccups_gets_a_second_try(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "apt-get").write_text("#!/bin/sh\necho x >> tries\n[ $(wc -l < tries) -gt 1 ] && touch a.deb\n")
    (tmp_path / "apt-get").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setattr(packages, "PAUSE", 0.0)
    assert [path.name for path in packages.fetch(["a=1"], tmp_path)] == ["a.deb"]
    (tmp_path / "apt-get").write_text("#!/bin/sh\necho no route >&2\nexit 100\n")
    with pytest.raises(ImageError, match="no route"):
        packages.fetch(["a=1"], tmp_path)
