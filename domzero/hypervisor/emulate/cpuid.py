# SPDX-License-Identifier: Apache-2.0
"""What CPUID shows a PV guest: Xen's leaves, and no more features than the engine has.

The processor is an AMD family 1Ah: as on real ones, Linux 6.1 finds there neither Meltdown nor MDS, Retbleed, SRSO or
ITS to work around, and with automatic IBRS no need of retpolines, so that it does not rewrite itself for what an engine
without speculation does not need. What Xen hides from PV guests (PSE, PGE, MCE, MTRR, VME, PCID, x2APIC and
so on) is hidden, and so is what needs XSAVE.
"""

import struct
from typing import TYPE_CHECKING

from domzero.abi.arch_x86 import MSR_HYPERCALL_PAGE
from domzero.abi.cpuid import (
    XEN_CPUID_FEAT1_MMU_PT_UPDATE_PRESERVE_AD,
    XEN_CPUID_FIRST_LEAF,
    XEN_CPUID_MAX_NUM_LEAVES,
    XEN_CPUID_SIGNATURE_EBX,
    XEN_CPUID_SIGNATURE_ECX,
    XEN_CPUID_SIGNATURE_EDX,
)
from domzero.abi.x86 import (
    PHYSICAL_BITS,
    X86_CR0_AM,
    X86_CR0_ET,
    X86_CR0_MP,
    X86_CR0_NE,
    X86_CR0_PE,
    X86_CR0_PG,
    X86_CR0_WP,
    X86_CR4_DE,
    X86_CR4_FSGSBASE,
    X86_CR4_MCE,
    X86_CR4_OSFXSR,
    X86_CR4_OSXMMEXCPT,
    X86_CR4_PAE,
    X86_CR4_TSD,
)
from domzero.abi.xen import PAGE_SHIFT
from domzero.hypervisor.timekeeping import TSC_KHZ, TSC_SHIFT, TSC_TO_SYSTEM_MUL

if TYPE_CHECKING:
    from domzero.hypervisor.domain import Domain

XEN_MAJOR = 4
XEN_MINOR = 17

LINEAR_BITS = 48

CR0_VALUE = X86_CR0_PG | X86_CR0_AM | X86_CR0_WP | X86_CR0_NE | X86_CR0_ET | X86_CR0_MP | X86_CR0_PE
"""What a PV guest reads; TS comes on top."""
CR4_INITIAL = X86_CR4_PAE | X86_CR4_MCE | X86_CR4_OSFXSR | X86_CR4_OSXMMEXCPT
"""What a PV guest sees of Xen's own."""
CR4_GUEST_MASK = X86_CR4_TSD | X86_CR4_DE | X86_CR4_FSGSBASE
"""What a guest may change."""

Leaf = tuple[int, int | None, int, int, int, int]

FAMILY, MODEL, STEPPING = 0x1A, 0x02, 1


def _bits(*bits: int) -> int:
    return sum(1 << bit for bit in bits)


_SIGNATURE = STEPPING | (MODEL & 0xF) << 4 | 0xF << 8 | (MODEL >> 4) << 16 | (FAMILY - 0xF) << 20

# Leaf 1. ECX: sse3 pclmulqdq ssse3 cx16 sse4.1 sse4.2 movbe popcnt aes rdrand hypervisor
LEAF1_ECX = _bits(0, 1, 9, 13, 19, 20, 22, 23, 25, 30, 31)
# EDX: fpu de tsc msr pae mce cx8 apic mca cmov pat clflush acpi mmx fxsr sse sse2
LEAF1_EDX = _bits(0, 2, 4, 5, 6, 7, 8, 9, 14, 15, 16, 19, 22, 23, 24, 25, 26)
# Leaf 7. EBX: fsgsbase bmi1 bmi2 erms rdseed adx clflushopt clwb sha; EDX: fsrm
LEAF7_EBX = _bits(0, 3, 8, 9, 18, 19, 23, 24, 29)
LEAF7_EDX = _bits(4)
# Leaf 80000001. ECX: lahf_lm abm dbext
EXT1_ECX = _bits(0, 5, 26)
# EDX: those of leaf 1 that AMD repeats, and syscall nx rdtscp lm
EXT1_EDX = (LEAF1_EDX & _bits(0, 2, 4, 5, 6, 7, 8, 9, 14, 15, 16, 23, 24)) | _bits(11, 20, 27, 29)
# Leaf 80000008. EBX: not subject to speculative store bypass
EXT8_EBX = _bits(26)
# Leaf 80000021. EAX: lfence is serialising, null selectors clear bases, automatic IBRS, not subject to SRSO (two bits)
EXT21_EAX = _bits(2, 6, 8, 29, 30)

BRAND = b"Domzero virtual processor, AMD64 PV"


def _text(text: bytes) -> tuple[int, int, int, int]:
    return struct.unpack("<4I", text.ljust(16, b"\0"))


def leaves(domain: "Domain", vcpu_id: int) -> list[Leaf]:
    """All leaves for one vCPU; what is not here reads as zero."""
    ebx, edx, ecx = struct.unpack("<3I", b"AuthenticAMD")
    brand = BRAND.ljust(48, b"\0")
    count = len(domain.vcpus) or 1
    xen = XEN_CPUID_FIRST_LEAF
    return [
        (0, None, 0xD, ebx, ecx, edx),
        (1, None, _SIGNATURE, vcpu_id << 24 | min(count, 255) << 16 | 8 << 8, LEAF1_ECX, LEAF1_EDX),
        (7, 0, 0, LEAF7_EBX, 0, LEAF7_EDX),
        (
            xen,
            None,
            xen + XEN_CPUID_MAX_NUM_LEAVES,
            XEN_CPUID_SIGNATURE_EBX,
            XEN_CPUID_SIGNATURE_ECX,
            XEN_CPUID_SIGNATURE_EDX,
        ),
        (xen + 1, None, XEN_MAJOR << 16 | XEN_MINOR, 0, 0, 0),
        (xen + 2, None, 1, MSR_HYPERCALL_PAGE, XEN_CPUID_FEAT1_MMU_PT_UPDATE_PRESERVE_AD, 0),
        # TSC: reliable on the host; default mode; its frequency
        (xen + 3, 0, 2, 0, TSC_KHZ, 0),
        (xen + 3, 1, 0, 0, TSC_TO_SYSTEM_MUL, TSC_SHIFT),
        (xen + 3, 2, TSC_KHZ, 0, 0, 0),
        (xen + 5, 0, 0, (domain.host.machine.frames - 1).bit_length() + PAGE_SHIFT, 0, 0),
        (0x80000000, None, 0x80000021, ebx, ecx, edx),
        (0x80000001, None, _SIGNATURE, 0, EXT1_ECX, EXT1_EDX),
        (0x80000002, None, *_text(brand[:16])),
        (0x80000003, None, *_text(brand[16:32])),
        (0x80000004, None, *_text(brand[32:])),
        # caches: 64 byte lines, 32 KiB L1 each, 512 KiB L2, 8 MiB L3
        (0x80000005, None, 0, 0, 0x20080140, 0x20080140),
        (0x80000006, None, 0, 0, 0x02006140, 0x00408140),
        (0x80000008, None, PHYSICAL_BITS | LINEAR_BITS << 8, EXT8_EBX, 0, 0),
        (0x80000021, None, EXT21_EAX, 0, 0, 0),
    ]
