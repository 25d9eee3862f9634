"""What a file is said to be, and what the header of a qcow2 file may say."""

from __future__ import annotations

import shutil
import struct
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from federation_member.middleware.contract import UnusableImage
from federation_member.middleware.images import qcow2
from federation_member.middleware.images.formats import WANTED, Disk, inspect
from tests.support.disk_images import qcow2_image, raw_image

LIMIT = 100 << 30
MIB = 1 << 20


def verdict(data: bytes, limit: int = LIMIT) -> Disk | None:
    """What is made of a whole file."""
    return inspect(data[:WANTED], len(data), limit)


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"", "empty"),
        (b"<!DOCTYPE html>\n<title>404</title>", "an HTML page"),
        (b"\xef\xbb\xbf \n<HTML><body>", "an HTML page"),
        (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "an XML text"),
        (b'{"error": "no such file"}', "a text"),
        (b"\x1f\x8b\x08" + bytes(100), "gzip; unpack it"),
        (b"\xfd7zXZ\x00" + bytes(100), "xz; unpack it"),
        (b"BZh9" + bytes(100), "bzip2"),
        (b"\x28\xb5\x2f\xfd" + bytes(100), "zstd"),
        (b"PK\x03\x04" + bytes(100), "a zip archive"),
        (b"disk.vmdk" + bytes(248) + b"ustar" + bytes(300), "a tar archive"),
        (b"KDMV" + bytes(1000), "VMDK file; convert it with `qemu-img"),
        (b"# Disk DescriptorFile\nversion=1\n", "VMDK"),
        (bytes(64) + b"\x7f\x10\xda\xbe" + bytes(1000), "VDI"),
        (b"vhdxfile" + bytes(1000), "VHDX"),
        (b"conectix" + bytes(1000), "VHD"),
        (b"\x7fELF" + bytes(1000), "a program"),
        (b"MZ" + bytes(508) + b"\x55\xaa" + bytes(2) + b"HdrS" + bytes(100), "a Linux kernel"),
        (bytes(32769) + b"CD001" + bytes(100), "ISO 9660"),
        (bytes(1080) + b"\x53\xef" + bytes(1000), "ext file system"),
        (bytes(100_000), "neither"),
        (b"QFI\xfb", "cut off"),
        (b"QFI\xfb\x00\x00\x00\x01" + bytes(100), "version is 1"),
    ],
)
def test_what_is_no_image_is_called_by_its_name(data: bytes, what: str) -> None:
    with pytest.raises(UnusableImage, match=what):
        verdict(data)


def test_a_raw_disk_has_a_boot_sector_and_its_own_size() -> None:
    assert verdict(raw_image(4096)) == Disk("raw", 4096)
    assert verdict(raw_image(4097)) == Disk("raw", 4608)
    assert inspect(raw_image(4096), None, LIMIT) is None, "still on its way"


def test_a_disk_is_not_larger_than_the_operator_says() -> None:
    assert verdict(qcow2_image(size=MIB), MIB) == Disk("qcow2", MIB)
    with pytest.raises(UnusableImage, match="at most 1048575"):
        verdict(qcow2_image(size=MIB), MIB - 1)
    with pytest.raises(UnusableImage, match="at most 1000"):
        verdict(raw_image(4096), 1000)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"backing": 600}, "backing file"),
        ({"version": 4}, "version is 4"),
        ({"crypt": 1}, "encrypted"),
        ({"crypt": 2}, "encrypted"),
        ({"bits": 8}, "2\\^8"),
        ({"bits": 22}, "2\\^22"),
        ({"bits": 0xFFFFFFFF}, "clusters"),
        ({"size": 0}, "empty"),
        ({"size": 1 << 63}, "first-level"),
        ({"l1": 0}, "first-level"),
        ({"l1": 0xFFFFFFFF}, "first-level"),
        ({"l1_at": 3}, "outside"),
        ({"l1_at": 1 << 40}, "outside"),
        ({"l1_at": 0}, "outside"),
        ({"refcounts": 0}, "too large"),
        ({"refcounts": 1 << 30}, "too large"),
        ({"refcounts_at": 1 << 63}, "outside"),
        ({"snapshots": 1 << 30}, "too large"),
        ({"incompatible": qcow2.EXTERNAL_DATA}, "external data"),
        ({"incompatible": qcow2.DIRTY}, "not closed"),
        ({"incompatible": qcow2.CORRUPT}, "corrupt"),
        ({"incompatible": 1 << 40}, "features"),
        ({"refcount_order": 7}, "too wide"),
        ({"length": 100}, "header says"),
        ({"length": 1 << 31}, "header says"),
        ({"extensions": struct.pack(">II", qcow2.DATA_FILE, 8) + b"/etc/pwd"}, "external data"),
        ({"extensions": struct.pack(">II", qcow2.BACKING_FORMAT, 3) + b"raw" + bytes(5)}, "backing file"),
        ({"extensions": struct.pack(">II", qcow2.ENCRYPTION, 16) + bytes(16)}, "encryption"),
        ({"extensions": struct.pack(">II", 1, 0) * 100}, "too many"),
    ],
)
def test_a_dangerous_header_is_refused(change: dict[str, Any], why: str) -> None:
    with pytest.raises(UnusableImage, match=why):
        verdict(qcow2_image(**change))


