# SPDX-License-Identifier: Apache-2.0
"""Plugging disks and interfaces of domains in and out."""

from __future__ import annotations

import re

from domzero.dom0 import disk_changes, vif_changes
from domzero.dom0.diskspec import DiskSpec, device_number
from domzero.dom0.manager import BadState
from domzero.dom0.records import Record
from domzero.dom0.vifspec import VifSpec
from domzero.dom0.xenapi.failure import Failure
from domzero.dom0.xenapi.objects import (
    HALTED,
    Vbd,
    Vif,
    keep_loose_disks,
    keep_loose_vifs,
    power_state,
    vbds_of,
    vifs_of,
)
from domzero.dom0.xenapi.values import reference
from domzero.dom0.xenapi.world import World

LETTERS = 26


def vdev_of(userdevice: str) -> str:
    """A disk's name in its guest, by XenAPI's number (0 is xvda) or by the name itself. Failure."""
    if re.fullmatch("[0-9]{1,6}", userdevice):
        number = int(userdevice)
        return f"xvd{chr(ord('a') + number)}" if number < LETTERS else f"d{number}p0"
    return userdevice


def free_vdev(world: World, vm: Record) -> str:
    """The first name of a disk that a domain does not have."""
    taken = {vbd.spec.devid for vbd in vbds_of(world, vm)}
    for number in range(256):
        if device_number(vdev := vdev_of(str(number))) not in taken:
            return vdev
    raise Failure("DEVICE_ALREADY_EXISTS", "autodetect")


def loose_disks(world: World, vm: Record) -> list[DiskSpec]:
    """A domain's disks that are not plugged in."""
    return [vbd.spec for vbd in vbds_of(world, vm) if vbd.loose]


def loose_vifs(world: World, vm: Record) -> list[VifSpec]:
    """Its interfaces that are not plugged in."""
    return [vif.spec for vif in vifs_of(world, vm) if vif.loose]


async def add_disk(world: World, vm: Record, spec: DiskSpec) -> None:
    """Gives a domain a disk; one that runs has it when it is plugged in."""
    if power_state(vm) == HALTED:
        await disk_changes.attach_disk(world.manager, vm, spec.text(spec.target))
    else:
        keep_loose_disks(world, vm, [*loose_disks(world, vm), spec])


async def plug_disk(world: World, vbd: Vbd) -> None:
    """Plugs a loose disk into a domain that runs."""
    await disk_changes.attach_disk(world.manager, vbd.vm, vbd.spec.text(vbd.spec.target))
    rest = [spec for spec in loose_disks(world, vbd.vm) if spec.devid != vbd.spec.devid]
    keep_loose_disks(world, vbd.vm, rest)


async def unplug_disk(world: World, vbd: Vbd, *, force: bool) -> None:
    """Takes a disk out of a domain that runs; it is loose then."""
    try:
        await disk_changes.detach_disk(world.manager, vbd.vm, vbd.spec.vdev, force=force)
    except BadState as error:
        raise Failure("DEVICE_DETACH_REJECTED", "VBD", reference(vbd.id), str(error)) from error
    keep_loose_disks(world, vbd.vm, [*loose_disks(world, vbd.vm), vbd.spec])


async def remove_disk(world: World, vbd: Vbd) -> None:
    """Takes a disk from a domain that does not have it now."""
    if vbd.loose:
        rest = [spec for spec in loose_disks(world, vbd.vm) if spec.devid != vbd.spec.devid]
        keep_loose_disks(world, vbd.vm, rest)
    else:
        await disk_changes.detach_disk(world.manager, vbd.vm, vbd.spec.vdev, force=False)
    world.fields.forget(vbd.id)


async def add_vif(world: World, vm: Record, spec: VifSpec) -> None:
    """As `add_disk`."""
    if power_state(vm) == HALTED:
        await vif_changes.attach_vif(world.manager, vm, spec.text())
    else:
        keep_loose_vifs(world, vm, [*loose_vifs(world, vm), spec])


async def plug_vif(world: World, vif: Vif) -> None:
    """As `plug_disk`."""
    await vif_changes.attach_vif(world.manager, vif.vm, vif.spec.text())
    keep_loose_vifs(world, vif.vm, [spec for spec in loose_vifs(world, vif.vm) if spec.devid != vif.spec.devid])


async def unplug_vif(world: World, vif: Vif, *, force: bool) -> None:
    """As `unplug_disk`."""
    try:
        await vif_changes.detach_vif(world.manager, vif.vm, vif.spec.devid, force=force)
    except BadState as error:
        raise Failure("DEVICE_DETACH_REJECTED", "VIF", reference(vif.id), str(error)) from error
    keep_loose_vifs(world, vif.vm, [*loose_vifs(world, vif.vm), vif.spec])


async def remove_vif(world: World, vif: Vif) -> None:
    """As `remove_disk`."""
    if vif.loose:
        rest = [spec for spec in loose_vifs(world, vif.vm) if spec.devid != vif.spec.devid]
        keep_loose_vifs(world, vif.vm, rest)
    else:
        await vif_changes.detach_vif(world.manager, vif.vm, vif.spec.devid, force=False)
    world.fields.forget(vif.id)


async def plug_all(world: World, vm: Record) -> None:
    """Puts a halted domain's loose devices into its configuration: it starts with all that it has."""
    if power_state(vm) != HALTED:
        return
    for spec in loose_disks(world, vm):
        await disk_changes.attach_disk(world.manager, vm, spec.text(spec.target))
    for vif in loose_vifs(world, vm):
        await vif_changes.attach_vif(world.manager, vm, vif.text())
    if world.fields.get(vm.uuid, "loose disks", []):
        keep_loose_disks(world, vm, [])
    if world.fields.get(vm.uuid, "loose interfaces", []):
        keep_loose_vifs(world, vm, [])
