# SPDX-License-Identifier: Apache-2.0
"""From a kernel file to a checked PV kernel: unpacking, notes, and errors that say what the file is instead."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from os import PathLike, fspath, stat
from pathlib import Path

from domzero.abi.elfnote import ElfNote
from domzero.abi.features import XenFeature
from domzero.builder import bzimage
from domzero.builder.bsd_symtab import BsdSymtab, find_symtab
from domzero.builder.decompress import compression_of, decompress
from domzero.builder.elf import EM_X86_64, ElfFile, is_elf, parse_elf
from domzero.builder.files import open_file, read_file, read_open
from domzero.builder.notes import XenNotes, find_notes
from domzero.errors import ImageError

KERNEL_MAX = 256 << 20
"""Bytes that a kernel may have in its file: with its symbols, but not with all that a debugger wants."""
_CACHED_KERNELS = 2
_NESTING_MAX = 3

OFFERED = frozenset(
    {
        XenFeature.writable_page_tables,  # through emulation of writes to live page tables, as on Xen
        XenFeature.pae_pgdir_above_4gb,
        XenFeature.mmu_pt_update_preserve_ad,
        XenFeature.highmem_assist,
        XenFeature.gnttab_map_avail_bits,
        XenFeature.memory_op_vnode_supported,
        XenFeature.linux_rsdp_unrestricted,
    }
)
"""Features that a PV kernel may require."""


@dataclass(slots=True, frozen=True)
class KernelImage:
    """A PV kernel that can be built into a domain."""

    path: str
    elf: ElfFile
    notes: XenNotes
    symtab: BsdSymtab | None = None
    """What the kernel wants behind itself (BSD_SYMTAB)."""

    @property
    def is_32bit(self) -> bool:
        """A PAE kernel for ring 1."""
        return not self.elf.is_64bit

    @property
    def entry(self) -> int:
        """Virtual address of the entry point."""
        note = self.notes.number(ElfNote.ENTRY)
        return self.elf.entry if note is None else note


_cache: OrderedDict[tuple[str, int, int], KernelImage] = OrderedDict()


def load_kernel(path: str | PathLike[str]) -> KernelImage:
    """Reads, unpacks and checks a PV kernel. The last few that were compressed are kept in memory: a reboot
    does not unpack again.

    :raises ImageError: with a message that begins with the path.
    """
    name = fspath(path)
    try:
        status = stat(name)
    except OSError as error:
        raise ImageError(f"{name}: {error.strerror or error}", key="kernel") from error
    key = (name, status.st_mtime_ns, status.st_size)
    if key in _cache:
        _cache.move_to_end(key)
        return _cache[key]
    data = read_file(_unpacked_beside(name) or name, "kernel", KERNEL_MAX)
    image = parse_kernel(data, name)
    if is_elf(data):
        return image  # read again in a moment, and tens of megabytes that need not be kept
    _cache[key] = image
    while len(_cache) > _CACHED_KERNELS:
        _cache.popitem(last=False)
    return image


def open_kernel(path: str | PathLike[str]) -> int:
    """Opens what `load_kernel` would read, for `read_kernel`; a descriptor, the caller's. ImageError."""
    return open_file(_unpacked_beside(fspath(path)) or path, "kernel", KERNEL_MAX)


def read_kernel(fd: int, name: str) -> KernelImage:
    """As `load_kernel`, of a file that is open, and without keeping anything."""
    return parse_kernel(read_open(fd, name, "kernel", KERNEL_MAX), name)


def _unpacked_beside(name: str) -> str | None:
    """In its cache, and nowhere else, `domzero image fetch` keeps an unpacked copy of each kernel: saves a second."""
    path = Path(name)
    copy = path.parent / (path.name + ".elf")
    try:
        fresh = copy.stat().st_mtime_ns >= path.stat().st_mtime_ns
    except OSError:
        return None
    return str(copy) if fresh and (path.parent / "image.json").is_file() else None


def parse_kernel(data: bytes, name: str) -> KernelImage:
    """As `load_kernel`, from memory."""
    try:
        elf = parse_elf(memoryview(unpack(data)))
        notes = find_notes(elf)
        if notes is None:
            raise ImageError("not a Xen PV kernel: no Xen ELF notes")
        _check(elf, notes)
        symtab = find_symtab(elf) if notes.string(ElfNote.BSD_SYMTAB) == "yes" else None
    except ImageError as error:
        raise ImageError(f"{name}: {error.message}", key="kernel", hint=error.hint) from error
    return KernelImage(name, elf, notes, symtab)


def unpack(data: bytes) -> bytes | memoryview:
    """The ELF file in a bzImage, a compressed file, or `data` itself.

    :raises ImageError: no kernel format, or a damaged one.
    """
    current: bytes | memoryview = data
    for _ in range(_NESTING_MAX):
        if is_elf(current):
            return current
        if bzimage.is_bzimage(current):
            current = bzimage.payload(memoryview(current))
            if compression_of(current) is None and not is_elf(current):
                raise ImageError("bzImage with an unknown kind of compression")
        if compression_of(current) is not None:
            current = decompress(current)
        elif not is_elf(current):
            break
    if is_elf(current):
        return current
    raise ImageError("not a kernel: neither bzImage nor ELF")


def _is_pae(notes: XenNotes) -> bool:
    """PAE="yes", "yes[extended-cr3]", "bimodal" and the like."""
    mode = notes.string(ElfNote.PAE_MODE) or ""
    return mode.startswith("yes") or "bimodal" in mode


def _check(elf: ElfFile, notes: XenNotes) -> None:
    """Checks that need no domain."""
    if elf.is_64bit != (elf.machine == EM_X86_64):
        raise ImageError("damaged ELF file: its class does not suit its machine")
    if notes.number(ElfNote.ENTRY) is None and notes.number(ElfNote.PHYS32_ENTRY) is not None:
        raise ImageError("not a Xen PV kernel: it can be started as HVM or PVH only", hint="it has no ENTRY note")
    if not elf.is_64bit and not _is_pae(notes):
        raise ImageError("a 32-bit kernel without PAE, which no 64-bit Xen runs")
    version = notes.string(ElfNote.XEN_VERSION)
    if version is not None and not version.startswith("xen-3."):
        raise ImageError(f"made for another hypervisor interface: {version!r}, not 'xen-3.0'")
    loader = notes.string(ElfNote.LOADER)
    if loader and loader != "generic":
        raise ImageError(f"needs a loader of its own: {loader!r}")
    missing = [XenFeature(bit).name for bit in sorted(notes.features_required - OFFERED)] + list(notes.unknown_required)
    if missing:
        raise ImageError(f"needs what a PV domain does not have: {', '.join(missing)}")
    if not any(True for _ in elf.loads()):
        raise ImageError("nothing to load: no PT_LOAD segment")
