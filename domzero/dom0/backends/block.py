# SPDX-License-Identifier: Apache-2.0
"""The block back end (io/blkif.h): a disk image or block device of the host as a guest's disk."""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import asdict, replace

from domzero import _machine
from domzero.abi.io_blkif import VDisk
from domzero.dom0.backends.xenbus import Device, Front, FrontendError, Nodes
from domzero.dom0.diskspec import DiskFormat, DiskLimits, DiskSpec
from domzero.dom0.open_files import OpenDisk
from domzero.errors import ConfigError
from domzero.hypervisor.clock import VirtualClock
from domzero.hypervisor.domain import Domain
from domzero.hypervisor.errors import XenError
from domzero.hypervisor.evtchn import BackendPort, bind_backend, bind_device

SECTOR = 512
"""The protocol's unit, whatever a disk's `sector-size` is: blkif.h since Xen 4.20, and Linux always."""
SIZE_MAX = 1 << 50
"""Bytes that a disk may be made."""
MAX_RING_PAGE_ORDER = 4
MAX_QUEUES = 4
MAX_INDIRECT_SEGMENTS = 256
_PROTOCOLS = {"x86_64-abi": False, "x86_32-abi": True}


def use_disk(spec: DiskSpec, opened: OpenDisk) -> _machine.BlockDisk:
    """The disk in open files, which it takes; a drive with them as its medium. ConfigError: they cannot be used."""
    if not spec.is_cdrom:
        return use_image(spec, opened)
    drive = _machine.BlockDisk.empty_drive()
    change_medium(drive, spec, opened)
    return drive


def change_medium(drive: _machine.BlockDisk, spec: DiskSpec, opened: OpenDisk) -> None:
    """Puts what is in open files, which it takes, into a drive; none: takes out what is there. ConfigError."""
    if not spec.target:
        drive.change(None)
        return
    medium = use_image(spec, opened)
    drive.change(medium)
    medium.close()  # the drive has it


def use_image(spec: DiskSpec, opened: OpenDisk) -> _machine.BlockDisk:
    """What is in open files, which it takes. ConfigError: they cannot be used."""
    try:
        fds = opened.take()
        if spec.format.is_served:
            (connection,) = opened.files
            disk = _machine.BlockDisk.nbd(fds[0], connection.bytes, connection.flags, spec.writable)
        elif spec.format is DiskFormat.QCOW2:
            disk = _machine.BlockDisk.qcow2(fds, opened.files[-1].format is DiskFormat.RAW, spec.writable)
        else:
            disk = _machine.BlockDisk.raw(fds[0], spec.writable)
    except OSError as error:
        reason = "in use by another domain or program" if error.errno == errno.EBUSY else error.strerror or str(error)
        raise ConfigError(f"{spec.target}: {reason}", key="disk") from error
    if disk.sectors * SECTOR < spec.sector_bytes:  # as files of /proc, which have none
        disk.close()
        raise ConfigError(f"{spec.target}: smaller than a sector of {spec.sector_bytes} bytes", key="disk")
    return disk


