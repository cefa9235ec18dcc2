# SPDX-License-Identifier: Apache-2.0
"""/v1/storage: directories for disks; /v1/disks: the disks in them, whether a domain has them or not."""

from __future__ import annotations

import asyncio
import datetime
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Depends, Path, Query, Request, Response
from pydantic import Field

from domzero.dom0.about import DESCRIPTION_MAX, LABEL_VALUE_MAX, LABELS_MAX
from domzero.dom0.actions import (
    AddStorage,
    ChangeDisk,
    ChangeStorage,
    CopyDisk,
    CreateDisk,
    DeleteDisk,
    RemoveStorage,
    ResizeDisk,
    ScanStorage,
)
from domzero.dom0.actors import Role
from domzero.dom0.api.asking import LONG, ActionsDep, ActorDep, ServicesDep, forbid_nulls, needs, perform_or_task
from domzero.dom0.api.models import Model, to_time
from domzero.dom0.api.problems import RESPONSES
from domzero.dom0.names import NAME_MAX
from domzero.dom0.storage import BYTES_MAX, BYTES_MIN, FORMATS, Disk, Repository, Storage

HERE: dict[int | str, dict[str, Any]] = {404: RESPONSES[404], 409: RESPONSES[409]}
router = APIRouter(prefix="/v1", tags=["storage"], responses={422: RESPONSES[422]})
PATH_MAX = 4096
READS = needs(Role.READ_ONLY, "storage")
Name = Annotated[str, Field(max_length=NAME_MAX)]
Description = Annotated[str, Field(max_length=DESCRIPTION_MAX)]
Labels = Annotated[
    dict[str, Annotated[str, Field(max_length=LABEL_VALUE_MAX)]],
    Field(max_length=LABELS_MAX, description="For whoever manages it."),
]
Bytes = Annotated[int, Field(strict=True, ge=BYTES_MIN, le=BYTES_MAX, description="Rounded up to a whole sector.")]


class StorageInfo(Model):
    """A directory for disks."""

    uuid: UUID
    name: str
    path: str
    description: str
    labels: dict[str, str]
    total_bytes: Annotated[int, Field(description="Of its file system.")]
    free_bytes: int
    disks: Annotated[int, Field(description="How many there are in it.")]
    default: Annotated[bool, Field(description="Disks are made here if nothing else is said.")]
    created_at: datetime.datetime


class StorageCreate(Model):
    """A directory to be taken in."""

    name: Annotated[str, Field(min_length=1, max_length=NAME_MAX, examples=["big"])]
    path: Annotated[str, Field(max_length=PATH_MAX, description="On the host; made if it is not there.")]
    description: Description = ""
    labels: Labels = Field(default_factory=dict)


class StoragePatch(Model):
    """What may be changed of it; what is not given stays."""

    name: Annotated[str | None, Field(min_length=1, max_length=NAME_MAX)] = None
    description: Description | None = None
    labels: Labels | None = None


class StoredDisk(Model):
    """A disk in storage."""

    uuid: UUID
    storage: UUID
    name: str
    path: Annotated[str, Field(description="On the host: for the `disks` of a domain.")]
    format: str
    description: str
    labels: dict[str, str]
    bytes: Annotated[int, Field(description="As its guest sees it.")]
    allocated_bytes: Annotated[int, Field(description="Of its file on the host's disk.")]
    domains: Annotated[list[str], Field(description="Names of the domains that have it.")]
    created_at: datetime.datetime


class DiskCreate(Model):
    """A disk to be made: empty, or with the content of another one."""

    bytes: Annotated[
        int | None, Field(strict=True, ge=BYTES_MIN, le=BYTES_MAX, description="Of a new disk; of a copy: none.")
    ] = None
    copy_of: Annotated[UUID | None, Field(description="A disk that no domain uses now.")] = None
    storage: Annotated[str | None, Field(max_length=NAME_MAX, description="uuid or name; the default if absent.")] = (
        None
    )
    name: Name = ""
    format: Annotated[str, Field(max_length=20, description=f"Of a new disk: {' or '.join(FORMATS)}.")] = "raw"
    description: Description = ""
    labels: Labels = Field(default_factory=dict)


class StoredDiskPatch(Model):
    """What may be changed of it; what is not given stays."""

    name: Name | None = None
    description: Description | None = None
    labels: Labels | None = None


class NewSize(Model):
    """How large it is to be."""

    bytes: Bytes


async def get_storage(request: Request) -> Storage:
    """Domain 0's."""
    storage: Storage = request.app.state.storage
    return storage


StorageDep = Annotated[Storage, Depends(get_storage)]
StorageKey = Annotated[str, Path(alias="storage", description="uuid or name", max_length=200)]
DiskKey = Annotated[str, Path(alias="disk", description="uuid, or a name that no other has", max_length=200)]


async def get_repository(key: StorageKey, storage: StorageDep) -> Repository:
    """The storage in the path; 404."""
    return storage.repository(key)


async def get_disk(key: DiskKey, storage: StorageDep) -> Disk:
    """The disk in the path; 404."""
    return storage.disk(key)


RepositoryDep = Annotated[Repository, Depends(get_repository)]
DiskDep = Annotated[Disk, Depends(get_disk)]


def _about_storage(storage: Storage, it: Repository) -> StorageInfo:
    total, free = it.room()
    return StorageInfo(
        uuid=it.uuid,
        name=it.name,
        path=str(it.path),
        description=it.description,
        labels=it.labels,
        total_bytes=total,
        free_bytes=free,
        disks=len(storage.disks(it)),
        default=storage.repositories()[0].uuid == it.uuid,
        created_at=to_time(it.created_at),
    )


