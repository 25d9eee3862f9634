"""What an operator may write, and what they are told if they cannot lend guests."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from pydantic import ValidationError

from federation_member.middleware.guest import How
from federation_member.middleware.libvirt.config import LibvirtConfig

OPTIONS: dict[str, Any] = {"state": "/var/lib/fedmesh/machines", "subnet": "10.20.0.0/16"}
WITHOUT_THE_BINDING = """
import sys
sys.modules["libvirt"] = None
from federation_member.plugins import find_middleware
from fedkit.config import UnusableConfig
try:
    find_middleware("libvirt")
except UnusableConfig as error:
    print(error.message)
"""


def test_two_options_are_enough_and_the_rest_is_careful() -> None:
    config = LibvirtConfig.model_validate(OPTIONS)
    assert config.accelerator == "auto"
    assert config.fetch is None
    image = LibvirtConfig.model_validate(OPTIONS | {"images": {"debian": {"path": "/srv/d.qcow2"}}}).images["debian"]
    assert image.user_data is How.CLOUD_INIT


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"pool": "10.21.0.0/24"}, "part of subnet"),
        ({"images": {"a": {"path": "/a", "initrd": "/b"}}}, "initrd needs kernel"),
        ({"images": {"a": {"path": "/a", "user_data": "by post"}}}, "cloud-init"),
        ({"accelerator": "steam"}, "tcg"),
        ({"owner": "a b"}, "owner"),
        ({"limits": {"machines": 0}}, "greater than or equal to 1"),
        ({"flavour": []}, "flavour"),
    ],
    ids=["pool", "initrd", "user data", "accelerator", "owner", "limits", "unknown"],
)
def test_mistakes_are_named(wrong: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        LibvirtConfig.model_validate(OPTIONS | wrong)


def test_a_machine_without_the_binding_is_told_what_to_install() -> None:
    told = subprocess.run([sys.executable, "-c", WITHOUT_THE_BINDING], capture_output=True, text=True, check=True)
    assert "deploy/setup --libvirt" in told.stdout
    assert "python3-dev" in told.stdout
