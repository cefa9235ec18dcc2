# SPDX-License-Identifier: Apache-2.0
"""VDIs and SRs as XenAPI sees them: Domain 0's storage, and files of the host that domains have as disks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

from domzero.dom0.diskspec import DiskSpec
from domzero.dom0.xenapi.world import NAMESPACE, World, derived

HOST_FILES = derived(NAMESPACE, "SR:host files")
"""The SR of files that are in none of Domain 0's."""


@dataclass(frozen=True)
class HostFile:
    """A file of the host that a domain has as a disk."""

    path: str
    format: str
    writable: bool

    @property
    def id(self) -> UUID:
        """Its identity: its path's."""
        return derived(HOST_FILES, self.path)

    @property
    def bytes(self) -> int:
        """Of the file; 0: it is not there."""
        try:
            return Path(self.path).stat().st_size
        except OSError:
            return 0


def vdi_of(world: World, spec: DiskSpec) -> UUID | None:
    """The VDI of a disk's specification; None: its drive is empty."""
    return HostFile(spec.absolute(), spec.format.value, spec.writable).id if spec.target else None


def host_files(world: World) -> dict[UUID, HostFile]:
    """The files that domains have."""
    found = {}
    for record in world.manager.all(halted=True):
        for spec in record.config.disk_specs:
            if spec.target:
                file = HostFile(spec.absolute(), spec.format.value, spec.writable)
                found[file.id] = file
    return found


def default_sr(world: World) -> UUID | None:
    """Where disks are made when nobody says where."""
    return None


def repositories(world: World) -> dict[UUID, UUID]:
    """The SRs."""
    return {HOST_FILES: HOST_FILES}
