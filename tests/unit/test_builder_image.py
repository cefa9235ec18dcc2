# SPDX-License-Identifier: Apache-2.0
"""Kernel files: what is understood, and what is said about those that are not."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import lzma
import os
import random
import socket
import struct
from pathlib import Path

import lz4.block
import pytest
import zstandard
from kernels import INFO, PADDR, VIRT_BASE, bzimage, elf, note, notes

from domzero.abi.elfnote import ElfNote
from domzero.abi.features import XenFeature
from domzero.builder.decompress import decompress
from domzero.builder.files import read_file
from domzero.builder.image import load_kernel, parse_kernel, unpack
from domzero.errors import ImageError


def legacy_lz4(data: bytes) -> bytes:
    blocks = [data[at : at + (8 << 20)] for at in range(0, len(data), 8 << 20)]
    output = b"\x02\x21\x4c\x18"
    for block in blocks:
        packed = lz4.block.compress(block, store_size=False)
        output += struct.pack("<I", len(packed)) + packed
    return output


COMPRESSORS = {
    "gzip": gzip.compress,
    "xz": lambda data: lzma.compress(data, check=lzma.CHECK_CRC32),
    "lzma": lambda data: lzma.compress(data, format=lzma.FORMAT_ALONE),
    "bzip2": bz2.compress,
    "zstd": lambda data: zstandard.ZstdCompressor().compress(data),
    "lz4": legacy_lz4,
}


def refusal(data: bytes) -> str:
    with pytest.raises(ImageError) as caught:
        parse_kernel(data, "k")
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("name", COMPRESSORS)
def test_a_bzimage_is_unpacked_whatever_its_compression(name: str) -> None:
    kernel = elf()
    size = struct.pack("<I", len(kernel))  # what Linux appends to the formats that do not say it
    assert unpack(bzimage(COMPRESSORS[name](kernel), trailer=size)) == kernel


@pytest.mark.parametrize("name", COMPRESSORS)
def test_a_compressed_elf_file_is_unpacked_without_a_bzimage_around_it(name: str) -> None:
    assert parse_kernel(COMPRESSORS[name](elf()), "k").entry == VIRT_BASE + PADDR


@pytest.mark.parametrize("name", COMPRESSORS)
def test_a_compressed_kernel_that_ends_too_early_is_refused(name: str) -> None:
    packed = COMPRESSORS[name](elf(random.Random(1).randbytes(300_000)))
    assert refusal(packed[: len(packed) // 2]).startswith("kernel: k: ")


@pytest.mark.parametrize("name", COMPRESSORS)
def test_damaged_compressed_data_never_raises_anything_but_an_image_error(name: str) -> None:
    good = bytearray(COMPRESSORS[name](elf(random.Random(2).randbytes(20_000))))
    dice = random.Random(3)
    for _ in range(200):
        bad = bytearray(good)
        for _ in range(3):
            bad[dice.randrange(8, len(bad))] = dice.randrange(256)
        with contextlib.suppress(ImageError):
            decompress(bytes(bad))


def test_lz4_kernels_of_several_blocks_are_unpacked_whole() -> None:
    data = random.Random(4).randbytes(1 << 20) * 17
    assert decompress(legacy_lz4(data)) == data


@pytest.mark.parametrize("name", COMPRESSORS)
def test_a_bomb_is_refused(name: str) -> None:
    with pytest.raises(ImageError, match="more than 1 MiB"):
        decompress(COMPRESSORS[name](bytes(20 << 20)), limit=1 << 20)
    assert len(decompress(COMPRESSORS[name](bytes(1 << 20)), limit=1 << 20)) == 1 << 20


def test_the_notes_of_a_kernel_are_read() -> None:
    image = parse_kernel(elf(note_area=notes(SUPPORTED_FEATURES=1 << 11, HYPERCALL_PAGE=VIRT_BASE + PADDR)), "k")
    assert image.notes.virt_base == VIRT_BASE
    assert image.notes.hypercall_page == VIRT_BASE + PADDR
    assert image.notes.number(ElfNote.INIT_P2M) == 0x8000000000
    assert image.notes.string(ElfNote.LOADER) == "generic"
    assert image.notes.features_required == {XenFeature.writable_page_tables}
    assert XenFeature.dom0 in image.notes.features_supported


def test_notes_of_other_owners_are_not_xens() -> None:
    assert "no Xen ELF notes" in refusal(elf(note_area=note(1, 7, b"GNU\0")))


def test_an_elf_file_without_notes_is_no_pv_kernel() -> None:
    assert refusal(elf(note_area=b"")) == "kernel: k: not a Xen PV kernel: no Xen ELF notes"


def test_a_kernel_without_an_entry_note_but_a_pvh_entry_is_hvm_only() -> None:
    area = note(INFO["PHYS32_ENTRY"], 0x1000)
    assert "HVM or PVH only" in refusal(elf(note_area=area))
    assert "HVM or PVH only" in refusal(elf(note_area=area, machine=3, wide=False))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"FEATURES": "!auto_translated_physmap"}, "auto_translated_physmap"),
        ({"FEATURES": "pae_pgdir_above_4gb|!something_new"}, "something_new"),
        ({"FEATURES": "!dom0"}, "dom0"),
        ({"XEN_VERSION": "xen-2.0"}, "another hypervisor interface"),
        ({"LOADER": "mine"}, "loader of its own"),
    ],
)
def test_a_kernel_that_needs_what_there_is_not_is_refused(changes: dict[str, str], says: str) -> None:
    assert says in refusal(elf(note_area=notes(**changes)))


def test_32_bit_kernels_without_pae_are_refused() -> None:
    assert "without PAE" in refusal(elf(machine=3, wide=False))


@pytest.mark.parametrize("mode", ["yes", "yes[extended-cr3]", "bimodal", "yes,bimodal"])
def test_32_bit_kernels_with_pae_are_taken(mode: str) -> None:
    assert parse_kernel(elf(machine=3, wide=False, note_area=notes(PAE_MODE=mode)), "k").is_32bit


def test_an_elf_class_that_does_not_suit_its_machine_is_refused() -> None:
    assert "does not suit" in refusal(elf(machine=62, wide=False))


def test_kernels_for_other_architectures_are_refused() -> None:
    assert "another architecture" in refusal(elf(machine=183))


@pytest.mark.parametrize("length", [3, 20, 60, 100, 200, 5000])
def test_a_truncated_elf_file_is_refused(length: int) -> None:
    assert refusal(elf()[:length]).startswith("kernel: k: ")


@pytest.mark.parametrize("missing", [1, 1000, 20_000])
def test_a_truncated_bzimage_is_refused_and_says_how_much_is_missing(missing: int) -> None:
    whole = bzimage(gzip.compress(elf(random.Random(5).randbytes(60_000))))
    assert refusal(whole[:-missing]) == f"kernel: k: truncated bzImage: {missing} bytes are missing"


def test_a_bzimage_cut_off_in_its_header_is_refused() -> None:
    assert "header is cut off" in refusal(bzimage(gzip.compress(elf()))[:0x220])


def test_a_bzimage_too_old_to_have_a_payload_is_refused() -> None:
    assert "too old" in refusal(bzimage(gzip.compress(elf()), version=0x0204))


@pytest.mark.parametrize("data", [b"", b"\0" * 5000, b"hello", b"\x7fELF"])
def test_what_is_no_kernel_is_refused(data: bytes) -> None:
    assert refusal(data).startswith("kernel: k: ")


def test_random_damage_to_a_kernel_gives_an_image_error_or_a_kernel() -> None:
    good = elf(b"\x90" * 300, notes())
    dice = random.Random(6)
    for _ in range(3000):
        bad = bytearray(good)
        for _ in range(4):
            bad[dice.randrange(len(bad))] = dice.randrange(256)
        with contextlib.suppress(ImageError):
            parse_kernel(bytes(bad), "k")


def test_an_old_kernel_with_a_xen_guest_section_is_understood() -> None:
    text = b"GUEST_OS=old,XEN_VER=xen-3.0,VIRT_BASE=0xffffffff80000000,HYPERCALL_PAGE=0x101,LOADER=generic,PAE=yes\0"
    names = b"\0__xen_guest\0.shstrtab\0"
    base = bytearray(elf(note_area=b""))
    text_at = len(base)
    names_at = text_at + len(text)
    table_at = names_at + len(names)
    base += text + names
    base += bytes(64)
    base += struct.pack("<IIQQQQIIQQ", 1, 1, 0, 0, text_at, len(text), 0, 0, 1, 0)
    base += struct.pack("<IIQQQQIIQQ", 13, 3, 0, 0, names_at, len(names), 0, 0, 1, 0)
    struct.pack_into("<Q", base, 40, table_at)
    struct.pack_into("<HHH", base, 58, 64, 3, 2)
    image = parse_kernel(bytes(base), "k")
    assert image.notes.legacy
    assert image.notes.hypercall_page == VIRT_BASE + 0x101000
    assert image.notes.paddr_offset == VIRT_BASE


@pytest.mark.parametrize("what", ["kernel", "ramdisk"])
def test_files_that_cannot_be_read_are_named_with_the_reason(what: str, tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    for path, reason in ((tmp_path / "none", "No such file"), (tmp_path, "directory"), (tmp_path / "empty", "empty")):
        with pytest.raises(ImageError) as caught:
            read_file(path, what)
        assert caught.value.key == what
        assert str(path) in str(caught.value)
        assert reason in str(caught.value)


@pytest.mark.parametrize("what", ["kernel", "ramdisk"])
def test_only_regular_files_are_read_and_none_waits(what: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "socket"))
    for path in (tmp_path / "fifo", Path("/dev/zero"), Path("/dev/tty"), tmp_path / "socket"):
        with pytest.raises(ImageError) as caught:
            read_file(path, what)
        assert caught.value.key == what
        assert str(path) in str(caught.value)
    listener.close()
    with pytest.raises(ImageError, match="embedded null"):
        read_file("a\0b", what)


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "large"
    with path.open("wb") as file:
        file.truncate(1 << 43)
    with pytest.raises(ImageError, match=r"8388608 MiB: larger than 64 MiB"):
        read_file(path, "ramdisk", 64 << 20)


def test_a_compressed_kernel_is_unpacked_once_until_its_file_changes(tmp_path: Path) -> None:
    path = tmp_path / "k"
    path.write_bytes(gzip.compress(elf()))
    first = load_kernel(path)
    assert load_kernel(path) is first
    path.write_bytes(gzip.compress(elf(b"\x90" * 100)))
    assert load_kernel(path) is not first


def test_only_in_the_image_cache_an_unpacked_copy_is_used_unless_it_is_older(tmp_path: Path) -> None:
    kernel, copy = tmp_path / "k", tmp_path / "k.elf"
    kernel.write_bytes(gzip.compress(elf(b"\x90" * 100)))
    copy.write_bytes(elf(b"\x90" * 200))
    later = kernel.stat().st_mtime_ns + 1
    os.utime(copy, ns=(later, later))
    assert next(load_kernel(kernel).elf.loads()).filesz == 100
    (tmp_path / "image.json").touch()
    os.utime(kernel, ns=(later, later))  # another time stamp: what was unpacked before does not count
    assert next(load_kernel(kernel).elf.loads()).filesz == 200
    os.utime(copy, ns=(0, 0))
    os.utime(kernel, ns=(later + 1, later + 1))
    assert next(load_kernel(kernel).elf.loads()).filesz == 100
