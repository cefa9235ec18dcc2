# SPDX-License-Identifier: Apache-2.0
"""physdev.h: physdev_op."""

from enum import IntEnum

from domzero.abi.layout import Wire, domid_t, handle, s32, u8, u16, u32, u64, ulong, wire, xen_pfn_t

XENIRQSTAT_needs_eoi = 1
XENIRQSTAT_shared = 2
MAP_PIRQ_TYPE_GSI = 1


class PhysdevOp(IntEnum):
    """`PHYSDEVOP_*`."""

    PHYSDEVOP_IRQ_UNMASK_NOTIFY = 4
    PHYSDEVOP_irq_status_query = 5
    PHYSDEVOP_set_iopl = 6
    PHYSDEVOP_set_iobitmap = 7
    PHYSDEVOP_apic_read = 8
    PHYSDEVOP_apic_write = 9
    PHYSDEVOP_alloc_irq_vector = 10
    PHYSDEVOP_free_irq_vector = 11
    PHYSDEVOP_eoi = 12
    PHYSDEVOP_map_pirq = 13
    PHYSDEVOP_unmap_pirq = 14
    PHYSDEVOP_manage_pci_add = 15
    PHYSDEVOP_manage_pci_remove = 16
    PHYSDEVOP_pirq_eoi_gmfn_v1 = 17
    PHYSDEVOP_restore_msi = 19
    PHYSDEVOP_manage_pci_add_ext = 20
    PHYSDEVOP_setup_gsi = 21
    PHYSDEVOP_get_free_pirq = 23
    PHYSDEVOP_pci_mmcfg_reserved = 24
    PHYSDEVOP_pci_device_add = 25
    PHYSDEVOP_pci_device_remove = 26
    PHYSDEVOP_restore_msi_ext = 27
    PHYSDEVOP_pirq_eoi_gmfn_v2 = 28
    PHYSDEVOP_dbgp_op = 29
    PHYSDEVOP_prepare_msix = 30
    PHYSDEVOP_release_msix = 31


@wire
class physdev_eoi(Wire):
    """PHYSDEVOP_eoi."""

    irq: u32


@wire
class physdev_irq_status_query(Wire):
    """PHYSDEVOP_irq_status_query."""

    irq: u32
    flags: u32


@wire
class physdev_set_iopl(Wire):
    """PHYSDEVOP_set_iopl."""

    iopl: u32


@wire
class physdev_set_iobitmap(Wire):
    """PHYSDEVOP_set_iobitmap."""

    bitmap: handle
    nr_ports: u32


@wire
class physdev_pirq_eoi_gmfn(Wire):
    """PHYSDEVOP_pirq_eoi_gmfn_v1, _v2."""

    gmfn: xen_pfn_t


@wire
class physdev_apic(Wire):
    """PHYSDEVOP_apic_read, PHYSDEVOP_apic_write."""

    apic_physbase: ulong
    reg: u32
    value: u32


@wire
class physdev_irq(Wire):
    """PHYSDEVOP_alloc_irq_vector."""

    irq: u32
    vector: u32


@wire
class physdev_map_pirq(Wire):
    """PHYSDEVOP_map_pirq."""

    domid: domid_t
    type: s32
    index: s32
    pirq: s32
    bus: s32
    devfn: s32
    entry_nr: s32
    table_base: u64


@wire
class physdev_unmap_pirq(Wire):
    """PHYSDEVOP_unmap_pirq."""

    domid: domid_t
    pirq: s32


@wire
class physdev_manage_pci(Wire):
    """PHYSDEVOP_manage_pci_add, PHYSDEVOP_manage_pci_remove."""

    bus: u8
    devfn: u8


@wire
class physdev_restore_msi(Wire):
    """PHYSDEVOP_restore_msi."""

    bus: u8
    devfn: u8


@wire
class physdev_manage_pci_ext(Wire):
    """PHYSDEVOP_manage_pci_add_ext."""

    bus: u8
    devfn: u8
    is_extfn: u32
    is_virtfn: u32
    physfn_bus: u8
    physfn_devfn: u8


@wire
class physdev_setup_gsi(Wire):
    """PHYSDEVOP_setup_gsi."""

    gsi: s32
    triggering: u8
    polarity: u8


@wire
class physdev_get_free_pirq(Wire):
    """PHYSDEVOP_get_free_pirq."""

    type: s32
    pirq: u32


@wire
class physdev_pci_device_add(Wire):
    """PHYSDEVOP_pci_device_add, without its optional tail."""

    seg: u16
    bus: u8
    devfn: u8
    flags: u32
    physfn_bus: u8
    physfn_devfn: u8


@wire
class physdev_pci_device(Wire):
    """PHYSDEVOP_pci_device_remove, _restore_msi_ext, _prepare_msix, _release_msix."""

    seg: u16
    bus: u8
    devfn: u8
