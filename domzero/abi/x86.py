# SPDX-License-Identifier: Apache-2.0
"""Facts of the processor that PV guests see: page-table entries, flags, control registers, vectors, MSRs.

Names that begin with `X86_` are those of Linux' `asm/processor-flags.h`, and the tests compare them with it; the others
have no public header and are from AMD's "Architecture Programmer's Manual", volume 2.
"""

import struct
from enum import IntEnum

TABLE_BITS = 9
"""Bits of an address that one level of page tables translates."""
TABLE_ENTRIES = 1 << TABLE_BITS
PTE_SIZE = 8
PTE_FRAME_MASK = 0x000F_FFFF_FFFF_F000
"""The bits of an entry that hold the machine address of a frame."""
PTE_AVAIL_LOW, PTE_AVAIL_HIGH = 9, 52
"""Where the bits begin that are left to software: 3 and 11 of them."""

LOW_CANONICAL_END = 1 << 47
HIGH_CANONICAL_START = 0xFFFF_8000_0000_0000
VA_END = 1 << 64
"""64-bit addresses lie below the first or between the other two."""
PHYSICAL_BITS = 46
"""Of machine addresses, as CPUID tells guests."""


PTE_PRESENT = 1 << 0
PTE_RW = 1 << 1
PTE_USER = 1 << 2
PTE_ACCESSED = 1 << 5
PTE_DIRTY = 1 << 6
PTE_PSE = 1 << 7
PTE_NX = 1 << 63


class Vector(IntEnum):
    """Exception vectors."""

    DE = 0
    DB = 1
    NMI = 2
    BP = 3
    OF = 4
    BR = 5
    UD = 6
    NM = 7
    DF = 8
    TS = 10
    NP = 11
    SS = 12
    GP = 13
    PF = 14
    MF = 16
    AC = 17
    MC = 18
    XM = 19


X86_EFLAGS_CF = 1 << 0
X86_EFLAGS_FIXED = 1 << 1
X86_EFLAGS_PF = 1 << 2
X86_EFLAGS_AF = 1 << 4
X86_EFLAGS_ZF = 1 << 6
X86_EFLAGS_SF = 1 << 7
X86_EFLAGS_TF = 1 << 8
X86_EFLAGS_IF = 1 << 9
X86_EFLAGS_DF = 1 << 10
X86_EFLAGS_OF = 1 << 11
X86_EFLAGS_IOPL = 3 << 12
X86_EFLAGS_IOPL_BIT = 12
X86_EFLAGS_NT = 1 << 14
X86_EFLAGS_RF = 1 << 16
X86_EFLAGS_AC = 1 << 18
X86_EFLAGS_ID = 1 << 21

X86_CR0_PE = 1 << 0
X86_CR0_MP = 1 << 1
X86_CR0_EM = 1 << 2
X86_CR0_TS = 1 << 3
X86_CR0_ET = 1 << 4
X86_CR0_NE = 1 << 5
X86_CR0_WP = 1 << 16
X86_CR0_AM = 1 << 18
X86_CR0_PG = 1 << 31

X86_CR4_TSD = 1 << 2
X86_CR4_DE = 1 << 3
X86_CR4_PAE = 1 << 5
X86_CR4_MCE = 1 << 6
X86_CR4_OSFXSR = 1 << 9
X86_CR4_OSXMMEXCPT = 1 << 10
X86_CR4_UMIP = 1 << 11
X86_CR4_FSGSBASE = 1 << 16
X86_CR4_OSXSAVE = 1 << 18

XCR0_X87 = 1 << 0
XCR0_SSE = 1 << 1
XCR0_AVX = 1 << 2
XSTATE_LEGACY_SIZE = 576
"""Bytes of an XSAVE area with x87 and SSE state: the image of fxsave, and the header."""
XSTATE_YMM_SIZE = 256
"""Bytes of the upper halves of the ymm registers, which follow."""

