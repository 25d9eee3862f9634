"""The program of a segment: makes its nodes, lends out their ssh servers, and does what the member asks. See `__init__`.

    start.py ROOT PROCESS-ID…   plan on standard input, `{"nodes": …}` on standard output when all are made

It stays when the member said so (`stay` on standard input), and then until somebody ends it: nodes outlive the member, and nothing of
a segment outlives this program, because it is the first process of a namespace that holds all others.

A node's ssh server costs nothing until somebody comes: this program listens in the node's network, and behind a socket that the gate's
tunnel leads to, and starts `sshd -i` in the node for each connection.

Requests are a line of JSON each on a unix socket that only the site's root can reach; so is the answer.
"""

from __future__ import annotations

import base64
import fcntl
import json
import os
import select
import selectors
import signal
import socket
import sys
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, NoReturn

from federation_member.middleware.containers.launch import (
    CLONE_NEWNET,
    CLONE_NEWNS,
    MS_NODEV,
    MS_NOSUID,
    die_with,
    make_tun,
    mount,
    mount_shifted,
    process_in_new,
)
from federation_member.middleware.containers.nodes import (
    birth,
    groups,
    kernel,
    links,
    mounts,
    portals,
    root,
    running,
    shaping,
    wires,
)

SSHD = ["/usr/sbin/sshd", "-i", "-f", "/etc/fed/sshd_config"]
SSH_PORT = 22
BACKLOG = 64
CONTROL = "control"  # the socket, in the segment's folder
STARTING, RUNNING, STOPPED, FAILED = "starting", "running", "stopped", "failed"
REQUEST_LIMIT = 16 * 1024 * 1024  # octets of a line
PATIENCE = 10.0  # seconds for a request to arrive
MOMENT = 0.02  # seconds


@dataclass
class Node:
    """One of the segment's, and what there is of it."""

    plan: dict[str, Any]
    place: int = -1  # the mount namespace that holds its disk
    status: str = STARTING
    reason: str = ""
    folders: list[str] = field(default_factory=list)
    process: int = 0
    handle: int = -1  # pidfd of that process
    doors: list[socket.socket] = field(default_factory=list)
    mounter: socket.socket | None = None  # that of its doors where it asks for mounts
    way: socket.socket | None = None


Births = list[tuple[Node, birth.Birth]]


