# SPDX-License-Identifier: Apache-2.0
"""The type of a domain that nobody has named."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from kernels import INFO, bzimage, elf, note, notes

from domzero.dom0.config import DomainConfig
from domzero.dom0.hvmspec import DomainType
from domzero.dom0.qemu.kinds import type_of

MIB = 1 << 20


def of_kernel(directory: Path, data: bytes) -> DomainType:
    path = directory / "kernel"
    path.write_bytes(data)
    return type_of(DomainConfig(kernel=str(path)))[0]


def of_disk(directory: Path, spots: dict[int, bytes], spec: str = "{},raw,hda") -> DomainType:
    path = directory / "disk"
    with path.open("wb") as file:
        file.truncate(4 * MIB)
        for offset, data in spots.items():
            file.seek(offset)
            file.write(data)
    return type_of(DomainConfig(kernel="", disks=[spec.format(path)]))[0]


def test_a_kernel_is_what_its_notes_say(tmp_path: Path) -> None:
    pvh = note(INFO["PHYS32_ENTRY"], 0x100000)
    assert of_kernel(tmp_path, elf()) is DomainType.PV
    assert of_kernel(tmp_path, elf(note_area=notes() + pvh)) is DomainType.PV
    assert of_kernel(tmp_path, elf(note_area=pvh)) is DomainType.PVH
    assert of_kernel(tmp_path, elf(note_area=b"")) is DomainType.PV
    assert of_kernel(tmp_path, bzimage(elf(note_area=b""))) is DomainType.HVM
    assert of_kernel(tmp_path, bzimage(elf())) is DomainType.PV


def test_what_is_no_kernel_is_left_to_who_says_so(tmp_path: Path) -> None:
    assert of_kernel(tmp_path, b"nothing") is DomainType.PV
    assert type_of(DomainConfig(kernel=str(tmp_path / "missing")))[0] is DomainType.PV


BOOT = {510: b"\x55\xaa"}
EXT4 = b"\x53\xef"
GPT = {512: b"EFI PART".ljust(72, b"\0") + struct.pack("<QII", 2, 128, 128)}
PARTITION = {1024: b"\1" * 16 + bytes(16) + struct.pack("<QQ", 2048, 4096)}


@pytest.mark.parametrize(
    ("spots", "kind"),
    [
        ({}, "pv"),
        (BOOT, "hvm"),
        (BOOT | {0x438: EXT4}, "pv"),
        (BOOT | {446: b"\x80\0\0\0\x83\0\0\0" + struct.pack("<II", 2048, 4096), MIB + 0x438: EXT4}, "pv"),
        (BOOT | {446: b"\x80\0\0\0\x06\0\0\0" + struct.pack("<II", 2048, 4096)}, "hvm"),
        (BOOT | GPT | PARTITION | {MIB + 0x438: EXT4}, "pv"),
        (BOOT | GPT | PARTITION | {MIB: b"XFSB"}, "pv"),
        (BOOT | GPT | PARTITION, "hvm"),
        ({0x8001: b"CD001"}, "hvm"),
        ({512: b"EFI PART".ljust(72, b"\xff") + b"\xff" * 20, 510: b"\x55\xaa"}, "hvm"),
    ],
)
def test_a_disk_is_for_pv_if_grub_could_find_a_linux_in_it(tmp_path: Path, spots: dict[int, bytes], kind: str) -> None:
    assert of_disk(tmp_path, spots).value == kind


def test_a_cd_is_for_hvm_and_a_disk_that_is_not_raw_for_pv(tmp_path: Path) -> None:
    assert of_disk(tmp_path, {}, "{},raw,hdc,cdrom") is DomainType.HVM
    assert of_disk(tmp_path, BOOT, "{},qcow2,hda") is DomainType.PV
