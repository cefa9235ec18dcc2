# SPDX-License-Identifier: Apache-2.0
"""Plugging disks and interfaces of domains in and out."""

from __future__ import annotations

import re

from domzero.dom0 import disk_changes, vif_changes
from domzero.dom0.actions import AttachDisk, AttachVif, DetachDisk, DetachVif
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
from domzero.dom0.xenapi.world import Call, World

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


async def add_disk(call: Call, vm: Record, spec: DiskSpec) -> None:
    """Gives a domain a disk; one that runs has it when it is plugged in."""
    world = call.world
    attach = AttachDisk(domain=vm.uuid, spec=spec.text(spec.target))
    if power_state(vm) == HALTED:
        await call.do(attach)
    else:
        call.check(attach)
        keep_loose_disks(world, vm, [*loose_disks(world, vm), spec])


async def plug_disk(call: Call, vbd: Vbd) -> None:
    """Plugs a loose disk into a domain that runs."""
    world = call.world
    await call.do(AttachDisk(domain=vbd.vm.uuid, spec=vbd.spec.text(vbd.spec.target)))
    rest = [spec for spec in loose_disks(world, vbd.vm) if spec.devid != vbd.spec.devid]
    keep_loose_disks(world, vbd.vm, rest)


async def unplug_disk(call: Call, vbd: Vbd, *, force: bool) -> None:
    """Takes a disk out of a domain that runs; it is loose then."""
    world = call.world
    try:
        await call.do(DetachDisk(domain=vbd.vm.uuid, vdev=vbd.spec.vdev, force=force))
    except BadState as error:
        raise Failure("DEVICE_DETACH_REJECTED", "VBD", reference(vbd.id), str(error)) from error
    keep_loose_disks(world, vbd.vm, [*loose_disks(world, vbd.vm), vbd.spec])


async def remove_disk(call: Call, vbd: Vbd) -> None:
    """Takes a disk from a domain that does not have it now."""
    world = call.world
    detach = DetachDisk(domain=vbd.vm.uuid, vdev=vbd.spec.vdev)
    if vbd.loose:
        call.check(detach)
        rest = [spec for spec in loose_disks(world, vbd.vm) if spec.devid != vbd.spec.devid]
        keep_loose_disks(world, vbd.vm, rest)
    else:
        await call.do(detach)
    world.fields.forget(vbd.id)


async def add_vif(call: Call, vm: Record, spec: VifSpec) -> None:
    """As `add_disk`."""
    world = call.world
    attach = AttachVif(domain=vm.uuid, spec=spec.text())
    if power_state(vm) == HALTED:
        await call.do(attach)
    else:
        call.check(attach)
        keep_loose_vifs(world, vm, [*loose_vifs(world, vm), spec])


async def plug_vif(call: Call, vif: Vif) -> None:
    """As `plug_disk`."""
    world = call.world
    await call.do(AttachVif(domain=vif.vm.uuid, spec=vif.spec.text()))
    keep_loose_vifs(world, vif.vm, [spec for spec in loose_vifs(world, vif.vm) if spec.devid != vif.spec.devid])


async def unplug_vif(call: Call, vif: Vif, *, force: bool) -> None:
    """As `unplug_disk`."""
    world = call.world
    try:
        await call.do(DetachVif(domain=vif.vm.uuid, devid=vif.spec.devid, force=force))
    except BadState as error:
        raise Failure("DEVICE_DETACH_REJECTED", "VIF", reference(vif.id), str(error)) from error
    keep_loose_vifs(world, vif.vm, [*loose_vifs(world, vif.vm), vif.spec])


async def remove_vif(call: Call, vif: Vif) -> None:
    """As `remove_disk`."""
    world = call.world
    detach = DetachVif(domain=vif.vm.uuid, devid=vif.spec.devid)
    if vif.loose:
        call.check(detach)
        rest = [spec for spec in loose_vifs(world, vif.vm) if spec.devid != vif.spec.devid]
        keep_loose_vifs(world, vif.vm, rest)
    else:
        await call.do(detach)
    world.fields.forget(vif.id)


async def plug_all(call: Call, vm: Record) -> None:
    """Puts a halted domain's loose devices into its configuration: it starts with all that it has."""
    world = call.world
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
