# SPDX-License-Identifier: Apache-2.0
"""Disks and network interfaces of a domain whose machine is QEMU's: what they did, and what is changed of them."""

from __future__ import annotations

import asyncio
import os
import re
import stat
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

from domzero.abi.io_xenbus import XenbusState
from domzero.dom0 import messages, networks
from domzero.dom0.config import DomainConfig
from domzero.dom0.device_stats import DiskStats, VifStats
from domzero.dom0.diskspec import DiskFile, DiskSpec, parse_disk
from domzero.dom0.hvmspec import DiskBus
from domzero.dom0.messages import Answer, Done
from domzero.dom0.network import has_switch
from domzero.dom0.networks import Port
from domzero.dom0.qemu.command import DRIVERS, disk_device, disk_id, netdev_words, place_of, vif_device, vif_id
from domzero.dom0.qemu.machine import Job, Machine
from domzero.dom0.qemu.qmp import QmpError, number, objects
from domzero.dom0.vifspec import parse_vif
from domzero.errors import ConfigError, DomzeroError

_DEVICE = re.compile(r"(disk|vif)[0-9]{1,9}")

TRAY_TRIES = 20


def disk_of(handle: Machine, vdev: str) -> DiskSpec:
    """A disk by its name. ConfigError."""
    specs = [] if handle.config is None else handle.config.disk_specs
    for spec in specs:
        if spec.vdev == vdev:
            return spec
    raise ConfigError(f"the domain has no disk {vdev[:40]}", key="disk")


async def disk_stats(handle: Machine) -> tuple[DiskStats, ...]:
    """What guests did with their disks, as QEMU counts it."""
    blocks = {each.get("qdev"): each for each in objects(await handle.qmp.ask("query-block"), "disks")}
    counts = {each.get("qdev"): each for each in objects(await handle.qmp.ask("query-blockstats"), "disks' counts")}
    found = []
    for spec in [] if handle.config is None else handle.config.disk_specs:
        block = _of(blocks, spec)
        count = _of(counts, spec).get("stats", {})
        failed = ("failed_rd_operations", "failed_wr_operations", "failed_flush_operations", "failed_unmap_operations")
        found.append(
            DiskStats(
                vdev=spec.vdev,
                devid=spec.devid,
                target=spec.target,
                format=spec.format.value,
                writable=spec.writable,
                state=XenbusState.XenbusStateConnected,
                bytes=number(block, "inserted", "image", "virtual-size"),
                reads=number(count, "rd_operations"),
                writes=number(count, "wr_operations"),
                read_bytes=number(count, "rd_bytes"),
                written_bytes=number(count, "wr_bytes"),
                flushes=number(count, "flush_operations"),
                discards=number(count, "unmap_operations"),
                errors=sum(number(count, name) for name in failed),
                held=0,
                limits=spec.limits,
            )
        )
    return tuple(found)


def _of(entries: dict[Any, dict[str, Any]], spec: DiskSpec) -> dict[str, Any]:
    """QEMU names a device by its path, which ends in what we have called it, or has that before its inner part."""
    name = disk_id(spec.devid)
    for key, entry in entries.items():
        if isinstance(key, str) and name in key.split("/"):
            return entry
    return {}


async def vif_stats(handle: Machine) -> tuple[VifStats, ...]:
    """The interfaces; QEMU does not count what passes, a network's switch does."""
    config = handle.config
    if config is None or not config.vif_specs:
        return ()
    ports = await asyncio.to_thread(_ports, config)
    found = []
    for spec in config.vif_specs:
        stats = replace(VifStats.at_rest(spec, config.uuid), state=XenbusState.XenbusStateConnected)
        if port := ports.get((spec.network, str(config.uuid), spec.devid)):
            stats = replace(
                stats,
                sent_frames=port.sent_frames,
                sent_bytes=port.sent_bytes,
                received_frames=port.received_frames,
                received_bytes=port.received_bytes,
                spoofed=port.spoofed,
                dropped=port.dropped,
            )
        found.append(stats)
    return tuple(found)


