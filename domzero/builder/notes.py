# SPDX-License-Identifier: Apache-2.0
"""Xen's ELF notes (elfnote.h) and their predecessor, the `__xen_guest` string: how a kernel wants to be started."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

from domzero.abi.elfnote import ElfNote
from domzero.abi.features import XenFeature
from domzero.abi.xen import PAGE_SIZE
from domzero.builder.elf import PT_NOTE, SHT_NOTE, ElfFile
from domzero.errors import ImageError

AREAS_MAX = 1 << 20
"""Bytes of notes that are read, in all segments or sections together: kernels have a few hundred."""
DESC_MAX = 4096
"""Bytes of one note, or of a `__xen_guest` string, that are read."""
_STRINGS = {
    ElfNote.INFO,
    ElfNote.XEN_VERSION,
    ElfNote.GUEST_OS,
    ElfNote.GUEST_VERSION,
    ElfNote.LOADER,
    ElfNote.PAE_MODE,
    ElfNote.FEATURES,
    ElfNote.BSD_SYMTAB,
}
_LEGACY = {
    "VIRT_ENTRY": ElfNote.ENTRY,
    "VIRT_BASE": ElfNote.VIRT_BASE,
    "ELF_PADDR_OFFSET": ElfNote.PADDR_OFFSET,
    "HYPERCALL_PAGE": ElfNote.HYPERCALL_PAGE,
    "XEN_VER": ElfNote.XEN_VERSION,
    "GUEST_OS": ElfNote.GUEST_OS,
    "GUEST_VER": ElfNote.GUEST_VERSION,
    "LOADER": ElfNote.LOADER,
    "PAE": ElfNote.PAE_MODE,
    "FEATURES": ElfNote.FEATURES,
    "BSD_SYMTAB": ElfNote.BSD_SYMTAB,
}


@dataclass(slots=True)
class XenNotes:
    """What a kernel says about itself; None where it says nothing."""

    numbers: dict[int, int] = field(default_factory=dict)
    strings: dict[int, str] = field(default_factory=dict)
    l1_mfn_valid: list[tuple[int, int]] = field(default_factory=list)
    features_supported: frozenset[int] = frozenset()
    features_required: frozenset[int] = frozenset()
    unknown_required: tuple[str, ...] = ()
    legacy: bool = False

    def number(self, note: ElfNote) -> int | None:
        """A numeric note."""
        return self.numbers.get(note)

    def string(self, note: ElfNote) -> str | None:
        """A string note."""
        return self.strings.get(note)

    @property
    def virt_base(self) -> int:
        """VIRT_BASE; 0 when absent, as in Xen."""
        return self.numbers.get(ElfNote.VIRT_BASE, 0)

    @property
    def paddr_offset(self) -> int:
        """PADDR_OFFSET; when absent 0, or VIRT_BASE for a `__xen_guest` kernel."""
        return self.numbers.get(ElfNote.PADDR_OFFSET, self.virt_base if self.legacy else 0)

    @property
    def hypercall_page(self) -> int | None:
        """Virtual address of the hypercall page."""
        value = self.numbers.get(ElfNote.HYPERCALL_PAGE)
        if value is not None and self.legacy:
            return self.virt_base + value * PAGE_SIZE  # the old string gives a page number
        return value


def find_notes(elf: ElfFile) -> XenNotes | None:
    """Xen's notes in note segments, else in note sections, else the `__xen_guest` section; None without any.

    :raises ImageError: more notes than any kernel has.
    """
    segments = [(part.offset, part.filesz) for part in elf.segments if part.type == PT_NOTE]
    sections = [(part.offset, part.size) for part in elf.sections if part.type == SHT_NOTE]
    left = AREAS_MAX
    for offset, size in (*segments, *sections):
        if size > left:
            raise ImageError(f"damaged ELF file: more than {AREAS_MAX >> 10} KiB of notes")
        left -= size
        notes = _from_area(elf.data, offset, size)
        if notes:
            return notes
    for section in elf.sections:
        if section.name == "__xen_guest" and section.size:
            return _from_legacy(bytes(elf.data[section.offset : section.offset + min(section.size, DESC_MAX)]))
    return None


def _entries(area: memoryview, offset: int, size: int) -> Iterator[tuple[bytes, int, memoryview]]:
    """The notes that begin in the area. The last one may be cut off, as in GRUB's 32-bit image."""
    end = offset + size
    while offset + 12 <= min(end, len(area)):
        namesz, descsz, kind = struct.unpack_from("<III", area, offset)
        name_at = offset + 12
        desc_at = name_at + (namesz + 3 & ~3)
        offset = desc_at + (descsz + 3 & ~3)
        name = bytes(area[name_at : name_at + min(namesz, 8)]).rstrip(b"\0")
        yield name, kind, area[desc_at : desc_at + min(descsz, DESC_MAX)]


def _from_area(area: memoryview, offset: int, size: int) -> XenNotes | None:
    notes = XenNotes()
    found = False
    for name, kind, desc in _entries(area, offset, size):
        if name != b"Xen":
            continue
        found = True
        if kind in _STRINGS:
            notes.strings[kind] = bytes(desc).split(b"\0")[0].decode("latin-1")
        elif kind == ElfNote.L1_MFN_VALID:
            pairs = struct.iter_unpack("<QQ", desc[: len(desc) & ~15])
            notes.l1_mfn_valid.extend((mask, value) for mask, value in pairs)
        elif len(desc) in (4, 8):
            notes.numbers[kind] = int.from_bytes(desc, "little")
    if not found:
        return None
    _set_features(notes)
    return notes


def _from_legacy(text: bytes) -> XenNotes:
    notes = XenNotes(legacy=True)
    for item in text.split(b"\0")[0].decode("latin-1").split(","):
        key, _, value = item.strip().partition("=")
        note = _LEGACY.get(key)
        if note is None:
            continue
        if note in _STRINGS:
            notes.strings[note] = value if value or note != ElfNote.BSD_SYMTAB else "yes"
            continue
        try:
            notes.numbers[note] = int(value, 0) & (1 << 64) - 1
        except ValueError:
            raise ImageError(f"bad __xen_guest string: {key}={value}") from None
    _set_features(notes)
    return notes


def _set_features(notes: XenNotes) -> None:
    supported: set[int] = set()
    required: set[int] = set()
    unknown: list[str] = []
    for word in (notes.strings.get(ElfNote.FEATURES) or "").split("|"):
        name = word.strip().lstrip("!")
        feature = XenFeature.__members__.get(name)
        if feature is not None:
            supported.add(feature)
            if word.strip().startswith("!"):
                required.add(feature)
        elif name and word.strip().startswith("!"):
            unknown.append(name)
    bits = notes.numbers.get(ElfNote.SUPPORTED_FEATURES, 0)
    supported.update(bit for bit in range(64) if bits >> bit & 1)
    notes.features_supported = frozenset(supported)
    notes.features_required = frozenset(required)
    notes.unknown_required = tuple(unknown)