class BlockDevice(Device):
    """One disk of one domain: a `xenbus.Device`."""

    kind = "vbd"

    def __init__(self, domain: Domain, spec: DiskSpec, disk: _machine.BlockDisk) -> None:
        self.spec = spec
        self.devid = spec.devid
        self.disk = disk
        self.broken: Callable[[str], None] = lambda _: None
        self._domain = domain
        self._rings: list[tuple[_machine.BlockRing, BackendPort | _machine.EventPort]] = []
        self.limit(spec.limits)

    @property
    def sectors(self) -> int:
        """How many of 512 bytes there are now: what makes whole ones of the disk's own size."""
        return self.disk.sectors // self._unit * self._unit

    @property
    def _unit(self) -> int:
        return self.spec.sector_bytes // SECTOR

    def grow(self, bytes: int | None) -> Nodes:
        """Makes the disk this large, or finds out whether it has grown; the nodes that have changed. ConfigError."""
        spec, now = self.spec, self.sectors * SECTOR
        if not self.sectors:
            raise ConfigError(f"{spec.vdev}: there is no medium in it", key="disk")
        if bytes is not None and bytes < now:
            raise ConfigError(f"{spec.vdev} has {now} bytes already: a disk cannot become smaller", key="bytes")
        sector = spec.sector_bytes
        if bytes is not None and (bytes % sector or bytes > SIZE_MAX):
            raise ConfigError(f"{bytes} is not possible: whole sectors of {sector}, at most {SIZE_MAX}", key="bytes")
        if bytes not in (None, now) and not spec.writable:
            raise ConfigError(f"{spec.vdev} is read-only", key="bytes")
        try:
            self.disk.grow(bytes)
        except OSError as error:
            raise ConfigError(f"{spec.target}: {error.strerror or error}", key="disk") from error
        return {"sectors": self.sectors}

    def change_medium(self, spec: DiskSpec, opened: OpenDisk) -> Nodes:
        """Puts another medium into a CD drive, or none; the nodes that have changed. ConfigError."""
        if not self.spec.is_cdrom:
            raise ConfigError(f"{self.spec.vdev} is no CD drive", key="disk", hint="devtype=cdrom makes one")
        change_medium(self.disk, spec, opened)
        self.spec = replace(self.spec, target=spec.target, format=spec.format)
        return {"params": spec.target, "type": self._type, "sectors": self.sectors}

    @property
    def _type(self) -> str:
        return "phy" if self.spec.format is DiskFormat.RAW else "qdisk"

    def limit(self, limits: DiskLimits) -> None:
        """Bounds what the guest may do with the disk from now on."""
        self.spec = replace(self.spec, limits=limits)
        self.disk.limit(**asdict(limits))
        for ring, _ in self._rings:
            ring.ring()  # what waits now may not have to any more

    def front_nodes(self) -> Nodes:
        """Written by the toolstack for the front end."""
        return {"virtual-device": self.devid, "device-type": "cdrom" if self.spec.is_cdrom else "disk"}

    def back_nodes(self) -> Nodes:
        """Written by the toolstack and the back end."""
        spec = self.spec
        nodes: dict[str, str | int] = {
            "params": spec.target,
            "type": self._type,
            "dev": spec.vdev,
            "mode": "w" if spec.writable else "r",
            "device-type": "cdrom" if spec.is_cdrom else "disk",
            "removable": int(spec.is_cdrom),
            "bootable": 1,
            "feature-barrier": 1,
            "feature-flush-cache": 1,
            "feature-persistent": int(spec.persistent_grants),
            "feature-max-indirect-segments": MAX_INDIRECT_SEGMENTS,
            "max-ring-page-order": MAX_RING_PAGE_ORDER,
            "multi-queue-max-queues": MAX_QUEUES,
        }
        if spec.discard and spec.writable:
            nodes |= {"feature-discard": 1, "discard-granularity": 4096, "discard-alignment": 0, "discard-secure": 0}
        return nodes

    def connect(self, front: Front) -> Nodes:
        """Takes the rings that the front end has written into its nodes."""
        protocol = front.text("protocol")
        if protocol is not None and protocol not in _PROTOCOLS:
            raise FrontendError(f"no such protocol: {protocol}")
        is_32bit = self._domain.is_32bit if protocol is None else _PROTOCOLS[protocol]
        queues = front.number("multi-queue-num-queues", 1)
        order = None if front.text("ring-page-order") is None else front.number("ring-page-order")
        if not 1 <= queues <= MAX_QUEUES:
            raise FrontendError(f"{queues} queues: 1 to {MAX_QUEUES} are possible")
        if order is not None and order > MAX_RING_PAGE_ORDER:
            raise FrontendError(f"ring-page-order {order}: {MAX_RING_PAGE_ORDER} is possible")
        persistent = self.spec.persistent_grants and front.number("feature-persistent", 0) != 0
        try:
            for queue in range(queues):
                at = f"queue-{queue}/" if queues > 1 else ""
                self._connect_ring(front, queue, at, order, is_32bit=is_32bit, persistent=persistent)
        except FrontendError:
            self.disconnect()
            raise
        info = VDisk(0)
        if self.spec.is_cdrom:
            info |= VDisk.VDISK_CDROM | VDisk.VDISK_REMOVABLE
        if not self.spec.writable:
            info |= VDisk.VDISK_READONLY
        return {
            "sectors": self.sectors,
            "info": int(info),
            "sector-size": self.spec.sector_bytes,
            "physical-sector-size": self.spec.sector_bytes,
        }

    def _connect_ring(
        self, front: Front, queue: int, at: str, order: int | None, *, is_32bit: bool, persistent: bool
    ) -> None:
        if order is None:
            refs = [front.number(f"{at}ring-ref")]
        else:
            refs = [front.number(f"{at}ring-ref{page}") for page in range(1 << order)]
        port_number = front.number(f"{at}event-channel")
        rings: list[_machine.BlockRing] = []

        def rung() -> None:
            for ring in rings:
                ring.ring()

        is_virtual = isinstance(self._domain.host.clock, VirtualClock)
        port: BackendPort | _machine.EventPort
        try:
            if is_virtual:
                port = bind_backend(self._domain, port_number, rung)
            else:
                port = bind_device(self._domain, port_number)
        except XenError as error:
            raise FrontendError(f"event channel {port_number}: {error}") from error
        name = f"{self.spec.vdev}-{queue}"
        try:
            ring = _machine.BlockRing(
                self._domain.grants.hw,
                self.disk,
                refs,
                is_32bit=is_32bit,
                persistent=persistent,
                sector_bytes=self.spec.sector_bytes,
                port=port.hw if isinstance(port, BackendPort) else port,
                broken=self.broken,
                thread=None if is_virtual else name,
            )
        except _machine.MachineError as error:
            port.close()
            raise FrontendError(str(error)) from error
        rings.append(ring)
        self._rings.append((ring, port))
        ring.ring()  # requests may have come before

    def disconnect(self) -> None:
        """Lets go of all rings; what was asked for before is done."""
        rings, self._rings = self._rings, []
        for ring, port in rings:
            port.close()
            ring.close()

    def close(self) -> None:
        """Lets go of the image, which others may use then."""
        self.disk.close()
