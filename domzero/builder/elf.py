# SPDX-License-Identifier: Apache-2.0
"""ELF files, as far as loading a kernel needs them. Every offset and size is checked against the file."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from domzero.errors import ImageError

ELFCLASS64 = 2
ELFDATA2LSB = 1
EV_CURRENT = 1
ET_CORE = 4
EM_386 = 3
EM_X86_64 = 62
PT_LOAD = 1
PT_NOTE = 4
SHT_PROGBITS = 1
SHT_STRTAB = 3
SHT_NOTE = 7
SHT_NOBITS = 8
_PN_MAX = 1024
_SHN_MAX = 65535
_NAME_MAX = 64
"""Bytes of a section's name that are looked at."""
_NAMES_MAX = 1 << 20
"""Bytes of the table of section names that are looked at."""


@dataclass(slots=True, frozen=True)
class Segment:
    """A program header."""

    type: int
    offset: int
    vaddr: int
    paddr: int
    filesz: int
    memsz: int


@dataclass(slots=True, frozen=True)
class Section:
    """A section header."""

    name: str
    type: int
    address: int
    offset: int
    size: int


@dataclass(slots=True, frozen=True)
class ElfFile:
    """A parsed ELF file; `data` is the whole file."""

    data: memoryview
    is_64bit: bool
    machine: int
    entry: int
    segments: tuple[Segment, ...]
    sections: tuple[Section, ...]

    def loads(self) -> Iterator[Segment]:
        """The segments to be loaded, without empty ones."""
        return (segment for segment in self.segments if segment.type == PT_LOAD and segment.memsz)


def is_elf(data: memoryview | bytes) -> bool:
    """True for what begins with ELF's magic."""
    return bytes(data[:4]) == b"\x7fELF"


def parse_elf(data: memoryview) -> ElfFile:
    """Parses headers, segments and sections of an x86 ELF file (32- or 64-bit).

    :raises ImageError: not ELF, truncated, or for another architecture.
    """
    if not is_elf(data):
        raise ImageError("not an ELF file")
    if len(data) < 52:
        raise ImageError("truncated ELF file: its header is cut off")
    if data[4] not in (1, 2) or data[5] != 1:
        raise ImageError("not a little-endian x86 ELF file")
    wide = data[4] == 2
    if wide:
        if len(data) < 64:
            raise ImageError("truncated ELF file: its header is cut off")
        fields = struct.unpack_from("<HHIQQQIHHHHHH", data, 16)
    else:
        fields = struct.unpack_from("<HHIIIIIHHHHHH", data, 16)
    _, machine, _, entry, phoff, shoff, _, _, phentsize, phnum, shentsize, shnum, shstrndx = fields
    if machine not in (EM_386, EM_X86_64):
        raise ImageError(f"ELF for another architecture (machine {machine}): an x86 kernel is needed")
    segments = _segments(data, wide, phoff, phentsize, phnum)
    sections = _sections(data, wide, shoff, shentsize, shnum, shstrndx)
    return ElfFile(data, wide, machine, entry, segments, sections)


def _segments(data: memoryview, wide: bool, phoff: int, phentsize: int, phnum: int) -> tuple[Segment, ...]:
    size = 56 if wide else 32
    if phnum == 0:
        raise ImageError("ELF file without program headers: not a kernel that can be loaded")
    if phnum > _PN_MAX or phentsize < size:
        raise ImageError("damaged ELF file: bad program header table")
    if phoff + phnum * phentsize > len(data):
        raise ImageError("truncated ELF file: its program headers are cut off")
    segments = []
    for index in range(phnum):
        at = phoff + index * phentsize
        if wide:
            kind, _, offset, vaddr, paddr, filesz, memsz, _ = struct.unpack_from("<IIQQQQQQ", data, at)
        else:
            kind, offset, vaddr, paddr, filesz, memsz, _, _ = struct.unpack_from("<IIIIIIII", data, at)
        if kind in (PT_LOAD, PT_NOTE) and offset + filesz > len(data):
            raise ImageError(f"truncated ELF file: {offset + filesz - len(data)} bytes are missing")
        if kind == PT_LOAD and filesz > memsz:
            raise ImageError("damaged ELF file: a segment is larger in the file than in memory")
        segments.append(Segment(kind, offset, vaddr, paddr, filesz, memsz))
    return tuple(segments)


def _sections(data: memoryview, wide: bool, shoff: int, shentsize: int, shnum: int, strndx: int) -> tuple[Section, ...]:
    """Sections only help to find notes: a damaged or missing table is the same as none."""
    size = 64 if wide else 40
    if shoff == 0 or shnum == 0 or shentsize < size or shoff + shnum * shentsize > len(data):
        return ()
    raw = []
    for index in range(min(shnum, _SHN_MAX)):
        layout = "<IIQQQQ" if wide else "<IIIIII"
        name, kind, _, address, offset, length = struct.unpack_from(layout, data, shoff + index * shentsize)
        if kind != SHT_NOBITS and offset + length > len(data):
            length = 0
        raw.append((name, kind, address, offset, length))
    names = b""
    if strndx < len(raw) and raw[strndx][1] != SHT_NOBITS:
        start, length = raw[strndx][3], min(raw[strndx][4], _NAMES_MAX)
        names = bytes(data[start : start + length])
    return tuple(
        Section(names[name : name + _NAME_MAX].split(b"\0")[0].decode("latin-1"), kind, address, offset, length)
        for name, kind, address, offset, length in raw
    )
