"""multicall: several hypercalls in one."""

from typing import TYPE_CHECKING

from domzero.abi.errno import Errno
from domzero.abi.layout import layout_for, offset_of, sizeof
from domzero.abi.xen import Hypercall, multicall_entry
from domzero.hypervisor import guest_memory
from domzero.hypervisor.hypercalls import table
from domzero.hypervisor.hypercalls.table import Continuation, hypercall

if TYPE_CHECKING:
    from domzero.hypervisor.vcpu import Vcpu

CALLS_AT_ONCE = 128
"""After so many calls the guest gets its events."""


@hypercall(Hypercall.HYPERVISOR_multicall, "pu")
def multicall(vcpu: "Vcpu", calls: int, count: int) -> int:
    """Makes `count` calls; each one's result goes into its entry."""
    if vcpu.in_multicall:
        return -Errno.EINVAL
    layout = layout_for(multicall_entry, vcpu.domain.is_32bit)
    size, result = sizeof(layout), offset_of(layout, "result")
    vcpu.in_multicall = True
    try:
        for index in range(min(count, CALLS_AT_ONCE)):
            entry = guest_memory.copy_in(vcpu, multicall_entry, calls)
            rc = _call(vcpu, entry.op, tuple(entry.args))
            guest_memory.write_ulong(vcpu, calls + result, rc)
            calls += size
            if vcpu.domain.shutdown_code is not None:
                return 0
            if vcpu.is_blocked and index + 1 < count:
                raise Continuation(calls, count - index - 1)
    finally:
        vcpu.in_multicall = False
    if count > CALLS_AT_ONCE:
        raise Continuation(calls, count - CALLS_AT_ONCE)
    return 0


def _call(vcpu: "Vcpu", op: int, args: tuple[int, ...]) -> int:
    while True:
        try:
            return table.call(vcpu, op, args)
        except Continuation as later:
            args = later.new_args + args[len(later.new_args) :]
