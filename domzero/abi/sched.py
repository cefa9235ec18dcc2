# SPDX-License-Identifier: Apache-2.0
"""sched.h: sched_op."""

from enum import IntEnum

from domzero.abi.layout import Wire, domid_t, handle, s32, u32, u64, wire


class SchedOp(IntEnum):
    """`enum sched_op`."""

    SCHEDOP_yield = 0
    SCHEDOP_block = 1
    SCHEDOP_shutdown = 2
    SCHEDOP_poll = 3
    SCHEDOP_remote_shutdown = 4
    SCHEDOP_shutdown_code = 5
    SCHEDOP_watchdog = 6
    SCHEDOP_pin_override = 7


class ShutdownReason(IntEnum):
    """`enum sched_shutdown_reason`: why a domain stopped."""

    SHUTDOWN_poweroff = 0
    SHUTDOWN_reboot = 1
    SHUTDOWN_suspend = 2
    SHUTDOWN_crash = 3
    SHUTDOWN_watchdog = 4
    SHUTDOWN_soft_reset = 5


@wire
class sched_shutdown(Wire):
    """SCHEDOP_shutdown, SCHEDOP_shutdown_code."""

    reason: u32


@wire
class sched_poll(Wire):
    """SCHEDOP_poll."""

    ports: handle
    nr_ports: u32
    timeout: u64


@wire
class sched_remote_shutdown(Wire):
    """SCHEDOP_remote_shutdown."""

    domain_id: domid_t
    reason: u32


@wire
class sched_watchdog(Wire):
    """SCHEDOP_watchdog."""

    id: u32
    timeout: u32


@wire
class sched_pin_override(Wire):
    """SCHEDOP_pin_override."""

    pcpu: s32
