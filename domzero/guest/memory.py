# SPDX-License-Identifier: Apache-2.0
"""Guest memory by virtual, pseudo-physical and machine address, and page walks."""

from __future__ import annotations

import struct
from abc import ABC, abstractmethod
from array import array
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeVar

from domzero._machine import FrameType, GuestFault
from domzero.abi.layout import Wire, layout_for, sizeof
from domzero.abi.x86 import PTE_FRAME_MASK, PTE_NX, PTE_PRESENT
from domzero.abi.xen import PAGE_SHIFT, PAGE_SIZE
from domzero.errors import GuestError, NotMapped
from domzero.hypervisor.domain import Domain
from domzero.hypervisor.vcpu import Vcpu

T = TypeVar("T", bound=Wire)
_FLAGS = ("P", "RW", "US", "PWT", "PCD", "A", "D", "PAT", "G")
_TEXT_MAX = 1 << 16


class AddressSpace(ABC):
    """Memory at one kind of address, little-endian as the guest's. Only while the guest is paused, or from a hook."""

    @abstractmethod
    def read(self, address: int, length: int) -> bytes:
        """The bytes at an address.

        :raises NotMapped: not all of it is there.
        """

    @abstractmethod
    def write(self, address: int, data: bytes | bytearray) -> None:
        """Overwrites memory. What is code is decoded again; page and descriptor tables are refused, as they are the
        hypervisor's to change.

        :raises NotMapped: not all of it is there, or it may not be written.
        """

    def read_u8(self, address: int) -> int:
        """An unsigned number of one byte."""
        return self.read(address, 1)[0]

    def read_u16(self, address: int) -> int:
        """Of two bytes."""
        return int.from_bytes(self.read(address, 2), "little")

    def read_u32(self, address: int) -> int:
        """Of four bytes."""
        return int.from_bytes(self.read(address, 4), "little")

    def read_u64(self, address: int) -> int:
        """Of eight bytes."""
        return int.from_bytes(self.read(address, 8), "little")

    def write_u8(self, address: int, value: int) -> None:
        """Writes one byte; OverflowError when the number has more."""
        self.write(address, value.to_bytes(1, "little"))

    def write_u16(self, address: int, value: int) -> None:
        """Writes two bytes."""
        self.write(address, value.to_bytes(2, "little"))

    def write_u32(self, address: int, value: int) -> None:
        """Writes four bytes."""
        self.write(address, value.to_bytes(4, "little"))

    def write_u64(self, address: int, value: int) -> None:
        """Writes eight bytes."""
        self.write(address, value.to_bytes(8, "little"))

    def read_text(self, address: int, limit: int = _TEXT_MAX) -> str:
        """The UTF-8 text up to a NUL, at most `limit` bytes; what is not UTF-8 is replaced."""
        found = bytearray()
        while len(found) < limit:
            size = min(PAGE_SIZE - (address + len(found)) % PAGE_SIZE, limit - len(found))
            piece = self.read(address + len(found), size)
            end = piece.find(0)
            found += piece if end < 0 else piece[:end]
            if end >= 0:
                break
        return found.decode("utf-8", "replace")

    def read_struct(self, address: int, cls: type[T]) -> T:
        """A copy of one of Xen's structures (a class of `domzero.abi`), in the guest's layout."""
        layout = layout_for(cls, self._is_32bit)
        return layout.from_buffer_copy(self.read(address, sizeof(layout)))

    @property
    @abstractmethod
    def _is_32bit(self) -> bool: ...


class VirtualMemory(AddressSpace):
    """Memory as the kernel of one vCPU maps it now.

    :param vcpu: gives the vCPU, or raises GuestRunning.
    """

    def __init__(self, vcpu: Callable[[], Vcpu]) -> None:
        self._vcpu = vcpu

    @property
    def _is_32bit(self) -> bool:
        return self._vcpu().domain.is_32bit

    def read(self, address: int, length: int) -> bytes:
        try:
            return self._vcpu().hw.read_va(address, length)
        except (GuestFault, OverflowError):
            raise NotMapped(f"{length} bytes at the virtual address {address:#x} are not all mapped") from None

    def write(self, address: int, data: bytes | bytearray) -> None:
        try:
            self._vcpu().hw.write_va(address, data)
        except (GuestFault, OverflowError):
            raise NotMapped(
                f"{len(data)} bytes at the virtual address {address:#x} are not all mapped writable"
            ) from None

    def to_machine(self, address: int) -> int:
        """The machine address behind a virtual one."""
        try:
            found = self._vcpu().hw.translate(address)
        except OverflowError:
            found = None
        if found is None:
            raise NotMapped(f"the virtual address {address:#x} is not mapped")
        return found


