# SPDX-License-Identifier: Apache-2.0
"""xen.h: hypercall numbers, virtual interrupts, page-table operations, time, vcpu_info and shared_info."""

from collections.abc import MutableSequence
from enum import IntEnum, IntFlag

from domzero.abi.layout import Annotated, Wire, array, s8, u8, u32, u64, ulong, wire, xen_pfn_t

PAGE_SHIFT = 12
PAGE_SIZE = 4096

DOMID_FIRST_RESERVED = 0x7FF0
DOMID_SELF = 0x7FF0
DOMID_IO = 0x7FF1
DOMID_XEN = 0x7FF2
DOMID_COW = 0x7FF3
DOMID_INVALID = 0x7FF4
DOMID_IDLE = 0x7FFF
DOMID_MASK = 0x7FFF

XEN_LEGACY_MAX_VCPUS = 32
NR_VIRQS = 24

XEN_PVCLOCK_TSC_STABLE_BIT = 1
XEN_PVCLOCK_GUEST_STOPPED = 2


class Hypercall(IntEnum):
    """`__HYPERVISOR_*`, without the leading underscores (which Python would mangle)."""

    HYPERVISOR_set_trap_table = 0
    HYPERVISOR_mmu_update = 1
    HYPERVISOR_set_gdt = 2
    HYPERVISOR_stack_switch = 3
    HYPERVISOR_set_callbacks = 4
    HYPERVISOR_fpu_taskswitch = 5
    HYPERVISOR_sched_op_compat = 6
    HYPERVISOR_platform_op = 7
    HYPERVISOR_set_debugreg = 8
    HYPERVISOR_get_debugreg = 9
    HYPERVISOR_update_descriptor = 10
    HYPERVISOR_memory_op = 12
    HYPERVISOR_multicall = 13
    HYPERVISOR_update_va_mapping = 14
    HYPERVISOR_set_timer_op = 15
    HYPERVISOR_event_channel_op_compat = 16
    HYPERVISOR_xen_version = 17
    HYPERVISOR_console_io = 18
    HYPERVISOR_physdev_op_compat = 19
    HYPERVISOR_grant_table_op = 20
    HYPERVISOR_vm_assist = 21
    HYPERVISOR_update_va_mapping_otherdomain = 22
    HYPERVISOR_iret = 23
    HYPERVISOR_vcpu_op = 24
    HYPERVISOR_set_segment_base = 25
    HYPERVISOR_mmuext_op = 26
    HYPERVISOR_xsm_op = 27
    HYPERVISOR_nmi_op = 28
    HYPERVISOR_sched_op = 29
    HYPERVISOR_callback_op = 30
    HYPERVISOR_xenoprof_op = 31
    HYPERVISOR_event_channel_op = 32
    HYPERVISOR_physdev_op = 33
    HYPERVISOR_hvm_op = 34
    HYPERVISOR_sysctl = 35
    HYPERVISOR_domctl = 36
    HYPERVISOR_kexec_op = 37
    HYPERVISOR_tmem_op = 38
    HYPERVISOR_argo_op = 39
    HYPERVISOR_xenpmu_op = 40
    HYPERVISOR_dm_op = 41
    HYPERVISOR_hypfs_op = 42
    HYPERVISOR_arch_0 = 48
    HYPERVISOR_arch_1 = 49
    HYPERVISOR_arch_2 = 50
    HYPERVISOR_arch_3 = 51
    HYPERVISOR_arch_4 = 52
    HYPERVISOR_arch_5 = 53
    HYPERVISOR_arch_6 = 54
    HYPERVISOR_arch_7 = 55


class Virq(IntEnum):
    """`enum virq`."""

    VIRQ_TIMER = 0
    VIRQ_DEBUG = 1
    VIRQ_CONSOLE = 2
    VIRQ_DOM_EXC = 3
    VIRQ_TBUF = 4
    VIRQ_DEBUGGER = 6
    VIRQ_XENOPROF = 7
    VIRQ_CON_RING = 8
    VIRQ_PCPU_STATE = 9
    VIRQ_MEM_EVENT = 10
    VIRQ_ARGO = 11
    VIRQ_ENOMEM = 12
    VIRQ_XENPMU = 13
    VIRQ_ARCH_0 = 16


class MmuUpdate(IntEnum):
    """The low two bits of `mmu_update.ptr`."""

    MMU_NORMAL_PT_UPDATE = 0
    MMU_MACHPHYS_UPDATE = 1
    MMU_PT_UPDATE_PRESERVE_AD = 2
    MMU_PT_UPDATE_NO_TRANSLATE = 3