def test_a_refused_extension_behind_a_harmless_one_is_found() -> None:
    names = struct.pack(">II", 0x6803F857, 48) + bytes(48)
    data_file = struct.pack(">II", qcow2.DATA_FILE, 8) + b"/etc/pwd"
    assert verdict(qcow2_image(extensions=names)) == Disk("qcow2", MIB)
    with pytest.raises(UnusableImage, match="external data"):
        verdict(qcow2_image(extensions=names + data_file))


@given(st.binary(max_size=400), st.none() | st.integers(0, 1 << 40))
def test_any_octets_are_a_disk_or_refused(junk: bytes, size: int | None) -> None:
    for data in (junk, qcow2.MAGIC + junk, qcow2.MAGIC + b"\x00\x00\x00\x03" + junk, raw_image(512) + junk):
        with suppress(UnusableImage):
            disk = inspect(data, size, LIMIT)
            assert disk is None or 0 < disk.virtual_size <= LIMIT


@given(st.integers(0, 600), st.binary(min_size=1, max_size=8))
def test_a_header_with_flipped_octets_is_a_bounded_disk_or_refused(offset: int, junk: bytes) -> None:
    data = bytearray(qcow2_image())
    data[offset : offset + len(junk)] = junk
    try:
        disk = verdict(bytes(data))
    except UnusableImage:
        return
    assert disk is not None
    assert disk.virtual_size <= LIMIT
    assert int.from_bytes(data[8:16], "big") == 0, "a backing file went through"


@pytest.mark.skipif(not shutil.which("qemu-img"), reason="needs qemu-img (package qemu-utils)")
@pytest.mark.parametrize(
    ("options", "accepted"),
    [
        ("compat=0.10", True),
        ("compat=1.1", True),
        ("cluster_size=512", True),
        ("cluster_size=2M", True),
        ("extended_l2=on", True),
        ("compression_type=zstd", True),
        ("lazy_refcounts=on", True),
        ("refcount_bits=1", True),
        ("preallocation=metadata", True),
        ("data_file=DIR/data", False),
        ("backing_file=DIR/base,backing_fmt=raw", False),
    ],
)
def test_the_verdict_fits_what_qemu_makes(tmp_path: Path, options: str, accepted: bool) -> None:
    (tmp_path / "base").write_bytes(bytes(1 << 20))
    image = tmp_path / "image"
    given = options.replace("DIR", str(tmp_path))
    subprocess.run(
        ["qemu-img", "create", "-q", "-f", "qcow2", "-o", given, str(image), "16M"], check=True, capture_output=True
    )
    try:
        disk = verdict(image.read_bytes())
    except UnusableImage:
        assert not accepted
    else:
        assert accepted
        assert disk == Disk("qcow2", 16 << 20)


@pytest.mark.skipif(not shutil.which("qemu-img"), reason="needs qemu-img (package qemu-utils)")
def test_what_the_tests_call_an_image_is_one_to_qemu(tmp_path: Path) -> None:
    image = tmp_path / "image"
    image.write_bytes(qcow2_image())
    subprocess.run(["qemu-img", "check", "-f", "qcow2", str(image)], check=True, capture_output=True)