def _ports(config: DomainConfig) -> dict[tuple[str, str, int | None], Port]:
    """The ports of a domain's networks, by network, domain and number."""
    found: dict[tuple[str, str, int | None], Port] = {}
    for name in {spec.network for spec in config.vif_specs if has_switch(spec)}:
        with suppress(DomzeroError):  # it has ended meanwhile
            found |= {(name, port.uuid, port.devid): port for port in networks.network(name).ports}
    return found


async def _list_disks(handle: Machine, request: Any, files: Sequence[int]) -> Answer:
    return messages.Disks(await disk_stats(handle))


async def _list_vifs(handle: Machine, request: Any, files: Sequence[int]) -> Answer:
    return messages.Vifs(await vif_stats(handle))


async def _set_vif(handle: Machine, request: messages.SetVif, files: Sequence[int]) -> Answer:
    config, spec = _config(handle), parse_vif(request.spec)
    before = next((each for each in config.vif_specs if each.devid == spec.devid), spec)
    if spec.rate != before.rate:
        port = await asyncio.to_thread(networks.port_of, spec, config)
        if port is None:
            what = "cards of QEMU's are bounded by the switch of a network of domains"
            raise ConfigError(what, key="rate", hint=f"{spec.network} has none")
        await asyncio.to_thread(networks.set_rate, spec.network, port, spec.rate)
    await handle.qmp.ask("set_link", {"name": vif_id(spec.devid), "up": spec.is_up})
    config.put_vif(spec.devid, spec)
    return Done()


# --- disks that come and go, and what is changed of them


async def _attach_disk(handle: Machine, request: messages.AttachDisk, files: Sequence[int]) -> Answer:
    config = _config(handle)
    spec = parse_disk(request.spec)
    if place_of(spec, config) is not DiskBus.VIRTIO:
        raise ConfigError(
            f"{spec.vdev} has its place only at a start", key="disk", hint="xvdb and the like are virtio's"
        )
    node = await _add_nodes(handle, spec, request.files, files)
    try:
        await handle.qmp.ask("device_add", {key: value for key, value in disk_device(spec, config, node).items()})
    except BaseException:
        await _delete_nodes(handle, spec.devid)
        raise
    config.disks = [*config.disks, request.spec]
    await limit_disk(handle, spec)
    return Done()


async def _detach_disk(handle: Machine, request: messages.DetachDisk, files: Sequence[int]) -> Answer:
    """The guest is asked; `device_deleted` follows when it has let go."""
    spec = disk_of(handle, request.vdev)
    if place_of(spec, _config(handle)) is not DiskBus.VIRTIO:
        raise ConfigError(f"{spec.vdev} stays where it is", key="disk", hint="xvdb and the like come and go")
    await handle.qmp.ask("device_del", {"id": disk_id(spec.devid)})
    return Done()


async def _change_medium(handle: Machine, request: messages.ChangeMedium, files: Sequence[int]) -> Answer:
    config, spec = _config(handle), parse_disk(request.spec)
    if not disk_of(handle, spec.vdev).is_cdrom:
        raise ConfigError(f"{spec.vdev} is no CD drive", key="disk", hint="devtype=cdrom makes one")
    drive = {"id": disk_id(spec.devid)}
    await ask_with_open_tray(handle, "blockdev-remove-medium", drive)
    await _delete_nodes(handle, spec.devid)
    if spec.target:
        node = await _add_nodes(handle, spec, request.files, files)
        await ask_with_open_tray(handle, "blockdev-insert-medium", {**drive, "node-name": node})
    await handle.qmp.ask("blockdev-close-tray", drive)
    config.put_disk(spec.devid, spec)
    return Done()


async def ask_with_open_tray(handle: Machine, command: str, arguments: dict[str, Any]) -> None:
    """Carries out what needs an open tray. A guest may close it at any moment, as a BIOS does."""
    for left in reversed(range(TRAY_TRIES)):
        await handle.qmp.ask("blockdev-open-tray", {"id": arguments["id"], "force": True})
        try:
            await handle.qmp.ask(command, arguments)
            return
        except QmpError as error:
            if "is not open" not in error.message or not left:
                raise


