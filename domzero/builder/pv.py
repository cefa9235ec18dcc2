# SPDX-License-Identifier: Apache-2.0
"""Builds a PV domain: writes its memory as `layout.plan` says and makes vCPU 0 ready to run.

Works on the machine alone (`_machine.Machine`, `Domain`, `Vcpu`): nothing runs yet, so nothing needs the big lock.
"""

from __future__ import annotations

import hashlib
import mmap
from array import array
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from domzero._machine import Base, Preempted, XenRefused
from domzero.abi.arch_x86 import (
    FLAT_COMPAT_RING1_CS,
    FLAT_COMPAT_RING1_DS,
    FLAT_KERNEL_CS64,
    FLAT_KERNEL_DS64,
    FLAT_KERNEL_SS64,
)
from domzero.abi.layout import layout_for
from domzero.abi.start_info import MAGIC_32, MAGIC_64, MAX_GUEST_CMDLINE, StartInfoFlags, start_info
from domzero.abi.x86 import (
    PTE_ACCESSED,
    PTE_DIRTY,
    PTE_PRESENT,
    PTE_RW,
    PTE_USER,
    TABLE_BITS,
    TABLE_ENTRIES,
    X86_EFLAGS_FIXED,
    X86_EFLAGS_IF,
)
from domzero.abi.xen import DOMID_SELF, PAGE_SHIFT, PAGE_SIZE, MmuExt, mmuext_op
from domzero.builder.image import KernelImage
from domzero.builder.layout import Layout, pages, plan
from domzero.errors import ConfigError, DomzeroError
from domzero.hypervisor import m2p
from domzero.hypervisor.hypercall_page import hypercall_page

if TYPE_CHECKING:
    from domzero._machine import Domain, Machine, Register, Vcpu

_TABLE_PROT = PTE_PRESENT | PTE_RW | PTE_USER | PTE_ACCESSED | PTE_DIRTY
_ZERO_PAGE = bytes(PAGE_SIZE)
_EXTENT_ORDER = 9


@dataclass(slots=True, kw_only=True)
class Start:
    """What a domain is started with.

    :param shared_info: machine address of its shared_info page.
    :param store_port, console_port: the guest's ends of the event channels to Domain 0.
    :param extent_seed: its memory is made of extents of 2 MiB, in an order that this gives, as far as there are any;
        None: of single frames.
    """

    nr_pages: int
    shared_info: int
    store_port: int
    console_port: int
    cmdline: str = ""
    ramdisk: bytes = b""
    extent_seed: int | None = None


@dataclass(slots=True, frozen=True)
class Built:
    """What the rest of Domain 0 needs to know of a built domain."""

    layout: Layout
    store_mfn: int
    console_mfn: int


@dataclass(slots=True, frozen=True)
class Width:
    """What a 64-bit and a 32-bit guest have different at their start."""

    is_32bit: bool
    magic: bytes
    word: Literal["I", "Q"]
    """An `unsigned long`, as struct and array know it."""
    root_level: int
    cs: int
    ss: int
    data_segments: int
    """The selector in ds, es, fs and gs."""
    leaf: int
    """Bits of an entry that maps a page writable."""

    @property
    def word_size(self) -> int:
        """Bytes of an `unsigned long`."""
        return 4 if self.is_32bit else 8


_WIDTH_64 = Width(False, MAGIC_64, "Q", 4, FLAT_KERNEL_CS64, FLAT_KERNEL_SS64, FLAT_KERNEL_DS64, _TABLE_PROT)
# Ring 1 is the supervisor of its own pages: they have no U bit.
_LEAF_32 = PTE_PRESENT | PTE_RW | PTE_ACCESSED
_WIDTH_32 = Width(True, MAGIC_32, "I", 3, FLAT_COMPAT_RING1_CS, FLAT_COMPAT_RING1_DS, FLAT_COMPAT_RING1_DS, _LEAF_32)


class BuildError(DomzeroError):
    """The machine refused what the builder made: our bug, or no memory."""


