# SPDX-License-Identifier: Apache-2.0
"""Copies between the hypervisor and guest memory, at guest virtual addresses. Faults become -EFAULT."""

import struct
from typing import TYPE_CHECKING, TypeVar

from domzero._machine import GuestFault
from domzero.abi.arch_x86 import HYPERVISOR_VIRT_END, HYPERVISOR_VIRT_START_PAE
from domzero.abi.layout import Wire, layout_for, sizeof
from domzero.abi.x86 import LOW_CANONICAL_END

if TYPE_CHECKING:
    from domzero.hypervisor.vcpu import Vcpu

T = TypeVar("T", bound=Wire)


def check_range(vcpu: "Vcpu", va: int, length: int) -> None:
    """What a guest may name as an argument: its own half and above the hypervisor, not the hypervisor's own range.

    As Xen does, only the beginning of a 64-bit guest's range is looked at; the copy itself stops where memory ends.

    :raises GuestFault: the range begins in the hypervisor, or is not canonical.
    """
    if vcpu.domain.is_32bit:
        if va + max(length, 1) > HYPERVISOR_VIRT_START_PAE:
            raise GuestFault(va)
    elif LOW_CANONICAL_END <= va < HYPERVISOR_VIRT_END:
        raise GuestFault(va)


def read(vcpu: "Vcpu", va: int, length: int) -> bytes:
    """Copies `length` bytes in, once."""
    check_range(vcpu, va, length)
    return vcpu.hw.read_va(va, length) if length else b""


def write(vcpu: "Vcpu", va: int, data: bytes) -> None:
    """Copies `data` out."""
    check_range(vcpu, va, len(data))
    if data:
        vcpu.hw.write_va(va, data)


def copy_in(vcpu: "Vcpu", cls: type[T], va: int) -> T:
    """Copies a structure in, in the guest's layout."""
    layout = layout_for(cls, vcpu.domain.is_32bit)
    return layout.from_buffer_copy(read(vcpu, va, sizeof(layout)))


def ulong_size(vcpu: "Vcpu") -> int:
    """Bytes of the guest's `unsigned long`."""
    return 4 if vcpu.domain.is_32bit else 8


def read_ulongs(vcpu: "Vcpu", va: int, count: int) -> tuple[int, ...]:
    """Copies an array of `unsigned long` in."""
    size = ulong_size(vcpu)
    return struct.unpack(f"<{count}{'I' if size == 4 else 'Q'}", read(vcpu, va, size * count))


def ulong(vcpu: "Vcpu", value: int) -> bytes:
    """The bytes of an `unsigned long`."""
    size = ulong_size(vcpu)
    return (value & ((1 << 8 * size) - 1)).to_bytes(size, "little")


def write_ulong(vcpu: "Vcpu", va: int, value: int) -> None:
    """Copies one `unsigned long` out."""
    write(vcpu, va, ulong(vcpu, value))
