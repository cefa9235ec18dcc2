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
MSR_PATCH_LOADER = 0xC0010020
MSR_DE_CFG = 0xC0011029

EFER_SCE, EFER_LME, EFER_LMA, EFER_NXE, EFER_AUTOIBRS = 1 << 0, 1 << 8, 1 << 10, 1 << 11, 1 << 21
EFER_FIXED = EFER_SCE | EFER_LME | EFER_LMA | EFER_NXE

APIC_DEFAULT_BASE = 0xFEE00000
APIC_BASE_ENABLE, APIC_BASE_BSP = 1 << 11, 1 << 8
PATCH_LEVEL = 0x0B002147
XEN_PAT = 0x050100070406
"""Xen's page attribute table: see the comment on mmu_update in xen.h."""
HWCR_TSC_FREQ_SEL = 1 << 24
DE_CFG_LFENCE_SERIALISE = 1 << 1

_SEGMENT_BASES = {
    MSR_FS_BASE: "fs_base",
    MSR_GS_BASE: "gs_base_kernel",
    MSR_SHADOW_GS_BASE: "gs_base_user",
}
MASK64 = 2**64 - 1


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
        case 0x277:
            return XEN_PAT
        case 0xC0000080:
            return EFER_NXE if vcpu.domain.is_32bit else EFER_FIXED | vcpu.efer_bits
        case 0xC0010015:
            return HWCR_TSC_FREQ_SEL
        case 0xC0011029:
            return DE_CFG_LFENCE_SERIALISE
        case _:
            return None


def write(vcpu: "Vcpu", index: int, value: int) -> bool:
    """Writes an MSR; False for #GP."""
    match index:
        case 0xC0000100 | 0xC0000101 | 0xC0000102:
            if vcpu.domain.is_32bit or not is_canonical(value):
                return False
            vcpu.hw.set_reg(_SEGMENT_BASES[index], value)
            return True
        case 0xC0000080:
            # A hint to a processor that speculates. The other bits belong to Xen.
            if value & ~EFER_AUTOIBRS != EFER_FIXED or vcpu.domain.is_32bit:
                return False
            vcpu.efer_bits = value & EFER_AUTOIBRS
            return True
        case 0xC0010020:
            return True  # microcode updates are thrown away
        case 0xC0011029:
            return value == DE_CFG_LFENCE_SERIALISE
        case _:
            return False
