"""A libvirtd that belongs to one site: `python -m deploy.lab.libvirtd FOLDER`. No systemd, and nothing of the host's own libvirt.

libvirtd knows its folders by compiled-in names. A mount namespace of its own puts the site's there, so sites stand side by
side, and a libvirtd that was killed finds its guests again when it is started with the same folder: they keep running meanwhile.
What it knows of the host's QEMU is kept in the host's own cache, because finding that out takes seconds. `/sys` is mounted anew,
because it shows the interfaces of the network namespace that it was mounted in.
"""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path

PLACES = {"etc": "/etc/libvirt", "lib": "/var/lib/libvirt", "log": "/var/log/libvirt", "run": "/run/libvirt"}
SETTINGS = {
    "unix_sock_rw_perms": "0700",
    "auth_unix_rw": "none",  # whoever can open the socket, and the folder is closed to others
    "auth_unix_ro": "none",
}
QEMU_CONF = """\
user = "root"
group = "root"
dynamic_ownership = 0
remember_owner = 0
security_driver = "none"
cgroup_controllers = []
namespaces = []
stdio_handler = "file"
"""
"""Guests run as the lab's root: it is nobody outside, and the lab's files need no second owner. Without virtlogd, QEMU writes
consoles itself."""


def write(folder: Path) -> None:
    """Write what `command` needs."""
    for name in PLACES:
        (folder / name).mkdir(parents=True, exist_ok=True, mode=0o700)
    settings = SETTINGS | {"unix_sock_dir": str(folder)}
    (folder / "libvirtd.conf").write_text("".join(f'{name} = "{value}"\n' for name, value in settings.items()))
    (folder / "etc/qemu.conf").write_text(QEMU_CONF)


def command(folder: Path) -> list[str]:
    """The command line; every step execs, so the pid stays."""
    mounts = "".join(
        f"mkdir -p {place}; mount --bind {shlex.quote(str(folder / name))} {place}\n" for name, place in PLACES.items()
    )
    daemon = shlex.join(["libvirtd", "-f", str(folder / "libvirtd.conf"), "-p", str(folder / "pid")])
    return ["unshare", "--mount", "sh", "-e", "-c", f"{mounts}mount -t sysfs sysfs /sys\nexec {daemon}"]


def uri(folder: Path) -> str:
    """Where it is found."""
    return f"qemu+unix:///system?socket={folder}/libvirt-sock"


def main(folder: Path) -> None:
    """Become the libvirtd of this folder; it says itself that it is ready (sd_notify(3))."""
    write(folder)
    os.execvp("unshare", command(folder))  # noqa: S606  whoever started this may signal libvirtd by its pid


if __name__ == "__main__":
    main(Path(sys.argv[1]))