class MmuExt(IntEnum):
    """`enum mmuext_cmd`."""

    MMUEXT_PIN_L1_TABLE = 0
    MMUEXT_PIN_L2_TABLE = 1
    MMUEXT_PIN_L3_TABLE = 2
    MMUEXT_PIN_L4_TABLE = 3
    MMUEXT_UNPIN_TABLE = 4
    MMUEXT_NEW_BASEPTR = 5
    MMUEXT_TLB_FLUSH_LOCAL = 6
    MMUEXT_INVLPG_LOCAL = 7
    MMUEXT_TLB_FLUSH_MULTI = 8
    MMUEXT_INVLPG_MULTI = 9
    MMUEXT_TLB_FLUSH_ALL = 10
    MMUEXT_INVLPG_ALL = 11
    MMUEXT_FLUSH_CACHE = 12
    MMUEXT_SET_LDT = 13
    MMUEXT_NEW_USER_BASEPTR = 15
    MMUEXT_CLEAR_PAGE = 16
    MMUEXT_COPY_PAGE = 17
    MMUEXT_FLUSH_CACHE_GLOBAL = 18
    MMUEXT_MARK_SUPER = 19
    MMUEXT_UNMARK_SUPER = 20


class UvmFlags(IntFlag):
    """`enum uvm_flags` of update_va_mapping."""

    UVMF_NONE = 0
    UVMF_TLB_FLUSH = 1
    UVMF_INVLPG = 2
    UVMF_FLUSHTYPE_MASK = 3
    UVMF_ALL = 4


class ConsoleIo(IntEnum):
    """Commands of console_io."""

    CONSOLEIO_write = 0
    CONSOLEIO_read = 1


class VmAssistCmd(IntEnum):
    """Commands of vm_assist."""

    VMASST_CMD_enable = 0
    VMASST_CMD_disable = 1


class VmAssistType(IntEnum):
    """Types of vm_assist: bit numbers."""

    VMASST_TYPE_4gb_segments = 0
    VMASST_TYPE_4gb_segments_notify = 1
    VMASST_TYPE_writable_pagetables = 2
    VMASST_TYPE_pae_extended_cr3 = 3
    VMASST_TYPE_architectural_iopl = 4
    VMASST_TYPE_runstate_update_flag = 5
    VMASST_TYPE_m2p_strict = 32


@wire
class mmu_update(Wire):
    """One request of mmu_update."""

    ptr: u64
    val: u64


@wire
class mmuext_op(Wire):
    """One request of mmuext_op; both arguments are unions of an unsigned long with narrower members."""

    cmd: u32
    arg1: ulong
    arg2: ulong


@wire
class multicall_entry(Wire):
    """One call of a multicall."""

    op: ulong
    result: ulong
    args: Annotated[MutableSequence[int], array(ulong, 6)]


@wire
class vcpu_time_info(Wire):
    """System time for one vCPU: system_time + (((tsc - tsc_timestamp) << tsc_shift) * tsc_to_system_mul >> 32)."""

    version: u32
    pad0: u32
    tsc_timestamp: u64
    system_time: u64
    tsc_to_system_mul: u32
    tsc_shift: s8
    flags: u8
    pad1: Annotated[MutableSequence[int], array(u8, 2)]


class _arch_vcpu_info_compat(Wire):
    cr2: ulong
    pad: Annotated[MutableSequence[int], array(ulong, 5)]


@wire(compat=_arch_vcpu_info_compat)
class arch_vcpu_info(Wire):
    """arch-x86: the address of the last page fault."""

    cr2: ulong
    pad: ulong


@wire
class vcpu_info(Wire):
    """What Xen and one vCPU share; 64 bytes."""

    evtchn_upcall_pending: u8
    evtchn_upcall_mask: u8
    evtchn_pending_sel: ulong
    arch: arch_vcpu_info
    time: vcpu_time_info


class _arch_shared_info_compat(Wire):
    max_pfn: ulong
    pfn_to_mfn_frame_list_list: xen_pfn_t
    nmi_reason: ulong
    p2m_cr3: ulong
    p2m_vaddr: ulong
    p2m_generation: ulong
    wc_sec_hi: u32


@wire(compat=_arch_shared_info_compat)
class arch_shared_info(Wire):
    """arch-x86: where the guest keeps its physical-to-machine table."""

    max_pfn: ulong
    pfn_to_mfn_frame_list_list: xen_pfn_t
    nmi_reason: ulong
    p2m_cr3: ulong
    p2m_vaddr: ulong
    p2m_generation: ulong


class _shared_info_compat(Wire):
    vcpu_info: Annotated[MutableSequence[vcpu_info], array(vcpu_info, XEN_LEGACY_MAX_VCPUS)]
    evtchn_pending: Annotated[MutableSequence[int], array(ulong, 32)]
    evtchn_mask: Annotated[MutableSequence[int], array(ulong, 32)]
    wc_version: u32
    wc_sec: u32
    wc_nsec: u32
    arch: arch_shared_info


@wire(compat=_shared_info_compat)
class shared_info(Wire):
    """What Xen and a domain share."""

    vcpu_info: Annotated[MutableSequence[vcpu_info], array(vcpu_info, XEN_LEGACY_MAX_VCPUS)]
    evtchn_pending: Annotated[MutableSequence[int], array(ulong, 64)]
    evtchn_mask: Annotated[MutableSequence[int], array(ulong, 64)]
    wc_version: u32
    wc_sec: u32
    wc_nsec: u32
    wc_sec_hi: u32
    arch: arch_shared_info
