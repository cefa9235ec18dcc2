# SPDX-License-Identifier: Apache-2.0
"""Domains on the real machine, without a kernel: page tables that map what a test places, and hypercalls made by hand.

`make_host` and `make_domain` are those of `fakes`, for what the machine itself does.
"""

from __future__ import annotations

import struct
from typing import Any

from fakes import VA_BASE, VA_BASE_32

from domzero import _machine
from domzero._machine import Base
from domzero.abi.xen import DOMID_SELF, MmuExt
from domzero.hypervisor.clock import VirtualClock
from domzero.hypervisor.domain import DomainSpec
from domzero.hypervisor.host import Host

PAGE = 4096
TABLE = 512
PRESENT_RW_USER = 7
GLOBAL = 1 << 8


class RealVcpu:
    """The machine's vCPU; what a hypercall answers is kept, not given to a guest."""

    def __init__(self, hw: _machine.Vcpu, domain: Any) -> None:
        self._hw = hw
        self._domain = domain
        self.va_base = VA_BASE_32 if domain.is_32bit else VA_BASE
        self.result: int | None = None
        self.restarted = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._hw, name)

    @property
    def is_up(self) -> bool:
        return self._hw.is_up

    @is_up.setter
    def is_up(self, up: bool) -> None:
        self._hw.is_up = up

    def hypercall_return(self, rc: int) -> None:
        self.result = rc

    def hypercall_restart(self) -> None:
        self.restarted = True

    def place(self, data: bytes, offset: int = 0) -> int:
        """Puts `data` into a fresh frame of the guest and returns its virtual address."""
        (mfn,) = self._domain.hw.alloc(1)
        self._domain.host.machine.write(mfn * PAGE + offset, data)
        return self.map(self.va_base + mfn * PAGE, mfn) + offset

    def unplace(self, va: int) -> None:
        """Gives the frame of `place` back."""
        mfn = (va - self.va_base) // PAGE
        self._hw.update_va_mapping(self.va_base + mfn * PAGE, 0, 0)
        self._domain.hw.release(mfn)

    def map(self, va: int, mfn: int) -> int:
        """Maps a frame, writable."""
        self._hw.update_va_mapping(va, mfn * PAGE | PRESENT_RW_USER, 0)
        return va

    def peek(self, va: int, length: int) -> bytes:
        return self._hw.read_va(va, length)

    def entry(self, va: int) -> int:
        """The entry that maps an address, without the bit for global pages, which the machine adds."""
        return int(self._hw.page_walk(va)[-1][3]) & ~GLOBAL

    def pin_l1(self, mfn: int) -> None:
        """Makes an empty page table of a frame: nobody gets it writable any more."""
        op = struct.pack("<III", MmuExt.MMUEXT_PIN_L1_TABLE, mfn, 0)
        if not self._domain.is_32bit:
            op = struct.pack("<IxxxxQQ", MmuExt.MMUEXT_PIN_L1_TABLE, mfn, 0)
        self._hw.mmuext_op(self.place(op), 1, 0, DOMID_SELF)


def make_host(memory_mib: int = 4) -> Any:
    """A host with virtual time that only tests move."""
    lines: list[str] = []
    host = Host(memory_mib, clock=VirtualClock(), log=lines.append)
    host.log_lines = lines  # type: ignore[attr-defined]
    return host


def make_domain(host: Any, **spec: Any) -> Any:
    """A domain whose vCPU 0 counts as built, with page tables; nothing runs."""
    domain = host.create_domain(DomainSpec(max_pages=spec.pop("max_pages", 64), **spec))
    vcpu = domain.vcpus[0]
    vcpu.is_initialised = True
    vcpu.is_down = False
    domain.pause_count = 0
    hw = RealVcpu(vcpu.hw, domain)
    vcpu.hw.set_base(Base.KERNEL, _tables(host, domain, hw.va_base))
    vcpu.hw = hw
    return domain


def _tables(host: Any, domain: Any, va_base: int) -> int:
    """Page tables down to the entries for the first 2 MiB and for as many addresses as there are frames."""
    tables: dict[tuple[int, int], int] = {}
    top = 3 if domain.is_32bit else 4

    def table(level: int, va: int) -> int:
        """The table of a level that an address goes through."""
        number = 0 if level == top else va >> (12 + 9 * level)
        if (level, number) not in tables:
            (tables[level, number],) = domain.hw.alloc(1)
            if level < top:
                index = (va >> (12 + 9 * level)) % TABLE
                bits = 1 if domain.is_32bit and level + 1 == top else PRESENT_RW_USER
                entry = tables[level, number] * PAGE | bits
                host.machine.write(table(level + 1, va) * PAGE + index * 8, entry.to_bytes(8, "little"))
        return tables[level, number]

    table(1, 0)
    for first in range(0, host.machine.frames + TABLE, TABLE):
        table(1, va_base + first * PAGE)
    if domain.is_32bit:
        table(2, 3 << 30)  # where Xen has its part
    return table(top, 0)
