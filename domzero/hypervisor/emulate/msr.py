"""MSRs as a PV guest sees them: what Xen answers, #GP for the others."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from domzero.hypervisor.vcpu import Vcpu

MSR_TSC = 0x10
MSR_APIC_BASE = 0x1B
MSR_PATCH_LEVEL = 0x8B
MSR_PAT = 0x277
MSR_HYPERCALL_PAGE = 0x40000000
MSR_EFER = 0xC0000080
MSR_FS_BASE = 0xC0000100
MSR_GS_BASE = 0xC0000101
MSR_SHADOW_GS_BASE = 0xC0000102
MSR_HWCR = 0xC0010015
MSR_DE_CFG = 0xC0011029

EFER_SCE, EFER_LME, EFER_LMA, EFER_NXE, EFER_AUTOIBRS = 1 << 0, 1 << 8, 1 << 10, 1 << 11, 1 << 21
EFER_FIXED = EFER_SCE | EFER_LME | EFER_LMA | EFER_NXE

APIC_DEFAULT_BASE = 0xFEE00000
APIC_BASE_ENABLE, APIC_BASE_BSP = 1 << 11, 1 << 8
PATCH_LEVEL = 0x0B00215A
XEN_PAT = 0x050100070406
"""Xen's page attribute table: see the comment on mmu_update in xen.h."""
HWCR_TSC_FREQ_SEL = 1 << 24
DE_CFG_LFENCE_SERIALISE = 1 << 1

ADDRESS_MASKS = {0xC0011027: "dr0_mask", 0xC0011019: "dr1_mask", 0xC001101A: "dr2_mask", 0xC001101B: "dr3_mask"}
"""DR0_ADDR_MASK to DR3_ADDR_MASK of AMD's breakpoint extension, which Xen gives PV guests: bits of the address of a
breakpoint that are not compared."""

_SEGMENT_BASES = {
    MSR_FS_BASE: "fs_base",
    MSR_GS_BASE: "gs_base_kernel",
    MSR_SHADOW_GS_BASE: "gs_base_user",
}
MASK64 = 2**64 - 1

PLATFORM_INFO_CPUID_FAULTING = 1 << 31
MISC_FEATURES_CPUID_FAULTING = 1 << 0
MSR_MCG_CAP = 0x179
MSR_MC0_CTL = 0x400
MACHINE_CHECK_BANKS = 2

_PERFORMANCE = (*range(0xC0010000, 0xC0010008), *range(0xC0010200, 0xC001020C))
_PSTATES = (0xC0010041, 0xC0010042, *range(0xC0010061, 0xC001006C))
_READ_AS_ZERO = frozenset((0x17A, 0x345, MSR_HYPERCALL_PAGE, 0xC001001F, *_PERFORMANCE, *_PSTATES))
"""MCG_STATUS, PERF_CAPABILITIES, NB_CFG; counters without a virtual PMU; frequencies, which are not the guest's."""
_WRITES_IGNORED = frozenset((0xE7, 0xE8, 0x17A, 0xC001001F, MSR_HWCR, MSR_DE_CFG, *_PERFORMANCE, *_PSTATES))
"""MPERF, APERF, MCG_STATUS, NB_CFG, HWCR, DE_CFG and the same."""


def is_canonical(address: int) -> bool:
    """Whether bits 63..47 of a 64-bit address are equal."""
    return address >> 47 in (0, 0x1FFFF)


def read(vcpu: "Vcpu", index: int) -> int | None:
    """The value of an MSR, or None for #GP."""
    match index:
        case 0xC0000100 | 0xC0000101 | 0xC0000102:
            return None if vcpu.domain.is_32bit else vcpu.hw.get_reg(_SEGMENT_BASES[index]) & MASK64
        case 0x10:
            return vcpu.domain.host.now_ns()
        case 0x1B:
            bsp = APIC_BASE_BSP if vcpu.vcpu_id == 0 else 0
            return APIC_DEFAULT_BASE | APIC_BASE_ENABLE | bsp
        case 0x8B:
            return PATCH_LEVEL
        case 0xCE:
            return PLATFORM_INFO_CPUID_FAULTING
        case 0x140:
            return MISC_FEATURES_CPUID_FAULTING if vcpu.cpuid_faulting else 0
        case 0x277:
            return XEN_PAT
        case 0xC0000080:
            return (EFER_SCE | EFER_NXE if vcpu.domain.is_32bit else EFER_FIXED) | vcpu.efer_bits
        case 0xC0000103:
            return vcpu.hw.get_reg("tsc_aux")
        case 0xC0011027 | 0xC0011019 | 0xC001101A | 0xC001101B:
            return vcpu.hw.get_reg(ADDRESS_MASKS[index])
        case 0xC0010015:
            return HWCR_TSC_FREQ_SEL
        case 0xC0011029:
            return DE_CFG_LFENCE_SERIALISE
        case _:
            return 0 if index in _READ_AS_ZERO else _read_machine_check(index)


def _read_machine_check(index: int) -> int | None:
    """The virtual machine check: two banks that never report anything."""
    if index == MSR_MCG_CAP:
        return MACHINE_CHECK_BANKS
    if MSR_MC0_CTL <= index < MSR_MC0_CTL + 4 * MACHINE_CHECK_BANKS:
        return MASK64 if index & 3 == 0 else 0
    return None


def write(vcpu: "Vcpu", index: int, value: int) -> bool:
    """Writes an MSR; False for #GP."""
    match index:
        case 0xC0000100 | 0xC0000101 | 0xC0000102:
            if vcpu.domain.is_32bit or not is_canonical(value):
                return False
            vcpu.hw.set_reg(_SEGMENT_BASES[index], value)
            return True
        case 0x140:
            if value & ~MISC_FEATURES_CPUID_FAULTING:
                return False
            vcpu.cpuid_faulting = bool(value)
            vcpu.hw.set_cpuid_faulting(vcpu.cpuid_faulting)
            return True
        case 0xC0000080:
            # A hint to a processor that speculates. The other bits belong to Xen.
            if value & ~EFER_AUTOIBRS != EFER_FIXED or vcpu.domain.is_32bit:
                return False
            vcpu.efer_bits = value & EFER_AUTOIBRS
            return True
        case 0xC0000103:
            if value >> 32:
                return False
            vcpu.hw.set_reg("tsc_aux", value)
            return True
        case 0xC0011027 | 0xC0011019 | 0xC001101A | 0xC001101B:
            if value >> 32:
                return False
            vcpu.hw.set_reg(ADDRESS_MASKS[index], value)
            return True
        case _:
            return index in _WRITES_IGNORED or _read_machine_check(index) is not None