def build_pv(
    machine: Machine, hw: Domain, vcpu: Vcpu, image: KernelImage, start: Start, ram: memoryview | None = None
) -> Built:
    """Allocates and fills the memory of `hw`, and sets `vcpu`'s registers and page tables.

    :param ram: all machine memory, writable (`Host.memory`); mapped for the occasion when not given.
    :raises ImageError: the kernel does not fit or asks for impossible addresses; nothing was allocated then.
    :raises BuildError: the machine refused the result.
    """
    command_line = start.cmdline.encode()
    if len(command_line) >= MAX_GUEST_CMDLINE:
        raise ConfigError(f"at most {MAX_GUEST_CMDLINE - 1} bytes", key="cmdline")
    width = _WIDTH_32 if image.is_32bit else _WIDTH_64
    layout = plan(image, start.nr_pages, len(start.ramdisk))
    entry = image.entry
    layout.pfn_of(entry, "entry point")
    stubs_va = image.notes.hypercall_page
    if stubs_va is not None:
        layout.pfn_of(stubs_va, "hypercall page")

    mfns = _allocate(hw, start)
    mapping = None if ram is not None else mmap.mmap(machine.fileno(), machine.frames << PAGE_SHIFT)
    memory = _Memory(memoryview(mapping) if mapping is not None else memoryview(ram or b""), mfns)
    try:
        m2p.fill(machine, memory.ram, memory.mfns, range(len(memory.mfns)))
        _load_kernel(memory, image, layout.symtab_at)
        memory.write(layout.ramdisk_pfn << PAGE_SHIFT, start.ramdisk)
        memory.write(layout.p2m_pfn << PAGE_SHIFT, array(width.word, mfns).tobytes())
        if stubs_va is not None:
            memory.write(layout.pfn_of(stubs_va, "hypercall page") << PAGE_SHIFT, hypercall_page(width.is_32bit))
        memory.write(layout.start_info_pfn << PAGE_SHIFT, _start_info(width, layout, mfns, start, command_line))
        _write_tables(width, memory, layout)
    finally:
        memory.release()
        if mapping is not None:
            mapping.close()

    _start_vcpu(width, vcpu, layout, entry, mfns[layout.pt_pfn])
    return Built(layout, mfns[layout.store_pfn], mfns[layout.console_pfn])


def _allocate(hw: Domain, start: Start) -> array[int]:
    """The frames of its memory, by pfn.

    Linux's 9pfs front end grants `virt_to_gfn(first) + n` for the pages of its rings, which it allocates in pieces of
    up to 2 MiB: in a PV guest that works because Xen's builder populates extents of this size. Single frames, where
    extents are missing, come first: kernels allocate large pieces from the other end.
    """
    if start.extent_seed is None:
        return array("Q", hw.alloc(start.nr_pages))
    extents: list[int] = []
    while (len(extents) + 1) << _EXTENT_ORDER <= start.nr_pages:
        try:
            first = hw.alloc_extent(_EXTENT_ORDER)
        except Preempted:
            continue
        if first is None:
            break
        extents.append(first)
    key = start.extent_seed.to_bytes(8, "little")
    extents.sort(key=lambda first: hashlib.blake2b(first.to_bytes(8, "little"), key=key).digest())
    size = 1 << _EXTENT_ORDER
    tail = start.nr_pages % size
    frames = hw.alloc(start.nr_pages - len(extents) * size)
    split = len(frames) - tail
    mfns = array("Q", frames[:split])
    for first in extents:
        mfns.extend(range(first, first + size))
    mfns.extend(frames[split:])
    return mfns


class _Memory:
    """A domain's pseudo-physical memory, written through one mapping of all machine memory."""

    __slots__ = ("mfns", "ram")

    def __init__(self, ram: memoryview, mfns: array[int]) -> None:
        self.ram = ram
        self.mfns = mfns

    def release(self) -> None:
        self.ram.release()

    def write(self, paddr: int, data: bytes | memoryview) -> None:
        """Copies page by page: neighbours in pseudo-physical memory are none in the machine. Frames are zero already,
        so pages of zeros are left alone and no memory is spent on them."""
        ram, mfns = self.ram, self.mfns
        pfn, within = divmod(paddr, PAGE_SIZE)
        position, length = 0, len(data)
        while position < length:
            size = min(PAGE_SIZE - within, length - position)
            page = bytes(data[position : position + size])
            if page != (_ZERO_PAGE if size == PAGE_SIZE else _ZERO_PAGE[:size]):
                at = (mfns[pfn] << PAGE_SHIFT) + within
                ram[at : at + size] = page
            position += size
            pfn += 1
            within = 0


def _load_kernel(memory: _Memory, image: KernelImage, symtab_at: int) -> None:
    for segment in image.elf.loads():
        data = image.elf.data[segment.offset : segment.offset + segment.filesz]
        memory.write(segment.paddr - image.notes.paddr_offset, data)
    if image.symtab is not None:
        for offset, piece in image.symtab.pieces():
            memory.write(symtab_at + offset, piece)


