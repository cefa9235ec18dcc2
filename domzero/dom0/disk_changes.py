# SPDX-License-Identifier: Apache-2.0
"""What Domain 0 does with the disks of a domain that runs. What is changed stays so at the domain's next starts."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from functools import partial

from domzero.dom0.device_changes import wait_gone
from domzero.dom0.device_stats import DiskStats
from domzero.dom0.diskspec import DiskFormat, DiskSpec, device_number, parse_disk
from domzero.dom0.life import DomainState
from domzero.dom0.manager import Manager
from domzero.dom0.messages import AttachDisk, ChangeMedium, DetachDisk, Disks, Done, GrowDisk, LimitDisk, ListDisks
from domzero.dom0.open_files import open_disk
from domzero.dom0.opening import in_thread
from domzero.dom0.records import Record
from domzero.errors import ConfigError


async def list_disks(manager: Manager, record: Record) -> list[DiskStats]:
    """The domain's disks, with what its guest did with them."""
    if record.state is DomainState.HALTED:
        return [DiskStats.at_rest(spec) for spec in record.config.disk_specs]
    return list((await manager.ask(record, ListDisks(), Disks)).disks)


async def attach_disk(manager: Manager, record: Record, text: str) -> DiskSpec:
    """Plugs a disk in. ConfigError."""
    parse_disk(text)
    async with record.plugging:
        if record.state is DomainState.HALTED:
            spec = parse_disk(text, {disk.devid for disk in record.config.disk_specs})
            if any(disk.devid == spec.devid for disk in record.config.disk_specs):
                raise ConfigError(f"there is a disk {spec.vdev} already", key="disk")
            record.config.disks = [*record.config.disks, spec.text(spec.target)]
            await manager.changed(record)
            return spec
        taken = {disk.devid for disk in await list_disks(manager, record)}
        spec = parse_disk(text, taken | {disk.devid for disk in record.config.disk_specs})
        with closing(await in_thread(partial(open_disk, spec))) as disk:
            await manager.ask(record, AttachDisk(spec.text(spec.target), disk.files), Done, disk.fds)
        record.config.disks = [*record.config.disks, spec.text(spec.target)]
    await manager.changed(record)
    return spec


async def detach_disk(manager: Manager, record: Record, vdev: str, *, force: bool) -> None:
    """Takes a disk away, when the guest lets go of it or, with `force`, at once. BadState: it did not in time."""
    devid = device_number(vdev)
    if record.state is DomainState.HALTED:
        record.config.put_disk(_find(record, vdev).devid, None)
        await manager.changed(record)
        return

    async def is_there() -> bool:
        return any(disk.devid == devid for disk in await list_disks(manager, record))

    async with record.plugging:  # what is plugged in at the same time is in the configuration before it is taken out
        await manager.ask(record, DetachDisk(vdev, force), Done)
    await wait_gone(record, vdev, is_there, "unmount it in the guest")


async def limit_disk(manager: Manager, record: Record, vdev: str, changes: dict[str, int]) -> None:
    """Bounds what the guest may do with a disk. ConfigError.

    :param changes: fields of `DiskLimits`; the others stay as they are.
    """
    async with record.plugging:
        spec = _find(record, vdev)
        spec = replace(spec, limits=replace(spec.limits, **changes).check())
        if record.state is not DomainState.HALTED:
            await manager.ask(record, LimitDisk(spec.vdev, spec.limits), Done)
        record.config.put_disk(spec.devid, spec)
    await manager.changed(record)


async def grow_disk(manager: Manager, record: Record, vdev: str, bytes: int | None) -> None:
    """Makes a disk this large, or finds out whether it has grown. ConfigError."""
    async with record.plugging:
        await manager.ask(record, GrowDisk(_find(record, vdev).vdev, bytes), Done)


async def change_medium(manager: Manager, record: Record, vdev: str, target: str, format: DiskFormat) -> None:
    """Puts another medium into a CD drive. ConfigError.

    :param target: path of the image; empty: the drive is, too.
    """
    async with record.plugging:
        spec = _find(record, vdev)
        if not spec.is_cdrom:
            raise ConfigError(f"{vdev} is no CD drive", key="disk", hint="one has devtype=cdrom in its specification")
        spec = replace(spec, target=target, format=format)
        if record.state is not DomainState.HALTED:
            with closing(await in_thread(partial(open_disk, spec))) as disk:
                await manager.ask(record, ChangeMedium(spec.text(target), disk.files), Done, disk.fds)
        record.config.put_disk(spec.devid, spec)
    await manager.changed(record)


def _find(record: Record, vdev: str) -> DiskSpec:
    devid = device_number(vdev)
    spec = next((spec for spec in record.config.disk_specs if spec.devid == devid), None)
    if spec is None:
        raise ConfigError(f"there is no disk {vdev}", key="disk")
    return spec
