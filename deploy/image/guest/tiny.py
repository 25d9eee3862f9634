"""The recipes of `tiny` and `portal`: a kernel and an initial file system that is all there is. The disk is empty, and the machine's own.

`tiny` has Dropbear; `portal` has OpenSSH in its place, and drivers for taps, bridges and VLANs, so portals of experiments run in it.

Files are picked out of the packages and written into one archive in memory: no root, no mount, no maintainer script, and two
builds of the same packages are the same to the bit. At each start `tiny/rc` loads the drivers, finds the seed (NoCloud, or an
OpenStack config drive), sets addresses and runs the user data.
"""

from __future__ import annotations

import gzip
import io
import re
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from deploy.image.guest import cpio
from deploy.image.packages import ImageError, closure, fetch, kernel

DROPBEAR = ("dropbear", "dbclient", "dropbearkey", "dropbearconvert")
OPENSSH = ("ssh", "sshd", "ssh-keygen", "ssh-keyscan")
LOADER = "lib64/ld-linux-x86-64.so.2"
MODULES = (
    *("virtio_pci", "virtio_net", "virtio_blk", "virtio_scsi", "virtio_rng"),
    *("ata_piix", "sr_mod", "sd_mod", "isofs"),  # the seed as a CD, as hypervisors like to give it
    *("button", "evdev"),  # the power button
)
MODULES_OF_PORTALS = ("tun", "bridge", "8021q")
DISK_SIZE = 1 << 20  # octets
HERE = Path(__file__).parent / "tiny"
FOLDERS = ("dev", "home", "mnt", "proc", "root", "run", "seed", "sys", "tmp", "var/log")
FILES = {
    "etc/passwd": "root:x:0:0:root:/root:/bin/sh\nsshd:x:100:65534::/run/sshd:/bin/false\n"
    "nobody:x:65534:65534:nobody:/nonexistent:/bin/false\n",
    "etc/group": "root:x:0:\nnogroup:x:65534:\n",
    "etc/shadow": "root:*:19000:0:99999:7:::\n",
    "etc/shells": "/bin/sh\n",
    "etc/hosts": "127.0.0.1 localhost\n",
    "etc/ssh/ssh_config": "Include /etc/ssh/ssh_config.d/*.conf\n",
    "etc/profile": "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\nexport PATH\n",
}
READERS = ("network.awk", "network-data.awk")
SCRIPTS = {"rc": "etc/rc", "udhcpc": "etc/udhcpc", "power-button": "etc/acpi/PWRF/00000080"}


@dataclass(frozen=True)
class Tiny:
    """Boots in seconds under plain emulation, with 96 MiB of memory. `programs` are those that it has besides busybox."""

    name: str = "tiny"
    roots: tuple[str, ...] = ("busybox-static", "dropbear-bin")
    programs: tuple[str, ...] = DROPBEAR
    modules: tuple[str, ...] = MODULES
    disk_format: str = "raw"
    command_line: str = "console=ttyS0 no_timer_check quiet panic=5"
    user_data: str = "script"
    sources: tuple[Path, ...] = (Path(__file__), Path(cpio.__file__), *sorted(HERE.iterdir()))

    def packages(self) -> list[str]:
        """The kernel, busybox, the programs and their libraries."""
        return closure((*self.roots, kernel()))

    def make(self, packages: list[str], scratch: Path, into: Path) -> None:
        """Write kernel, initrd and disk."""
        (debs := scratch / "debs").mkdir()
        found: dict[str, cpio.Entry] = {}
        for deb in fetch(packages, debs):
            found |= _files_of(deb, self._is_wanted)
        (vmlinuz,) = (entry for path, entry in found.items() if path.startswith("boot/vmlinuz-"))
        (into / "kernel").write_bytes(vmlinuz[1])
        root = _system() | _modules(found, self.modules) | _programs(found, self.programs, scratch)
        (into / "initrd").write_bytes(gzip.compress(cpio.archive(root), compresslevel=6, mtime=0))
        with (into / "disk").open("wb") as disk:
            disk.truncate(DISK_SIZE)

    def _is_wanted(self, path: PurePosixPath) -> bool:
        return (
            (path.parent.name in ("bin", "sbin") and path.name in ("busybox", *self.programs))
            or path.name.startswith("vmlinuz-")
            or path.suffix == ".ko"
            or (".so" in path.suffixes and "gconv" not in path.parts)
        )


