# SPDX-License-Identifier: Apache-2.0
"""VBD: disks of domains."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from typing import Any
from uuid import UUID

from domzero.dom0.actions import ChangeMedium
from domzero.dom0.actors import Role
from domzero.dom0.diskspec import DiskFormat, DiskSpec, device_number
from domzero.dom0.xenapi import objects
from domzero.dom0.xenapi.classes.disks import VDI
from domzero.dom0.xenapi.classes.plugging import plugging
from domzero.dom0.xenapi.classes.vm_changes import domain_to_change
from domzero.dom0.xenapi.construct import Given, keep
from domzero.dom0.xenapi.devices import DISKS, free_vdev, vdev_of
from domzero.dom0.xenapi.failure import Failure, handle_invalid, not_allowed
from domzero.dom0.xenapi.objects import HALTED, Vbd, power_state, vbds_of
from domzero.dom0.xenapi.storage import Vdi, vdi_of
from domzero.dom0.xenapi.table import Found, Kind, kept, message, ro, rw
from domzero.dom0.xenapi.values import BOOL, INT, STRING, STRING_MAP, STRINGS, Enum, Map, Record, Ref, Set, reference
from domzero.dom0.xenapi.world import Call, World
from domzero.errors import ConfigError

MODE = Enum("enum vbd_mode", ("RO", "RW"))
TYPE = Enum("enum vbd_type", ("CD", "Disk", "Floppy"))
_SELF = Ref("VBD")
XVD_MAJOR = 202


def userdevice(vbd: Vbd) -> str:
    """The disk's number as XenAPI counts them: xvda is 0, and so is hda."""
    if re.fullmatch("hd[a-d]", vbd.spec.vdev):
        return str(ord(vbd.spec.vdev[2]) - ord("a"))
    number = vbd.spec.devid
    if number >> 8 == XVD_MAJOR:
        return str(number >> 4 & 15)
    return str(number >> 8 & 0xFFFFF) if number >> 28 else vbd.spec.vdev


def _operations(world: World, vbd: Vbd) -> list[str]:
    medium = ["insert" if not vbd.spec.target else "eject"] if vbd.spec.is_cdrom else []
    if vbd.is_attached:
        return ["unplug", "unplug_force", *medium]
    return ["attach", *medium] if power_state(vbd.vm) == HALTED else ["plug", "attach", *medium]


async def _create(call: Call, values: dict[str, Any]) -> UUID:
    """VBD.create."""
    given, world = Given(values), call.world
    vm = domain_to_change(call, given.need("VM", Ref("VM")))
    is_cd = given.get("type", TYPE, "Disk") == "CD"
    vdi = given.get("VDI", Ref("VDI", nullable=True))
    if vdi is None and not is_cd:
        raise handle_invalid("VDI", reference(None))
    wanted = given.get("userdevice", STRING, "autodetect")
    vdev = free_vdev(world, vm) if wanted in ("autodetect", "") else vdev_of(wanted, vm)
    try:
        devid = device_number(vdev)
    except ConfigError as error:
        raise Failure("INVALID_DEVICE", wanted) from error
    if any(vbd.spec.devid == devid for vbd in vbds_of(world, vm)):
        raise Failure("DEVICE_ALREADY_EXISTS", wanted)
    spec = DiskSpec(
        "", DiskFormat.RAW, vdev, devid, given.get("mode", MODE, "RW") == "RW" and not is_cd, is_cdrom=is_cd
    )
    if vdi is not None:
        spec = _with_disk(call, spec, vdi)
    own = given.kept(FIELDS)
    found = Vbd(vm, spec)
    await DISKS.add(call, vm, spec, found.id)
    keep(world, found.id, own)
    return found.id


def _with_disk(call: Call, spec: DiskSpec, identity: UUID) -> DiskSpec:
    vdi: Vdi | None = VDI.find_for(call.world, call.actor, identity)
    if vdi is None:
        raise handle_invalid("VDI", reference(identity))
    if spec.writable and call.world.fields.get(identity, "read_only", False):
        raise Failure("VDI_READONLY", reference(identity))
    return replace(spec, target=str(vdi.path), format=DiskFormat(vdi.format))


