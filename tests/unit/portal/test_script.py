"""The script that makes a machine a portal."""

from __future__ import annotations

import dataclasses
import subprocess
import tomllib
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from fedkit.portal import config as program
from fedkit.portal.script import PortalConfig, Relay, portal_script
from fedkit.topology.shaping import Shape, Way

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


@pytest.mark.parametrize("host", [None, "host.test", 'odd"\\ host', "höst"])
def test_our_program_understands_its_settings(host: str | None) -> None:
    script = portal_script(
        PortalConfig((3, 7), "key", "ssh-ed25519 AAAA", host, 4711 if host else None, "ssh-ed25519 B")
    )
    said = subprocess.run(
        ["sh"],
        input=script.split("# Makes this machine", 1)[0] + "printf '%s' \"$SETTINGS\"",
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    crossing = '\nstate = "/run/x"\n[[crossing]]\ntag = 3\ninterface = "eth1"\nbridge = "br3"\n'
    config = program.read(tomllib.loads(said + crossing))
    assert (config.active, config.peer) == (host is not None, (host,) if host else ())
    assert (config.local, config.port) == (("", 4711) if host else ("127.0.0.1", 2022))
    assert config.host_key == Path("/etc/fed/portal/host.pub" if host else "/etc/fed/host_key")


@pytest.mark.parametrize("field", ["peer_key", "host", "host_key"])
def test_more_than_one_line_is_refused(field: str) -> None:
    config = PortalConfig((3,), "key", "ssh-ed25519 AAAA", "host.test", 2022, "ssh-ed25519 BBBB")
    said: dict[str, Any] = {field: "one\ntwo"}
    with pytest.raises(ValueError, match="one line"):
        portal_script(dataclasses.replace(config, **said))


RELAY = Relay("192.0.2.7", 2222, "ssh-ed25519 CCCC", "its-name")


@pytest.mark.parametrize(
    ("config", "dials"),
    [
        (PortalConfig((3,), "key", HOSTILE), "-R portal:0:127.0.0.1:2022 tunnel"),
        (PortalConfig((3,), "key", HOSTILE, relay=RELAY), "-R its-name:0:127.0.0.1:2022 tunnel@192.0.2.7"),
        (PortalConfig((3,), "key", HOSTILE, "host.test", 4711, "ssh-ed25519 BBBB"), ""),
    ],
    ids=["its own", "a relay's", "it connects"],
)
def test_who_waits_holds_a_port(tmp_path: Path, config: PortalConfig, dials: str) -> None:
    """Of the tunnel server that its machine has, or else of the relay, by the portal's key and no other host's."""
    program = (files("fedkit.portal") / "portal.sh").read_text()
    shell = 'ssh() { echo "$*"; }\nforever() { "$@"; }\n' + program[program.index("# dial ") :]
    script = f"{settings_of(config)}\ncd {tmp_path}\n{shell}\nwait"
    said = subprocess.run(["sh"], input=script, capture_output=True, text=True, check=True).stdout
    assert said.strip().endswith(dials)
    assert ("-p 2222 -i key" in said) == (config.relay is not None)


@pytest.mark.parametrize("field", ["host", "host_key", "name"])
def test_more_than_one_line_of_a_relay_is_refused(field: str) -> None:
    said: dict[str, Any] = {field: "one\ntwo"}
    with pytest.raises(ValueError, match="one line"):
        portal_script(PortalConfig((3,), "key", HOSTILE, relay=dataclasses.replace(RELAY, **said)))


def test_a_key_is_not_shown() -> None:
    assert "secret" not in repr(PortalConfig((3,), "secret", "ssh-ed25519 AAAA"))


LATE = Shape(Way(delay=10.0, loss=0.1), Way(delay=0.25))


def settings_of(config: PortalConfig) -> str:
    """The beginning of a script, in which it is told what it is."""
    return portal_script(config).split("# Makes this machine", 1)[0]


def test_delays_and_losses_become_keys_of_their_crossing() -> None:
    """As program.sh takes them out of what it was told."""
    script = settings_of(PortalConfig((7, 77), "key", "ssh-ed25519 AAAA", lines={77: LATE, 7: Shape(to=Way(loss=1.0))}))
    program = (files("fedkit.portal") / "program.sh").read_text()
    (take,) = [line for line in program.splitlines() if "LINES" in line and "sed" in line]
    said = {
        tag: subprocess.run(
            ["sh"], input=f"{script}\ncrossing={tag}:eth1\n{take}", capture_output=True, text=True, check=True
        )
        for tag in (7, 77, 777)
    }
    assert {tag: tomllib.loads(done.stdout) for tag, done in said.items()} == {
        7: {"delay_ms": 0.0, "loss": 1.0, "delay_back_ms": 0.0, "loss_back": 0.0},
        77: {"delay_ms": 10.0, "loss": 0.1, "delay_back_ms": 0.25, "loss_back": 0.0},
        777: {},
    }


@pytest.mark.parametrize(("lines", "said"), [({}, "OpenSSH"), ({3: LATE}, "no program")])
def test_openssh_is_no_portal_for_a_late_line(lines: dict[int, Shape], said: str) -> None:
    settings = settings_of(PortalConfig((3,), "key", "ssh-ed25519 AAAA", lines=lines))
    program = (files("fedkit.portal") / "program.sh").read_text()
    script = f"PATH=/nowhere\n{settings}\n{program}\necho OpenSSH"
    assert said in subprocess.run(["sh"], input=script, capture_output=True, text=True, check=False).stdout