class Host:
    """All nodes of a segment."""

    def __init__(self, plan: dict[str, Any], user: int, outside: int) -> None:
        self._plan = plan
        self._user = user
        self._outside = outside
        self._lowers = {base: self._lower(number, base) for number, base in enumerate(plan["common"])}
        self._wires = None if shaping.has_netem() else wires.Wires(f"{plan['work']}/devices/tun")
        self._selector = selectors.DefaultSelector()
        self._watchers: list[socket.socket] = []
        self._portals = portals.Portals(plan["name"], plan["work"], plan["first_id"])
        self.nodes: dict[str, Node] = {}

    # Nodes

    def add(self, plans: list[dict[str, Any]]) -> None:
        """Make nodes; one that is there is made anew, with an empty disk."""
        self.remove([plan["name"] for plan in plans])
        fresh = [Node(plan) for plan in plans]
        self.nodes |= {node.plan["name"]: node for node in fresh}
        for node in fresh:
            try:
                self._furnish(node)
            except OSError as error:
                self._failed(node, str(error))
        self.start([node for node in fresh if node.status == STARTING])

    def _furnish(self, node: Node) -> None:
        """Make what stays while a node is stopped and started."""
        plan = node.plan
        if plan["way"]:
            node.way = self._listen_at(f"{self._plan['work']}/ways/{plan['way']}")
            self._selector.register(node.way, selectors.EVENT_READ, node)
        if plan["watched"]:
            plan["binds"][self._portals.add(plan["name"], plan["number"])] = plan["watched"]

    def start(self, nodes: list[Node]) -> None:
        """Start nodes that don't run, together."""
        births: Births = []
        for node in nodes:
            try:
                births.append((node, self._begin(node)))
            except OSError as error:
                self._failed(node, str(error))
        for node, born in self._plugged_in(births):
            problem = birth.end(born)
            if problem:
                self._failed(node, problem)
            elif node.status == STARTING:
                node.status = RUNNING

    def _plugged_in(self, births: Births) -> Births:
        """Those that have interfaces and doors. Where one cannot have them, because it has ended, say, it is tried one by one."""
        try:
            links.plug_in([(node.plan, born.process) for node, born in births], self._outside, self._wires)
            for node, _ in births:
                self._open_door(node)
        except OSError as error:
            for node, _ in births:
                self._close_doors(node)
                links.unplug(node.plan, self._outside)
            if len(births) > 1:
                return [found for one in births for found in self._plugged_in([one])]
            for node, born in births:
                self._lose(node, born, str(error))
            return []
        return births

    def _lose(self, node: Node, born: birth.Birth, reason: str) -> None:
        """Whatever there is of a node ends."""
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(node.handle, signal.SIGKILL)
        self._failed(node, birth.end(born) or reason)

    def _begin(self, node: Node) -> birth.Birth:
        node.status, node.reason = STARTING, ""
        if self._plan["groups"] is not None and not node.folders:
            name = f"{self._plan['groups']['name']}/{node.plan['number']}"
            node.folders = groups.make(self._plan["groups"]["roots"], name, node.plan)
        lower = self._lowers[node.plan["base"]]
        born = birth.begin(self._plan, node.plan, node.place, lower, node.folders, self._user)
        if node.place >= 0:
            os.close(node.place)
        node.process, node.place = born.process, born.place
        node.handle = os.pidfd_open(born.process)
        return born

    def _lower(self, number: int, base: str) -> str:
        """What stands under a node's layer: the files of all, then the image, whose owners are the segment's own."""
        first, shown = self._plan["first_id"], base
        if first:
            shown = f"{self._plan['work']}/images/{number}"
            os.mkdir(shown)
            mount_shifted(base, shown, first, self._plan["ids"])
        common = f"{self._plan['work']}/common/{number}"
        os.makedirs(common)
        os.chown(common, first, first)
        root.write(common, self._plan["common"][base], first)
        for home, owner in self._plan["homes"].items():
            os.makedirs(f"{common}/{home}")
            os.chown(f"{common}/{os.path.dirname(home)}", first, first)
            os.chown(f"{common}/{home}", first + owner, first + owner)
        return f"{common}:{shown}"

    def _open_door(self, node: Node) -> None:
        """Listen for ssh in the node's own network, and for wishes of its own."""
        if not node.plan["enterable"]:
            return
        here = os.open("/proc/self/ns/net", os.O_RDONLY)
        try:
            kernel.setns(node.handle, CLONE_NEWNET)
            node.doors.append(socket.create_server(("", SSH_PORT), backlog=BACKLOG))
            if node.plan["mounts"]:
                node.mounter = mounts.open_door()
                node.doors.append(node.mounter)
        finally:
            kernel.setns(here, CLONE_NEWNET)
            os.close(here)
        for door in node.doors:
            door.setblocking(False)  # whoever comes may be gone before we look
            self._selector.register(door, selectors.EVENT_READ, node)

    def _close_doors(self, node: Node) -> None:
        for door in node.doors:
            with suppress(KeyError):  # its kind could not be opened altogether
                self._selector.unregister(door)
            door.close()
        node.doors.clear()
        node.mounter = None

    def _listen_at(self, path: str) -> socket.socket:
        way = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        way.bind(path)
        os.chown(path, self._plan["first_id"], self._plan["first_id"])
        way.listen(BACKLOG)
        way.setblocking(False)
        return way

    def _failed(self, node: Node, reason: str) -> None:
        node.status, node.reason = FAILED, reason
        self._tell()

    def stop(self, nodes: list[Node], status: str = STOPPED) -> None:
        """End nodes; their disks stay."""
        for node in nodes:
            if node.status != FAILED:
                node.status = status
            if node.handle >= 0:
                with suppress(ProcessLookupError):
                    signal.pidfd_send_signal(node.handle, signal.SIGKILL)
        for node in nodes:
            while node.process:  # its end waits for that of whoever entered it, who are children of ours
                if not self._bury(os.WNOHANG if node.plan["mounts"] else 0) and not self._is_held_up(node):
                    self._ended(node)

    def _is_held_up(self, node: Node) -> bool:
        """Free whoever waits in a node for its own programs, and see whether it still has not ended a moment later."""
        if node.plan["mounts"]:
            first = self._plan["first_id"]
            owner = first + mounts.owner(self._plan["folder"])
            mounts.abort(f"{self._plan['work']}/{mounts.CONNECTIONS}", owner, first + node.plan["number"])
        return not select.select([node.handle], [], [], MOMENT)[0]

    def remove(self, names: list[str]) -> None:
        """End nodes and forget them; unknown ones are none."""
        known = [self.nodes[name] for name in names if name in self.nodes]
        self.stop(known)
        for node in known:
            self._portals.remove(node.plan["name"])
            if node.way is not None:
                self._selector.unregister(node.way)
                node.way.close()
                os.unlink(f"{self._plan['work']}/ways/{node.plan['way']}")
            if node.place >= 0:
                os.close(node.place)
            for folder in node.folders:
                with suppress(OSError):  # whoever removes the segment removes it
                    os.rmdir(folder)
            del self.nodes[node.plan["name"]]

    def _ended(self, node: Node) -> None:
        """A node's first process has ended, and with it all others."""
        self._close_doors(node)
        if node.handle >= 0:
            os.close(node.handle)
        node.process, node.handle = 0, -1
        links.unplug(node.plan, self._outside)
        if node.status in (STARTING, RUNNING):
            self._failed(node, "The node ended.")

    # Serving

    def serve(self) -> NoReturn:
        """Do what comes, until this process is ended."""
        control = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        folder = os.open(self._plan["folder"], os.O_PATH)
        control.bind(f"/proc/self/fd/{folder}/{CONTROL}")  # a path of its own may be longer than the kernel takes
        control.listen(BACKLOG)
        control.setblocking(False)
        ended_read, ended_write = os.pipe()
        os.set_blocking(ended_write, False)
        os.set_blocking(ended_read, False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(ended_write, warn_on_full_buffer=False)
        self._selector.register(control, selectors.EVENT_READ)
        self._selector.register(ended_read, selectors.EVENT_READ)
        self._reap()
        say({"nodes": self.look()})
        if sys.stdin.readline() != "stay\n":
            sys.exit("the member is gone")
        for stream in (0, 1, 2):
            os.dup2(os.open(os.devnull, os.O_RDWR), stream)
        while True:
            for key, _ in self._selector.select(self._portals.pause):
                if key.fileobj == ended_read:
                    with suppress(BlockingIOError):
                        os.read(ended_read, 4096)
                    self._reap()
                elif key.data is None:
                    with suppress(OSError):
                        self._answer(control.accept()[0])
                elif isinstance(key.fileobj, socket.socket) and key.fileobj.fileno() >= 0:
                    self._let_in(key.data, key.fileobj)
            if self._portals.look():
                self._tell()

    def _reap(self) -> None:
        while self._bury(os.WNOHANG):
            pass

    def _bury(self, options: int) -> bool:
        """Take leave of a child that ended, whichever it was; false if there is none."""
        try:
            process, _ = os.waitpid(-1, options)
        except ChildProcessError:
            return False
        for node in [one for one in self.nodes.values() if process and one.process == process]:
            self._ended(node)
        if self._wires is not None and process and process == self._wires.process:
            self._wires.ended()
            self._cut_off()
        return process != 0

    def _cut_off(self) -> None:
        """Whatever delays links has ended; nodes without theirs are none."""
        for node in [one for one in self.nodes.values() if one.process and any(map(wires.is_late, one.plan["plugs"]))]:
            self._failed(node, wires.BROKEN)
            self.stop([node])

    def _let_in(self, node: Node, door: socket.socket) -> None:
        """Start an ssh server for whoever comes, or answer the node itself."""
        with suppress(OSError), door.accept()[0] as visitor:
            if door is node.mounter:
                mounts.answer(self._plan, node.plan, node.folders, self._user, node.handle, visitor)
            elif node.status == RUNNING and node.handle >= 0:
                with open(os.devnull, "wb") as nothing:
                    streams = (visitor.fileno(), visitor.fileno(), nothing.fileno())
                    birth.enter(node.handle, node.folders, self._plan["fence"], SSHD, streams, attended=False)

    def look(self) -> dict[str, list[Any]]:
        """How each node is, and how a portal is joined."""
        return {name: [node.status, node.reason, self._portals.brief(name)] for name, node in self.nodes.items()}

    def _tell(self) -> None:
        """Let the member know that something changed."""
        for watcher in list(self._watchers):
            try:
                watcher.send(b"\n", socket.MSG_DONTWAIT)
            except OSError:
                self._watchers.remove(watcher)
                watcher.close()

    def _answer(self, caller: socket.socket) -> None:
        caller.settimeout(PATIENCE)
        try:
            request = json.loads(caller.makefile("rb").readline(REQUEST_LIMIT))
            if request["do"] == "watch":
                self._watchers.append(caller)
                return
            answer = self._do(request, caller)
            if answer is not None:
                caller.sendall(json.dumps(answer).encode() + b"\n")
        except (OSError, ValueError, KeyError) as error:
            with suppress(OSError):
                caller.sendall(json.dumps({"problem": f"{type(error).__name__}: {error}"}).encode() + b"\n")
        caller.close()

    def _do(self, request: dict[str, Any], caller: socket.socket) -> dict[str, Any] | None:
        what = request["do"]
        if what == "add":
            fresh = {name: words for name, words in request["bridges"].items() if name not in self._plan["bridges"]}
            links.make_bridges(fresh)
            self._plan["bridges"] |= fresh
            self.add(request["nodes"])
        elif what == "remove":
            self.remove(request["nodes"])
        elif what in ("stop", "start", "reboot"):
            nodes = [self.nodes[name] for name in request["nodes"]]
            if what != "start":
                self.stop(nodes)
            if what != "stop":
                self.start([node for node in nodes if node.status != RUNNING])
            self._tell()
        elif what == "run":
            node = self.nodes[request["node"]]
            if node.status != RUNNING:
                return {"problem": f"The node is {node.status}."}
            running.run(node.handle, node.folders, self._plan["fence"], request["command"], caller)
            return None
        return {"nodes": self.look()}


def say(answer: dict[str, Any]) -> None:
    """Tell the member who waits for us."""
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


def prepare(plan: dict[str, Any]) -> Host:
    """Make what all nodes of the segment share: their place, their user namespace, their switch; become its first process."""
    outside = os.open("/proc/self/ns/net", os.O_RDONLY)
    kernel.unshare(CLONE_NEWNS)
    kernel.make_private()
    mount(plan["name"], plan["work"], "tmpfs", MS_NOSUID | MS_NODEV, "mode=0755")
    for name in ("root", "layer", "ways", "images", "common"):
        os.mkdir(f"{plan['work']}/{name}", 0o755)
    make_tun(plan)
    mounts.prepare(plan)
    with process_in_new(0, plan["uids"], plan["gids"]) as namespaces:
        user = os.open(f"{namespaces}/user", os.O_RDONLY)
    kernel.unshare(CLONE_NEWNET)
    for name, value in plan["sysctl"].items():
        with open("/proc/sys/" + name.replace(".", "/"), "w") as file:
            file.write(value)
    links.make_bridges(plan["bridges"])
    return Host(plan, user, outside)


def main() -> None:
    """Make the segment; what went wrong stands on standard error."""
    member = int(sys.argv[2])
    die_with(member)
    os.umask(0o022)
    plan = json.loads(sys.stdin.readline())
    lock = os.open(
        plan["lock"], os.O_RDWR
    )  # held by all of ours, so whoever clears up can wait until nobody is at work
    fcntl.flock(lock, fcntl.LOCK_EX)
    plan["fence"]["filter"] = base64.b64decode(plan["fence"]["filter"])
    host = prepare(plan)
    kernel.unshare(kernel.CLONE_NEWPID)
    if os.fork():
        os._exit(0)
    os.setsid()
    host.add(plan["nodes"])
    host.serve()


def run() -> None:
    """As a program."""
    try:
        main()
    except (OSError, ValueError) as error:
        sys.exit(str(error))
