# SPDX-License-Identifier: Apache-2.0
"""The lab's programs, assembled from guests/lab: bytes, labels, and what each instruction is called."""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from domzero.abi.elfnote import ElfNote
from domzero.abi.xen import PAGE_SIZE

VIRT_BASE = 0xFFFF_FFFF_8000_0000
VIRT_BASE_32 = 0xC000_0000
_EM_386, _EM_X86_64 = 3, 62


@dataclass(frozen=True, slots=True)
class Line:
    """One instruction: its address, length and text."""

    address: int
    length: int
    text: str


@dataclass(frozen=True, slots=True)
class Listing:
    """One program.

    :param bits: of its instructions: 64 or 32.
    :param size: bytes of memory it takes; what is not in `code` is zero.
    """

    name: str
    bits: int
    base: int
    size: int
    code: bytes
    symbols: dict[str, int]
    lines: dict[int, Line]

    @property
    def virt_base(self) -> int:
        """Where a PV kernel's memory begins."""
        return VIRT_BASE if self.bits == 64 else VIRT_BASE_32

    def address(self, symbol: str) -> int:
        """Where a label is."""
        return self.symbols[symbol]

    def line(self, address: int) -> Line | None:
        """The instruction at an address."""
        return self.lines.get(address)

    def where(self, address: int) -> str:
        """The nearest label before an address."""
        names = [(at, name) for name, at in self.symbols.items() if at <= address]
        return max(names)[1] if names and self.base <= address < self.base + self.size else hex(address)

    def image(self) -> bytes:
        """The program's memory."""
        return self.code.ljust(self.size, b"\0")

    def elf(self, entry: int | None = None) -> bytes:
        """A PV kernel with this program in it."""
        word = "<Q" if self.bits == 64 else "<I"
        fields = {
            ElfNote.XEN_VERSION: b"xen-3.0\0",
            ElfNote.GUEST_OS: b"domzero lab\0",
            ElfNote.LOADER: b"generic\0",
            ElfNote.PAE_MODE: b"yes\0",
            ElfNote.VIRT_BASE: struct.pack(word, self.virt_base),
            ElfNote.ENTRY: struct.pack(word, self.base if entry is None else entry),
        }
        return self._elf(fields, self.virt_base)

    def pvh_elf(self) -> bytes:
        """A kernel for PVH with this program in it, at the physical addresses that it was linked for."""
        return self._elf({ElfNote.PHYS32_ENTRY: struct.pack("<Q", self.base)}, 0)

    def _elf(self, fields: dict[ElfNote, bytes], virt_base: int) -> bytes:
        notes = b"".join(_note(kind, value) for kind, value in fields.items())
        wide = self.bits == 64
        header_size, entry_size = (64, 56) if wide else (52, 32)
        code_at = header_size + 2 * entry_size
        notes_at = code_at + len(self.code)
        machine = _EM_X86_64 if wide else _EM_386
        elf = (b"\x7fELF\x02\x01\x01" if wide else b"\x7fELF\x01\x01\x01").ljust(16, b"\0")
        tail = (header_size, 0, 0, header_size, entry_size, 2, 0, 0, 0)
        elf += struct.pack("<HHIQQQIHHHHHH" if wide else "<HHIIIIIHHHHHH", 2, machine, 1, self.base, *tail)
        size, note_size = (len(self.code), self.size), (len(notes), len(notes))
        place = (code_at, self.base, self.base - virt_base)
        if wide:
            elf += struct.pack("<IIQQQQQQ", 1, 7, *place, *size, PAGE_SIZE)
            elf += struct.pack("<IIQQQQQQ", 4, 4, notes_at, 0, 0, *note_size, 4)
        else:
            elf += struct.pack("<IIIIIIII", 1, *place, *size, 7, PAGE_SIZE)
            elf += struct.pack("<IIIIIIII", 4, notes_at, 0, 0, *note_size, 4, 4)
        return elf + self.code + notes


def _note(kind: ElfNote, value: bytes) -> bytes:
    return struct.pack("<III", 4, len(value), kind) + b"Xen\0" + value + bytes(-len(value) % 4)


@cache
def listing(name: str) -> Listing:
    """A program by its file's name in guests/lab."""
    data = json.loads(files("domzero.lab").joinpath("listings.json").read_text())[name]
    base = data["base"]
    lines = {base + at: Line(base + at, length, text) for at, length, text in data["lines"]}
    symbols = {symbol: base + at for symbol, at in data["symbols"].items()}
    bits = 32 if name.endswith("32") else 64
    return Listing(name, bits, base, data["size"], bytes.fromhex(data["code"]), symbols, lines)
