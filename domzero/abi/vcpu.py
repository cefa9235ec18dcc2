# SPDX-License-Identifier: Apache-2.0
"""vcpu.h: vcpu_op."""

from collections.abc import MutableSequence
from enum import IntEnum

from domzero.abi.layout import Annotated, Wire, array, s32, u32, u64, wire

XEN_RUNSTATE_UPDATE = 1 << 63
VCPU_SSHOTTMR_future = 1


class VcpuOp(IntEnum):
    """`VCPUOP_*`."""

    VCPUOP_initialise = 0
    VCPUOP_up = 1
    VCPUOP_down = 2
    VCPUOP_is_up = 3
    VCPUOP_get_runstate_info = 4
    VCPUOP_register_runstate_memory_area = 5
    VCPUOP_set_periodic_timer = 6
    VCPUOP_stop_periodic_timer = 7
    VCPUOP_set_singleshot_timer = 8
    VCPUOP_stop_singleshot_timer = 9
    VCPUOP_register_vcpu_info = 10
    VCPUOP_send_nmi = 11
    VCPUOP_get_physid = 12
    VCPUOP_register_vcpu_time_memory_area = 13


class RunState(IntEnum):
    """vcpu_runstate_info.state."""

    RUNSTATE_running = 0
    RUNSTATE_runnable = 1
    RUNSTATE_blocked = 2
    RUNSTATE_offline = 3


@wire
class vcpu_runstate_info(Wire):
    """What a vCPU does, since when, and how long it did each thing."""

    state: s32
    state_entry_time: u64
    time: Annotated[MutableSequence[int], array(u64, 4)]


@wire
class vcpu_register_runstate_memory_area(Wire):
    """VCPUOP_register_runstate_memory_area: a virtual address (a union of handle, pointer and uint64_t)."""

    addr: u64


@wire
class vcpu_register_time_memory_area(Wire):
    """VCPUOP_register_vcpu_time_memory_area: as above."""

    addr: u64


@wire
class vcpu_set_periodic_timer(Wire):
    """VCPUOP_set_periodic_timer."""

    period_ns: u64


@wire
class vcpu_set_singleshot_timer(Wire):
    """VCPUOP_set_singleshot_timer."""

    timeout_abs_ns: u64
    flags: u32


@wire
class vcpu_register_vcpu_info(Wire):
    """VCPUOP_register_vcpu_info."""

    mfn: u64
    offset: u32
    rsvd: u32


@wire
class vcpu_get_physid(Wire):
    """VCPUOP_get_physid."""

    phys_id: u64
