"""The script that makes a machine a portal."""

from __future__ import annotations

import dataclasses
import subprocess
from typing import Any

import pytest

from fedkit.portal.script import PortalConfig, portal_script

HOSTILE = "ssh-ed25519 AAAA '; touch /tmp/x; $(id) `id`"


def test_what_it_is_told_is_text_to_the_shell() -> None:
    script = portal_script(PortalConfig((3, 7), "-----BEGIN\n'$(id)\n-----END\n", HOSTILE))
    settings = script.split("# Makes this machine", 1)[0]
    said = subprocess.run(
        ["sh"], input=settings + 'printf "%s|%s" "$PEER_KEY" "$TAGS"', capture_output=True, text=True, check=True
    )
    assert said.stdout == f"{HOSTILE}|3 7"


def test_the_shell_understands_it() -> None:
    active = PortalConfig((3,), "key", "ssh-ed25519 AAAA", "host.test", 2022, "ssh-ed25519 BBBB")
    subprocess.run(["sh", "-n"], input=portal_script(active), text=True, check=True)


@pytest.mark.parametrize("field", ["peer_key", "host", "host_key"])
def test_more_than_one_line_is_refused(field: str) -> None:
    config = PortalConfig((3,), "key", "ssh-ed25519 AAAA", "host.test", 2022, "ssh-ed25519 BBBB")
    said: dict[str, Any] = {field: "one\ntwo"}
    with pytest.raises(ValueError, match="one line"):
        portal_script(dataclasses.replace(config, **said))


def test_a_key_is_not_shown() -> None:
    assert "secret" not in repr(PortalConfig((3,), "secret", "ssh-ed25519 AAAA"))
