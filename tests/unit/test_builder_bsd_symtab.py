# SPDX-License-Identifier: Apache-2.0
"""The symbol table behind a kernel that asks for it, read back as a BSD kernel and as readelf do."""

from __future__ import annotations

import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from builder_machine import BuilderDomain, BuilderMachine, BuilderVcpu
from building import need_compiler

from domzero.builder.image import KernelImage, parse_kernel
from domzero.builder.layout import plan
from domzero.builder.pv import Start, build_pv
from domzero.errors import ImageError

PAGES = 16 * 256
BASE = {64: 0xFFFFFFFF80000000, 32: 0xC0000000}
SOURCE = r"""
    .macro note kind, text
    .long 4, 2f - 1f, \kind
    .asciz "Xen"
1:  .asciz "\text"
2:  .balign 4
    .endm
    .section .note.Xen, "a", @note
    note 5, "xen-3.0"
    note 8, "generic"
    note 9, "yes"
    note 11, "{wanted}"
    .long 4, {word}, 3
    .asciz "Xen"
    {address} {base}
    .text
    .globl _start, a_function, end
_start: hlt
a_function: hlt
    .data
a_local_name: .long 1
    .bss
    .skip 4099
end:
"""


def kernel(tmp_path: Path, bits: int, wanted: str = "yes") -> bytes:
    need_compiler()
    word, address = (8, ".quad") if bits == 64 else (4, ".long")
    source = SOURCE.format(wanted=wanted, word=word, address=address, base=BASE[bits])
    (tmp_path / "k.S").write_text(source)
    subprocess.run(["as", f"--{bits}", "-o", "k.o", "k.S"], cwd=tmp_path, check=True)
    places = " ".join(
        f"{name} : AT(ADDR({name}) - {BASE[bits]:#x}) {{ *({name}) }}"
        for name in (".text", ".note.Xen", ".data", ".bss")
    )
    script = f"SECTIONS {{ . = {BASE[bits] + 0x100000:#x}; {places} }}"
    (tmp_path / "k.ld").write_text(script)
    emulation = "elf_x86_64" if bits == 64 else "elf_i386"
    command = ["ld", "-m", emulation, "-z", "noexecstack", "--no-warn-rwx-segments", "-T", "k.ld", "-o", "k", "k.o"]
    subprocess.run(command, cwd=tmp_path, check=True)
    return (tmp_path / "k").read_bytes()


@pytest.fixture
def machine() -> Iterator[BuilderMachine]:
    machine = BuilderMachine(PAGES + 768)
    yield machine
    machine.close()


def symbols(path: Path) -> set[tuple[str, str]]:
    """(value, name) as readelf sees them; sections of the kernel that a symbol is in are not in the small file."""
    text = subprocess.run(["readelf", "-sW", path], check=True, capture_output=True, text=True)
    rows = [line.split() for line in text.stdout.splitlines() if line.strip()[:1].isdigit()]
    return {(row[1], row[-1]) for row in rows if len(row) >= 8}


def memory_behind(machine: BuilderMachine, image: KernelImage) -> tuple[int, bytes]:
    """Where the table begins, and the bytes from the kernel's end to the end of the page."""
    vcpu, domain = BuilderVcpu(machine), BuilderDomain(machine)
    start = Start(nr_pages=PAGES, shared_info=0x5000, store_port=1, console_port=2)
    build_pv(machine, domain, vcpu, image, start)  # type: ignore[arg-type]
    end = max(s.paddr + s.memsz for s in image.elf.loads()) - image.notes.paddr_offset
    stop = plan(image, PAGES, 0).start_info_pfn * 4096
    assert not vcpu.read_va(image.notes.virt_base + end - 64, 64).strip(b"\0")
    return end, vcpu.read_va(image.notes.virt_base + end, stop - end)


def test_a_kernel_finds_its_symbols_behind_its_end(machine: BuilderMachine, tmp_path: Path) -> None:
    image = parse_kernel(kernel(tmp_path, 64), "k")
    end, behind = memory_behind(machine, image)
    at = -end % 8
    assert behind[:at] == bytes(at)
    (size,) = struct.unpack_from("<I", behind, at)
    blob = behind[at + 4 : at + 4 + size]
    (tmp_path / "symbols").write_bytes(blob)
    found = symbols(tmp_path / "symbols")
    assert found == symbols(tmp_path / "k")
    assert {"_start", "a_function", "a_local_name"} <= {name for _, name in found}
    p2m = plan(image, PAGES, 0).p2m_pfn * 4096 - end
    assert behind[at + 4 + size : p2m] == bytes(p2m - at - 4 - size)


def test_the_table_of_a_32_bit_kernel_is_that_of_its_file(tmp_path: Path) -> None:
    image = parse_kernel(kernel(tmp_path, 32), "k")
    assert image.symtab is not None
    blob = bytearray(image.symtab.size)
    for offset, data in image.symtab.pieces():
        blob[offset : offset + len(data)] = data
    (tmp_path / "symbols").write_bytes(blob[4:])
    assert struct.unpack_from("<I", blob) == (len(blob) - 4,)
    assert symbols(tmp_path / "symbols") == symbols(tmp_path / "k")


def test_nothing_is_loaded_for_a_kernel_that_does_not_ask_or_was_stripped(tmp_path: Path) -> None:
    asks_not = parse_kernel(kernel(tmp_path, 64, "no"), "k")
    assert asks_not.symtab is None
    kernel(tmp_path, 64)
    subprocess.run(["strip", "k"], cwd=tmp_path, check=True)
    assert parse_kernel((tmp_path / "k").read_bytes(), "k").symtab is None


def damaged(data: bytes, kind: int, field: int, value: int) -> bytes:
    """The file with a 64-bit field of its first section of this kind changed."""
    out = bytearray(data)
    (shoff,) = struct.unpack_from("<Q", data, 40)
    (count,) = struct.unpack_from("<H", data, 60)
    at = next(shoff + 64 * i for i in range(count) if struct.unpack_from("<I", data, shoff + 64 * i + 4) == (kind,))
    struct.pack_into("<Q" if field != 40 else "<I", out, at + field, value)
    return bytes(out)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        (40, 0xFFFFFFF0, "its symbol table has no strings"),
        (40, 1, "its symbol table has no strings"),
        (32, 1 << 40, "its symbol table is cut off"),
        (24, 1 << 63, "its symbol table is cut off"),
        (32, 0, "its symbol table is cut off"),
    ],
)
def test_damaged_tables_are_refused_in_one_line(tmp_path: Path, field: int, value: int, message: str) -> None:
    with pytest.raises(ImageError, match=message) as caught:
        parse_kernel(damaged(kernel(tmp_path, 64), 2, field, value), "k")
    assert "\n" not in str(caught.value)


def test_symbols_count_for_the_memory_that_a_kernel_needs(tmp_path: Path) -> None:
    data = kernel(tmp_path, 64)
    big = data + bytes(PAGES * 4096)
    image = parse_kernel(damaged(damaged(big, 2, 24, 0), 2, 32, PAGES * 4096), "k")
    with pytest.raises(ImageError, match="does not fit"):
        plan(image, PAGES, 0)
