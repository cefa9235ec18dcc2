"""The lab's programs, assembled from guests/lab: bytes, labels, and what each instruction is called."""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from domzero.abi.elfnote import ElfNote

VIRT_BASE = 0xFFFF_FFFF_8000_0000
PADDR = 0x1000
PAGE_SIZE = 4096
_EHDR_SIZE = 64
_PHDR_SIZE = 56


@dataclass(frozen=True, slots=True)
class Line:
    """One instruction: its address, length and text."""

    address: int
    length: int
    text: str


@dataclass(frozen=True, slots=True)
class Listing:
    """One program.

    :param size: bytes of memory it takes; what is not in `code` is zero.
    """

    name: str
    base: int
    size: int
    code: bytes
    symbols: dict[str, int]
    lines: dict[int, Line]

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
        notes = b"".join(
            (
                _note(ElfNote.XEN_VERSION, b"xen-3.0\0"),
                _note(ElfNote.GUEST_OS, b"domzero lab\0"),
                _note(ElfNote.LOADER, b"generic\0"),
                _note(ElfNote.VIRT_BASE, struct.pack("<Q", VIRT_BASE)),
                _note(ElfNote.ENTRY, struct.pack("<Q", self.base if entry is None else entry)),
            )
        )
        code_at = _EHDR_SIZE + 2 * _PHDR_SIZE
        notes_at = code_at + len(self.code)
        header = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
        header += struct.pack(
            "<HHIQQQIHHHHHH", 2, 62, 1, self.base, _EHDR_SIZE, 0, 0, _EHDR_SIZE, _PHDR_SIZE, 2, 0, 0, 0
        )
        segment = (code_at, self.base, self.base - VIRT_BASE, len(self.code), self.size, PAGE_SIZE)
        header += struct.pack("<IIQQQQQQ", 1, 7, *segment)
        header += struct.pack("<IIQQQQQQ", 4, 4, notes_at, 0, 0, len(notes), len(notes), 4)
        return header + self.code + notes


def _note(kind: ElfNote, value: bytes) -> bytes:
    return struct.pack("<III", 4, len(value), kind) + b"Xen\0" + value + bytes(-len(value) % 4)


@cache
def listing(name: str) -> Listing:
    """A program by its file's name in guests/lab."""
    data = json.loads(files("domzero.lab").joinpath("listings.json").read_text())[name]
    base = data["base"]
    lines = {base + at: Line(base + at, length, text) for at, length, text in data["lines"]}
    symbols = {symbol: base + at for symbol, at in data["symbols"].items()}
    return Listing(name, base, data["size"], bytes.fromhex(data["code"]), symbols, lines)
