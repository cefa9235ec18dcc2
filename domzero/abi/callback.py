# SPDX-License-Identifier: Apache-2.0
"""callback.h: callback_op."""

from enum import IntEnum

from domzero.abi.layout import Wire, u16, u32, ulong, wire

CALLBACKF_mask_events = 1


class CallbackOp(IntEnum):
    """`CALLBACKOP_*`."""

    CALLBACKOP_register = 0
    CALLBACKOP_unregister = 1


class CallbackType(IntEnum):
    """`CALLBACKTYPE_*`."""

    CALLBACKTYPE_event = 0
    CALLBACKTYPE_failsafe = 1
    CALLBACKTYPE_syscall = 2
    CALLBACKTYPE_sysenter_deprecated = 3
    CALLBACKTYPE_nmi = 4
    CALLBACKTYPE_sysenter = 5
    CALLBACKTYPE_syscall32 = 7


class _callback_register_compat(Wire):
    type: u16
    flags: u16
    cs: u32
    address: u32


@wire(compat=_callback_register_compat)
class callback_register(Wire):
    """CALLBACKOP_register. In the 32-bit layout `xen_callback_t address` is a code selector and an address."""

    type: u16
    flags: u16
    address: ulong


@wire
class callback_unregister(Wire):
    """CALLBACKOP_unregister."""

    type: u16
    _unused: u16