async def _eject(call: Call, vbd: Found) -> None:
    """VBD.eject."""
    if not vbd.it.spec.is_cdrom:
        raise Failure("VBD_NOT_REMOVABLE_MEDIA", reference(vbd.identity))
    if not vbd.it.spec.target:
        raise Failure("VBD_IS_EMPTY", reference(vbd.identity))
    await _change(call, vbd.it, "", DiskFormat.RAW)


async def _insert(call: Call, vbd: Found, vdi: Found) -> None:
    """VBD.insert."""
    if not vbd.it.spec.is_cdrom:
        raise Failure("VBD_NOT_REMOVABLE_MEDIA", reference(vbd.identity))
    if vbd.it.spec.target:
        raise Failure("VBD_NOT_EMPTY", reference(vbd.identity))
    await _change(call, vbd.it, str(vdi.it.path), DiskFormat(vdi.it.format))


async def _change(call: Call, vbd: Vbd, target: str, format: DiskFormat) -> None:
    action = ChangeMedium(domain=vbd.vm.uuid, vdev=vbd.spec.vdev, image=target, format=format)
    if vbd.loose:
        await DISKS.change(call, vbd, replace(vbd.spec, target=target, format=format), action)
    else:
        await call.do(action)


async def _put_mode(call: Call, vbd: Vbd, value: str) -> None:
    """VBD.set_mode: of one that its guest does not have."""
    if vbd.is_attached:
        raise not_allowed("the disk is attached")
    if vbd.spec.is_cdrom and value == "RW":
        raise Failure("VBD_CDS_MUST_BE_READONLY")
    changed = replace(vbd.spec, writable=value == "RW")

    async def put() -> None:
        vbd.vm.config.put_disk(vbd.spec.devid, changed)
        await call.world.manager.changed(vbd.vm)

    if vbd.loose:
        await DISKS.change(call, vbd, changed)
    else:
        await call.do_instead(DISKS.attach(vbd.vm, changed), put, vbd.id)


async def _assert_attachable(call: Call, vbd: Found) -> None:
    """VBD.assert_attachable: what it is made of is there."""
    if vbd.it.spec.target and not os.access(vbd.it.spec.target, os.R_OK):
        raise Failure("VDI_IO_ERROR", vbd.it.spec.target)


FIELDS = (
    ro("uuid", STRING, lambda w, it: it.id),
    ro("allowed_operations", Set(Enum("enum vbd_operations")), _operations),
    ro("current_operations", Map(STRING, Enum("enum vbd_operations")), default={}),
    ro("VM", Ref("VM"), lambda w, it: it.vm.uuid),
    ro("VDI", Ref("VDI"), lambda w, it: vdi_of(w, it.spec)),
    ro("device", STRING, lambda w, it: it.spec.vdev),
    rw("userdevice", STRING, lambda w, it: userdevice(it), None),
    kept("bootable", BOOL, False),
    rw("mode", MODE, lambda w, it: "RW" if it.spec.writable else "RO", _put_mode),
    rw("type", TYPE, lambda w, it: "CD" if it.spec.is_cdrom else "Disk", None),
    kept("unpluggable", BOOL, True),
    ro("storage_lock", BOOL, default=False),
    ro("empty", BOOL, lambda w, it: not it.spec.target),
    kept("other_config"),
    ro("currently_attached", BOOL, lambda w, it: it.is_attached),
    ro("status_code", INT, default=0),
    ro("status_detail", STRING, default=""),
    ro("runtime_properties", STRING_MAP, default={}),
    kept("qos_algorithm_type", STRING),
    kept("qos_algorithm_params"),
    ro("qos_supported_algorithms", STRINGS, default=[]),
    ro("metrics", Ref("VBD_metrics")),
)

VBD = Kind(
    "VBD",
    FIELDS,
    objects.vbds,
    role=Role.VM_ADMIN,
    explicit=(
        message("create", _create, _SELF, open=True, args=Record("VBD")),
        *plugging("VBD", DISKS),
        message("eject", _eject, vbd=_SELF),
        message("insert", _insert, vbd=_SELF, vdi=Ref("VDI")),
        message("assert_attachable", _assert_attachable, self=_SELF),
    ),
)