MSR_TSC = 0x10
MSR_APIC_BASE = 0x1B
MSR_PATCH_LEVEL = 0x8B
MSR_PLATFORM_INFO = 0xCE
MSR_MPERF = 0xE7
MSR_APERF = 0xE8
MSR_MISC_FEATURES_ENABLES = 0x140
MSR_MCG_CAP = 0x179
MSR_MCG_STATUS = 0x17A
MSR_PAT = 0x277
MSR_PERF_CAPABILITIES = 0x345
MSR_MC0_CTL = 0x400
MSR_EFER = 0xC000_0080
MSR_FS_BASE = 0xC000_0100
MSR_GS_BASE = 0xC000_0101
MSR_SHADOW_GS_BASE = 0xC000_0102
MSR_TSC_AUX = 0xC000_0103
MSR_K7_EVNTSEL0 = 0xC001_0000
MSR_HWCR = 0xC001_0015
MSR_NB_CFG = 0xC001_001F
MSR_FIDVID_CTL = 0xC001_0041
MSR_FIDVID_STATUS = 0xC001_0042
MSR_PSTATE_CUR_LIMIT = 0xC001_0061
MSR_F15H_PERF_CTL0 = 0xC001_0200
MSR_DR1_ADDR_MASK = 0xC001_1019
MSR_DR2_ADDR_MASK = 0xC001_101A
MSR_DR3_ADDR_MASK = 0xC001_101B
MSR_DR0_ADDR_MASK = 0xC001_1027
MSR_DE_CFG = 0xC001_1029

EFER_SCE = 1 << 0
EFER_LME = 1 << 8
EFER_LMA = 1 << 10
EFER_NXE = 1 << 11
EFER_AUTOIBRS = 1 << 21

APIC_DEFAULT_BASE = 0xFEE0_0000
APIC_BASE_BSP = 1 << 8
APIC_BASE_ENABLE = 1 << 11


DESC_DATA_WRITABLE, DESC_CODE_READABLE = 0x3, 0xB
"""Types of segments, with the accessed bit set."""
DESC_TSS_AVAILABLE, DESC_INTERRUPT_GATE = 0x9, 0xE
"""Types of system descriptors, in 64-bit mode."""
DESC_S_BIT, DESC_DPL_BIT, DESC_P_BIT, DESC_L_BIT, DESC_DB_BIT, DESC_G_BIT = 44, 45, 47, 53, 54, 55
TSS_LIMIT = 0x67
"""Of a 64-bit TSS without an I/O bitmap."""
TSS_RSP0 = 4
GATE_SIZE = 16
"""Of an entry of an IDT in 64-bit mode."""


def flat_segment(kind: int, dpl: int, *, bits: int = 32) -> int:
    """A descriptor of all 4 GiB: of `bits` 64 for code in 64-bit mode."""
    size = 1 << (DESC_L_BIT if bits == 64 else DESC_DB_BIT)
    present = 1 << DESC_S_BIT | dpl << DESC_DPL_BIT | 1 << DESC_P_BIT
    return 0xF_0000_0000_FFFF | kind << 40 | present | size | 1 << DESC_G_BIT


def tss_descriptor(base: int) -> bytes:
    """An available 64-bit TSS, for a GDT: 16 bytes."""
    low = TSS_LIMIT | (base & 0xFFFFFF) << 16 | DESC_TSS_AVAILABLE << 40 | 1 << DESC_P_BIT | (base >> 24 & 0xFF) << 56
    return struct.pack("<QQ", low, base >> 32)


def interrupt_gate(address: int, selector: int, dpl: int = 0) -> bytes:
    """An interrupt gate to `address`, for an IDT in 64-bit mode."""
    rights = DESC_INTERRUPT_GATE << 40 | dpl << DESC_DPL_BIT | 1 << DESC_P_BIT
    return struct.pack(
        "<QQ", address & 0xFFFF | selector << 16 | rights | (address >> 16 & 0xFFFF) << 48, address >> 32
    )


def is_canonical(address: int) -> bool:
    """Whether bits 63..47 of a 64-bit address are equal."""
    return address < LOW_CANONICAL_END or address >= HIGH_CANONICAL_START


def table_index(va: int, level: int) -> int:
    """The entry for an address in its table of this level: 1 for the tables of pages, 4 for the root."""
    return va >> 12 + TABLE_BITS * (level - 1) & TABLE_ENTRIES - 1
