# SPDX-License-Identifier: Apache-2.0
"""The start-of-day memory layout of a PV domain (xen.h, "Start-of-day memory layout"): pure arithmetic.

Order in the initial mapping: kernel, its symbols (if it wants them), ramdisk (unless the kernel takes it unmapped), p2m
list (unless the kernel wants it elsewhere), start_info, xenstore page, console page, page tables, boot stack, padding.
Behind it, not in the mapping: the p2m list with its own page tables, and the ramdisk.
"""

from __future__ import annotations

from dataclasses import dataclass

from domzero.abi.arch_x86 import HYPERVISOR_VIRT_END, HYPERVISOR_VIRT_START, HYPERVISOR_VIRT_START_PAE
from domzero.abi.elfnote import ElfNote
from domzero.abi.x86 import HIGH_CANONICAL_START, LOW_CANONICAL_END, PHYSICAL_BITS, TABLE_BITS, VA_END
from domzero.abi.xen import PAGE_SHIFT, PAGE_SIZE
from domzero.builder.image import KernelImage
from domzero.errors import ImageError

PADDING_MIN = 512 << 10
END_ALIGN = 4 << 20
ROOM_MIN = 4 << 20
SMALL_KERNEL = 16 << 20
"""Kernels below this size are made for little memory."""

TableKey = tuple[int, int]
"""A page table: its level, and what its addresses have in common (va >> shift of one entry of the level above)."""


def table_shift(level: int) -> int:
    """log2 of what one table of this level maps: 21 for an L1, 48 for an L4."""
    return PAGE_SHIFT + TABLE_BITS * level


def tables_for(start: int, end: int, *, is_32bit: bool = False) -> list[TableKey]:
    """The tables, the root first, that map the virtual range [start, end). An L4, or a 32-bit guest's L3, which always
    has its fourth L2: Xen's own area is there."""
    root = 3 if is_32bit else 4
    keys: list[TableKey] = [(root, 0)]
    if is_32bit and end <= 3 << table_shift(2):
        keys.append((2, 3))
    for level in range(root - 1, 0, -1):
        shift = table_shift(level)
        keys.extend((level, prefix) for prefix in range(start >> shift, (end - 1 >> shift) + 1))
    return keys


def table_count(start: int, end: int, *, is_32bit: bool = False) -> int:
    """How many `tables_for` gives, without making the list."""
    root = 3 if is_32bit else 4
    extra = 1 if is_32bit and end <= 3 << table_shift(2) else 0
    levels = (table_shift(level) for level in range(1, root))
    return 1 + extra + sum((end - 1 >> shift) - (start >> shift) + 1 for shift in levels)


@dataclass(slots=True, frozen=True)
class Layout:
    """Where everything is: pseudo-physical frame numbers, and virtual addresses `*_va`."""

    virt_base: int
    nr_pages: int
    symtab_at: int
    """Pseudo-physical address of the kernel's symbol table, if it has asked for it (`KernelImage.symtab`)."""
    ramdisk_pfn: int
    ramdisk_mapped: bool
    p2m_pfn: int
    p2m_va: int
    first_p2m_pfn: int
    nr_p2m_frames: int
    start_info_pfn: int
    store_pfn: int
    console_pfn: int
    pt_pfn: int
    nr_pt_frames: int
    stack_pfn: int
    end_pfn: int
    tables: dict[TableKey, int]
    is_32bit: bool = False

    def va(self, pfn: int) -> int:
        """Virtual address of a frame in the initial mapping."""
        return self.virt_base + (pfn << PAGE_SHIFT)

    @property
    def end_va(self) -> int:
        """End of the initial mapping."""
        return self.va(self.end_pfn)

    def pfn_of(self, va: int, what: str) -> int:
        """Frame behind an address that the kernel's notes name.

        :raises ImageError: outside the initial mapping.
        """
        if not self.virt_base <= va < self.end_va:
            raise ImageError(f"its {what} {va:#x} is outside what is mapped at its start", key="kernel")
        return (va - self.virt_base) >> PAGE_SHIFT


def pages(size: int) -> int:
    """Frames that `size` bytes need."""
    return (size + PAGE_SIZE - 1) >> PAGE_SHIFT