PORTAL = Tiny("portal", ("busybox-static", "openssh-client", "openssh-server"), OPENSSH, MODULES + MODULES_OF_PORTALS)


def _files_of(deb: Path, is_wanted: Callable[[PurePosixPath], bool]) -> dict[str, cpio.Entry]:
    """Return the files and links of a package that are wanted, by their paths without the leading slash."""
    done = subprocess.run(["dpkg-deb", "--fsys-tarfile", str(deb)], capture_output=True, check=False)
    if done.returncode:
        raise ImageError(f"{deb.name} cannot be unpacked: {done.stderr.decode()[-300:]}")
    found: dict[str, cpio.Entry] = {}
    with tarfile.open(fileobj=io.BytesIO(done.stdout), mode="r:") as archive:
        for member in archive:
            path = PurePosixPath(member.name.removeprefix("./"))
            if not is_wanted(path):
                continue
            if member.issym():
                found[str(path)] = cpio.link(member.linkname)
            elif (file := archive.extractfile(member)) is not None:
                found[str(path)] = cpio.program(file.read())
    return found


def _system() -> dict[str, cpio.Entry]:
    root = {name: cpio.directory() for name in FOLDERS}
    root |= {"root": cpio.directory(0o700), "tmp": cpio.directory(0o1777)}
    root |= {name: cpio.plain(text.encode()) for name, text in FILES.items()}
    root |= {target: cpio.program((HERE / name).read_bytes()) for name, target in SCRIPTS.items()}
    root |= {f"etc/{name}": cpio.plain((HERE / name).read_bytes()) for name in ("inittab", *READERS)}
    return root | {"init": cpio.link("bin/busybox")}


def _modules(found: dict[str, cpio.Entry], wanted: tuple[str, ...]) -> dict[str, cpio.Entry]:
    """The drivers, numbered so that each comes after those that it needs."""
    modules = {_module_name(path): entry[1] for path, entry in found.items() if path.endswith(".ko")}
    order: dict[str, None] = {}

    def add(name: str) -> None:
        if name not in modules:
            raise ImageError(f"The kernel package has no driver {name}; the recipe does not fit it.")
        for needed in _needs(modules[name]):
            add(needed)
        order.setdefault(name)

    for name in wanted:
        add(name)
    return {f"modules/{number:02d}-{name}.ko": cpio.plain(modules[name]) for number, name in enumerate(order)}


def _module_name(path: str) -> str:
    return PurePosixPath(path).stem.replace("-", "_")


def _needs(module: bytes) -> Iterator[str]:
    """The drivers that a driver says it depends on."""
    if said := re.search(rb"\0depends=([^\0]+)\0", module):
        yield from (name.replace("-", "_") for name in said[1].decode().split(","))


def _programs(found: dict[str, cpio.Entry], names: tuple[str, ...], scratch: Path) -> dict[str, cpio.Entry]:
    """busybox under all its names, the others, and the libraries that those are linked to."""
    (lab := scratch / "programs").mkdir()
    for path, entry in found.items():
        if not path.startswith(("boot/", "lib/modules/")):
            _lay_out(lab / PurePosixPath(path).name, entry)
    listed = _output([str(lab / "busybox"), "--list-full"]).split()
    root = {path: cpio.link("/bin/busybox") for path in listed}
    root["bin/busybox"] = cpio.program((lab / "busybox").read_bytes())
    loader = lab / PurePosixPath(LOADER).name
    for name in names:
        root[f"usr/bin/{name}"] = cpio.program((lab / name).read_bytes())
        needed = _output([str(loader), "--library-path", str(lab), "--list", str(lab / name)])
        for library in re.findall(rf"{re.escape(str(lab))}/(\S+)", needed):
            root[f"lib/{library}"] = cpio.program((lab / library).read_bytes())
    return root | {LOADER: cpio.program(loader.read_bytes())}


def _lay_out(path: Path, entry: cpio.Entry) -> None:
    """All in one folder: there, a link leads to its neighbour, and one to a file of its own name is not needed."""
    content = entry[1]
    if not cpio.is_link(entry):
        path.write_bytes(content)
        path.chmod(0o755)
    elif (target := PurePosixPath(content.decode()).name) != path.name:
        path.symlink_to(target)


def _output(command: list[str]) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout
