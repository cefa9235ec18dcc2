# SPDX-License-Identifier: Apache-2.0
"""Types of domains, and what only those of full virtualization have: firmware, order of boot devices, screen."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

from domzero.errors import ConfigError

BOOT_LETTERS = "cdna"
"""Of `boot`: disks, CD drives, network; `a` is taken, and there is no floppy drive."""
VIDEORAM_MIB_MAX = 256
ACCELERATORS = ("auto", "kvm", "tcg")
"""What executes the code of a domain that is not PV."""

NIC_MODELS = {
    "rtl8139": "rtl8139",
    "e1000": "e1000",
    "e1000e": "e1000e",
    "ne2k_pci": "ne2k_pci",
    "pcnet": "pcnet",
    "virtio": "virtio-net-pci",
    "virtio-net": "virtio-net-pci",
    "virtio-net-pci": "virtio-net-pci",
    "vmxnet3": "vmxnet3",
}
"""QEMU's device for each model that an interface may ask for."""
DEFAULT_MODEL = "rtl8139"
"""xl's."""


class DomainType(str, Enum):
    """xl.cfg's `type`."""

    PV = "pv"
    """A kernel that is ported to Xen's interface, on Domzero's own machine."""
    PVH = "pvh"
    """A kernel that starts without firmware, at its PVH entry point, in a machine of QEMU's."""
    HVM = "hvm"
    """Any system, in a machine of QEMU's with firmware."""

    @property
    def is_full(self) -> bool:
        """Whether its machine is QEMU's."""
        return self is not DomainType.PV


class Firmware(str, Enum):
    """What starts an HVM domain."""

    BIOS = "bios"
    UEFI = "uefi"


class DiskBus(str, Enum):
    """Where hda, hdb, ... of an HVM domain are (xl.cfg's `hdtype`; virtio is our own)."""

    IDE = "ide"
    AHCI = "ahci"
    VIRTIO = "virtio"


class Screen(str, Enum):
    """The display adapter of an HVM domain (xl.cfg's `vga`; virtio is our own)."""

    STD = "std"
    CIRRUS = "cirrus"
    VIRTIO = "virtio"
    NONE = "none"


@dataclass(slots=True, kw_only=True)
class HvmOptions:
    """What an HVM domain has besides.

    :param firmware: what starts it.
    :param boot: letters, the first is tried first: c disks, d CD drives, n network.
    :param hdtype: where disks named hda to hdd are.
    :param vga: its display adapter.
    :param videoram_mib: memory of the adapter.
    :param acpi: whether it has ACPI, without which it cannot be asked to power off.
    :param hpet: whether it has an HPET.
    :param tablet: whether its pointer is a USB tablet, whose position is the viewer's; else it is a PS/2 mouse.
    """

    firmware: Firmware = Firmware.BIOS
    boot: str = "cdn"
    hdtype: DiskBus = DiskBus.IDE
    vga: Screen = Screen.STD
    videoram_mib: int = 16
    acpi: bool = True
    hpet: bool = True
    tablet: bool = True

    def errors(self) -> Iterator[ConfigError]:
        """What cannot be."""
        # "a" is xl's floppy drive, which there is none of; its default is "cda".
        letters = self.boot.replace("a", "")
        if not letters or set(letters) - set(BOOT_LETTERS) or len(set(letters)) != len(letters):
            what = f"{self.boot[:20]!r}: c (disks), d (CD drives) and n (network), each once at most"
            yield ConfigError(what, key="boot", hint='such as "dc"')
        size = self.videoram_mib
        if not 1 <= size <= VIDEORAM_MIB_MAX or size & (size - 1):
            what = f"{size} MiB is not possible: a power of two from 1 to {VIDEORAM_MIB_MAX}"
            yield ConfigError(what, key="videoram")


__all__ = ["ACCELERATORS", "DEFAULT_MODEL", "NIC_MODELS", "DiskBus", "DomainType", "Firmware", "HvmOptions", "Screen"]
