# SPDX-License-Identifier: Apache-2.0
"""Disks are opened with all that they rest on, by names that their headers say; a header costs nothing."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from descriptors import open_descriptors

from domzero.dom0.diskspec import DiskFormat, parse_disk
from domzero.dom0.images.qcow2 import HEAD_MAX, Backing, backing_of
from domzero.dom0.open_files import CHAIN_MAX, OpenDisk, open_disk
from domzero.errors import ConfigError, ImageError


@pytest.fixture(autouse=True)
def nothing_stays_open() -> Iterator[None]:
    before = open_descriptors()
    yield
    assert open_descriptors() == before


def header(name: bytes = b"", *, version: int = 3, at: int = 512, length: int | None = None, **extra: bytes) -> bytes:
    """A qcow2 header.

    :param length: of the name, as the header says it.
    :param extra: `extensions`, `features`.
    """
    size = len(name) if length is None else length
    start = struct.pack(">4sIQI", b"QFI\xfb", version, at if name or length else 0, size)
    head = start.ljust(72, b"\0") + extra.get("features", bytes(8))
    head = head.ljust(100, b"\0") + struct.pack(">I", 104) + extra.get("extensions", b"")
    return head.ljust(at, b"\0")[:at] + name if at < HEAD_MAX else head


def named(format: bytes) -> bytes:
    return struct.pack(">II", 0xE2792ACA, len(format)) + format.ljust(-(-len(format) // 8) * 8, b"\0") + bytes(8)


def read(path: Path, data: bytes) -> Backing | None:
    path.write_bytes(data)
    with path.open("rb") as file:
        return backing_of(file.fileno())


def test_a_header_says_what_the_image_rests_on(tmp_path: Path) -> None:
    path = tmp_path / "image"
    assert read(path, header()) is None
    assert read(path, header(version=2)) is None
    assert read(path, header(b"base", extensions=named(b"raw"))) == Backing("base", "raw")
    other = struct.pack(">II", 0x6803F857, 3) + bytes(8)
    assert read(path, header(b"base", extensions=other + named(b"qcow2"))) == Backing("base", "qcow2")
    assert read(path, header(b"base")) == Backing("base", "")


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "no qcow2 image"),
        (bytes(4096), "no qcow2 image"),
        (b"QFI\xfb", "too short"),
        (header(version=9), "version 9"),
        (header(b"x", length=1024), "too long"),
        (header(b"x", length=0xFFFFFFFF), "too long"),
        (header(b"x", length=5), "is none"),
        (header(b"a\0b"), "is none"),
        (header(b"x", at=(1 << 64) - 1), "is none"),
        (header(features=struct.pack(">Q", 4)), "in another file"),
    ],
)
def test_a_header_that_cannot_be_is_refused(tmp_path: Path, data: bytes, says: str) -> None:
    with pytest.raises(ImageError, match=says):
        read(tmp_path / "image", data)


def test_no_extension_leads_beyond_the_header(tmp_path: Path) -> None:
    endless = struct.pack(">II", 1, 0) * 50 + struct.pack(">II", 1, 0xFFFFFFFF)
    assert read(tmp_path / "image", header(b"base", extensions=endless)) == Backing("base", "")


def make(path: Path, below: str | None = None, format: str = "qcow2") -> None:
    subprocess.run(
        ["qemu-img", "create", "-q", "-u", "-f", "qcow2", *(["-b", below, "-F", format] if below else []), path, "1M"],
        check=True,
    )


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """top.qcow2, on layers/mid.qcow2, on layers/base.raw."""
    if shutil.which("qemu-img") is None:
        pytest.skip("qemu-img is not here")
    (tmp_path / "layers").mkdir()
    (tmp_path / "layers" / "base.raw").write_bytes(bytes(1 << 20))
    make(tmp_path / "layers" / "mid.qcow2", "base.raw", "raw")
    make(tmp_path / "top.qcow2", "layers/mid.qcow2")
    return tmp_path


def names(disk: OpenDisk) -> list[str]:
    return [os.path.basename(os.readlink(f"/proc/self/fd/{fd}")) for fd in disk.fds]


def test_a_disk_is_opened_with_all_that_it_rests_on_and_only_itself_for_writing(images: Path) -> None:
    disk = open_disk(parse_disk(f"{images / 'top.qcow2'},qcow2,xvda"))
    assert names(disk) == ["top.qcow2", "mid.qcow2", "base.raw"]
    assert [file.format for file in disk.files] == [DiskFormat.QCOW2, DiskFormat.QCOW2, DiskFormat.RAW]
    assert [os.get_blocking(fd) for fd in disk.fds] == [False] * 3
    with pytest.raises(OSError):
        os.pwrite(disk.fds[1], b"x", 0)
    disk.close()
    disk.close()


@pytest.mark.parametrize(
    ("below", "format", "says"),
    [
        ("top.qcow2", "qcow2", f"more than {CHAIN_MAX} files"),
        ("missing.raw", "raw", "its backing file .*missing.raw: No such file"),
        ("nbd://127.0.0.1/x", "raw", "none of this host"),
        ("json:{}", "raw", "none of this host"),
        ("fifo", "raw", "neither a regular file nor a block device"),
        ("/dev/zero", "raw", "neither a regular file nor a block device"),
        ("layers", "raw", "Is a directory|neither a regular"),
        ("layers/base.raw", "qcow2", "no qcow2 image"),
        ("layers/base.raw", "vmdk", "has the format 'vmdk'"),
    ],
)
def test_what_cannot_be_a_backing_file_is_refused_with_the_reason(
    images: Path, below: str, format: str, says: str
) -> None:
    os.mkfifo(images / "fifo")
    make(images / "top.qcow2", below, format)
    with pytest.raises(ConfigError, match=says):
        open_disk(parse_disk(f"{images / 'top.qcow2'},qcow2,xvda"))


def test_nobody_guesses_the_format_of_a_backing_file(images: Path) -> None:
    (images / "top.qcow2").write_bytes(header(os.fsencode(images / "layers" / "base.raw")))
    with pytest.raises(ConfigError, match="which format"):
        open_disk(parse_disk(f"{images / 'top.qcow2'},qcow2,xvda"))


@pytest.mark.parametrize("target", ["/dev/zero", "fifo", "."])
def test_a_disk_is_a_file_or_a_block_device(tmp_path: Path, target: str) -> None:
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(ConfigError):
        open_disk(parse_disk(f"{tmp_path / target},raw,xvda"))
