# SPDX-License-Identifier: Apache-2.0
"""The hypercall table; one module per operation."""

from domzero.hypervisor.hypercalls import (
    console,
    cpu,
    event_channel,
    grant_table,
    iret,
    memory,
    mmu,
    multicall,
    physdev,
    refused,
    reservation,
    sched,
    traps,
    vcpu_op,
    version,
)
from domzero.hypervisor.hypercalls.table import TABLE, Continuation, Operation, State, SubOperation, call, dispatch

__all__ = [
    "TABLE",
    "Continuation",
    "Operation",
    "State",
    "SubOperation",
    "call",
    "console",
    "cpu",
    "dispatch",
    "event_channel",
    "grant_table",
    "iret",
    "memory",
    "mmu",
    "multicall",
    "physdev",
    "refused",
    "reservation",
    "sched",
    "traps",
    "vcpu_op",
    "version",
]