async def _grow_disk(handle: Machine, request: messages.GrowDisk, files: Sequence[int]) -> Answer:
    spec = disk_of(handle, request.vdev)
    if request.bytes is None:
        raise ConfigError("say how large: QEMU does not look again by itself", key="bytes")
    now = next(each.bytes for each in await disk_stats(handle) if each.devid == spec.devid)
    if request.bytes < now:
        raise ConfigError(f"{spec.vdev} has {now} bytes already: a disk cannot become smaller", key="bytes")
    if not spec.writable or request.bytes % 512:
        raise ConfigError("read-only, or no whole sectors of 512", key="bytes")
    await handle.qmp.ask("block_resize", {"node-name": f"{disk_id(spec.devid)}-0", "size": request.bytes})
    return Done()


async def _limit_disk(handle: Machine, request: messages.LimitDisk, files: Sequence[int]) -> Answer:
    spec = replace(disk_of(handle, request.vdev), limits=request.limits.check())
    await limit_disk(handle, spec, always=True)
    _config(handle).put_disk(spec.devid, spec)
    return Done()


async def limit_disk(handle: Machine, spec: DiskSpec, *, always: bool = False) -> None:
    """Tells QEMU the bounds of a disk, if it has any."""
    limits = spec.limits
    if limits.words() or always:
        words = {"bps": limits.bps, "iops": limits.iops, "bps_rd": 0, "bps_wr": 0, "iops_rd": 0, "iops_wr": 0}
        words |= {"bps_max": limits.bps_max} if limits.bps_max else {}
        words |= {"iops_max": limits.iops_max} if limits.iops_max else {}
        name = disk_id(spec.devid)
        if place_of(spec, _config(handle)) is DiskBus.VIRTIO:  # the device behind the one on the bus
            name = f"/machine/peripheral/{name}/virtio-backend"
        await handle.qmp.ask("block_set_io_throttle", {"id": name, **words})


async def _add_nodes(handle: Machine, spec: DiskSpec, kinds: Sequence[DiskFile], files: Sequence[int]) -> str:
    """Gives QEMU an image and what it rests on; the name of the uppermost."""
    if any(kind.format.is_served for kind in kinds):
        raise ConfigError(
            f"a {spec.format.value} image is taken at a start only", key="disk", hint="raw and qcow2 come later, too"
        )
    node = ""
    try:
        for level in reversed(range(len(files))):
            below = {"backing": node} if node else {}
            node, writable = f"{disk_id(spec.devid)}-{level}", spec.writable and level == 0
            number_of_set = number(await handle.qmp.ask("add-fd", {}, [files[level]]), "fdset-id")
            driver = "host_device" if stat.S_ISBLK(os.fstat(files[level]).st_mode) else "file"
            name, access = f"/dev/fdset/{number_of_set}", {"read-only": not writable}
            file = {"driver": driver, "node-name": f"{node}-file", "filename": name, "discard": "unmap", **access}
            await handle.qmp.ask("blockdev-add", file)
            format = DRIVERS[kinds[level].format]
            words = {"driver": format, "node-name": node, "file": f"{node}-file", **access, **below}
            await handle.qmp.ask("blockdev-add", words)
    except BaseException:
        await _delete_nodes(handle, spec.devid)
        raise
    return node


async def _delete_nodes(handle: Machine, devid: int) -> None:
    named = objects(await handle.qmp.ask("query-named-block-nodes"), "block nodes")
    mine = [str(each.get("node-name")) for each in named]
    for name in sorted(name for name in mine if name.startswith(f"{disk_id(devid)}-")):
        await handle.qmp.ask("blockdev-del", {"node-name": name})


# --- interfaces that come and go


