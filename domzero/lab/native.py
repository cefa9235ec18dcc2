# SPDX-License-Identifier: Apache-2.0
"""A bare machine with a kernel's tables: GDT, IDT, TSS, page tables, and an application beside it."""

from __future__ import annotations

import struct

from domzero._machine import Bare, Machine
from domzero.abi.x86 import (
    DESC_CODE_READABLE,
    DESC_DATA_WRITABLE,
    GATE_SIZE,
    PTE_FRAME_MASK,
    PTE_NX,
    PTE_PRESENT,
    PTE_RW,
    PTE_USER,
    TSS_LIMIT,
    TSS_RSP0,
    Vector,
    flat_segment,
    interrupt_gate,
    table_index,
    tss_descriptor,
)
from domzero.abi.xen import PAGE_SIZE
from domzero.lab.listing import Listing

PRESENT, WRITABLE, USER, NO_EXECUTE = PTE_PRESENT, PTE_RW, PTE_USER, PTE_NX
FRAMES = 512
_DOMID = 1

# Selectors of the GDT below, by ring. syscall and sysret fix the order of most.
CODE = {0: 0x08, 1: 0x39, 3: 0x2B}
STACK = {0: 0x10, 1: 0x41, 3: 0x23}
TSS_SELECTOR = 0x48
STAR = 0x0018_0008 << 32

TABLES_VA = 0xFFFF_FFFF_C000_0000
"""A page of GDT and TSS, one of IDT, and the kernel's stack above them."""
GDT_VA = TABLES_VA
TSS_VA = TABLES_VA + 0x800
IDT_VA = TABLES_VA + PAGE_SIZE
STACK_VA = TABLES_VA + 2 * PAGE_SIZE
STACK_TOP = STACK_VA + PAGE_SIZE
PAGE_TABLES_VA = 0xFFFF_FFFF_D000_0000
"""Where the kernel sees its L1 tables, writable: nobody forbids it."""
APP_VA = 0x40_0000
APP_STACK_VA = 0x60_0000
SCRATCH_VA = 0x70_0000

_GDT = (
    0,
    flat_segment(DESC_CODE_READABLE, 0, bits=64),  # 0x08
    flat_segment(DESC_DATA_WRITABLE, 0),  # 0x10
    flat_segment(DESC_CODE_READABLE, 3),  # 0x18
    flat_segment(DESC_DATA_WRITABLE, 3),  # 0x20
    flat_segment(DESC_CODE_READABLE, 3, bits=64),  # 0x28
    0,
    flat_segment(DESC_CODE_READABLE, 1, bits=64),  # 0x38
    flat_segment(DESC_DATA_WRITABLE, 1),  # 0x40
)
GDT_LIMIT = 8 * (len(_GDT) + 2) - 1
VECTOR_BREAKPOINT, VECTOR_OVERFLOW, VECTOR_LINUX = Vector.BP, Vector.OF, 0x80
FREE_GATES = {VECTOR_BREAKPOINT, VECTOR_OVERFLOW, VECTOR_LINUX}


class NativeMachine:
    """The processor, its memory, and the kernel `program` mapped where it was linked."""

    def __init__(self, program: Listing, *, user_kernel: bool = False) -> None:
        self.machine = Machine(4096, seed=1, virtual_time_ns=0)
        self.cpu = Bare(self.machine, _DOMID)
        self._free = iter(self.cpu.alloc(FRAMES))
        self.root = next(self._free)
        self.program = program
        user = USER if user_kernel else 0
        self.map_bytes(program.base, program.image(), WRITABLE | user)
        gdt = struct.pack(f"<{len(_GDT)}Q", *_GDT) + tss_descriptor(TSS_VA)
        tss = bytes(TSS_RSP0) + struct.pack("<Q", STACK_TOP)
        self.map_bytes(TABLES_VA, gdt.ljust(TSS_VA - GDT_VA, b"\0") + tss, WRITABLE)
        self.map_bytes(IDT_VA, b"", WRITABLE)
        self.map_bytes(STACK_VA, b"", WRITABLE)
        cpu = self.cpu
        cpu.set_reg("cr3", self.root * PAGE_SIZE)
        cpu.load_table("gdt", GDT_VA, GDT_LIMIT)
        cpu.load_table("idt", IDT_VA, PAGE_SIZE - 1)
        cpu.load_table("tss", TSS_VA, TSS_LIMIT)
        cpu.set_reg("tr", TSS_SELECTOR)
        cpu.set_reg("star", STAR)
        cpu.set_reg("rip", program.base)
        self.enter_ring(0)
        cpu.set_reg("rsp", STACK_TOP)

    def set_gate(self, vector: int, address: int) -> None:
        """An interrupt gate of the IDT; applications may use those of breakpoints and system calls."""
        dpl = 3 if vector in FREE_GATES else 0
        self.cpu.write_va(IDT_VA + GATE_SIZE * vector, interrupt_gate(address, CODE[0], dpl))

    def enter_ring(self, ring: int) -> None:
        """Code goes on in another ring."""
        self.cpu.set_reg("cpl", ring)
        self.cpu.set_reg("cs", CODE[ring])
        self.cpu.set_reg("ss", STACK[ring])

    # --- memory

    def map_bytes(self, va: int, data: bytes, bits: int) -> list[int]:
        """Maps fresh frames with `data` in them (at least one page); their numbers."""
        frames = []
        for at in range(0, max(len(data), 1), PAGE_SIZE):
            frame = next(self._free)
            self.machine.write(frame * PAGE_SIZE, data[at : at + PAGE_SIZE])
            self.map_frame(va + at, frame, bits)
            frames.append(frame)
        return frames

    def map_frame(self, va: int, frame: int, bits: int) -> None:
        """Maps one frame; 0 as `bits` leaves the entry empty, but its tables are made."""
        value = frame * PAGE_SIZE | PRESENT | bits if bits else 0
        self.machine.write(self.entry_address(va), struct.pack("<Q", value))

    def entry_address(self, va: int) -> int:
        """Machine address of the entry that maps `va`; tables are made as needed."""
        table = self.root
        for level in (4, 3, 2):
            at = table * PAGE_SIZE + table_index(va, level) * 8
            (entry,) = struct.unpack("<Q", self.machine.read(at, 8))
            if not entry & PRESENT:
                entry = next(self._free) * PAGE_SIZE | PRESENT | WRITABLE | USER
                self.machine.write(at, struct.pack("<Q", entry))
            table = (entry & PTE_FRAME_MASK) // PAGE_SIZE
        return table * PAGE_SIZE + table_index(va, 1) * 8

    def entry_va(self, va: int) -> int:
        """Virtual address where the kernel can write the entry that maps `va`."""
        maddr = self.entry_address(va)
        window = PAGE_TABLES_VA + table_index(va, 2) * PAGE_SIZE
        self.map_frame(window, maddr // PAGE_SIZE, WRITABLE)
        return window | maddr % PAGE_SIZE
