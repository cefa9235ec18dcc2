# SPDX-License-Identifier: Apache-2.0
"""The disks of one domain."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing

from domzero import _machine
from domzero.dom0.backends.block import SECTOR, BlockDevice, use_disk
from domzero.dom0.backends.devices import Devices
from domzero.dom0.device_stats import DiskStats
from domzero.dom0.diskspec import DiskLimits, DiskSpec, device_number
from domzero.dom0.open_files import OpenDisk
from domzero.dom0.xenstore.remote import StoreApi
from domzero.errors import ConfigError
from domzero.hypervisor.domain import Domain


class DomainDisks:
    """Methods may be called from any thread but a vCPU's, without `host.lock`."""

    def __init__(self, store: StoreApi, domain: Domain) -> None:
        self._devices: Devices[BlockDevice] = Devices(store, domain, "disk")

    def plug(self, spec: DiskSpec, disk: _machine.BlockDisk) -> None:
        """Gives the domain a disk that is open already; it is closed with the domain."""
        self._devices.plug(BlockDevice(self._devices.domain, spec, disk), f"a disk {spec.vdev}")

    def attach(self, spec: DiskSpec, opened: OpenDisk) -> None:
        """Plugs a disk in; the guest is told by its nodes in xenstore.

        :param opened: its files, closed with the disk or when it is refused.
        """
        try:  # before its image is found to be in use, by this very domain
            self._devices.check_free(spec.devid, f"a disk {spec.vdev}")
        except ConfigError:
            opened.close()
            raise
        self.plug(spec, use_disk(spec, opened))

    def detach(self, vdev: str, *, force: bool) -> None:
        """Asks the guest to let go of a disk; with `force` it has no choice. ConfigError: there is none."""
        self._devices.unplug(device_number(vdev), f"disk {vdev}", force=force)

    def grow(self, vdev: str, bytes: int | None) -> None:
        """Makes a disk this large, or finds out whether it has grown; the guest is told. ConfigError."""
        device, back_end = self._devices.find(device_number(vdev), f"disk {vdev}")
        back_end.refresh(device.grow(bytes))

    def change_medium(self, spec: DiskSpec, opened: OpenDisk) -> None:
        """Puts another medium, or none, into a CD drive; the guest is told. ConfigError.

        :param opened: its files, closed with the medium or when it is refused.
        """
        with closing(opened):
            device, back_end = self._devices.find(spec.devid, f"disk {spec.vdev}")
            back_end.refresh(device.change_medium(spec, opened))

    def limit(self, vdev: str, limits: DiskLimits) -> None:
        """Bounds what the guest may do with a disk from now on. ConfigError: there is none."""
        self._devices.find(device_number(vdev), f"disk {vdev}")[0].limit(limits)

    def stats(self) -> Iterator[DiskStats]:
        """The disks that there are, in the order of their numbers."""
        for device, back_end in self._devices.all():
            spec, counts = device.spec, device.disk.counts
            yield DiskStats(
                vdev=spec.vdev,
                devid=device.devid,
                target=spec.target,
                format=spec.format.value,
                writable=spec.writable,
                state=int(back_end.state),
                bytes=device.sectors * SECTOR,
                reads=counts.reads,
                writes=counts.writes,
                read_bytes=counts.read_bytes,
                written_bytes=counts.written_bytes,
                flushes=counts.flushes,
                discards=counts.discards,
                errors=counts.errors,
                held=counts.held,
                limits=spec.limits,
            )

    def tell_gone(self, told: Callable[[int], None]) -> None:
        """Lets `told` have the number of each disk that is taken away, when it is, in whatever thread."""
        self._devices.on_gone = told

    def close(self) -> None:
        """Lets go of all of them."""
        self._devices.close()
