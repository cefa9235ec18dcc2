"""The I/O permission bitmap of a vCPU (PHYSDEVOP_set_iobitmap)."""

from typing import TYPE_CHECKING

from domzero._machine import GuestFault
from domzero.hypervisor import guest_memory

if TYPE_CHECKING:
    from domzero.hypervisor.vcpu import Vcpu


def bitmap_allows(vcpu: "Vcpu", port: int, size: int) -> bool:
    """Whether the bitmap has a clear bit for each of `size` ports."""
    if port + size > vcpu.iobitmap_ports:
        return False
    mask = 0
    for byte in ((port >> 3) + 1, port >> 3):
        try:
            mask = mask << 8 | guest_memory.read(vcpu, vcpu.iobitmap_va + byte, 1)[0]
        except GuestFault:
            mask = mask << 8 | 0xFF
    return not mask >> (port & 7) & (1 << size) - 1
