# SPDX-License-Identifier: Apache-2.0
"""VDI: disks."""

from __future__ import annotations

import time
from typing import Any
from uuid import UUID

from domzero.dom0.actions import ChangeDisk, CopyDisk, CreateDisk, DeleteDisk, GrowDisk, ResizeDisk
from domzero.dom0.actors import Role
from domzero.dom0.storage import Disk
from domzero.dom0.xenapi.construct import Given, keep
from domzero.dom0.xenapi.devices import DISKS
from domzero.dom0.xenapi.failure import Failure, handle_invalid, not_allowed
from domzero.dom0.xenapi.storage import HOST_FILES, Vdi, vbds_of_vdi, vdis
from domzero.dom0.xenapi.table import Found, Kind, kept, message, ro, rw
from domzero.dom0.xenapi.values import (
    BOOL,
    DATETIME,
    INT,
    STRING,
    STRING_MAP,
    STRINGS,
    Enum,
    Map,
    Record,
    Ref,
    Set,
    reference,
)
from domzero.dom0.xenapi.world import Call, World

_SELF = Ref("VDI")
SNAPSHOT = "snapshot"
"""What a copy is of, and since when: a name that no field of XAPI's has."""
_SR = Ref("SR")
TYPE = Enum(
    "enum vdi_type",
    ("system", "user", "ephemeral", "suspend", "crashdump", "ha_statefile", "metadata", "redo_log", "rrd",
     "pvs_cache", "cbt_metadata"),
)  # fmt: skip


def managed(found: Found) -> Disk:
    """A disk that is in Domain 0's storage. Failure."""
    if not isinstance(found.it, Disk):
        raise Failure("VDI_NOT_MANAGED", reference(found.identity))
    return found.it


def _is_attached(world: World, vdi: Vdi) -> bool:
    return any(vbd.is_attached for vbd in vbds_of_vdi(world, vdi))


async def _create(call: Call, values: dict[str, Any]) -> UUID:
    """VDI.create."""
    given, world = Given(values), call.world
    sr = given.need("SR", _SR)
    if sr == HOST_FILES.uuid:
        raise Failure("SR_OPERATION_NOT_SUPPORTED", reference(sr))
    if not any(each.uuid == sr for each in world.storage.repositories()):
        raise handle_invalid("SR", reference(sr))
    format = given.get("sm_config", STRING_MAP, {}).get("image-format", "raw")
    given.get("type", TYPE)
    own = given.kept(FIELDS)
    disk = await call.do(
        CreateDisk(
            storage=world.storage,
            repository=sr,
            bytes=given.need("virtual_size", INT),
            name=given.get("name_label", STRING, ""),
            description=given.get("name_description", STRING, ""),
            labels=given.get("other_config", STRING_MAP, {}),
            format=format,
        )
    )
    keep(world, disk.uuid, own)
    return disk.uuid


async def _destroy(call: Call, vdi: Found) -> None:
    """VDI.destroy: with the places that it has in domains that do not run."""
    disk = managed(vdi)
    if _is_attached(call.world, disk):
        raise Failure("VDI_IN_USE", reference(disk.uuid), "destroy")
    delete = DeleteDisk(storage=call.world.storage, disk=disk.uuid)
    call.check(delete)
    for vbd in vbds_of_vdi(call.world, disk):
        await DISKS.remove(call, vbd)
    await call.do(delete)
    call.world.fields.forget(disk.uuid)


