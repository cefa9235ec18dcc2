# SPDX-License-Identifier: Apache-2.0
"""mmu_update, mmuext_op, update_va_mapping: the machine does them whole."""

from typing import TYPE_CHECKING

from domzero.abi.xen import Hypercall
from domzero.hypervisor.hypercalls.table import Continuation, hypercall

if TYPE_CHECKING:
    from domzero.hypervisor.vcpu import Vcpu


@hypercall(Hypercall.HYPERVISOR_mmu_update, "pupu", in_machine=True)
def mmu_update(vcpu: "Vcpu", reqs: int, count: int, done: int, foreigndom: int) -> None:
    """Page-table and machine-to-phys entries."""
    _go_on(vcpu.hw.mmu_update_part(reqs, count, done, foreigndom))


@hypercall(Hypercall.HYPERVISOR_mmuext_op, "pupu", in_machine=True)
def mmuext_op(vcpu: "Vcpu", ops: int, count: int, done: int, foreigndom: int) -> None:
    """Pinning, base pointers, flushes, LDT."""
    _go_on(vcpu.hw.mmuext_op_part(ops, count, done, foreigndom))


def _go_on(later: tuple[int, int] | None) -> None:
    if later is not None:
        raise Continuation(*later)


@hypercall(Hypercall.HYPERVISOR_update_va_mapping, "lql", in_machine=True)
def update_va_mapping(vcpu: "Vcpu", va: int, value: int, flags: int) -> None:
    """One L1 entry, by the address it maps."""
    vcpu.hw.update_va_mapping(va, value, flags)


@hypercall(Hypercall.HYPERVISOR_update_va_mapping_otherdomain, "lqlu")
def update_va_mapping_otherdomain(vcpu: "Vcpu", va: int, value: int, flags: int, domid: int) -> None:
    """The same with a frame of another domain."""
    vcpu.hw.update_va_mapping_otherdomain(va, value, flags, domid & 0xFFFF)