def plan(image: KernelImage, nr_pages: int, ramdisk_size: int) -> Layout:
    """Lays a domain of `nr_pages` frames out.

    :raises ImageError: it does not fit, or the kernel asks for impossible addresses.
    """
    base = image.notes.virt_base
    is_32bit = image.is_32bit
    init_p2m = image.notes.number(ElfNote.INIT_P2M)
    ramdisk_mapped = bool(ramdisk_size) and not image.notes.number(ElfNote.MOD_START_PFN)
    if base % PAGE_SIZE:
        raise ImageError(f"its VIRT_BASE {base:#x} is not page-aligned", key="kernel")

    symtab_at, cursor = _kernel_end(image, nr_pages)
    ramdisk_pfn = p2m_pfn = 0
    if ramdisk_mapped:
        ramdisk_pfn, cursor = cursor, cursor + pages(ramdisk_size)
    p2m_pages = pages(nr_pages * (4 if is_32bit else 8))
    if init_p2m is None:
        p2m_pfn, cursor = cursor, cursor + p2m_pages
    start_info, store, console, pt_pfn = cursor, cursor + 1, cursor + 2, cursor + 3

    nr_pt_frames = 0
    while True:
        stack = pt_pfn + nr_pt_frames
        end_va = base + ((stack + 1) << PAGE_SHIFT) + PADDING_MIN
        end_va = (end_va + END_ALIGN - 1) & ~(END_ALIGN - 1)
        _check_range(base, end_va, "initial mapping", is_32bit)
        needed = table_count(base, end_va, is_32bit=is_32bit)
        if needed <= nr_pt_frames:
            break
        nr_pt_frames = needed
    unmapped = p2m_pages * (init_p2m is not None) + pages(ramdisk_size) * (not ramdisk_mapped)
    if (end_va - base >> PAGE_SHIFT) + unmapped > nr_pages:  # before anything of that size is made
        _does_not_fit((end_va - base >> PAGE_SHIFT) + unmapped, nr_pages, ramdisk_size)
    keys = tables_for(base, end_va, is_32bit=is_32bit)
    tables = {key: pt_pfn + index for index, key in enumerate(keys)}
    cursor = end_pfn = (end_va - base) >> PAGE_SHIFT

    if init_p2m is None:
        p2m_va = base + (p2m_pfn << PAGE_SHIFT)
        first_p2m, nr_p2m = 0, 0  # only a list outside the initial mapping is told
    else:
        p2m_va = init_p2m
        if init_p2m % PAGE_SIZE:
            raise ImageError(f"its INIT_P2M {init_p2m:#x} is not page-aligned", key="kernel")
        p2m_end = init_p2m + (p2m_pages << PAGE_SHIFT)
        _check_range(init_p2m, p2m_end, "INIT_P2M", is_32bit)
        if init_p2m < end_va and base < p2m_end:
            raise ImageError("its INIT_P2M lies in its own initial mapping", key="kernel")
        first_p2m = p2m_pfn = cursor
        cursor += p2m_pages
        for key in tables_for(init_p2m, p2m_end, is_32bit=is_32bit):
            if key not in tables:
                tables[key] = cursor
                cursor += 1
        nr_p2m = cursor - first_p2m
    if ramdisk_size and not ramdisk_mapped:
        ramdisk_pfn, cursor = cursor, cursor + pages(ramdisk_size)
    if cursor > nr_pages:
        _does_not_fit(cursor, nr_pages, ramdisk_size)
    return Layout(
        virt_base=base,
        nr_pages=nr_pages,
        symtab_at=symtab_at,
        ramdisk_pfn=ramdisk_pfn,
        ramdisk_mapped=ramdisk_mapped,
        p2m_pfn=p2m_pfn,
        p2m_va=p2m_va,
        first_p2m_pfn=first_p2m,
        nr_p2m_frames=nr_p2m,
        start_info_pfn=start_info,
        store_pfn=store,
        console_pfn=console,
        pt_pfn=pt_pfn,
        nr_pt_frames=nr_pt_frames,
        stack_pfn=stack,
        end_pfn=end_pfn,
        tables=tables,
        is_32bit=is_32bit,
    )


def little_room(nr_pages: int, layout: Layout, ramdisk_size: int) -> str | None:
    """What to say of a domain that starts, but with too little left beside its kernel to come far; None for others.

    A kernel wants some memory of its own (for each page of the domain, for each CPU) and its ramdisk unpacked: less
    than 4 MiB, a sixteenth of what it starts with, and the ramdisk's size again is too little for Linux.
    """
    outside = 0 if layout.ramdisk_mapped else pages(ramdisk_size)
    started = layout.end_pfn + layout.nr_p2m_frames + outside
    wanted = started + max(ROOM_MIN >> PAGE_SHIFT, started // 16) + pages(ramdisk_size)
    if started < SMALL_KERNEL >> PAGE_SHIFT or nr_pages >= wanted:
        return None
    left, most = nr_pages - started, -(-wanted >> 8)
    return f"of {nr_pages >> 8} MiB {left >> 8} MiB are left beside kernel and ramdisk: it may need {most} MiB"


def _kernel_end(image: KernelImage, nr_pages: int) -> tuple[int, int]:
    """Address of the symbol table behind the kernel's segments, and the first frame behind both."""
    offset = image.notes.paddr_offset
    end = loaded = 0
    for segment in image.elf.loads():
        if segment.paddr < offset:
            raise ImageError(f"a segment at {segment.paddr:#x} lies below its PADDR_OFFSET {offset:#x}", key="kernel")
        end = max(end, segment.paddr - offset + segment.memsz)
        loaded += segment.filesz
    if end >= 1 << PHYSICAL_BITS:
        raise ImageError(f"a segment ends at the impossible physical address {end:#x}", key="kernel")
    if pages(end) <= nr_pages and loaded > end:  # each byte would be written again and again
        raise ImageError("its segments overlap: more is loaded than there is room between them", key="kernel")
    if image.symtab is None:
        return 0, pages(end)
    symtab_at = -(-end // image.symtab.word) * image.symtab.word
    return symtab_at, pages(symtab_at + image.symtab.size)


def _check_range(start: int, end: int, what: str, is_32bit: bool) -> None:
    low = end <= (HYPERVISOR_VIRT_START_PAE if is_32bit else LOW_CANONICAL_END)
    high = not is_32bit and start >= HIGH_CANONICAL_START and end <= VA_END
    if not (low or high) or (start < HYPERVISOR_VIRT_END and end > HYPERVISOR_VIRT_START):
        raise ImageError(f"its {what} {start:#x}..{end:#x} is where no guest can be mapped", key="kernel")


def _does_not_fit(needed: int, nr_pages: int, ramdisk_size: int) -> None:
    what = "kernel and ramdisk do" if ramdisk_size else "kernel does"
    needed_mib = -(-needed >> 8) if needed % 256 == 0 else (needed >> 8) + 1
    raise ImageError(
        f"the {what} not fit into {nr_pages >> 8} MiB",
        key="memory",
        hint=f"at least {needed_mib} MiB are needed to start",
    )
