"""Starts, finds and ends machines with runc (https://github.com/opencontainers/runc).

runc keeps its own notes (`runc list`), so what runs here is known after any restart. A machine's end is seen through a
pidfd of its first process. Starting is one program: launch.py prepares and becomes `runc run`; it dies with the member, so
whatever a new member finds, nobody is still working on.
"""

from __future__ import annotations

import asyncio
import base64
import fcntl
import json
import os
import select
import shutil
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from federation_member.middleware.containers import oci
from federation_member.middleware.containers.cgroups import Cgroups
from federation_member.middleware.containers.ids import RANGE, Ids
from federation_member.middleware.containers.network import Plug, batches
from federation_member.middleware.contract import MiddlewareError, Unavailable, UnusableSpec
from federation_member.middleware.inside.files import Files

LAUNCHER = Path(__file__).with_name("launch.py")
LAUNCH_TIMEOUT = 30.0  # seconds, on a machine under heavy load
BUNDLE = "bundle"  # what runc reads and writes for one start
LOCK = "lock"  # held by whoever is at work on the machine
PREFIX = "fedmesh-"
SYSCTL = {
    "net.ipv4.ip_unprivileged_port_start": "0",  # the namespace belongs to the outside: its root is no root there
    "net.ipv6.conf.all.disable_ipv6": "1",  # the site's firewall and the address pool speak of IPv4
    "net.ipv6.conf.default.disable_ipv6": "1",
}
FORWARDING = {"net.ipv4.ip_forward": "1"}
TUN = "/dev/net/tun"
MOUNT_POINTS = tuple(Path(name) for name in ("/mnt", "/media", "/srv", "/opt", "/boot", "/home"))
PROGRAMS = {"runc": "runc", "ip": "iproute2"}  # program: Debian package


@dataclass(frozen=True)
class Launch:
    """One machine to start."""

    key: str
    folder: Path
    image: Path
    hostname: str
    group: str | None  # of its account; the machine's own control group is in it
    ids: Ids
    plugs: list[Plug]
    files: Files
    vcpu: int
    ram_bytes: int
    disk_bytes: int
    processes: int
    carries_frames: bool  # it may administer its network, and forwards what comes


