# SPDX-License-Identifier: Apache-2.0
"""A stand-in for `_machine` with just memory and a page walk: what the builder needs. Guests run on the real one."""

from __future__ import annotations

import mmap
import os
import random
import struct

from fakes import refusal

from domzero._machine import Base

PAGE = 4096


class BuilderMachine:
    def __init__(self, frames: int, seed: int = 1) -> None:
        self.frames = frames
        self.fd = os.memfd_create("machine")
        os.ftruncate(self.fd, frames * PAGE)
        self.ram = mmap.mmap(self.fd, frames * PAGE)
        m2p_frames = -(-frames * 8 // PAGE)
        self.m2p = (0, m2p_frames)
        # The table of 32-bit guests lies behind it.
        self.free = list(range(m2p_frames + -(-frames * 4 // PAGE), frames))
        random.Random(seed).shuffle(self.free)

    def fileno(self) -> int:
        return self.fd

    def close(self) -> None:
        self.ram.close()
        os.close(self.fd)


class BuilderDomain:
    def __init__(self, machine: BuilderMachine) -> None:
        self.machine = machine
        self.mfns: list[int] = []

    def alloc(self, count: int) -> list[int]:
        self.mfns = [self.machine.free.pop() for _ in range(count)]
        return self.mfns

    def alloc_extent(self, order: int, *, below: int = 1 << 40) -> int | None:
        free, size = set(self.machine.free), 1 << order
        for first in range(0, min(self.machine.frames, below) - size + 1, size):
            if free.issuperset(range(first, first + size)):
                self.machine.free = [mfn for mfn in self.machine.free if not first <= mfn < first + size]
                return first
        return None


class BuilderVcpu:
    """Keeps registers, walks page tables, and refuses base tables with a writable mapping of a page table."""

    def __init__(self, machine: BuilderMachine) -> None:
        self.machine = machine
        self.regs: dict[str, int] = {}
        self.base = 0
        self.pinned: list[int] = []
        self.guest_kernel = False
        self.kernel_stack = (0, 0)

    def entry(self, mfn: int, index: int) -> int:
        return int(struct.unpack_from("<Q", self.machine.ram, mfn * PAGE + index * 8)[0])

    def leaf(self, va: int) -> int:
        mfn = self.base
        for level in (4, 3, 2, 1):
            value = self.entry(mfn, va >> (12 + 9 * (level - 1)) & 511)
            if not value & 1:
                return 0
            mfn = (value & 0xF_FFFF_FFFF_F000) >> 12
        return value

    def set_base(self, kind: Base, mfn: int) -> None:
        assert kind == Base.KERNEL
        tables, writable = {mfn}, set()

        def visit(table: int, level: int) -> None:
            tables.add(table)
            for index in range(512):
                value = self.entry(table, index)
                if value & 1 and level > 1:
                    visit((value & 0xF_FFFF_FFFF_F000) >> 12, level - 1)
                elif value & 3 == 3:
                    writable.add((value & 0xF_FFFF_FFFF_F000) >> 12)

        visit(mfn, 4)
        if tables & writable:
            raise refusal()
        self.base = mfn

    def read_va(self, va: int, length: int) -> bytes:
        parts = []
        while length:
            size = min(length, PAGE - va % PAGE)
            leaf = self.leaf(va)
            assert leaf & 1, hex(va)
            at = (leaf & 0xF_FFFF_FFFF_F000) + va % PAGE
            parts.append(self.machine.ram[at : at + size])
            va += size
            length -= size
        return b"".join(parts)

    def write_va(self, va: int, data: bytes) -> None:
        leaf = self.leaf(va)
        assert leaf & 3 == 3
        at = (leaf & 0xF_FFFF_FFFF_F000) + va % PAGE
        self.machine.ram[at : at + len(data)] = data

    def mmuext_op(self, op_va: int, count: int, done_va: int, foreigndom: int) -> None:
        command, mfn, _ = struct.unpack("<IxxxxQQ", self.read_va(op_va, 24))
        assert (command, count, done_va, foreigndom) == (3, 1, 0, 0x7FF0)
        self.pinned.append(mfn)

    def set_kernel_stack(self, ss: int, sp: int) -> None:
        self.kernel_stack = (ss, sp)

    def set_reg(self, name: str, value: int) -> None:
        self.regs[name] = value
