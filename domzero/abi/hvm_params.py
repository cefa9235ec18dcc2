"""hvm/params.h, hvm/hvm_op.h: hvm_op, as far as a PV domain meets it."""

from enum import IntEnum

from domzero.abi.layout import Wire, domid_t, u16, u32, u64, wire

HVM_NR_PARAMS = 39


class HvmOp(IntEnum):
    """`HVMOP_*`."""

    HVMOP_set_param = 0
    HVMOP_get_param = 1


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
