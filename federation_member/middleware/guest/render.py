"""Makes the user data of a virtual machine.

One POSIX script of ours does everything: it writes the machine's files (`middleware/inside/`) and then runs boot.sh, which adds
the account, shows the host key, trusts the lender's certificates and keeps the tunnel up. It finds its way with OpenSSH or
Dropbear, with systemd or without, and may be run at every start. How it gets to run, and the user's own data with it:

`cloud-init`: a MIME archive. The script is a `#cloud-boothook`: cloud-init runs it at each start, before sshd starts and before any
   package is installed, so a slow or broken part of the user's never costs the tunnel. The user's own part comes as it was
   written; a `#cloud-config` of ours goes last and is merged so that it adds to the user's and replaces nothing.
   All bodies are base64: no text can look like the end of its part. Source: cloud-init's reference, "User data formats".
`script`: that script alone, for images that run user data and have nothing else (busybox and dropbear will do); the user's data
   are read here, as for containers, and become part of it.
"""

from __future__ import annotations

import base64
import gzip
import shlex
from dataclasses import dataclass, field
from email.message import Message
from email.mime.multipart import MIMEMultipart
from email.mime.nonmultipart import MIMENonMultipart
from enum import StrEnum
from importlib.resources import files

import yaml

from federation_member.middleware.contract import UnusableSpec
from federation_member.middleware.inside.files import (
    PLAIN,
    PROGRAM,
    SECRET,
    Belongings,
    Files,
    belongings,
    text_of,
    user_part,
)
from federation_member.middleware.inside.host_key import for_dropbear
from federation_member.middleware.user_data import UserData, parse

OPENSTACK_LIMIT = 65_535 // 4 * 3  # octets: Nova takes 65,535 characters of base64 (its API reference, "user_data")
BOUNDARY = "=-of-the-federation-="  # no line of base64 can begin with a hyphen
MERGE = "dict(no_replace,recurse_list)+list(append)+str()"
USER_FORMATS = ("#!", "#cloud-config", "#cloud-boothook", "#include", "#part-handler", "## template: jinja")
_HERE = files("federation_member.middleware.guest")


class How(StrEnum):
    """How an image treats user data."""

    CLOUD_INIT = "cloud-init"
    SCRIPT = "script"  # it runs them as root when it starts, if they begin with #!


@dataclass(frozen=True)
class Guest(Belongings):
    """One virtual machine; `user_data` is what the user sent."""

    user_data: str = field(default="", repr=False)


def render(guest: Guest, how: How, limit: int | None = None) -> bytes:
    """Return the user data, at most `limit` octets.

    Raises `UnusableSpec` if the user's part is of an unknown format, or if it all gets too large.
    """
    if how is How.SCRIPT:
        data = _script(guest, parse(guest.user_data), alone=True)
    else:
        data = _archive(guest)
        if limit is not None and len(data) > limit:
            data = gzip.compress(data, mtime=0)  # which cloud-init unpacks
    if limit is not None and len(data) > limit:
        raise UnusableSpec(
            f"With what the federation adds, the user data are {len(data)} octets, and this lender takes {limit}: "
            "let them fetch the rest.",
            limit=limit,
        )
    return data


def _archive(guest: Guest) -> bytes:
    """Our script, the user's part, our configuration."""
    archive = MIMEMultipart(boundary=BOUNDARY)
    hook = b"#cloud-boothook\n" + _script(guest, UserData(), alone=False)
    archive.attach(_part("cloud-boothook", "fedmesh-hook", hook))
    if guest.user_data.strip():
        if not guest.user_data.startswith(USER_FORMATS):
            first_line = guest.user_data.split("\n", 1)[0]
            raise UnusableSpec(
                f"User data begin with {first_line[:60]!r}; cloud-init understands a script that begins with #!, #cloud-config, "
                "and for several parts #cloud-config-archive."
            )
        archive.attach(_part("plain", "user-data", guest.user_data.encode()))  # cloud-init looks at how it begins
    config = _part("cloud-config", "fedmesh-config", _cloud_config(guest))
    config["Merge-Type"] = MERGE
    archive.attach(config)
    return archive.as_bytes()


def _part(kind: str, name: str, content: bytes) -> Message:
    part = MIMENonMultipart("text", kind, charset="utf-8")
    part.set_payload(base64.encodebytes(content).decode())
    part["Content-Transfer-Encoding"] = "base64"
    part.add_header("Content-Disposition", "attachment", filename=name)
    return part


def _cloud_config(guest: Guest) -> bytes:
    config = {
        "hostname": guest.hostname,
        "preserve_hostname": False,
        "ssh_authorized_keys": guest.keys,  # of the image's usual account
        "disable_root": False,
        "ssh_keys": {"ed25519_private": guest.host_key.private.decode(), "ed25519_public": guest.host_key.public},
    }
    return b"#cloud-config\n" + yaml.safe_dump(config).encode()


def _script(guest: Guest, data: UserData, *, alone: bool) -> bytes:
    """The program that writes the machine's files and runs boot.sh."""
    content, setup = user_part(guest.keys, data)
    content |= belongings(guest) | _of_guests(guest)
    content["etc/fed/setup"] = (text_of(setup), PLAIN)
    if alone:
        content["etc/fed/alone"] = (b"", PLAIN)
    else:
        del content["etc/hostname"]  # cloud-init's business
    unpacker = (_HERE / "unpack.sh").read_text()
    return "\n".join([unpacker, *map(_write, content.items()), "exec /etc/fed/boot", ""]).encode()


def _of_guests(guest: Guest) -> Files:
    content: Files = {
        "etc/fed/boot": ((_HERE / "boot.sh").read_bytes(), PROGRAM),
        "etc/fed/host_key.pub": (text_of([guest.host_key.public]), PLAIN),
        "etc/fed/host_key.dropbear": (for_dropbear(guest.host_key.private), SECRET),
        "etc/fed/sshd_config": ((_HERE / "sshd_config").read_bytes(), PLAIN),
    }
    if (tunnel := guest.tunnel) is not None:
        address = f"{tunnel.user}@{tunnel.address}/{tunnel.port}"
        content |= {
            "etc/fed/tunnel": ((_HERE / "tunnel.sh").read_bytes(), PROGRAM),
            "etc/fed/tunnel.service": ((_HERE / "tunnel.service").read_bytes(), PLAIN),
            "etc/fed/tunnel_key.dropbear": (for_dropbear(tunnel.private_key.encode()), SECRET),
            "etc/fed/tunnel_address": (text_of([address]), PLAIN),
        }
    return content


def _write(file: tuple[str, tuple[bytes, int]]) -> str:
    """A call of unpack.sh's `file`; text stays legible."""
    name, (content, mode) = file
    try:
        text = content.decode()
        if "\0" not in text:
            return shlex.join(["file", f"/{name}", f"{mode:o}", text])
    except UnicodeDecodeError:
        pass
    return shlex.join(["file", f"/{name}", f"{mode:o}", base64.b64encode(content).decode(), "base64"])
