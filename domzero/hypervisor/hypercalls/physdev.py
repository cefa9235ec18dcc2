"""physdev_op (physdev.h), the part of an unprivileged domain."""

from typing import TYPE_CHECKING

from domzero.abi import physdev as abi
from domzero.abi.errno import Errno
from domzero.abi.physdev import PhysdevOp
from domzero.abi.xen import Hypercall
from domzero.hypervisor import guest_memory
from domzero.hypervisor.hypercalls.event_channel import NR_PIRQS
from domzero.hypervisor.hypercalls.table import hypercall, operation

if TYPE_CHECKING:
    from domzero.hypervisor.vcpu import Vcpu

MAX_IOPL = 3
MAX_PORTS = 65536

physdev_op = operation(Hypercall.HYPERVISOR_physdev_op, "ip", PhysdevOp)


@physdev_op.sub(PhysdevOp.PHYSDEVOP_set_iopl, abi.physdev_set_iopl)
def set_iopl(vcpu: "Vcpu", arg: abi.physdev_set_iopl) -> int:
    """The vCPU's I/O privilege level."""
    if arg.iopl > MAX_IOPL:
        return -Errno.EINVAL
    vcpu.iopl = arg.iopl
    vcpu.hw.set_iopl(arg.iopl)
    return 0


@physdev_op.sub(PhysdevOp.PHYSDEVOP_set_iobitmap, abi.physdev_set_iobitmap)
def set_iobitmap(vcpu: "Vcpu", arg: abi.physdev_set_iobitmap) -> int:
    """The vCPU's I/O permission bitmap. Copied here, which Xen does at each use."""
    if arg.nr_ports > MAX_PORTS:
        return -Errno.EINVAL
    vcpu.io_bitmap = guest_memory.read(vcpu, arg.bitmap, (arg.nr_ports + 7) // 8) if arg.nr_ports else None
    return 0


@physdev_op.sub(PhysdevOp.PHYSDEVOP_irq_status_query, abi.physdev_irq_status_query, copy_out=True)
def irq_status_query(_vcpu: "Vcpu", arg: abi.physdev_irq_status_query) -> int:
    """Whether an interrupt must be acknowledged."""
    if arg.irq >= NR_PIRQS:
        return -Errno.EINVAL
    arg.flags = abi.XENIRQSTAT_needs_eoi
    return 0


@physdev_op.sub(PhysdevOp.PHYSDEVOP_eoi, abi.physdev_eoi, note="EINVAL: no interrupt is bound")
def eoi(_vcpu: "Vcpu", _arg: abi.physdev_eoi) -> int:
    """Acknowledges an interrupt: none is bound."""
    return -Errno.EINVAL


physdev_op.refuse(
    Errno.EPERM,
    PhysdevOp.PHYSDEVOP_apic_read,
    PhysdevOp.PHYSDEVOP_apic_write,
    PhysdevOp.PHYSDEVOP_alloc_irq_vector,
    PhysdevOp.PHYSDEVOP_map_pirq,
    PhysdevOp.PHYSDEVOP_unmap_pirq,
    PhysdevOp.PHYSDEVOP_manage_pci_add,
    PhysdevOp.PHYSDEVOP_manage_pci_remove,
    PhysdevOp.PHYSDEVOP_manage_pci_add_ext,
    PhysdevOp.PHYSDEVOP_restore_msi,
    PhysdevOp.PHYSDEVOP_restore_msi_ext,
    PhysdevOp.PHYSDEVOP_setup_gsi,
    PhysdevOp.PHYSDEVOP_get_free_pirq,
    PhysdevOp.PHYSDEVOP_pci_mmcfg_reserved,
    PhysdevOp.PHYSDEVOP_pci_device_add,
    PhysdevOp.PHYSDEVOP_pci_device_remove,
    PhysdevOp.PHYSDEVOP_dbgp_op,
    PhysdevOp.PHYSDEVOP_prepare_msix,
    PhysdevOp.PHYSDEVOP_release_msix,
    note="hardware domain only",
)
physdev_op.refuse(
    Errno.ENOSYS, PhysdevOp.PHYSDEVOP_free_irq_vector, PhysdevOp.PHYSDEVOP_IRQ_UNMASK_NOTIFY, note="obsolete in Xen too"
)


@hypercall(Hypercall.HYPERVISOR_physdev_op_compat, "p", note="the interface before 3.0.2")
def physdev_op_compat(vcpu: "Vcpu", op: int) -> int:
    """The command and its argument are in one structure."""
    cmd = int.from_bytes(guest_memory.read(vcpu, op, 4), "little")
    return physdev_op.call(vcpu, [cmd, op + guest_memory.ulong_size(vcpu)])
