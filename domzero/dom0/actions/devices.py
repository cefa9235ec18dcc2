# SPDX-License-Identifier: Apache-2.0
"""Disks and network interfaces of a domain, whether it runs or is halted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from domzero.dom0 import disk_changes, vif_changes
from domzero.dom0.actions.base import DomainAction
from domzero.dom0.actors import Role
from domzero.dom0.diskspec import DiskFormat, DiskSpec, parse_disk
from domzero.dom0.hostfiles import HostFile, Use
from domzero.dom0.manager import Manager
from domzero.dom0.records import Record
from domzero.dom0.vifspec import VifSpec


@dataclass(slots=True, frozen=True, kw_only=True)
class AttachDisk(DomainAction[DiskSpec]):
    """Plug a disk in.

    :param spec: as xl-disk-configuration(5) has it.
    """

    kind: ClassVar[str] = "disk.attach"
    role: ClassVar[Role] = Role.VM_ADMIN
    spec: str

    def host_files(self) -> list[HostFile]:
        """Its image."""
        spec = parse_disk(self.spec)
        return [HostFile(spec.target, Use.DISK, spec.writable, spec.format.value)]

    async def apply(self, manager: Manager, record: Record) -> DiskSpec:
        """Attaches it."""
        return await disk_changes.attach_disk(manager, record, self.spec)


@dataclass(slots=True, frozen=True, kw_only=True)
class DetachDisk(DomainAction[None]):
    """Take a disk away."""

    kind: ClassVar[str] = "disk.detach"
    role: ClassVar[Role] = Role.VM_ADMIN
    vdev: str
    force: bool = False

    async def apply(self, manager: Manager, record: Record) -> None:
        """Detaches it."""
        await disk_changes.detach_disk(manager, record, self.vdev, force=self.force)


@dataclass(slots=True, frozen=True, kw_only=True)
class LimitDisk(DomainAction[None]):
    """Bound what the guest does with a disk.

    :param limits: fields of `DiskLimits`; the others stay.
    """

    kind: ClassVar[str] = "disk.limit"
    role: ClassVar[Role] = Role.VM_ADMIN
    vdev: str
    limits: dict[str, int]

    async def apply(self, manager: Manager, record: Record) -> None:
        """Limits it."""
        await disk_changes.limit_disk(manager, record, self.vdev, self.limits)


@dataclass(slots=True, frozen=True, kw_only=True)
class GrowDisk(DomainAction[None]):
    """Make a disk larger.

    :param bytes: None: as large as what it is made of has become.
    """

    kind: ClassVar[str] = "disk.grow"
    role: ClassVar[Role] = Role.VM_ADMIN
    vdev: str
    bytes: int | None

    async def apply(self, manager: Manager, record: Record) -> None:
        """Grows it."""
        await disk_changes.grow_disk(manager, record, self.vdev, self.bytes)


@dataclass(slots=True, frozen=True, kw_only=True)
class ChangeMedium(DomainAction[None]):
    """Put another medium into a CD drive.

    :param image: its path; empty: none.
    """

    kind: ClassVar[str] = "disk.medium"
    role: ClassVar[Role] = Role.VM_OPERATOR
    vdev: str
    image: str
    format: DiskFormat

    def host_files(self) -> list[HostFile]:
        """The image."""
        return [HostFile(self.image, Use.DISK, format=self.format.value)]

    async def apply(self, manager: Manager, record: Record) -> None:
        """Changes it."""
        await disk_changes.change_medium(manager, record, self.vdev, self.image, self.format)


@dataclass(slots=True, frozen=True, kw_only=True)
class AttachVif(DomainAction[VifSpec]):
    """Plug a network interface in.

    :param spec: as xl-network-configuration(5) has it.
    """

    kind: ClassVar[str] = "vif.attach"
    role: ClassVar[Role] = Role.VM_ADMIN
    spec: str

    async def apply(self, manager: Manager, record: Record) -> VifSpec:
        """Attaches it."""
        return await vif_changes.attach_vif(manager, record, self.spec)


@dataclass(slots=True, frozen=True, kw_only=True)
class DetachVif(DomainAction[None]):
    """Take a network interface away."""

    kind: ClassVar[str] = "vif.detach"
    role: ClassVar[Role] = Role.VM_ADMIN
    devid: int
    force: bool = False

    async def apply(self, manager: Manager, record: Record) -> None:
        """Detaches it."""
        await vif_changes.detach_vif(manager, record, self.devid, force=self.force)


@dataclass(slots=True, frozen=True, kw_only=True)
class SetVif(DomainAction[None]):
    """Change an interface's settings; None: as it is."""

    kind: ClassVar[str] = "vif.set"
    role: ClassVar[Role] = Role.VM_ADMIN
    devid: int
    link: str | None
    rate: str | None

    async def apply(self, manager: Manager, record: Record) -> None:
        """Sets it."""
        await vif_changes.set_vif(manager, record, self.devid, link=self.link, rate=self.rate)