async def _resize(call: Call, vdi: Found, size: int) -> None:
    """VDI.resize: also while a guest has it, which is told."""
    disk, world = managed(vdi), call.world
    vbd = next((vbd for vbd in vbds_of_vdi(world, disk) if vbd.is_attached), None)
    if size < disk.bytes:
        raise Failure("VDI_TOO_SMALL", reference(disk.uuid), str(disk.bytes))
    if vbd is None:
        await call.do(ResizeDisk(storage=world.storage, disk=disk.uuid, bytes=size))
    else:
        await call.do(GrowDisk(domain=vbd.vm.uuid, vdev=vbd.spec.vdev, bytes=-(-size // 512) * 512))


async def _clone(call: Call, vdi: Found, driver: dict[str, str] | None = None) -> UUID:
    """VDI.clone."""
    return await _duplicate(call, vdi, None)


async def _copy(call: Call, vdi: Found, sr: Found | None, base: Found | None = None, into: Found | None = None) -> UUID:
    """VDI.copy."""
    if base is not None or into is not None:
        raise Failure("NOT_IMPLEMENTED", "VDI.copy with base_vdi or into_vdi")
    return await _duplicate(call, vdi, None if sr is None else sr.identity)


async def _duplicate(call: Call, vdi: Found, sr: UUID | None) -> UUID:
    disk, world = managed(vdi), call.world
    if _is_attached(world, disk):
        raise Failure("VDI_IN_USE", reference(disk.uuid), "copy")
    if sr == HOST_FILES.uuid:
        raise Failure("SR_OPERATION_NOT_SUPPORTED", reference(sr))
    made = await call.do(CopyDisk(storage=world.storage, disk=disk.uuid, repository=sr))
    world.fields.copy(disk.uuid, made.uuid)
    world.fields.put(made.uuid, SNAPSHOT, {})
    return made.uuid


async def _snapshot(call: Call, vdi: Found, driver: dict[str, str] | None = None) -> UUID:
    """VDI.snapshot: a copy that says when it was made, and of what."""
    made = await _duplicate(call, vdi, None)
    call.world.fields.put(made, SNAPSHOT, {"of": str(vdi.identity), "at": time.time()})
    return made


def _snapshot_of(world: World, vdi: Vdi) -> UUID | None:
    kept: dict[str, Any] = world.fields.get(vdi.uuid, SNAPSHOT, {})
    return UUID(kept["of"]) if kept else None


def _all_snapshots(world: World) -> dict[UUID, list[UUID]]:
    found: dict[UUID, list[UUID]] = {}
    for each in world.storage.disks():
        if (of := _snapshot_of(world, each)) is not None:
            found.setdefault(of, []).append(each.uuid)
    return found


async def _update(call: Call, vdi: Found) -> None:
    """VDI.update: what is said of a disk is looked up anew whenever somebody asks."""


async def _forget(call: Call, vdi: Found) -> None:
    """VDI.forget."""
    raise not_allowed("a disk whose file is in its storage is known to it")


def _put(name: str) -> Any:
    async def put(call: Call, vdi: Vdi, value: Any) -> None:
        disk = managed(Found(vdi.uuid, vdi))
        await call.do(ChangeDisk(storage=call.world.storage, disk=disk.uuid, changes={name: value}))

    return put


def _operations(world: World, vdi: Vdi) -> list[str]:
    if not isinstance(vdi, Disk):
        return []
    attached = any(vbd.is_attached for vbd in vbds_of_vdi(world, vdi))
    return ["resize_online"] if attached else ["clone", "copy", "resize", "destroy", "update", "generate_config"]


FIELDS = (
    ro("uuid", STRING, lambda w, it: it.uuid),
    rw("name_label", STRING, lambda w, it: it.name, _put("name")),
    rw("name_description", STRING, lambda w, it: getattr(it, "description", ""), _put("description")),
    ro("allowed_operations", Set(Enum("enum vdi_operations")), _operations),
    ro("current_operations", Map(STRING, Enum("enum vdi_operations")), default={}),
    ro("SR", _SR, lambda w, it: it.storage),
    ro("VBDs", Set(Ref("VBD")), lambda w, it: [vbd.id for vbd in vbds_of_vdi(w, it)]),
    ro("crash_dumps", Set(Ref("crashdump")), default=[]),
    ro("virtual_size", INT, lambda w, it: it.bytes),
    ro("physical_utilisation", INT, lambda w, it: it.allocated, volatile=True),
    ro("type", TYPE, default="user"),
    kept("sharable", BOOL, False),
    kept("read_only", BOOL, False),
    rw("other_config", STRING_MAP, lambda w, it: getattr(it, "labels", {}), _put("labels")),
    ro("storage_lock", BOOL, default=False),
    ro("location", STRING, lambda w, it: it.path if it.storage == HOST_FILES.uuid else it.uuid),
    ro("managed", BOOL, lambda w, it: isinstance(it, Disk)),
    ro("missing", BOOL, lambda w, it: not it.path.exists()),
    ro("parent", Ref("VDI")),
    kept("xenstore_data"),
    rw("sm_config", STRING_MAP, lambda w, it: {"image-format": it.format}, None),
    ro("is_a_snapshot", BOOL, lambda w, it: _snapshot_of(w, it) is not None),
    ro("snapshot_of", Ref("VDI"), _snapshot_of),
    ro("snapshots", Set(Ref("VDI")), lambda w, it: w.once("snapshots", lambda: _all_snapshots(w)).get(it.uuid, [])),
    ro("snapshot_time", DATETIME, lambda w, it: w.fields.get(it.uuid, SNAPSHOT, {}).get("at", 0)),
    kept("tags", STRINGS),
    ro("allow_caching", BOOL, default=False),
    ro("on_boot", Enum("enum on_boot", ("reset", "persist")), default="persist"),
    ro("metadata_of_pool", Ref("pool")),
    ro("metadata_latest", BOOL, default=False),
    ro("is_tools_iso", BOOL, default=False),
    ro("cbt_enabled", BOOL, default=False),
)

VDI = Kind(
    "VDI",
    FIELDS,
    vdis,
    role=Role.VM_ADMIN,
    audience=lambda w, it: [vbd.vm.uuid for vbd in vbds_of_vdi(w, it)],
    explicit=(
        message("create", _create, _SELF, args=Record("VDI")),
        message("destroy", _destroy, self=_SELF),
        message("resize", _resize, vdi=_SELF, size=INT),
        message("resize_online", _resize, vdi=_SELF, size=INT),
        message("clone", _clone, _SELF, optional=1, vdi=_SELF, driver_params=STRING_MAP),
        message("copy", _copy, _SELF, optional=2, vdi=_SELF, sr=Ref("SR", nullable=True),
                base_vdi=Ref("VDI", nullable=True), into_vdi=Ref("VDI", nullable=True)),
        message("snapshot", _snapshot, _SELF, optional=1, vdi=_SELF, driver_params=STRING_MAP),
        message("update", _update, vdi=_SELF),
        message("forget", _forget, vdi=_SELF),
        *(
            message(name, None, vdi=_SELF)
            for name in (
                "introduce", "db_introduce", "db_forget", "set_missing", "set_managed", "pool_migrate",
                "set_on_boot", "set_allow_caching", "open_database", "read_database_pool_uuid", "enable_cbt",
                "disable_cbt", "set_cbt_enabled", "data_destroy", "list_changed_blocks", "get_nbd_info",
                "generate_config", "set_virtual_size", "set_physical_utilisation", "set_is_a_snapshot",
                "set_snapshot_of", "set_snapshot_time", "set_metadata_of_pool", "checksum",
                "force_unlock", "pool_introduce",
            )
        ),
    ),
)  # fmt: skip
