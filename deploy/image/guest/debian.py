"""The recipe of `debian`: a small but whole Debian with systemd, OpenSSH and the real cloud-init, as a qcow2 disk.

mmdebstrap installs the packages, `mke2fs -d` makes a file system of them without a mount, and a boot sector is written before
it, so the disk boots by itself under a BIOS; kernel and initrd are there beside it for whoever starts machines with those. It
is smaller than a GiB, so that the smallest flavour holds it; cloud-init grows it to the disk that it gets.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from deploy.image.guest import bootsector
from deploy.image.packages import KERNEL, ImageError, closure, kernel, newest

INCLUDED = (
    *("systemd-sysv", "systemd-resolved", "udev", "dbus", "initramfs-tools", "zstd", "e2fsprogs"),
    *("openssh-server", "cloud-init", "cloud-guest-utils", "sudo", "iproute2", "iputils-ping", "ca-certificates"),
)
EPOCH = 1_700_000_000  # the time that the files have
TIMEOUT = 600.0  # seconds for one program
DISK_SIZE = 1000 << 20  # octets
ROOT_ID = "00000000-0000-4000-8000-00000000fed0"
HERE = Path(__file__).parent / "debian"
COMMAND_LINE = f"root=UUID={ROOT_ID} ro console=ttyS0 no_timer_check quiet"
UNWANTED_TIMERS = ("apt-daily", "apt-daily-upgrade", "dpkg-db-backup", "e2scrub_all", "fstrim")
PROGRAMS = {"mmdebstrap": "mmdebstrap", "mke2fs": "e2fsprogs", "qemu-img": "qemu-utils", "tar": "tar"}
TAILORING = (  # run by mmdebstrap in a shell, with the new root as $1
    f'cp -r "{HERE}/etc" "{HERE}/boot" "$1/" && sed -i "s|@COMMAND_LINE@|{COMMAND_LINE}|" "$1/boot/grub/grub.cfg"',
    f'echo "UUID={ROOT_ID} / ext4 errors=remount-ro 0 1" >"$1/etc/fstab"',
    'rm -f "$1"/etc/ssh/ssh_host_*_key* "$1"/etc/machine-id "$1"/var/lib/dbus/machine-id && : >"$1/etc/machine-id"',
    'ln -sf ../run/systemd/resolve/stub-resolv.conf "$1/etc/resolv.conf"',
    'chroot "$1" systemctl enable -q systemd-networkd systemd-resolved',
    f'for unit in {" ".join(UNWANTED_TIMERS)}; do ln -sf /dev/null "$1/etc/systemd/system/$unit.timer"; done',
    'rm -rf "$1"/var/cache/ldconfig "$1"/var/log/*.log "$1"/var/log/apt "$1"/var/lib/systemd/catalog',
)
LEFT_OUT = ("/usr/share/man/*", "/usr/share/doc/*", "/usr/share/locale/*", "/usr/share/info/*")


class Debian:
    """What a site would lend; under plain emulation it takes the better part of a minute to start, with 384 MiB."""

    name = "debian"
    disk_format = "qcow2"
    command_line = COMMAND_LINE
    user_data = "cloud-init"
    sources = (
        Path(__file__),
        Path(bootsector.__file__),
        *sorted(path for path in HERE.rglob("*") if path.is_file()),
    )

    def packages(self) -> list[str]:
        """The named ones; what they draw in changes with them or with a point release of `base-files`."""
        return newest((*INCLUDED, *bootsector.ROOTS, kernel(), "base-files", "libc6", "python3"))

    def make(self, packages: list[str], scratch: Path, into: Path) -> None:
        """Install the packages and make a disk of them."""
        check_tools()
        root, raw = scratch / "root", scratch / "disk.raw"
        _install(scratch, root)
        for part, where in (("kernel", "vmlinuz"), ("initrd", "initrd.img")):
            shutil.copyfile(_followed(root, where), into / part)
        with raw.open("wb") as disk:
            disk.truncate(DISK_SIZE)
        _make_file_system(root, raw)
        bootsector.write(raw, closure(bootsector.ROOTS), scratch)
        _run(["qemu-img", "convert", "-q", "-c", "-O", "qcow2", str(raw), str(into / "disk")])


def check_tools() -> None:
    """Raise `ImageError` unless all programs are here, and root."""
    if missing := [package for program, package in PROGRAMS.items() if shutil.which(program) is None]:
        raise ImageError(
            f"The debian image needs {', '.join(missing)}; as root, run: apt-get install --no-install-recommends {' '.join(missing)}"
        )
    if os.geteuid() != 0:
        raise ImageError("The debian image keeps owners of files, so it is built as root; `tiny` needs no root.")


def _install(scratch: Path, root: Path) -> None:
    """mmdebstrap sorts the archive and sets its times, so what is unpacked from it is the same each time."""
    archive = scratch / "root.tar"
    command = ["mmdebstrap", "--quiet", "--variant=minbase", f"--include={','.join((*INCLUDED, KERNEL))}"]
    command += ['--aptopt=Acquire::Languages "none"', *(f"--dpkgopt=path-exclude={path}" for path in LEFT_OUT)]
    command += [f"--customize-hook={line}" for line in TAILORING]
    _run([*command, _release(), str(archive)], TMPDIR=str(scratch))
    root.mkdir()
    _run(["tar", "-x", "-C", str(root), "--numeric-owner", "--exclude=./dev/*", "-f", str(archive)])
    archive.unlink()


def _release() -> str:
    """The code name of the Debian that runs here, whose mirror and keys apt is set up for."""
    try:
        lines = Path("/etc/os-release").read_text().splitlines()
    except FileNotFoundError:
        lines = []
    fields = dict(line.split("=", 1) for line in lines if "=" in line)
    if fields.get("ID") != "debian" or "VERSION_CODENAME" not in fields:
        raise ImageError("The debian image is built on Debian, from the mirror that this machine's apt uses.")
    return fields["VERSION_CODENAME"]


def _followed(root: Path, name: str) -> Path:
    """Where a link at the top of `root` (that Debian keeps for boot loaders) leads, inside it."""
    return root / os.readlink(root / name)


def _make_file_system(root: Path, raw: Path) -> None:
    offset = bootsector.FIRST_PARTITION
    extended = f"offset={offset},hash_seed={ROOT_ID},root_owner=0:0"
    size = f"{(DISK_SIZE - offset) // 1024}k"
    command = ["mke2fs", "-q", "-F", "-t", "ext4", "-L", "root", "-U", ROOT_ID, "-E", extended, "-d", str(root)]
    _run([*command, str(raw), size], E2FSPROGS_FAKE_TIME=str(EPOCH))


def _run(command: list[str], **more: str) -> None:
    environment = os.environ | {"LC_ALL": "C", "SOURCE_DATE_EPOCH": str(EPOCH)} | more
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=TIMEOUT, env=environment)
    except subprocess.TimeoutExpired as error:
        raise ImageError(f"{command[0]} did not end within {TIMEOUT:.0f} s; check the mirror.") from error
    if done.returncode:
        raise ImageError(f"{command[0]} failed: {done.stderr.strip()[-1000:]}")
