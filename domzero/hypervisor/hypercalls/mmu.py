"""mmu_update, mmuext_op, update_va_mapping: the machine does them whole."""

from typing import TYPE_CHECKING

from domzero.abi.xen import Hypercall
from domzero.hypervisor.hypercalls.table import Continuation, hypercall

if TYPE_CHECKING:
    from domzero.hypervisor.vcpu import Vcpu


@hypercall(Hypercall.HYPERVISOR_mmu_update, "pupu", in_machine=True)
def mmu_update(vcpu: "Vcpu", reqs: int, count: int, done: int, foreigndom: int) -> int:
    """Page-table and machine-to-phys entries."""
    return _progress(vcpu.hw.mmu_update_part(reqs, count, done, foreigndom))


@hypercall(Hypercall.HYPERVISOR_mmuext_op, "pupu", in_machine=True)
def mmuext_op(vcpu: "Vcpu", ops: int, count: int, done: int, foreigndom: int) -> int:
    """Pinning, base pointers, flushes, LDT."""
    return _progress(vcpu.hw.mmuext_op_part(ops, count, done, foreigndom))


def _progress(progress: tuple[int, tuple[int, int] | None]) -> int:
    rc, later = progress
    if later is not None:
        raise Continuation(*later)
    return rc


@hypercall(Hypercall.HYPERVISOR_update_va_mapping, "lql", in_machine=True)
def update_va_mapping(vcpu: "Vcpu", va: int, value: int, flags: int) -> int:
    """One L1 entry, by the address it maps."""
    return vcpu.hw.update_va_mapping(va, value, flags)


@hypercall(Hypercall.HYPERVISOR_update_va_mapping_otherdomain, "lqlu")
def update_va_mapping_otherdomain(vcpu: "Vcpu", va: int, value: int, flags: int, domid: int) -> int:
    """The same with a frame of another domain."""
    return vcpu.hw.update_va_mapping_otherdomain(va, value, flags, domid & 0xFFFF)