def _about_disk(storage: Storage, it: Disk) -> StoredDisk:
    return StoredDisk(
        uuid=it.uuid,
        storage=it.storage,
        name=it.name,
        path=str(it.path),
        format=it.format,
        description=it.description,
        labels=it.labels,
        bytes=it.bytes,
        allocated_bytes=it.allocated,
        domains=storage.users(it),
        created_at=to_time(it.created_at),
    )


@router.get("/storage", dependencies=[READS])
async def list_storage(storage: StorageDep) -> list[StorageInfo]:
    """The directories for disks, the default one first."""
    return [_about_storage(storage, each) for each in storage.repositories()]


@router.post("/storage", status_code=201)
async def add_storage(body: StorageCreate, storage: StorageDep, actions: ActionsDep, actor: ActorDep) -> StorageInfo:
    """Takes a directory of the host in, with the raw and qcow2 images that lie in it."""
    return _about_storage(storage, await actions.perform(actor, AddStorage(storage=storage, **body.model_dump())))


@router.get("/storage/{storage}", responses={404: RESPONSES[404]}, dependencies=[READS])
async def read_storage(it: RepositoryDep, storage: StorageDep) -> StorageInfo:
    """One directory."""
    return _about_storage(storage, it)


@router.patch("/storage/{storage}", responses=HERE)
async def change_storage(
    it: RepositoryDep, body: StoragePatch, storage: StorageDep, actions: ActionsDep, actor: ActorDep
) -> StorageInfo:
    """Changes its name, description or labels."""
    forbid_nulls(body)
    action = ChangeStorage(storage=storage, repository=it.uuid, changes=body.model_dump(exclude_unset=True))
    return _about_storage(storage, await actions.perform(actor, action))


@router.delete("/storage/{storage}", status_code=204, responses=HERE)
async def remove_storage(it: RepositoryDep, storage: StorageDep, actions: ActionsDep, actor: ActorDep) -> None:
    """Forgets a directory; its files stay. 409 while a domain has a disk of it."""
    await actions.perform(actor, RemoveStorage(storage=storage, repository=it.uuid))


@router.post("/storage/{storage}/scan", responses=HERE)
async def scan_storage(
    it: RepositoryDep, storage: StorageDep, actions: ActionsDep, actor: ActorDep
) -> list[StoredDisk]:
    """Looks for images that came or went; those that came."""
    found = await actions.perform(actor, ScanStorage(storage=storage, repository=it.uuid))
    return [_about_disk(storage, disk) for disk in found]


@router.get("/disks", responses={404: RESPONSES[404]}, dependencies=[READS])
async def list_disks(
    storage: StorageDep,
    in_: Annotated[str | None, Query(alias="storage", max_length=200, description="Only of this one.")] = None,
) -> list[StoredDisk]:
    """The disks in storage, oldest first."""
    wanted = storage.disks(None if in_ is None else storage.repository(in_))
    return await asyncio.to_thread(lambda: [_about_disk(storage, disk) for disk in wanted])


@router.post("/disks", status_code=201, response_model=StoredDisk, responses={202: LONG, **HERE})
async def create_disk(
    body: DiskCreate, storage: StorageDep, services: ServicesDep, actor: ActorDep, response: Response
) -> Any:
    """Makes an empty disk, or a copy of another one; blocks are shared where the file system can."""
    where = None if body.storage is None else storage.repository(body.storage).uuid
    if body.copy_of is not None:
        action: Any = CopyDisk(storage=storage, disk=body.copy_of, repository=where, name=body.name)
    else:
        action = CreateDisk(
            storage=storage,
            repository=where,
            bytes=body.bytes or 0,
            **body.model_dump(include={"name", "format", "description", "labels"}),
        )

    async def answer(disk: Disk) -> StoredDisk:
        response.headers["Location"] = f"/v1/disks/{disk.uuid}"
        return _about_disk(storage, disk)

    return await perform_or_task(services, actor, action, answer)


@router.get("/disks/{disk}", responses={404: RESPONSES[404]}, dependencies=[READS])
async def read_disk(it: DiskDep, storage: StorageDep) -> StoredDisk:
    """One disk."""
    return _about_disk(storage, it)


@router.patch("/disks/{disk}", responses=HERE)
async def change_stored_disk(
    it: DiskDep, body: StoredDiskPatch, storage: StorageDep, actions: ActionsDep, actor: ActorDep
) -> StoredDisk:
    """Changes its name, description or labels."""
    forbid_nulls(body)
    action = ChangeDisk(storage=storage, disk=it.uuid, changes=body.model_dump(exclude_unset=True))
    return _about_disk(storage, await actions.perform(actor, action))


@router.post("/disks/{disk}/size", responses=HERE)
async def resize_disk(
    it: DiskDep, body: NewSize, storage: StorageDep, actions: ActionsDep, actor: ActorDep
) -> StoredDisk:
    """Makes a disk larger that no domain uses; one that runs grows its disk by its own path."""
    await actions.perform(actor, ResizeDisk(storage=storage, disk=it.uuid, bytes=body.bytes))
    return _about_disk(storage, it)


@router.delete("/disks/{disk}", status_code=204, responses=HERE)
async def delete_disk(it: DiskDep, storage: StorageDep, actions: ActionsDep, actor: ActorDep) -> None:
    """Deletes a disk that no domain has."""
    await actions.perform(actor, DeleteDisk(storage=storage, disk=it.uuid))
