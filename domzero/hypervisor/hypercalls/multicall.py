# SPDX-License-Identifier: Apache-2.0
"""multicall: several hypercalls in one.

The machine makes those that it answers before they come here (`pv/multicall.rs`), and again after one that it does not.
"""

from typing import TYPE_CHECKING

from domzero.abi.errno import Errno
from domzero.abi.layout import layout_for, offset_of, sizeof
from domzero.abi.xen import Hypercall, multicall_entry
from domzero.hypervisor import guest_memory
from domzero.hypervisor.hypercalls.table import TABLE, Continuation, call, hypercall

if TYPE_CHECKING:
    from domzero.hypervisor.vcpu import Vcpu

CALLS_AT_ONCE = 32
ROUND_NS = 1_000_000
"""After so many calls, or so much time, others get their turn at the big lock. Virtual time stands still meanwhile."""


@hypercall(Hypercall.HYPERVISOR_multicall, "pu")
def multicall(vcpu: "Vcpu", calls: int, count: int) -> int:
    """Makes `count` calls; each one's result goes into its entry. Events that are due come between two calls."""
    if vcpu.in_multicall:
        return -Errno.EINVAL
    layout = layout_for(multicall_entry, vcpu.domain.is_32bit)
    size, result, args_at = sizeof(layout), offset_of(layout, "result"), offset_of(layout, "args")
    words, first_arg = (at // guest_memory.ulong_size(vcpu) for at in (size, args_at))
    guest_memory.check_range(vcpu, calls, size * count)
    vcpu.in_multicall = True
    now_ns = vcpu.domain.host.now_ns
    end_ns = now_ns() + ROUND_NS
    try:
        for index in range(count):
            if index and (index >= CALLS_AT_ONCE or now_ns() >= end_ns or _preempted(vcpu)):
                raise Continuation(calls, count - index)
            # All its fields are of one size: faster than a structure.
            entry = guest_memory.read_ulongs(vcpu, calls, words)
            if index and (row := TABLE.get(entry[0])) is not None and row.in_machine:
                raise Continuation(calls, count - index)
            args = entry[first_arg:]
            try:
                rc = call(vcpu, entry[0], args)
            except Continuation as later:
                # The entry itself says how the call goes on.
                args = later.new_args + args[len(later.new_args) :]
                guest_memory.write(vcpu, calls + args_at, b"".join(guest_memory.ulong(vcpu, arg) for arg in args))
                raise Continuation(calls, count - index) from None
            guest_memory.write_ulong(vcpu, calls + result, rc)
            calls += size
    finally:
        vcpu.in_multicall = False
    return 0


def _preempted(vcpu: "Vcpu") -> bool:
    """Something else is to happen before the next call: an upcall, sleep, the end of the domain."""
    return (
        vcpu.is_blocked
        or vcpu.is_down
        or vcpu.nmi_pending
        or vcpu.domain.shutdown_code is not None
        or vcpu.info.upcall_is_due
    )