async def _attach_vif(handle: Machine, request: messages.AttachVif, files: Sequence[int]) -> Answer:
    config, spec = _config(handle), parse_vif(request.spec)
    (fd,) = files
    name = f"net{spec.devid}"
    await handle.qmp.ask("getfd", {"fdname": name}, [fd])
    await handle.qmp.ask("netdev_add", netdev_words(spec, is_tap=stat.S_ISCHR(os.fstat(fd).st_mode), fd=name))
    try:
        await handle.qmp.ask("device_add", vif_device(spec, config))
    except BaseException:
        await handle.qmp.ask("netdev_del", {"id": name})
        raise
    config.vifs = [*config.vifs, request.spec]
    return Done()


async def _detach_vif(handle: Machine, request: messages.DetachVif, files: Sequence[int]) -> Answer:
    if request.devid not in [spec.devid for spec in _config(handle).vif_specs]:
        raise ConfigError(f"the domain has no interface {request.devid}", key="vif")
    await handle.qmp.ask("device_del", {"id": vif_id(request.devid)})
    return Done()


def is_known(handle: Machine, name: str) -> bool:
    """Whether a device is a disk or an interface of the domain's, or goes as one that it should not have."""
    disks, vifs = _names(_config(handle))
    return name in disks or name in vifs or name in handle.strays


def _names(config: DomainConfig) -> tuple[dict[str, str], dict[str, int]]:
    """Virtual devices of the disks, and numbers of the interfaces, by QEMU's names of them."""
    return {disk_id(disk.devid): disk.vdev for disk in config.disk_specs}, {
        vif_id(vif.devid): vif.devid for vif in config.vif_specs
    }


async def what_there_is(handle: Machine) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Names of the disks and numbers of the interfaces that the domain has and QEMU has, too. A device that was being
    plugged in when Domain 0 was killed is taken away again."""
    disks, vifs = _names(_config(handle))
    listed = objects(await handle.qmp.ask("qom-list", {"path": "/machine/peripheral"}), "devices")
    there = {str(each.get("name")) for each in listed}
    for name in there - disks.keys() - vifs.keys():
        if _DEVICE.fullmatch(name):
            handle.strays.add(name)
            with suppress(QmpError):
                await handle.qmp.ask("device_del", {"id": name})
    return (
        tuple(vdev for name, vdev in disks.items() if name in there),
        tuple(devid for name, devid in vifs.items() if name in there),
    )


async def device_deleted(handle: Machine, name: str) -> None:
    """A device has gone, as the guest agreed to: what was behind it goes, too."""
    config = _config(handle)
    if name in handle.strays:
        handle.strays.discard(name)
        if name.startswith("disk"):
            await _delete_nodes(handle, int(name.removeprefix("disk")))
        else:
            await handle.qmp.ask("netdev_del", {"id": f"net{name.removeprefix('vif')}"})
        return
    for disk in config.disk_specs:
        if name == disk_id(disk.devid):
            await _delete_nodes(handle, disk.devid)
            config.put_disk(disk.devid, None)
            handle.tell(messages.DiskGone(disk.devid))
    for vif in config.vif_specs:
        if name == vif_id(vif.devid):
            await handle.qmp.ask("netdev_del", {"id": f"net{vif.devid}"})
            config.put_vif(vif.devid, None)
            handle.tell(messages.VifGone(vif.devid))


def _config(handle: Machine) -> DomainConfig:
    if handle.config is None:
        raise ConfigError("there is no domain yet")
    return handle.config


JOBS: dict[type, Job] = {
    messages.ListDisks: _list_disks,
    messages.ListVifs: _list_vifs,
    messages.SetVif: _set_vif,
    messages.AttachDisk: _attach_disk,
    messages.DetachDisk: _detach_disk,
    messages.ChangeMedium: _change_medium,
    messages.GrowDisk: _grow_disk,
    messages.LimitDisk: _limit_disk,
    messages.AttachVif: _attach_vif,
    messages.DetachVif: _detach_vif,
}
CHANGES_DISKS = (
    messages.AttachDisk,
    messages.DetachDisk,
    messages.ChangeMedium,
    messages.GrowDisk,
    messages.LimitDisk,
)

__all__ = [
    "CHANGES_DISKS",
    "JOBS",
    "device_deleted",
    "disk_stats",
    "is_known",
    "limit_disk",
    "vif_stats",
    "what_there_is",
]