def _start_info(width: Width, layout: Layout, mfns: array[int], start: Start, command_line: bytes) -> bytes:
    info = layout_for(start_info, width.is_32bit)(
        magic=width.magic,
        nr_pages=start.nr_pages,
        shared_info=start.shared_info,
        store_mfn=mfns[layout.store_pfn],
        store_evtchn=start.store_port,
        pt_base=layout.va(layout.pt_pfn),
        nr_pt_frames=layout.nr_pt_frames,
        mfn_list=layout.p2m_va,
        cmd_line=command_line,
        first_p2m_pfn=layout.first_p2m_pfn,
        nr_p2m_frames=layout.nr_p2m_frames,
    )
    info.console.domU.mfn = mfns[layout.console_pfn]
    info.console.domU.evtchn = start.console_port
    if start.ramdisk:
        info.mod_len = len(start.ramdisk)
        info.mod_start = layout.va(layout.ramdisk_pfn) if layout.ramdisk_mapped else layout.ramdisk_pfn
        info.flags = 0 if layout.ramdisk_mapped else StartInfoFlags.SIF_MOD_START_PFN
    return bytes(info)


def _write_tables(width: Width, memory: _Memory, layout: Layout) -> None:
    mfns = memory.mfns
    contents: dict[int, array[int]] = {pfn: array("Q", bytes(PAGE_SIZE)) for pfn in layout.tables.values()}
    for (level, prefix), pfn in layout.tables.items():
        if level == width.root_level:
            continue
        parent = (level + 1, prefix >> TABLE_BITS) if level + 1 < width.root_level else (width.root_level, 0)
        index = prefix % TABLE_ENTRIES
        protection = PTE_PRESENT if width.is_32bit and level == 2 else _TABLE_PROT
        contents[layout.tables[parent]][index] = mfns[pfn] << PAGE_SHIFT | protection
    ranges = [(layout.virt_base, 0, layout.end_pfn)]
    if layout.p2m_va != layout.va(layout.p2m_pfn):
        ranges.append((layout.p2m_va, layout.p2m_pfn, pages(layout.nr_pages * width.word_size)))
    table_pfns = set(layout.tables.values())
    for va, first, count in ranges:
        for pfn in range(first, first + count):
            page = (va >> PAGE_SHIFT) + pfn - first
            protection = width.leaf & ~PTE_RW if pfn in table_pfns else width.leaf
            contents[layout.tables[(1, page >> TABLE_BITS)]][page % TABLE_ENTRIES] = (
                mfns[pfn] << PAGE_SHIFT | protection
            )
    for pfn, table in contents.items():
        memory.write(pfn << PAGE_SHIFT, table.tobytes())


def _start_vcpu(width: Width, vcpu: Vcpu, layout: Layout, entry: int, root_mfn: int) -> None:
    try:
        vcpu.set_base(Base.KERNEL, root_mfn)
    except XenRefused as refused:
        raise BuildError(f"the machine refused the initial page tables: {refused}") from refused
    # Linux unpins the page tables it was given, so they have to be pinned, as Xen's own tools do. The boot stack, still
    # unused, carries the argument: struct mmuext_op. The commands that pin are in the order of the levels.
    stack = layout.va(layout.stack_pfn)
    command = MmuExt.MMUEXT_PIN_L1_TABLE + width.root_level - 1
    argument = bytes(layout_for(mmuext_op, width.is_32bit)(command, root_mfn))
    vcpu.write_va(stack, argument)
    try:
        vcpu.mmuext_op(stack, 1, 0, DOMID_SELF)
    except XenRefused as refused:
        raise BuildError(f"the machine refused to pin the initial page tables: {refused}") from refused
    vcpu.write_va(stack, bytes(len(argument)))
    stack_top = stack + PAGE_SIZE
    vcpu.guest_kernel = True
    vcpu.set_kernel_stack(width.ss, stack_top)
    registers: dict[Register, int] = {
        "rip": entry,
        "rsp": stack_top,
        "rsi": layout.va(layout.start_info_pfn),
        "rflags": X86_EFLAGS_FIXED | X86_EFLAGS_IF,
        "cs": width.cs,
        "ss": width.ss,
        "ds": width.data_segments,
        "es": width.data_segments,
        "fs": width.data_segments,
        "gs": width.data_segments,
    }
    for name, value in registers.items():
        vcpu.set_reg(name, value)


__all__ = ["BuildError", "Built", "Start", "build_pv"]
