# SPDX-License-Identifier: Apache-2.0
"""/v1/domains/DOMAIN/disks: plug in, change, take away."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query

from domzero.dom0 import disk_changes
from domzero.dom0.actions import AttachDisk, ChangeMedium, DetachDisk, GrowDisk, LimitDisk
from domzero.dom0.api.asking import ASKED, ActionsDep, ActorDep, ManagerDep, RecordDep, forbid_nulls
from domzero.dom0.api.device_models import DiskAttach, DiskInfo, DiskPatch, DiskSize, Medium
from domzero.dom0.api.problems import RESPONSES
from domzero.dom0.device_changes import still_there
from domzero.dom0.diskspec import DiskFormat, device_number, parse_disk
from domzero.dom0.manager import Manager
from domzero.dom0.records import Record

router = APIRouter(prefix="/v1/domains/{domain}/disks", tags=["domains"], responses={422: RESPONSES[422]})
Vdev = Annotated[str, Path(description="The disk's name in the guest", max_length=20, examples=["xvdb"])]


async def _info(manager: Manager, record: Record, devid: int) -> DiskInfo:
    return DiskInfo.of(still_there(await disk_changes.list_disks(manager, record), devid, "the disk"), record)


@router.get("", responses=ASKED)
async def list_disks(record: RecordDep, manager: ManagerDep) -> list[DiskInfo]:
    """Its disks, and what its guest did with them."""
    return [DiskInfo.of(disk, record) for disk in await disk_changes.list_disks(manager, record)]


@router.post("", status_code=201, responses=ASKED)
async def attach_disk(
    record: RecordDep, body: DiskAttach, actions: ActionsDep, actor: ActorDep, manager: ManagerDep
) -> DiskInfo:
    """Plugs a disk in, while the domain runs or is halted."""
    spec = await actions.perform(actor, AttachDisk(domain=record.uuid, spec=body.spec))
    return await _info(manager, record, spec.devid)


@router.patch("/{vdev}", responses=ASKED)
async def change_disk(
    record: RecordDep, vdev: Vdev, body: DiskPatch, actions: ActionsDep, actor: ActorDep, manager: ManagerDep
) -> DiskInfo:
    """Bounds what the guest may do with a disk, from now on and at each start."""
    forbid_nulls(body)
    await actions.perform(actor, LimitDisk(domain=record.uuid, vdev=vdev, limits=body.model_dump(exclude_unset=True)))
    return await _info(manager, record, device_number(vdev))


@router.post("/{vdev}/size", responses=ASKED)
async def grow_disk(
    record: RecordDep, vdev: Vdev, body: DiskSize, actions: ActionsDep, actor: ActorDep, manager: ManagerDep
) -> DiskInfo:
    """Makes a disk larger, or looks whether its file or device has become so; the guest is told."""
    await actions.perform(actor, GrowDisk(domain=record.uuid, vdev=vdev, bytes=body.bytes))
    return await _info(manager, record, device_number(vdev))


@router.put("/{vdev}/medium", responses=ASKED)
async def insert_medium(
    record: RecordDep, vdev: Vdev, body: Medium, actions: ActionsDep, actor: ActorDep, manager: ManagerDep
) -> DiskInfo:
    """Puts a medium into a CD drive, in the place of what is in it; the guest is told."""
    spec = parse_disk(f"format={body.format},vdev={vdev},devtype=cdrom,target={body.target}")
    await actions.perform(actor, ChangeMedium(domain=record.uuid, vdev=vdev, image=spec.target, format=spec.format))
    return await _info(manager, record, spec.devid)


@router.delete("/{vdev}/medium", responses=ASKED)
async def eject_medium(
    record: RecordDep, vdev: Vdev, actions: ActionsDep, actor: ActorDep, manager: ManagerDep
) -> DiskInfo:
    """Takes out what is in a CD drive; the guest is told."""
    await actions.perform(actor, ChangeMedium(domain=record.uuid, vdev=vdev, image="", format=DiskFormat.RAW))
    return await _info(manager, record, device_number(vdev))


@router.delete("/{vdev}", status_code=204, responses=ASKED)
async def detach_disk(
    record: RecordDep,
    vdev: Vdev,
    actions: ActionsDep,
    actor: ActorDep,
    force: Annotated[bool, Query(description="Take it away even if the guest uses it.")] = False,
) -> None:
    """Takes a disk away; 409 if the guest still uses it."""
    await actions.perform(actor, DetachDisk(domain=record.uuid, vdev=vdev, force=force))
