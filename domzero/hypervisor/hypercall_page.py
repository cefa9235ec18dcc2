# SPDX-License-Identifier: Apache-2.0
"""The hypercall transfer page of PV guests: 128 stubs of 32 bytes."""

import struct
from typing import TYPE_CHECKING

from domzero._machine import XenRefused
from domzero.abi.xen import PAGE_SIZE, Hypercall

if TYPE_CHECKING:
    from domzero.hypervisor.domain import Domain

STUB_SIZE = 32
INT3 = b"\xcc"


def hypercall_page(is_32bit: bool) -> bytes:
    """The page's contents. 64-bit stubs use `syscall`, 32-bit ones `int $0x82`; iret's does not return."""
    page = bytearray()
    for number in range(PAGE_SIZE // STUB_SIZE):
        load = b"\xb8" + struct.pack("<I", number)  # mov $number, %eax
        if is_32bit:
            # iret: the caller's eax is part of the frame
            stub = b"\x50" + load + b"\xcd\x82" if number == Hypercall.HYPERVISOR_iret else load + b"\xcd\x82\xc3"
        elif number == Hypercall.HYPERVISOR_iret:
            # push %rcx; push %r11; push %rax; mov $23, %eax; syscall
            stub = b"\x51\x41\x53\x50" + load + b"\x0f\x05"
        else:
            # push %rcx; push %r11; mov $number, %eax; syscall; pop %r11; pop %rcx; ret
            stub = b"\x51\x41\x53" + load + b"\x0f\x05\x41\x5b\x59\xc3"
        page += stub.ljust(STUB_SIZE, INT3)
    return bytes(page)


def fill_hypercall_page(domain: "Domain", mfn: int) -> bool:
    """Writes the stubs into a frame of the domain; False when it is not a writable frame of it."""
    try:
        domain.hw.get_ref(mfn, writable=True)
    except XenRefused:
        return False
    domain.host.machine.write(mfn * PAGE_SIZE, hypercall_page(domain.is_32bit))
    domain.hw.put_ref(mfn, writable=True)
    return True
