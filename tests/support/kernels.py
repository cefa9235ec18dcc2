# SPDX-License-Identifier: Apache-2.0
"""Small kernel images made for tests: ELF files with Xen notes, and bzImages around them."""

from __future__ import annotations

import struct

VIRT_BASE = 0xFFFFFFFF80000000
PADDR = 0x100000
INFO = {"ENTRY": 1, "HYPERCALL_PAGE": 2, "VIRT_BASE": 3, "PADDR_OFFSET": 4, "XEN_VERSION": 5, "LOADER": 8}
INFO |= {
    "PAE_MODE": 9,
    "FEATURES": 10,
    "INIT_P2M": 15,
    "MOD_START_PFN": 16,
    "SUPPORTED_FEATURES": 17,
    "PHYS32_ENTRY": 18,
}


def note(kind: int, value: int | str, name: bytes = b"Xen\0") -> bytes:
    """One ELF note."""
    desc = value.encode() + b"\0" if isinstance(value, str) else struct.pack("<Q", value)
    header = struct.pack("<III", len(name), len(desc), kind)
    return header + name + bytes(-len(name) % 4) + desc + bytes(-len(desc) % 4)


DEFAULT: dict[str, int | str] = {
    "ENTRY": VIRT_BASE + PADDR,
    "VIRT_BASE": VIRT_BASE,
    "XEN_VERSION": "xen-3.0",
    "LOADER": "generic",
    "MOD_START_PFN": 1,
    "INIT_P2M": 0x8000000000,
    "FEATURES": "!writable_page_tables|pae_pgdir_above_4gb",
}


def notes(**changes: int | str | None) -> bytes:
    """Linux's notes, with changes; None leaves one out."""
    fields = {**DEFAULT, **changes}
    return b"".join(note(INFO[name], value) for name, value in fields.items() if value is not None)


def elf(
    text: bytes = b"\x0f\x05\xf4" * 5000,
    note_area: bytes | None = None,
    *,
    memsz: int | None = None,
    paddr: int = PADDR,
    machine: int = 62,
    wide: bool = True,
) -> bytes:
    """An ELF file with one PT_LOAD and one PT_NOTE segment (none for an empty area)."""
    area = notes() if note_area is None else note_area
    count = 2 if area else 1
    header_size, entry_size = (64, 56) if wide else (52, 32)
    text_at = header_size + count * entry_size
    note_at = text_at + len(text)
    ident = b"\x7fELF" + bytes([2 if wide else 1, 1, 1]) + bytes(9)
    memsz = len(text) if memsz is None else memsz
    vaddr = VIRT_BASE + paddr if wide else 0xC0000000 + paddr
    if wide:
        fields = (2, machine, 1, vaddr, header_size, 0, 0, header_size, entry_size, count, 0, 0, 0)
        header = ident + struct.pack("<HHIQQQIHHHHHH", *fields)
        program = struct.pack("<IIQQQQQQ", 1, 7, text_at, vaddr, paddr, len(text), memsz, 4096)
        if area:
            program += struct.pack("<IIQQQQQQ", 4, 4, note_at, 0, 0, len(area), len(area), 4)
    else:
        fields = (2, machine, 1, vaddr, header_size, 0, 0, header_size, entry_size, count, 0, 0, 0)
        header = ident + struct.pack("<HHIIIIIHHHHHH", *fields)
        program = struct.pack("<IIIIIIII", 1, text_at, vaddr, paddr, len(text), memsz, 7, 4096)
        if area:
            program += struct.pack("<IIIIIIII", 4, note_at, 0, 0, len(area), len(area), 4, 4)
    return header + program + text + area


def bzimage(payload: bytes, *, version: int = 0x020F, trailer: bytes = b"") -> bytes:
    """A bzImage with this compressed kernel in it."""
    setup_sects = 3
    image = bytearray((setup_sects + 1) * 512)
    image[0x1F1] = setup_sects
    image[0x1FE:0x200] = b"\x55\xaa"
    image[0x202:0x206] = b"HdrS"
    struct.pack_into("<H", image, 0x206, version)
    struct.pack_into("<II", image, 0x248, 64, len(payload) + len(trailer))
    return bytes(image) + b"\x90" * 64 + payload + trailer


def shutdown(code: int, text: bytes = b"") -> bytes:
    """A kernel that prints a text with console_io and ends with this shutdown code."""
    write = b"\xb8\x12\0\0\0\x31\xff\xbe" + struct.pack("<I", len(text)) + b"\x48\x8d\x15\x15\0\0\0\x0f\x05"
    end = b"\xb8\x1d\0\0\0\xbf\x02\0\0\0\x48\x8d\x35" + struct.pack("<I", 2 + len(text)) + b"\x0f\x05"
    return elf(write + end + text + struct.pack("<I", code))
