# SPDX-License-Identifier: Apache-2.0
"""physdev_op (physdev.h), the part of an unprivileged domain."""

from typing import TYPE_CHECKING

from domzero._machine import GuestFault
from domzero.abi import physdev as abi
from domzero.abi.errno import Errno
from domzero.abi.physdev import PhysdevOp
from domzero.abi.xen import Hypercall
from domzero.hypervisor import guest_memory
from domzero.hypervisor.hypercalls.table import hypercall, operation

if TYPE_CHECKING:
    from domzero.hypervisor.vcpu import Vcpu

MAX_IOPL = 3
MAX_PORTS = 65536
IOBITMAP_BYTES = MAX_PORTS // 8
NR_GSIS = 24
FIRST_FREE_GSI = 16
NR_PIRQS = 272

physdev_op = operation(Hypercall.HYPERVISOR_physdev_op, "ip", PhysdevOp)


@physdev_op.sub(PhysdevOp.PHYSDEVOP_set_iopl, abi.physdev_set_iopl)
def set_iopl(vcpu: "Vcpu", arg: abi.physdev_set_iopl) -> int:
    """The vCPU's I/O privilege level."""
    if arg.iopl > MAX_IOPL:
        return -Errno.EINVAL
    vcpu.hw.set_iopl(arg.iopl)
    return 0


@physdev_op.sub(PhysdevOp.PHYSDEVOP_set_iobitmap, abi.physdev_set_iobitmap)
def set_iobitmap(vcpu: "Vcpu", arg: abi.physdev_set_iobitmap) -> int:
    """Where the vCPU's I/O permission bitmap is; it is read at each use."""
    try:
        guest_memory.check_range(vcpu, arg.bitmap, IOBITMAP_BYTES)
    except GuestFault:
        return -Errno.EINVAL
    if arg.nr_ports > MAX_PORTS:
        return -Errno.EINVAL
    vcpu.hw.set_io_bitmap(arg.bitmap, arg.nr_ports)
    return 0


@physdev_op.sub(PhysdevOp.PHYSDEVOP_irq_status_query, abi.physdev_irq_status_query, copy_out=True)
def irq_status_query(_vcpu: "Vcpu", arg: abi.physdev_irq_status_query) -> int:
    """Whether an interrupt must be acknowledged."""
    if arg.irq >= NR_PIRQS:
        return -Errno.EINVAL
    arg.flags = abi.XENIRQSTAT_needs_eoi
    return 0


@physdev_op.sub(PhysdevOp.PHYSDEVOP_eoi, abi.physdev_eoi, note="EINVAL: no interrupt is bound")
def eoi(vcpu: "Vcpu", arg: abi.physdev_eoi) -> int:
    """Acknowledges an interrupt: there are none, but a number may be taken."""
    return 0 if arg.irq in vcpu.domain.pirqs_taken else -Errno.EINVAL


@physdev_op.sub(PhysdevOp.PHYSDEVOP_IRQ_UNMASK_NOTIFY, note="obsolete: nothing is masked")
def unmask_notify(_vcpu: "Vcpu", _arg: int) -> int:
    """Unmasks the domain's interrupts: there are none."""
    return 0


@physdev_op.sub(PhysdevOp.PHYSDEVOP_pirq_eoi_gmfn_v1, abi.physdev_pirq_eoi_gmfn)
@physdev_op.sub(PhysdevOp.PHYSDEVOP_pirq_eoi_gmfn_v2, abi.physdev_pirq_eoi_gmfn)
def pirq_eoi_gmfn(vcpu: "Vcpu", arg: abi.physdev_pirq_eoi_gmfn) -> int:
    """A frame where the guest sees which interrupts must be acknowledged: none, so it stays as it is."""
    domain = vcpu.domain
    domain.hw.get_ref(arg.gmfn, writable=True)
    if domain.pirq_eoi_mfn is not None:
        domain.hw.put_ref(arg.gmfn, writable=True)
        return -Errno.EBUSY
    domain.pirq_eoi_mfn = arg.gmfn
    return 0


@physdev_op.sub(PhysdevOp.PHYSDEVOP_get_free_pirq, abi.physdev_get_free_pirq, copy_out=True)
def get_free_pirq(vcpu: "Vcpu", arg: abi.physdev_get_free_pirq) -> int:
    """Takes an interrupt number; no interrupt will ever have it."""
    taken = vcpu.domain.pirqs_taken
    numbers = (
        range(FIRST_FREE_GSI, NR_GSIS) if arg.type == abi.MAP_PIRQ_TYPE_GSI else range(NR_PIRQS - 1, NR_GSIS - 1, -1)
    )
    for number in numbers:
        if number not in taken:
            taken.add(number)
            arg.pirq = number
            return 0
    return -Errno.ENOSPC


