"""The `libvirt` kind: a lent machine is a QEMU guest, on a host that somebody runs with libvirt.

    service.py     the contract: what exists, who works on what, what is true after a crash
    book.py        one record on disk for each instance, written before anything is made
    machines.py    a guest from its first file to its last; power, console
    storage.py     volumes, attachments, snapshots
    networks.py    private networks, names and addresses of interfaces; containers/fence.py keeps guests to their addresses
    xml.py         what libvirt is told
    hypervisor.py  the connection: calls that may hang, events, reconnecting        threads.py   where calls hang
    disks.py       files of disks, by qemu-img            probe.py   whether the processor's virtualisation really works

Guests belong to libvirtd, not to the member: they outlive both, and whoever starts finds them again.
"""

from fedkit.config import UnusableConfig

try:
    import libvirt  # noqa: F401
except ImportError as error:
    raise UnusableConfig(
        "[middleware] kind 'libvirt' needs the Python package libvirt-python in the version of the host's libvirt; "
        "run `deploy/setup --libvirt`, or install fedmesh[libvirt] with gcc, pkg-config, libvirt-dev and python3-dev."
    ) from error

from federation_member.middleware.libvirt.service import LibvirtMiddleware

__all__ = ["LibvirtMiddleware"]
