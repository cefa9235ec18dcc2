# SPDX-License-Identifier: Apache-2.0
"""Which type of domain a kernel or a disk is for, when nobody has said: told with the reason."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from pathlib import Path

from domzero.abi.elfnote import ElfNote
from domzero.builder.bzimage import is_bzimage
from domzero.builder.elf import parse_elf
from domzero.builder.files import read_open
from domzero.builder.image import KERNEL_MAX, open_kernel, unpack
from domzero.builder.notes import XenNotes, find_notes
from domzero.dom0.config import DomainConfig
from domzero.dom0.diskspec import DiskFormat, DiskSpec
from domzero.dom0.hvmspec import DomainType
from domzero.errors import ImageError

SECTOR = 512
_GPT_ENTRIES_MAX = 128
_ISO_DESCRIPTOR = 0x8000
_FILE_SYSTEMS = {
    "ext4": (0x438, b"\x53\xef"),
    "XFS": (0, b"XFSB"),
    "btrfs": (0x10040, b"_BHRfS_M"),
    "LVM": (0x218, b"LVM2 001"),
}
"""Where each says what it is, from the start of a partition: those that GRUB's PV kernel finds a Linux in."""


def type_of(config: DomainConfig) -> tuple[DomainType, str]:
    """The type that suits a configuration, and why; pv, as with xl, if nothing says otherwise."""
    if config.kernel:
        return kernel_type(config.kernel)
    for spec in config.disk_specs:
        if spec.target:
            return disk_type(spec)
    return DomainType.PV, "there is neither kernel nor disk"


def kernel_type(path: str) -> tuple[DomainType, str]:
    """By its Xen notes: pv if it has PV's, pvh if it has only PVH's; hvm for a Linux that has none."""
    try:
        fd = open_kernel(path)
        try:
            data = read_open(fd, path, "kernel", KERNEL_MAX)
            notes = _notes(unpack(data))
        finally:
            os.close(fd)
    except ImageError:
        return DomainType.PV, "its kernel is none that is known"  # what is wrong with it is said when it is built
    name = Path(path).name
    if notes is None and is_bzimage(data):
        return DomainType.HVM, f"{name} is a Linux without Xen notes"
    if notes is None:
        return DomainType.PV, f"{name} has no Xen notes"  # nothing starts it, which is said when it is built
    pvh = notes.number(ElfNote.PHYS32_ENTRY) is not None
    if notes.number(ElfNote.ENTRY) is None and pvh:
        return DomainType.PVH, f"{name} has a PVH entry note, and none for PV"
    return DomainType.PV, f"{name} has PV notes"


def has_pvh_entry(elf: bytes | memoryview) -> bool:
    """Whether a kernel's ELF file has a PVH entry note."""
    notes = _notes(elf)
    return notes is not None and notes.number(ElfNote.PHYS32_ENTRY) is not None


def _notes(elf: bytes | memoryview) -> XenNotes | None:
    return find_notes(parse_elf(memoryview(elf)))


def disk_type(spec: DiskSpec) -> tuple[DomainType, str]:
    """pv if a partition has a file system in which GRUB's PV kernel could find a Linux; hvm otherwise.

    Only some bytes at fixed places are compared: whoever wrote the disk can choose the type, and no more. A format that
    is not raw is taken for a disk of Linux, as it always was.
    """
    name = Path(spec.target).name
    if spec.is_cdrom:
        return DomainType.HVM, f"{name} is a CD"
    if spec.format is not DiskFormat.RAW:
        return DomainType.PV, f"{name} is taken for a disk with Linux"
    try:
        with open(spec.target, "rb", buffering=0) as file:
            fd = file.fileno()
            for start in (0, *_partitions(fd)):
                for kind, (offset, magic) in _FILE_SYSTEMS.items():
                    if _read(fd, start + offset, len(magic)) == magic:
                        return DomainType.PV, f"{name} has {kind}, where GRUB looks for a Linux"
            if _read(fd, _ISO_DESCRIPTOR, 6)[1:] == b"CD001":
                return DomainType.HVM, f"{name} is an image of a CD"
            if _read(fd, 510, 2) == b"\x55\xaa":
                return DomainType.HVM, f"{name} has a boot sector, and no file system of a Linux"
    except (OSError, ValueError):
        pass  # said when it is opened
    return DomainType.PV, f"{name} is taken for a disk with Linux"


def _partitions(fd: int) -> Iterator[int]:
    """Where partitions start, in bytes: of GPT, else of the MBR."""
    header = _read(fd, SECTOR, 92)
    if header[:8] == b"EFI PART" and len(header) == 92:
        first, count, size = struct.unpack_from("<QII", header, 72)
        for number in range(min(count, _GPT_ENTRIES_MAX)):
            entry = _read(fd, min(first, 1 << 40) * SECTOR + number * min(size, 4096), 40)
            if len(entry) == 40 and any(entry[:16]):
                yield min(struct.unpack_from("<Q", entry, 32)[0], 1 << 50) * SECTOR
        return
    table = _read(fd, 446, 66)
    if table[64:] == b"\x55\xaa":
        for number in range(4):
            kind, start = table[number * 16 + 4], struct.unpack_from("<I", table, number * 16 + 8)[0]
            if kind:
                yield start * SECTOR


def _read(fd: int, offset: int, size: int) -> bytes:
    return os.pread(fd, size, min(offset, (1 << 62)))


__all__ = ["disk_type", "has_pvh_entry", "kernel_type", "type_of"]
