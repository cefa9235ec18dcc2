# SPDX-License-Identifier: Apache-2.0
"""A domain's core dump, in Xen's ELF format (Xen's document "xen dump-core format", version 0.1).

An ELF file without programs, whose sections say what the domain was: registers of its vCPUs, shared_info, its pages and
which pseudo-physical and machine frames they are. `crash` and `readelf` read it.
"""

from __future__ import annotations

import os
import struct
from array import array
from collections.abc import Iterator
from dataclasses import dataclass

from domzero import __version__
from domzero.abi.arch_x86 import HYPERVISOR_VIRT_START, HYPERVISOR_VIRT_START_PAE, vcpu_guest_context
from domzero.abi.elfnote import ElfNote
from domzero.abi.layout import sizeof
from domzero.abi.version import (
    XEN_CAPABILITIES_INFO_LEN,
    XEN_CHANGESET_INFO_LEN,
    XEN_EXTRAVERSION_LEN,
)
from domzero.abi.xen import PAGE_SIZE
from domzero.builder.elf import (
    ELFCLASS64,
    ELFDATA2LSB,
    EM_X86_64,
    ET_CORE,
    EV_CURRENT,
    SHT_NOTE,
    SHT_PROGBITS,
    SHT_STRTAB,
)
from domzero.hypervisor import vcpu_context
from domzero.hypervisor.capture import frames_of
from domzero.hypervisor.domain import Domain
from domzero.hypervisor.emulate.cpuid import XEN_MAJOR, XEN_MINOR
from domzero.hypervisor.hypercalls.version import CAPABILITIES, EXTRAVERSION, compiled

XC_CORE_MAGIC = 0xF00FEBED
"""A paravirtualized domain's."""
FORMAT_VERSION = 0 << 32 | 1
_EHDR = struct.Struct("<4sBBBBB7xHHIQQQIHHHHHH")
_SHDR = struct.Struct("<IIQQQQIIQQ")
_BATCH = 512
"""Pages of one write; IOV_MAX is 1024."""
_ZERO = bytes(PAGE_SIZE)


@dataclass(slots=True)
class _Section:
    name: str
    type: int
    size: int
    entry_size: int = 0
    align: int = 1
    at: int = 0


