"""The embedded middleware: a lent machine is a Linux container with its own root, address and ssh server.

    service.py   the contract: what exists, who works on what, what is true after a crash
    book.py      one record on disk for each instance, written before anything is made
    accounts.py  for whom machines run
    network.py   addresses, interfaces, private networks
    joining.py   where a machine stands           fence.py    some machines could lie about where, and are held to the truth
    ids.py       which uids there are to give away
    runtime.py   runc, and the launcher that prepares for it
    oci.py       what runc is told          launch.py   runs once for each machine, as a program of its own
    nodes/       segments of experiments: many nodes at once
    seed.py      what a machine finds in itself: keys, user data, tunnel          machine/  files that go there as they are

runc does the container work, as root or as an unprivileged user in a user namespace. Nothing here has to stay alive: a
machine outlives the member, and a member that starts finds its machines again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from federation_member.middleware.containers.service import ContainersMiddleware

__all__ = ["ContainersMiddleware"]


def __getattr__(name: str) -> Any:
    """Import it when it is asked for: the programs that stand in here as well must be up at once."""
    if name != "ContainersMiddleware":
        raise AttributeError(name)
    from federation_member.middleware.containers.service import ContainersMiddleware

    return ContainersMiddleware
