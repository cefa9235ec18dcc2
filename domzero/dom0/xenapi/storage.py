# SPDX-License-Identifier: Apache-2.0
"""VDIs and SRs as XenAPI sees them: Domain 0's storage, and files of the host that domains have as disks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

from domzero.dom0.diskspec import DiskSpec
from domzero.dom0.storage import Disk, Repository
from domzero.dom0.xenapi.objects import Vbd, vbds
from domzero.dom0.xenapi.world import NAMESPACE, World, derived

HOST_FILES = Repository(
    uuid=derived(NAMESPACE, "SR:host files"),
    name="Host files",
    path=Path("/"),
    description="Files of this host that domains have as disks",
    created_at=0,
)
"""The SR of files that are in none of Domain 0's."""


@dataclass(frozen=True)
class HostFile:
    """A file of the host that a domain has as a disk."""

    path: Path
    format: str
    writable: bool

    @property
    def uuid(self) -> UUID:
        """Its identity: its path's."""
        return derived(HOST_FILES.uuid, str(self.path))

    @property
    def name(self) -> str:
        """Of the file."""
        return self.path.name

    @property
    def storage(self) -> UUID:
        """Its SR's."""
        return HOST_FILES.uuid

    @property
    def bytes(self) -> int:
        """Of the file; 0: it is not there."""
        try:
            return self.path.stat().st_size
        except OSError:
            return 0

    @property
    def allocated(self) -> int:
        """Bytes of it on the host's disk."""
        try:
            return self.path.stat().st_blocks * 512
        except OSError:
            return 0


Vdi = Disk | HostFile


def _by_path(world: World) -> dict[str, Disk]:
    return world.once("disks by path", lambda: {str(disk.path): disk for disk in world.storage.disks()})


def vdi_of(world: World, spec: DiskSpec) -> UUID | None:
    """The VDI of a disk's specification; None: its drive is empty."""
    if not spec.target:
        return None
    path = spec.absolute()
    disk = _by_path(world).get(path)
    return disk.uuid if disk is not None else derived(HOST_FILES.uuid, path)


def vdis(world: World) -> dict[UUID, Vdi]:
    """All disks."""
    return world.once("vdis", lambda: _vdis(world))


def _vdis(world: World) -> dict[UUID, Vdi]:
    found: dict[UUID, Vdi] = {disk.uuid: disk for disk in world.storage.disks()}
    for vbd in vbds(world).values():
        spec = vbd.spec
        if spec.target and (identity := vdi_of(world, spec)) is not None and identity not in found:
            found[identity] = HostFile(Path(spec.absolute()), spec.format.value, spec.writable)
    return found


def vbds_of_vdi(world: World, vdi: Vdi) -> list[Vbd]:
    """The disks of domains that are this one."""

    def index() -> dict[UUID, list[Vbd]]:
        found: dict[UUID, list[Vbd]] = {}
        for vbd in vbds(world).values():
            if (identity := vdi_of(world, vbd.spec)) is not None:
                found.setdefault(identity, []).append(vbd)
        return found

    return world.once("vbds by disk", index).get(vdi.uuid, [])


def repositories(world: World) -> dict[UUID, Repository]:
    """The SRs."""
    return {each.uuid: each for each in (*world.storage.repositories(), HOST_FILES)}


def disks_in(world: World, sr: Repository) -> list[Vdi]:
    """The VDIs of an SR."""

    def index() -> dict[UUID, list[Vdi]]:
        found: dict[UUID, list[Vdi]] = {}
        for vdi in vdis(world).values():
            found.setdefault(vdi.storage, []).append(vdi)
        return found

    return world.once("disks by storage", index).get(sr.uuid, [])


def default_sr(world: World) -> UUID | None:
    """Where disks are made when nobody says where: what clients have chosen, or the oldest."""
    found = world.storage.repositories()
    chosen = world.fields.get(world.pool, "default_SR", "")
    for each in found:
        if str(each.uuid) == chosen:
            return each.uuid
    return found[0].uuid if found else None


def pbd_id(sr: Repository) -> UUID:
    """Of the connection between an SR and the host."""
    return derived(sr.uuid, "pbd")


def pbds(world: World) -> dict[UUID, Repository]:
    """Those connections."""
    return {pbd_id(sr): sr for sr in repositories(world).values()}