@physdev_op.sub(PhysdevOp.PHYSDEVOP_map_pirq, abi.physdev_map_pirq, note="EPERM: hardware domain only")
@physdev_op.sub(PhysdevOp.PHYSDEVOP_unmap_pirq, abi.physdev_unmap_pirq, note="EPERM: hardware domain only")
def map_pirq(vcpu: "Vcpu", arg: abi.physdev_unmap_pirq) -> int:
    """Physical interrupts are the hardware domain's."""
    vcpu.domain.domids.check_any(arg.domid)
    return -Errno.EPERM


@physdev_op.sub(PhysdevOp.PHYSDEVOP_setup_gsi, abi.physdev_setup_gsi, note="EPERM: hardware domain only")
def setup_gsi(_vcpu: "Vcpu", arg: abi.physdev_setup_gsi) -> int:
    """Physical interrupts are the hardware domain's."""
    return -Errno.EPERM if 0 <= arg.gsi < NR_GSIS else -Errno.EINVAL


@physdev_op.sub(PhysdevOp.PHYSDEVOP_manage_pci_add_ext, abi.physdev_manage_pci_ext, note="EPERM: hardware domain only")
def manage_pci_add_ext(_vcpu: "Vcpu", arg: abi.physdev_manage_pci_ext) -> int:
    """PCI devices are the hardware domain's."""
    return -Errno.EINVAL if arg.is_extfn > 1 or arg.is_virtfn > 1 else -Errno.EPERM


@physdev_op.sub(PhysdevOp.PHYSDEVOP_restore_msi, abi.physdev_restore_msi, note="ENODEV, EPERM: hardware domain only")
def restore_msi(_vcpu: "Vcpu", arg: abi.physdev_restore_msi) -> int:
    """PCI devices are the hardware domain's; a host bridge is all there is."""
    return -Errno.ENODEV if arg.bus or arg.devfn else -Errno.EPERM


@physdev_op.sub(PhysdevOp.PHYSDEVOP_restore_msi_ext, abi.physdev_pci_device, note="ENODEV, EPERM: hardware domain only")
def restore_msi_ext(_vcpu: "Vcpu", arg: abi.physdev_pci_device) -> int:
    """The same with a segment."""
    return -Errno.ENODEV if arg.seg or arg.bus or arg.devfn else -Errno.EPERM


_HARDWARE = "hardware domain only"
for _struct, _commands in (
    (abi.physdev_apic, (PhysdevOp.PHYSDEVOP_apic_read, PhysdevOp.PHYSDEVOP_apic_write)),
    (abi.physdev_irq, (PhysdevOp.PHYSDEVOP_alloc_irq_vector,)),
    (abi.physdev_manage_pci, (PhysdevOp.PHYSDEVOP_manage_pci_add, PhysdevOp.PHYSDEVOP_manage_pci_remove)),
    (abi.physdev_pci_device_add, (PhysdevOp.PHYSDEVOP_pci_device_add,)),
    (
        abi.physdev_pci_device,
        (
            PhysdevOp.PHYSDEVOP_pci_device_remove,
            PhysdevOp.PHYSDEVOP_prepare_msix,
            PhysdevOp.PHYSDEVOP_release_msix,
        ),
    ),
):
    physdev_op.refuse(Errno.EPERM, *_commands, note=_HARDWARE, reads=_struct)
physdev_op.refuse(Errno.EPERM, PhysdevOp.PHYSDEVOP_pci_mmcfg_reserved, PhysdevOp.PHYSDEVOP_dbgp_op, note=_HARDWARE)
physdev_op.refuse(Errno.ENOSYS, PhysdevOp.PHYSDEVOP_free_irq_vector, note="obsolete in Xen too")

_OLD_COMMANDS = frozenset(
    {
        PhysdevOp.PHYSDEVOP_IRQ_UNMASK_NOTIFY,
        PhysdevOp.PHYSDEVOP_irq_status_query,
        PhysdevOp.PHYSDEVOP_set_iopl,
        PhysdevOp.PHYSDEVOP_set_iobitmap,
        PhysdevOp.PHYSDEVOP_apic_read,
        PhysdevOp.PHYSDEVOP_apic_write,
        PhysdevOp.PHYSDEVOP_alloc_irq_vector,
    }
)


@hypercall(Hypercall.HYPERVISOR_physdev_op_compat, "p", note="the interface before 3.0.2")
def physdev_op_compat(vcpu: "Vcpu", op: int) -> int:
    """The command and its argument are in one structure."""
    cmd = int.from_bytes(guest_memory.read(vcpu, op, 4), "little")
    if cmd not in _OLD_COMMANDS:
        return -Errno.ENOSYS
    return physdev_op.call(vcpu, [cmd, op + guest_memory.ulong_size(vcpu)])