class MachineMemory(AddressSpace):
    """The host's memory, of which the guest has a part; its page tables have machine addresses.

    :param domain: gives the domain, or raises GuestRunning.
    """

    def __init__(self, domain: Callable[[], Domain]) -> None:
        self._domain = domain

    @property
    def _is_32bit(self) -> bool:
        return self._domain().is_32bit

    def read(self, address: int, length: int) -> bytes:
        try:
            return self._domain().host.machine.read(address, length)
        except (ValueError, OverflowError):
            raise NotMapped(f"{length} bytes at the machine address {address:#x} are not all there") from None

    def write(self, address: int, data: bytes | bytearray) -> None:
        domain = self._domain()
        machine = domain.host.machine
        for mfn in range(address >> PAGE_SHIFT, (address + len(data) - 1 >> PAGE_SHIFT) + 1):
            if not 0 <= mfn < machine.frames or machine.frame_info(mfn).owner != domain.domid:
                raise NotMapped(f"machine frame {mfn:#x} is not one of the guest's")
            info = machine.frame_info(mfn)
            if info.type not in (FrameType.NONE, FrameType.WRITABLE) and info.type_count:
                raise NotMapped(f"machine frame {mfn:#x} is in use as a page or descriptor table ({info.type})")
        machine.write(address, data)

    def to_physical(self, address: int) -> int:
        """The pseudo-physical address of a machine address of the guest."""
        machine = self._domain().host.machine
        mfn = address >> PAGE_SHIFT
        if not 0 <= mfn < machine.frames or machine.frame_info(mfn).owner != self._domain().domid:
            raise NotMapped(f"machine frame {mfn:#x} is not one of the guest's")
        first, _ = machine.m2p
        (pfn,) = struct.unpack("<Q", machine.read((first << PAGE_SHIFT) + 8 * mfn, 8))
        return int(pfn) << PAGE_SHIFT | address % PAGE_SIZE


class PhysicalMemory(AddressSpace):
    """The guest's memory as the guest counts it, from 0: pseudo-physical addresses."""

    def __init__(self, domain: Callable[[], Domain], machine: MachineMemory) -> None:
        self._domain = domain
        self._machine = machine

    @property
    def _is_32bit(self) -> bool:
        return self._domain().is_32bit

    def read(self, address: int, length: int) -> bytes:
        return b"".join(self._machine.read(maddr, size) for maddr, size in self._pieces(address, length))

    def write(self, address: int, data: bytes | bytearray) -> None:
        at = 0
        for maddr, size in list(self._pieces(address, len(data))):
            self._machine.write(maddr, data[at : at + size])
            at += size

    def to_machine(self, address: int) -> int:
        """The machine address of a pseudo-physical one, from the machine-to-phys table."""
        return self._find(address, self._table())

    def _table(self) -> array[int]:
        machine = self._domain().host.machine
        first, _ = machine.m2p
        return array("Q", machine.read(first << PAGE_SHIFT, 8 * machine.frames))

    def _find(self, address: int, table: array[int]) -> int:
        domain = self._domain()
        pfn, within = divmod(address, PAGE_SIZE)
        mfn = -1
        try:
            while True:  # frames that are not the guest's any more still say what they were
                mfn = table.index(pfn, mfn + 1)
                if domain.host.machine.frame_info(mfn).owner == domain.domid:
                    return mfn << PAGE_SHIFT | within
        except ValueError:
            raise NotMapped(f"the guest has no memory at the pseudo-physical address {address:#x}") from None

    def _pieces(self, address: int, length: int) -> Iterator[tuple[int, int]]:
        table = self._table()
        while length > 0:
            size = min(length, PAGE_SIZE - address % PAGE_SIZE)
            yield self._find(address, table), size
            address += size
            length -= size


@dataclass(slots=True, frozen=True)
class PageTableEntry:
    """One step of a page walk.

    :param level: 4 (the root of a 64-bit guest) to 1.
    :param table_mfn: the machine frame of the table.
    """

    level: int
    table_mfn: int
    index: int
    value: int

    @property
    def mfn(self) -> int:
        """The machine frame that it points to."""
        return (self.value & PTE_FRAME_MASK) >> PAGE_SHIFT

    @property
    def is_present(self) -> bool:
        """Whether it maps anything."""
        return bool(self.value & PTE_PRESENT)

    @property
    def flags(self) -> tuple[str, ...]:
        """The processor manuals' names of the bits that are set."""
        names = [name for bit, name in enumerate(_FLAGS) if self.value >> bit & 1]
        return tuple(names + ["XD"] * bool(self.value & PTE_NX))

    def __str__(self) -> str:
        return (
            f"L{self.level}[{self.index:#05x}] in mfn {self.table_mfn:#07x} = {self.value:016x} {' '.join(self.flags)}"
        )


@dataclass(slots=True, frozen=True)
class PageWalk:
    """How a virtual address is mapped: one entry a level, the root first; the last one is not present if it is not."""

    va: int
    entries: tuple[PageTableEntry, ...]
    maddr: int | None
    """The machine address, None when nothing is mapped there."""
    paddr: int | None
    """The pseudo-physical address; None for what is not the guest's own."""

    def __str__(self) -> str:
        to = "not mapped" if self.maddr is None else f"machine {self.maddr:#x}"
        own = "" if self.paddr is None else f", pseudo-physical {self.paddr:#x}"
        return "\n".join([f"{self.va:#x} -> {to}{own}", *(f"  {entry}" for entry in self.entries)])


def page_walk(vcpu: Vcpu, machine: MachineMemory, va: int) -> PageWalk:
    """Walks the page tables of a vCPU that is not running."""
    try:
        steps = vcpu.hw.page_walk(va)
    except OverflowError:
        raise GuestError(f"{va:#x} is no address") from None
    entries = tuple(PageTableEntry(*step) for step in steps)
    maddr = paddr = None
    if entries and entries[-1].is_present:
        size = PAGE_SIZE << 9 * (entries[-1].level - 1)
        maddr = entries[-1].mfn << PAGE_SHIFT & -size | va % size
        with suppress(NotMapped):
            paddr = machine.to_physical(maddr)
    return PageWalk(va, entries, maddr, paddr)
