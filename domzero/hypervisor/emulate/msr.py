# SPDX-License-Identifier: Apache-2.0
"""MSRs as a PV guest sees them: what Xen answers, #GP for the others.

A 64-bit guest's segment bases are the machine's (`pv/trap.rs`).
"""

from typing import TYPE_CHECKING

from domzero.abi import x86
from domzero.abi.arch_x86 import MSR_HYPERCALL_PAGE

if TYPE_CHECKING:
    from domzero._machine import Register
    from domzero.hypervisor.vcpu import Vcpu

EFER_FIXED = x86.EFER_SCE | x86.EFER_LME | x86.EFER_LMA | x86.EFER_NXE
PATCH_LEVEL = 0x0B00215A
XEN_PAT = 0x050100070406
"""Xen's page attribute table: see the comment on mmu_update in xen.h."""
HWCR_TSC_FREQ_SEL = 1 << 24
DE_CFG_LFENCE_SERIALISE = 1 << 1

ADDRESS_MASKS: dict[int, "Register"] = {
    x86.MSR_DR0_ADDR_MASK: "dr0_mask",
    x86.MSR_DR1_ADDR_MASK: "dr1_mask",
    x86.MSR_DR2_ADDR_MASK: "dr2_mask",
    x86.MSR_DR3_ADDR_MASK: "dr3_mask",
}
"""DR0_ADDR_MASK to DR3_ADDR_MASK of AMD's breakpoint extension, which Xen gives PV guests: bits of the address of a
breakpoint that are not compared."""

MASK64 = 2**64 - 1

PLATFORM_INFO_CPUID_FAULTING = 1 << 31
MISC_FEATURES_CPUID_FAULTING = 1 << 0
MACHINE_CHECK_BANKS = 2

_PERFORMANCE = (
    *range(x86.MSR_K7_EVNTSEL0, x86.MSR_K7_EVNTSEL0 + 8),
    *range(x86.MSR_F15H_PERF_CTL0, x86.MSR_F15H_PERF_CTL0 + 12),
)
_PSTATES = (x86.MSR_FIDVID_CTL, x86.MSR_FIDVID_STATUS, *range(x86.MSR_PSTATE_CUR_LIMIT, x86.MSR_PSTATE_CUR_LIMIT + 11))
_READ_AS_ZERO = frozenset(
    (x86.MSR_MCG_STATUS, x86.MSR_PERF_CAPABILITIES, MSR_HYPERCALL_PAGE, x86.MSR_NB_CFG, *_PERFORMANCE, *_PSTATES)
)
"""Counters without a virtual PMU; frequencies, which are not the guest's."""
_WRITES_IGNORED = frozenset(
    (
        x86.MSR_MPERF,
        x86.MSR_APERF,
        x86.MSR_MCG_STATUS,
        x86.MSR_NB_CFG,
        x86.MSR_HWCR,
        x86.MSR_DE_CFG,
        *_PERFORMANCE,
        *_PSTATES,
    )
)


def read(vcpu: "Vcpu", index: int) -> int | None:
    """The value of an MSR, or None for #GP."""
    match index:
        case x86.MSR_TSC:
            return vcpu.domain.host.now_ns()
        case x86.MSR_APIC_BASE:
            bsp = x86.APIC_BASE_BSP if vcpu.vcpu_id == 0 else 0
            return x86.APIC_DEFAULT_BASE | x86.APIC_BASE_ENABLE | bsp
        case x86.MSR_PATCH_LEVEL:
            return PATCH_LEVEL
        case x86.MSR_PLATFORM_INFO:
            return PLATFORM_INFO_CPUID_FAULTING
        case x86.MSR_MISC_FEATURES_ENABLES:
            return MISC_FEATURES_CPUID_FAULTING if vcpu.cpuid_faulting else 0
        case x86.MSR_PAT:
            return XEN_PAT
        case x86.MSR_EFER:
            return (x86.EFER_SCE | x86.EFER_NXE if vcpu.domain.is_32bit else EFER_FIXED) | vcpu.efer_bits
        case x86.MSR_TSC_AUX:
            return vcpu.hw.get_reg("tsc_aux")
        case x86.MSR_DR0_ADDR_MASK | x86.MSR_DR1_ADDR_MASK | x86.MSR_DR2_ADDR_MASK | x86.MSR_DR3_ADDR_MASK:
            return vcpu.hw.get_reg(ADDRESS_MASKS[index])
        case x86.MSR_HWCR:
            return HWCR_TSC_FREQ_SEL
        case x86.MSR_DE_CFG:
            return DE_CFG_LFENCE_SERIALISE
        case _:
            return 0 if index in _READ_AS_ZERO else _read_machine_check(index)


def _read_machine_check(index: int) -> int | None:
    """The virtual machine check: two banks that never report anything."""
    if index == x86.MSR_MCG_CAP:
        return MACHINE_CHECK_BANKS
    if x86.MSR_MC0_CTL <= index < x86.MSR_MC0_CTL + 4 * MACHINE_CHECK_BANKS:
        return MASK64 if index & 3 == 0 else 0
    return None


def write(vcpu: "Vcpu", index: int, value: int) -> bool:
    """Writes an MSR; False for #GP."""
    match index:
        case x86.MSR_MISC_FEATURES_ENABLES:
            if value & ~MISC_FEATURES_CPUID_FAULTING:
                return False
            vcpu.cpuid_faulting = bool(value)
            vcpu.hw.set_cpuid_faulting(vcpu.cpuid_faulting)
            return True
        case x86.MSR_EFER:
            # A hint to a processor that speculates. The other bits belong to Xen.
            if value & ~x86.EFER_AUTOIBRS != EFER_FIXED or vcpu.domain.is_32bit:
                return False
            vcpu.efer_bits = value & x86.EFER_AUTOIBRS
            return True
        case x86.MSR_TSC_AUX:
            if value >> 32:
                return False
            vcpu.hw.set_reg("tsc_aux", value)
            return True
        case x86.MSR_DR0_ADDR_MASK | x86.MSR_DR1_ADDR_MASK | x86.MSR_DR2_ADDR_MASK | x86.MSR_DR3_ADDR_MASK:
            if value >> 32:
                return False
            vcpu.hw.set_reg(ADDRESS_MASKS[index], value)
            return True
        case _:
            return index in _WRITES_IGNORED or _read_machine_check(index) is not None
