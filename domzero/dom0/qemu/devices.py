# SPDX-License-Identifier: Apache-2.0
"""Disks and network interfaces of a domain whose machine is QEMU's: what they did, and what is changed of them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from domzero.abi.io_xenbus import XenbusState
from domzero.dom0 import messages
from domzero.dom0.device_stats import DiskStats, VifStats
from domzero.dom0.diskspec import DiskSpec
from domzero.dom0.messages import Answer, Done
from domzero.dom0.qemu.command import disk_id, vif_id
from domzero.dom0.qemu.machine import Machine
from domzero.dom0.qemu.qmp import number, objects
from domzero.dom0.vifspec import parse_vif
from domzero.errors import ConfigError


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


def vif_stats(handle: Machine) -> tuple[VifStats, ...]:
    """The interfaces; QEMU does not count what passes."""
    config = handle.config
    if config is None:
        return ()
    at_rest = [VifStats.at_rest(spec, config.uuid) for spec in config.vif_specs]
    return tuple(at_rest)


async def _list_disks(handle: Machine, request: Any, files: Sequence[int]) -> Answer:
    return messages.Disks(await disk_stats(handle))


async def _list_vifs(handle: Machine, request: Any, files: Sequence[int]) -> Answer:
    return messages.Vifs(vif_stats(handle))


async def _set_vif(handle: Machine, request: messages.SetVif, files: Sequence[int]) -> Answer:
    spec = parse_vif(request.spec)
    if spec.rate is not None:
        raise ConfigError("QEMU's cards have no such bound", key="rate")
    await handle.qmp.ask("set_link", {"name": vif_id(spec.devid), "up": spec.is_up})
    return Done()


_Job = Callable[[Machine, Any, Sequence[int]], Awaitable[Answer]]
JOBS: dict[type, _Job] = {
    messages.ListDisks: _list_disks,
    messages.ListVifs: _list_vifs,
    messages.SetVif: _set_vif,
}

__all__ = ["JOBS", "disk_stats", "vif_stats"]
