# SPDX-License-Identifier: Apache-2.0
"""event_channel.h: event_channel_op."""

from collections.abc import MutableSequence
from enum import IntEnum

from domzero.abi.layout import Annotated, Wire, WireUnion, array, domid_t, u8, u32, u64, wire

EVTCHN_FIFO_PRIORITY_DEFAULT = 7
EVTCHN_FIFO_MAX_QUEUES = 16
EVTCHN_FIFO_LINK_BITS = 17
EVTCHN_FIFO_NR_CHANNELS = 1 << 17
EVTCHN_FIFO_PENDING = 31
EVTCHN_FIFO_MASKED = 30
EVTCHN_FIFO_LINKED = 29
EVTCHN_FIFO_BUSY = 28


class EvtchnOp(IntEnum):
    """`enum event_channel_op`."""

    EVTCHNOP_bind_interdomain = 0
    EVTCHNOP_bind_virq = 1
    EVTCHNOP_bind_pirq = 2
    EVTCHNOP_close = 3
    EVTCHNOP_send = 4
    EVTCHNOP_status = 5
    EVTCHNOP_alloc_unbound = 6
    EVTCHNOP_bind_ipi = 7
    EVTCHNOP_bind_vcpu = 8
    EVTCHNOP_unmask = 9
    EVTCHNOP_reset = 10
    EVTCHNOP_init_control = 11
    EVTCHNOP_expand_array = 12
    EVTCHNOP_set_priority = 13


class EvtchnStat(IntEnum):
    """evtchn_status.status."""

    EVTCHNSTAT_closed = 0
    EVTCHNSTAT_unbound = 1
    EVTCHNSTAT_interdomain = 2
    EVTCHNSTAT_pirq = 3
    EVTCHNSTAT_virq = 4
    EVTCHNSTAT_ipi = 5


@wire
class evtchn_alloc_unbound(Wire):
    """EVTCHNOP_alloc_unbound."""

    dom: domid_t
    remote_dom: domid_t
    port: u32


@wire
class evtchn_bind_interdomain(Wire):
    """EVTCHNOP_bind_interdomain."""

    remote_dom: domid_t
    remote_port: u32
    local_port: u32


@wire
class evtchn_bind_virq(Wire):
    """EVTCHNOP_bind_virq."""

    virq: u32
    vcpu: u32
    port: u32


@wire
class evtchn_bind_pirq(Wire):
    """EVTCHNOP_bind_pirq."""

    pirq: u32
    flags: u32
    port: u32


@wire
class evtchn_bind_ipi(Wire):
    """EVTCHNOP_bind_ipi."""

    vcpu: u32
    port: u32


@wire
class evtchn_close(Wire):
    """EVTCHNOP_close."""

    port: u32


@wire
class evtchn_send(Wire):
    """EVTCHNOP_send."""

    port: u32


@wire
class evtchn_status_interdomain(Wire):
    """The peer of an interdomain channel (and, its first member, of an unbound one)."""

    dom: domid_t
    port: u32


@wire
class evtchn_status_u(WireUnion):
    """What the channel is bound to."""

    interdomain: evtchn_status_interdomain
    pirq: u32
    virq: u32


@wire
class evtchn_status(Wire):
    """EVTCHNOP_status."""

    dom: domid_t
    port: u32
    status: u32
    vcpu: u32
    u: evtchn_status_u


@wire
class evtchn_bind_vcpu(Wire):
    """EVTCHNOP_bind_vcpu."""

    port: u32
    vcpu: u32


@wire
class evtchn_unmask(Wire):
    """EVTCHNOP_unmask."""

    port: u32


@wire
class evtchn_reset(Wire):
    """EVTCHNOP_reset."""

    dom: domid_t


@wire
class evtchn_init_control(Wire):
    """EVTCHNOP_init_control."""

    control_gfn: u64
    offset: u32
    vcpu: u32
    link_bits: u8
    _pad: Annotated[MutableSequence[int], array(u8, 7)]


@wire
class evtchn_expand_array(Wire):
    """EVTCHNOP_expand_array."""

    array_gfn: u64


@wire
class evtchn_set_priority(Wire):
    """EVTCHNOP_set_priority."""

    port: u32
    priority: u32


@wire
class evtchn_fifo_control_block(Wire):
    """The control block of the FIFO ABI."""

    ready: u32
    _rsvd: u32
    head: Annotated[MutableSequence[int], array(u32, EVTCHN_FIFO_MAX_QUEUES)]