def write_core(domain: Domain, fd: int) -> int:
    """Writes it into an empty file, with holes for pages that are zero. The domain must stand still.

    :returns: bytes of the file.
    :raises OSError: it could not be written.
    """
    frames = _frames(domain)
    contexts = b"".join(_context(domain, number) for number in range(len(domain.vcpus)))
    notes = _notes(domain, len(frames))
    names = b"\0"
    sections = [
        _Section(".shstrtab", SHT_STRTAB, 0),
        _Section(".note.Xen", SHT_NOTE, len(notes), align=4),
        _Section(".xen_prstatus", SHT_PROGBITS, len(contexts), sizeof(vcpu_guest_context), 8),
        _Section(".xen_shared_info", SHT_PROGBITS, PAGE_SIZE, PAGE_SIZE, 8),
        _Section(".xen_p2m", SHT_PROGBITS, 16 * len(frames), 16, 8),
        _Section(".xen_pages", SHT_PROGBITS, PAGE_SIZE * len(frames), PAGE_SIZE, PAGE_SIZE),
    ]
    offsets = []
    for section in sections:
        offsets.append(len(names))
        names += section.name.encode() + b"\0"
    sections[0].size = len(names)
    end = _EHDR.size + _SHDR.size * (len(sections) + 1)
    for section in sections:
        section.at = end = -(-end // section.align) * section.align
        end += section.size
    os.ftruncate(fd, end)
    _write(fd, _header(sections, offsets), 0)
    p2m = array("Q", (number for frame in frames for number in frame))
    parts = (names, notes, contexts, bytes(domain.shared_info), p2m.tobytes())
    for section, data in zip(sections, parts, strict=False):
        _write(fd, data, section.at)
    for at, views in _runs(domain, frames, sections[-1].at):
        _write_all(fd, views, at)
    return end


def _header(sections: list[_Section], names: list[int]) -> bytes:
    machine = (ET_CORE, EM_X86_64, EV_CURRENT, 0, 0, _EHDR.size, 0, _EHDR.size, 0, 0, _SHDR.size, len(sections) + 1, 1)
    ident = (b"\x7fELF", ELFCLASS64, ELFDATA2LSB, EV_CURRENT, 0, 0)
    table = [_SHDR.pack(*[0] * 10)]
    for section, name in zip(sections, names, strict=True):
        table.append(
            _SHDR.pack(name, section.type, 0, 0, section.at, section.size, 0, 0, section.align, section.entry_size)
        )
    return _EHDR.pack(*ident, *machine) + b"".join(table)


def _frames(domain: Domain) -> list[tuple[int, int]]:
    """The pseudo-physical and machine frame of each page that the domain has, in order."""
    mfns, pfns, _ = frames_of(domain)
    total = domain.host.machine.frames
    return sorted((pfn, mfn) for mfn, pfn in zip(mfns, pfns, strict=True) if pfn < total)


def _runs(domain: Domain, frames: list[tuple[int, int]], at: int) -> Iterator[tuple[int, list[memoryview]]]:
    """Pages that are not zero, in a row, and where they belong."""
    memory = domain.host.memory
    run: list[memoryview] = []
    for index, (_, mfn) in enumerate(frames):
        page = memory[mfn * PAGE_SIZE : (mfn + 1) * PAGE_SIZE]
        is_zero = bytes(page) == _ZERO
        if not is_zero:
            run.append(page)
        if run and (is_zero or len(run) == _BATCH):
            begin = index + (0 if is_zero else 1) - len(run)
            yield at + begin * PAGE_SIZE, run
            run = []
    if run:
        yield at + (len(frames) - len(run)) * PAGE_SIZE, run


def _context(domain: Domain, number: int) -> bytes:
    """A vCPU's, in the room of the 64-bit layout whatever the guest's is, as Xen's tools have it."""
    return bytes(vcpu_context.save(domain.vcpus[number])).ljust(sizeof(vcpu_guest_context), b"\0")


def _notes(domain: Domain, pages: int) -> bytes:
    virt_start = HYPERVISOR_VIRT_START_PAE if domain.is_32bit else HYPERVISOR_VIRT_START
    version = b"".join(
        (
            struct.pack("<QQ", XEN_MAJOR, XEN_MINOR),
            EXTRAVERSION.ljust(XEN_EXTRAVERSION_LEN, b"\0"),
            bytes(compiled()),
            CAPABILITIES.ljust(XEN_CAPABILITIES_INFO_LEN, b"\0"),
            f"domzero {__version__}".encode().ljust(XEN_CHANGESET_INFO_LEN, b"\0"),
            struct.pack("<QQ", virt_start, PAGE_SIZE),
        )
    )
    return b"".join(
        struct.pack("<III4s", 4, len(data), kind, b"Xen\0") + data
        for kind, data in (
            (ElfNote.DUMPCORE_NONE, b""),
            (ElfNote.DUMPCORE_HEADER, struct.pack("<QQQQ", XC_CORE_MAGIC, len(domain.vcpus), pages, PAGE_SIZE)),
            (ElfNote.DUMPCORE_XEN_VERSION, version),
            (ElfNote.DUMPCORE_FORMAT_VERSION, struct.pack("<Q", FORMAT_VERSION)),
        )
    )


def _write(fd: int, data: bytes, at: int) -> None:
    _write_all(fd, [memoryview(data)], at)


def _write_all(fd: int, views: list[memoryview], at: int) -> None:
    while views:
        done = os.pwritev(fd, views, at)
        at += done
        while views and done >= len(views[0]):
            done -= len(views.pop(0))
        if done:
            views[0] = views[0][done:]
