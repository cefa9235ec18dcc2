# SPDX-License-Identifier: Apache-2.0
"""What CPUID shows a PV guest: Xen's leaves, and no more features than the engine has.

The processor is an AMD family 1Ah: as on real ones, Linux 6.1 finds there neither Meltdown nor MDS, Retbleed, SRSO or
ITS to work around, and with automatic IBRS no need of retpolines, so that it does not rewrite itself for what an engine
without speculation does not need. What Xen hides from PV guests (PSE, PGE, MCE, MTRR, VME, PCID, x2APIC and
so on) is hidden. Which features are shown is the domain's policy (`cpu_policy.py`).
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
    X86_CR4_OSXSAVE,
    X86_CR4_PAE,
    X86_CR4_TSD,
    XCR0_AVX,
    XCR0_SSE,
    XCR0_X87,
    XSTATE_LEGACY_SIZE,
    XSTATE_YMM_SIZE,
)
from domzero.abi.xen import PAGE_SHIFT
from domzero.hypervisor.emulate.cpu_policy import MAX_LEAF, CpuPolicy, changed
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
CR4_GUEST_MASK = X86_CR4_TSD | X86_CR4_DE | X86_CR4_FSGSBASE | X86_CR4_OSXSAVE
"""What a guest may change; OSXSAVE only where CPUID shows xsave."""

Leaf = tuple[int, int | None, int, int, int, int]

FAMILY, MODEL, STEPPING = 0x1A, 0x02, 1


_SIGNATURE = STEPPING | (MODEL & 0xF) << 4 | 0xF << 8 | (MODEL >> 4) << 16 | (FAMILY - 0xF) << 20

_COMMON_EDX = 0x0183F3FF
"""Features of leaf 1 that AMD's leaf 80000001 repeats."""

BRAND = b"Domzero virtual processor, AMD64 PV"


def _text(text: bytes) -> tuple[int, int, int, int]:
    return struct.unpack("<4I", text.ljust(16, b"\0"))


def leaves(domain: "Domain", vcpu_id: int) -> list[Leaf]:
    """All leaves for one vCPU; what is not here reads as zero. What CR4 and XCR0 change is left to `cpu/model.rs`."""
    policy = domain.cpu
    rows = _leaves(domain, vcpu_id)
    known = {(leaf, subleaf) for leaf, subleaf, *_ in rows}
    for bits in policy.bits:
        leaf, subleaf, _ = bits.register
        if (leaf, subleaf) not in known:
            known.add((leaf, subleaf))
            rows.append((leaf, subleaf, 0, 0, 0, 0))
    result = []
    for leaf, subleaf, *values in rows:
        names = ("eax", "ebx", "ecx", "edx")
        a, b, c, d = (
            changed((leaf, subleaf, name), value, policy.bits) for name, value in zip(names, values, strict=True)
        )
        result.append((leaf, subleaf, a, b, c, d))
    highest = next(eax for leaf, _, eax, *_ in result if leaf == 0)
    return [row for row in result if row[0] <= highest or row[0] >= XEN_CPUID_FIRST_LEAF]


def _leaves(domain: "Domain", vcpu_id: int) -> list[Leaf]:
    policy = domain.cpu
    ebx, edx, ecx = struct.unpack("<3I", b"AuthenticAMD")
    brand = BRAND.ljust(48, b"\0")
    count = len(domain.vcpus) or 1
    xen = XEN_CPUID_FIRST_LEAF
    features = policy.word(0x1, None, "edx")
    return [
        (0, None, MAX_LEAF, ebx, ecx, edx),
        (
            1,
            None,
            _SIGNATURE,
            vcpu_id << 24 | min(count, 255) << 16 | 8 << 8,
            policy.word(0x1, None, "ecx"),
            features,
        ),
        (7, 0, 0, policy.word(0x7, 0, "ebx"), policy.word(0x7, 0, "ecx"), policy.word(0x7, 0, "edx")),
        *_xstate(policy),
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
        (
            0x80000001,
            None,
            _SIGNATURE,
            0,
            policy.word(0x80000001, None, "ecx"),
            policy.word(0x80000001, None, "edx") | features & _COMMON_EDX,
        ),
        (0x80000002, None, *_text(brand[:16])),
        (0x80000003, None, *_text(brand[16:32])),
        (0x80000004, None, *_text(brand[32:])),
        # caches: 64 byte lines, 32 KiB L1 each, 512 KiB L2, 8 MiB L3
        (0x80000005, None, 0, 0, 0x20080140, 0x20080140),
        (0x80000006, None, 0, 0, 0x02006140, 0x00408140),
        (0x80000008, None, PHYSICAL_BITS | LINEAR_BITS << 8, policy.word(0x80000008, None, "ebx"), 0, 0),
        (0x80000021, None, policy.word(0x80000021, None, "eax"), 0, 0, 0),
    ]


def _xstate(policy: CpuPolicy) -> list[Leaf]:
    """The XSAVE area: what XCR0 can be, its size now and at most; forms of xsave; where the upper halves of ymm are."""
    if "xsave" not in policy.features:
        return []
    mask, size = XCR0_X87 | XCR0_SSE, XSTATE_LEGACY_SIZE
    if "avx" in policy.features:
        mask, size = mask | XCR0_AVX, XSTATE_LEGACY_SIZE + XSTATE_YMM_SIZE
    forms = policy.word(0xD, 1, "eax")
    rows: list[Leaf] = [
        (0xD, 0, mask, size, size, 0),
        (0xD, 1, forms, size if "xsavec" in policy.features else 0, 0, 0),
    ]
    if mask & XCR0_AVX:
        rows.append((0xD, 2, XSTATE_YMM_SIZE, XSTATE_LEGACY_SIZE, 0, 0))
    return rows
