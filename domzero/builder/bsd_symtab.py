# SPDX-License-Identifier: Apache-2.0
"""The symbol table that a BSD kernel wants behind itself (XEN_ELFNOTE_BSD_SYMTAB; NetBSD's ksyms, FreeBSD's ddb).

At the kernel's end, rounded up to a word: the size of what follows (uint32_t), and a small ELF file of its own without
programs: the kernel's ELF header, three section headers (none, symbols, their strings), the symbols, the strings. Its
offsets count from its ELF header; what lies between is zero.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from domzero.builder.elf import ElfFile
from domzero.errors import ImageError

SHT_SYMTAB = 2
SHT_STRTAB = 3
_SIZE = struct.Struct("<I")
_SECTIONS = 3
_STRINGS_INDEX = 2


@dataclass(slots=True, frozen=True)
class _Fields:
    """Where the fields are, by ELF class: (offset, struct format)."""

    word: int
    header: int
    section: int
    shoff: tuple[int, str]
    phoff: tuple[int, str]
    counts: int
    """e_ehsize, e_phentsize, e_phnum, e_shentsize, e_shnum, e_shstrndx."""
    sh_offset: tuple[int, str]
    sh_link: int


_FIELDS_64 = _Fields(8, 64, 64, (40, "<Q"), (32, "<Q"), 52, (24, "<Q"), 40)
_FIELDS_32 = _Fields(4, 52, 40, (32, "<I"), (28, "<I"), 40, (16, "<I"), 24)


@dataclass(slots=True, frozen=True)
class BsdSymtab:
    """What is put behind the kernel."""

    word: int
    """It begins at a multiple of so many bytes."""
    header: bytes
    """The size and all headers."""
    symbols_at: int
    symbols: memoryview
    strings_at: int
    strings: memoryview

    @property
    def size(self) -> int:
        """Bytes from the beginning, the leading size included."""
        return self.strings_at + len(self.strings)

    def pieces(self) -> Iterator[tuple[int, bytes | memoryview]]:
        """What is to be written, and where from the beginning."""
        yield 0, self.header
        yield self.symbols_at, self.symbols
        yield self.strings_at, self.strings


def _up(value: int, word: int) -> int:
    return -(-value // word) * word


def find_symtab(elf: ElfFile) -> BsdSymtab | None:
    """The kernel's first symbol table with its strings; None when it has none (`strip` takes it off).

    :raises ImageError: the tables are damaged.
    """
    index = next((i for i, section in enumerate(elf.sections) if section.type == SHT_SYMTAB), None)
    if index is None:
        return None
    f = _FIELDS_64 if elf.is_64bit else _FIELDS_32
    (shoff,) = struct.unpack_from(f.shoff[1], elf.data, f.shoff[0])
    (shentsize,) = struct.unpack_from("<H", elf.data, f.counts + 6)

    def raw(at: int) -> bytearray:
        return bytearray(elf.data[shoff + at * shentsize :][: f.section])

    symbols_header = raw(index)
    (link,) = struct.unpack_from("<I", symbols_header, f.sh_link)
    if link >= len(elf.sections) or elf.sections[link].type != SHT_STRTAB:
        raise ImageError("damaged ELF file: its symbol table has no strings")
    symbols, strings = elf.sections[index], elf.sections[link]
    if not symbols.size or not strings.size:
        raise ImageError("truncated ELF file: its symbol table is cut off")

    symbols_at = _up(_SIZE.size + f.header + _SECTIONS * f.section, f.word)
    strings_at = _up(symbols_at + symbols.size, f.word)
    end = strings_at + strings.size
    if end >> 32:
        raise ImageError("its symbol table is too large")
    header = bytearray(elf.data[: f.header])
    struct.pack_into(f.phoff[1], header, f.phoff[0], 0)
    struct.pack_into(f.shoff[1], header, f.shoff[0], f.header)
    struct.pack_into("<HHHHHH", header, f.counts, f.header, 0, 0, f.section, _SECTIONS, 0)
    strings_header = raw(link)
    for section, at, linked in ((symbols_header, symbols_at, _STRINGS_INDEX), (strings_header, strings_at, 0)):
        struct.pack_into("<I", section, 0, 0)  # names of sections are not loaded
        struct.pack_into(f.sh_offset[1], section, f.sh_offset[0], at - _SIZE.size)
        struct.pack_into("<I", section, f.sh_link, linked)
    headers = bytes(header) + bytes(f.section) + bytes(symbols_header) + bytes(strings_header)
    return BsdSymtab(
        word=f.word,
        header=_SIZE.pack(end - _SIZE.size) + headers,
        symbols_at=symbols_at,
        symbols=elf.data[symbols.offset : symbols.offset + symbols.size],
        strings_at=strings_at,
        strings=elf.data[strings.offset : strings.offset + strings.size],
    )