class Runtime:
    """The machines that run, and a word when one ends."""

    def __init__(self, notes: Path, ended: Callable[[str], None]) -> None:
        self._notes = notes
        self._ended = ended
        self._alive: dict[str, int] = {}
        self._paused: set[str] = set()
        self.cgroups: Cgroups | None = None

    async def start(self, *, real_root: bool) -> None:
        """Look what is here and watch what runs."""
        for program, package in PROGRAMS.items():
            if shutil.which(program) is None:
                raise Unavailable(f"{program} is not installed; install the package {package}.")
        self.cgroups = Cgroups.find()
        if self.cgroups is None and real_root:
            raise Unavailable(
                "The control groups cpu, memory and pids are not mounted or not writable here; `ip netns exec` hides them, "
                "`nsenter --net` does not."
            )
        self._notes.mkdir(exist_ok=True, mode=0o700)
        for entry in json.loads(await self._runc("list", "--format", "json")) or []:
            if entry["status"] in ("running", "paused"):
                self._watch(entry["id"], entry["pid"])
            if entry["status"] == "paused":
                self._paused.add(entry["id"])

    def stop(self) -> None:
        """Stop watching; machines stay."""
        for key in list(self._alive):
            self._unwatch(key)

    def is_alive(self, key: str) -> bool:
        """Whether the machine runs."""
        return key in self._alive

    def is_paused(self, key: str) -> bool:
        """Whether the machine is there and does nothing."""
        return key in self._paused

    async def pause(self, key: str) -> None:
        """Let a machine do nothing until it is resumed; its memory and connections stay."""
        if self.cgroups is None or not self.cgroups.freezes:
            raise UnusableSpec("Machines cannot be paused here: there are no control groups with a freezer.")
        if key not in self._paused:
            await self._runc("pause", key)
            self._paused.add(key)

    async def resume(self, key: str) -> None:
        """Let a paused machine go on."""
        if key in self._paused:
            await self._runc("resume", key)
            self._paused.discard(key)

    def open_root(self, key: str, folder: Path) -> int:
        """A descriptor of a running machine's root directory, for the caller to close."""
        alive = self._alive.get(key)
        if alive is None:
            raise MiddlewareError("The machine ended.")
        try:
            root = os.open(f"/proc/{int((folder / BUNDLE / 'pid').read_text())}/root", os.O_PATH | os.O_CLOEXEC)
        except OSError as error:
            raise MiddlewareError(f"The machine cannot be looked into: {error.strerror}.") from error
        if select.select([alive], [], [], 0)[0]:  # it ended meanwhile, so its number may have been another's
            os.close(root)
            raise MiddlewareError("The machine ended.")
        return root

    async def launch(self, machine: Launch) -> None:
        """Start a machine; on failure the caller ends what may be there of it."""
        bundle = machine.folder / BUNDLE
        bundle.mkdir()
        (machine.folder / LOCK).touch()
        (bundle / "config.json").write_text(json.dumps(self._config(machine)))
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-I", "-S", str(LAUNCHER), str(os.getpid())),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            async with asyncio.timeout(LAUNCH_TIMEOUT):
                _, output = await process.communicate(json.dumps(self._plan(machine)).encode())
        except TimeoutError as error:
            raise MiddlewareError(f"The machine was not started within {LAUNCH_TIMEOUT:.0f} s.") from error
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        if process.returncode:
            raise MiddlewareError(
                f"The machine cannot be started: {output.decode(errors='replace').strip() or _log_of(bundle)}"
            )
        self._watch(machine.key, int((bundle / "pid").read_text()))

    async def end(self, key: str, folder: Path, group: str | None) -> None:
        """End a machine, whatever state it is in; return when nothing of it runs any more."""
        self._unwatch(key)
        self._paused.discard(key)
        with (folder / LOCK).open("wb") as lock:
            # Somebody is at work on it only if a member was killed: a launcher's last command, or a `runc delete`.
            await asyncio.to_thread(fcntl.flock, lock, fcntl.LOCK_EX)
            if (self._notes / key).exists():
                await self._runc("delete", "--force", key, lock=lock.fileno())
        if self.cgroups is not None:
            await self.cgroups.remove(group_of(group, key))
        if (folder / BUNDLE).exists():
            shutil.rmtree(folder / BUNDLE)

    def mount_point(self, folder: Path, images: Iterable[Path]) -> Path:
        """Where a launcher mounts, in its own mount namespace: any folder of the host that nothing of the launch lies in.

        Not below our own folders: the machine's root, which has no rights there, must be able to look it up.
        """
        used = {*folder.parents, *self._notes.parents}
        used |= {path for image in images for path in (image, *image.parents)}
        free = next((path for path in MOUNT_POINTS if path.is_dir() and path not in used), None)
        if free is None:
            raise Unavailable(
                f"None of {', '.join(map(str, MOUNT_POINTS))} is free of images and of the member's state."
            )
        return free

    def _config(self, machine: Launch) -> dict[str, object]:
        work = self.mount_point(machine.folder, [machine.image])
        return oci.config(
            root=f"{work}/root",
            hostname=machine.hostname,
            ids=machine.ids,
            processes=machine.processes,
            cgroup=f"/{group_of(machine.group, machine.key)}" if self.cgroups else None,
            memory_bytes=machine.ram_bytes + machine.disk_bytes,  # its disk is memory too
            vcpu=machine.vcpu,
            network=oci.Network(f"{work}/user", f"{work}/devices/tun") if machine.carries_frames else None,
        )

    def _plan(self, machine: Launch) -> dict[str, object]:
        bundle = machine.folder / BUNDLE
        inside, outside = batches(machine.plugs)
        return {
            "name": PREFIX + machine.key,
            "lock": str(machine.folder / LOCK),
            "work": str(self.mount_point(machine.folder, [machine.image])),
            "base": str(machine.image),
            "first_id": machine.ids.first,
            "ids": RANGE,
            "userxattr": machine.ids.first == 0,
            "disk_bytes": machine.disk_bytes,
            "seed": {path: (base64.b64encode(data).decode(), mode) for path, (data, mode) in machine.files.items()},
            "carries_frames": machine.carries_frames,
            "uids": machine.ids.uids,
            "gids": machine.ids.gids,
            "sysctl": SYSCTL | (FORWARDING if machine.carries_frames else {}),
            "ip_inside": inside,
            "ip_outside": outside,
            "command": [
                *("runc", "--root", str(self._notes), "--log", f"{bundle}/runc.log", "--log-format", "json"),
                *("run", "--detach", "--pid-file", f"{bundle}/pid", "--bundle", str(bundle), machine.key),
            ],
        }

    def _watch(self, key: str, pid: int) -> None:
        try:
            descriptor = os.pidfd_open(pid)
        except ProcessLookupError:
            self._ended(key)
            return
        self._alive[key] = descriptor
        asyncio.get_running_loop().add_reader(descriptor, self._has_ended, key)

    def _unwatch(self, key: str) -> None:
        descriptor = self._alive.pop(key, None)
        if descriptor is not None:
            asyncio.get_running_loop().remove_reader(descriptor)
            os.close(descriptor)

    def _has_ended(self, key: str) -> None:
        self._unwatch(key)
        self._ended(key)

    async def _runc(self, *arguments: str, lock: int | None = None) -> str:
        process = await asyncio.create_subprocess_exec(
            *("runc", "--root", str(self._notes), *arguments),
            pass_fds=() if lock is None else (lock,),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            async with asyncio.timeout(LAUNCH_TIMEOUT):
                output, errors = await process.communicate()
        except TimeoutError as error:
            raise MiddlewareError(f"runc {arguments[0]} did not end within {LAUNCH_TIMEOUT:.0f} s.") from error
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        if process.returncode:
            raise MiddlewareError(f"runc {arguments[0]}: {errors.decode(errors='replace').strip()}")
        return output.decode()


def group_of(of_account: str | None, key: str) -> str:
    """Where a machine's control group is, below the root of each hierarchy."""
    return PREFIX + key if of_account is None else f"{of_account}/{PREFIX}{key}"


def _log_of(bundle: Path) -> str:
    """The last complaint in runc's log."""
    try:
        lines = (bundle / "runc.log").read_text(errors="replace").splitlines()
    except FileNotFoundError:
        return "no reason was given"
    return str(json.loads(lines[-1])["msg"]) if lines else "no reason was given"
