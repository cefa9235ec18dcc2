# SPDX-License-Identifier: Apache-2.0
"""The disks of one domain: plugged in when it is built or while it runs, and taken away."""

from __future__ import annotations

import threading
from collections.abc import Iterator

from domzero import _machine
from domzero.dom0.backends.block import SECTOR, BlockDevice, use_disk
from domzero.dom0.backends.xenbus import BackEnd
from domzero.dom0.diskspec import DiskSpec, device_number
from domzero.dom0.messages import DiskStats
from domzero.dom0.open_files import OpenDisk
from domzero.dom0.xenstore.remote import StoreApi
from domzero.errors import ConfigError
from domzero.hypervisor.domain import Domain


class DomainDisks:
    """Methods may be called from any thread but a vCPU's, without `host.lock`."""

    def __init__(self, store: StoreApi, domain: Domain) -> None:
        self._store = store
        self._domain = domain
        self._lock = threading.Lock()
        self._disks: dict[int, tuple[BlockDevice, BackEnd]] = {}
        self._is_closed = False

    def plug(self, spec: DiskSpec, disk: _machine.BlockDisk) -> None:
        """Gives the domain a disk that is open already; it is closed with the domain."""
        with self._lock:
            self._forget_gone()
            if self._is_closed or spec.devid in self._disks:
                disk.close()
                raise ConfigError(f"there is a disk {spec.vdev} already", key="disk")
            device = BlockDevice(self._domain, spec, disk)
            back_end = BackEnd(self._store, self._domain, device, self._domain.log)
            back_end.start()
            self._disks[spec.devid] = device, back_end

    def attach(self, spec: DiskSpec, opened: OpenDisk) -> None:
        """Plugs a disk in; the guest is told by its nodes in xenstore.

        :param opened: its files, closed with the disk or when it is refused.
        """
        with self._lock:
            self._forget_gone()
            is_there = spec.devid in self._disks
        if is_there:  # before its image is found to be in use, by this very domain
            opened.close()
            raise ConfigError(f"there is a disk {spec.vdev} already", key="disk")
        self.plug(spec, use_disk(spec, opened))

    def detach(self, vdev: str, *, force: bool) -> None:
        """Asks the guest to let go of a disk; with `force` it has no choice. ConfigError: there is none."""
        with self._lock:
            self._forget_gone()
            found = self._disks.get(device_number(vdev))
            if found is None:
                raise ConfigError(f"there is no disk {vdev}", key="disk")
        found[1].unplug(force=force)

    def stats(self) -> Iterator[DiskStats]:
        """The disks that there are, in the order of their numbers."""
        with self._lock:
            self._forget_gone()
            found = sorted(self._disks.items())
        for devid, (device, back_end) in found:
            spec, counts = device.spec, device.disk.counts
            yield DiskStats(
                vdev=spec.vdev,
                devid=devid,
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
            )

    def close(self) -> None:
        """Lets go of all of them."""
        with self._lock:
            self._is_closed = True
            disks, self._disks = list(self._disks.values()), {}
        for _, back_end in disks:
            back_end.close()

    def _forget_gone(self) -> None:
        for devid, (_, back_end) in list(self._disks.items()):
            if back_end.is_gone:
                del self._disks[devid]
