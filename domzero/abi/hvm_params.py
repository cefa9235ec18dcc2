# SPDX-License-Identifier: Apache-2.0
"""hvm/params.h, hvm/hvm_op.h: hvm_op, as far as a PV domain meets it."""

from collections.abc import MutableSequence
from enum import IntEnum

from domzero.abi.layout import Annotated, Wire, array, domid_t, u8, u16, u32, u64, wire

HVM_NR_PARAMS = 39


class HvmOp(IntEnum):
    """`HVMOP_*`."""

    HVMOP_set_param = 0
    HVMOP_get_param = 1
    HVMOP_flush_tlbs = 5
    HVMOP_pagetable_dying = 9
    HVMOP_get_time = 10
    HVMOP_xentrace = 11
    HVMOP_get_mem_type = 15
    HVMOP_set_evtchn_upcall_vector = 23
    HVMOP_guest_request_vm_event = 24
    HVMOP_altp2m = 25


class HvmParam(IntEnum):
    """`HVM_PARAM_*` of guests."""

    HVM_PARAM_CALLBACK_IRQ = 0
    HVM_PARAM_STORE_PFN = 1
    HVM_PARAM_STORE_EVTCHN = 2
    HVM_PARAM_CONSOLE_PFN = 17
    HVM_PARAM_CONSOLE_EVTCHN = 18


@wire
class xen_hvm_param(Wire):
    """HVMOP_set_param, HVMOP_get_param."""

    domid: domid_t
    pad: u16
    index: u32
    value: u64


@wire
class xen_hvm_get_mem_type(Wire):
    """HVMOP_get_mem_type."""

    domid: domid_t
    mem_type: u16
    pad: Annotated[MutableSequence[int], array(u16, 2)]
    pfn: u64


@wire
class xen_hvm_pagetable_dying(Wire):
    """HVMOP_pagetable_dying."""

    domid: domid_t
    pad: Annotated[MutableSequence[int], array(u16, 3)]
    gpa: u64


@wire
class xen_hvm_xentrace(Wire):
    """HVMOP_xentrace."""

    event: u16
    extra_bytes: u16
    extra: Annotated[MutableSequence[int], array(u8, 28)]
