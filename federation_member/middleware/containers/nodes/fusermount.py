#!/usr/bin/python3 -IS
"""`fusermount` of a node, which may mount nothing: asks the program that its lender runs for the segment (mounts.py).

    fusermount [-o OPTION,…] [--] FOLDER    mounts, and hands the descriptor to whom libfuse says, by the socket _FUSE_COMMFD
    fusermount -u [-q] [-z] [--] FOLDER     unmounts

Which folders, and how, is the lender's choice: /etc/fed/mounts lists them. Of the options `auto_unmount` alone means something: once the
program that serves the folder has ended, it is unmounted.
"""

from __future__ import annotations

import getopt
import os
import signal
import socket
import sys

DOOR = "\0fedmesh-mounts"  # a unix socket of the node's network
MOUNT, UNMOUNT, DONE = "mount", "unmount", b"done"
MOST_SAID = 4000  # octets of what went wrong


def main(arguments: list[str]) -> None:
    """Do what the command line says; raises `OSError` with the lender's words."""
    chosen, folders = getopt.gnu_getopt(arguments, "o:uqz")
    folder = os.path.abspath(folders[0])
    if ("-u", "") in chosen:
        ask(UNMOUNT, folder)
        return
    given = [socket.socket(fileno=int(os.environ["_FUSE_COMMFD"]))]
    for descriptor in ask(MOUNT, folder):
        socket.send_fds(given[0], [b"\0"], [descriptor])
        os.close(descriptor)
    if any("auto_unmount" in value.split(",") for name, value in chosen if name == "-o"):
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        mounted = mount_at(folder)
        while given[0].recv(1):
            pass
        if mounted and mount_at(folder) == mounted:
            ask(UNMOUNT, folder)


def ask(what: str, folder: str) -> list[int]:
    """Ask the lender; returns the descriptor of what was mounted."""
    with socket.socket(socket.AF_UNIX) as door:
        door.connect(DOOR)
        door.sendall(f"{what} {folder}".encode())
        said, descriptors, *_ = socket.recv_fds(door, MOST_SAID, 1)
    if said != DONE:
        raise OSError(said.decode(errors="replace") or "the lender's program does not answer")
    return descriptors


def mount_at(folder: str) -> str:
    """Which mount that is, by its number; to look into it would be to ask whoever serves it."""
    with open("/proc/self/mountinfo") as file:
        return next((line.split()[0] for line in file if line.split()[4] == folder), "")


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except (OSError, getopt.GetoptError, IndexError, KeyError) as error:
        sys.exit(f"fusermount: {error}")
