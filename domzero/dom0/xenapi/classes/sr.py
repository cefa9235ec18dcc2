# SPDX-License-Identifier: Apache-2.0
"""SR and PBD: directories for disks, and that the host has them."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from domzero.dom0.actions import AddStorage, ChangeStorage, RemoveStorage, ScanStorage
from domzero.dom0.actors import Role
from domzero.dom0.storage import Repository
from domzero.dom0.xenapi.failure import Failure, not_allowed
from domzero.dom0.xenapi.storage import HOST_FILES, disks_in, pbd_id, pbds, repositories, vbds_of_vdi
from domzero.dom0.xenapi.table import Found, Kind, kept, message, ro, rw
from domzero.dom0.xenapi.values import BOOL, INT, STRING, STRING_MAP, STRINGS, Enum, Map, Record, Ref, Set, reference
from domzero.dom0.xenapi.world import Call, World

TYPES = ("file", "ext", "iso")
"""Of SRs, all directories here: XAPI's names for those that are nearest."""
UNPLUGGED = "unplugged"
_SELF = Ref("SR")


def own(found: Found) -> Repository:
    """An SR that can be changed. Failure."""
    if found.identity == HOST_FILES.uuid:
        raise Failure("SR_OPERATION_NOT_SUPPORTED", reference(found.identity))
    repository: Repository = found.it
    return repository


async def _create(
    call: Call,
    host: Found,
    device_config: dict[str, str],
    size: int,
    label: str,
    description: str,
    type: str,
    content_type: str,
    shared: bool,
    sm_config: dict[str, str] | None = None,
) -> UUID:
    """SR.create: of type file (or ext, iso), in the directory that device_config says under `location`."""
    if type not in TYPES:
        raise Failure("SR_UNKNOWN_DRIVER", type)
    if not (location := device_config.get("location") or device_config.get("path") or ""):
        raise Failure("SR_BACKEND_FAILURE_220", "", "device_config has no location: the path of a directory", "")
    made = await call.do(AddStorage(storage=call.world.storage, name=label, path=location, description=description))
    if content_type:
        call.world.fields.put(made.uuid, "content_type", content_type)
    return made.uuid


async def _scan(call: Call, sr: Found) -> None:
    """SR.scan."""
    if sr.identity != HOST_FILES.uuid:
        await call.do(ScanStorage(storage=call.world.storage, repository=sr.identity))


async def _update(call: Call, sr: Found) -> None:
    """SR.update: what is said of an SR is looked up anew whenever somebody asks."""


async def _forget(call: Call, sr: Found) -> None:
    """SR.forget: the files stay."""
    repository = own(sr)
    if _is_plugged(call.world, repository):
        raise Failure("SR_HAS_PBD", reference(sr.identity))
    await _remove(call, repository)


async def _destroy(call: Call, sr: Found) -> None:
    """SR.destroy: of one without disks."""
    repository = own(sr)
    if _is_plugged(call.world, repository):
        raise Failure("SR_HAS_PBD", reference(sr.identity))
    if call.world.storage.disks(repository):
        raise Failure("SR_NOT_EMPTY")
    await _remove(call, repository)


async def _remove(call: Call, repository: Repository) -> None:
    await call.do(RemoveStorage(storage=call.world.storage, repository=repository.uuid))
    for identity in (repository.uuid, pbd_id(repository)):
        call.world.fields.forget(identity)


async def _types(call: Call) -> list[str]:
    """SR.get_supported_types."""
    return list(TYPES)


async def _assert_plugged(call: Call, sr: Found) -> None:
    """SR.assert_can_host_ha_statefile: no."""
    raise not_allowed("there is no high availability with one host")


def _put(name: str) -> Any:
    async def put(call: Call, sr: Repository, value: Any) -> None:
        own(Found(sr.uuid, sr))
        action = ChangeStorage(storage=call.world.storage, repository=sr.uuid, changes={name: value})
        await call.do(action)

    return put


async def _put_name(call: Call, sr: Found, value: str) -> None:
    """SR.set_name_label."""
    await _put("name")(call, sr.it, value)


async def _put_description(call: Call, sr: Found, value: str) -> None:
    """SR.set_name_description."""
    await _put("description")(call, sr.it, value)


def _room(world: World, sr: Repository) -> tuple[int, int]:
    return (0, 0) if sr is HOST_FILES else sr.room()


SR = Kind(
    "SR",
    (
        ro("uuid", STRING, lambda w, it: it.uuid),
        ro("name_label", STRING, lambda w, it: it.name),
        ro("name_description", STRING, lambda w, it: it.description),
        ro("allowed_operations", Set(Enum("enum storage_operations")),
           lambda w, it: [] if it is HOST_FILES else ["vdi_create", "vdi_destroy", "vdi_clone", "vdi_resize", "scan",
                                                      "plug", "unplug", "forget", "destroy", "update"]),
        ro("current_operations", Map(STRING, Enum("enum storage_operations")), default={}),
        ro("VDIs", Set(Ref("VDI")), lambda w, it: [vdi.uuid for vdi in disks_in(w, it)]),
        ro("PBDs", Set(Ref("PBD")), lambda w, it: [pbd_id(it)]),
        ro("virtual_allocation", INT, lambda w, it: sum(vdi.bytes for vdi in disks_in(w, it)), volatile=True),
        ro("physical_utilisation", INT, lambda w, it: _room(w, it)[0] - _room(w, it)[1], volatile=True),
        ro("physical_size", INT, lambda w, it: _room(w, it)[0]),
        ro("type", STRING, default="file"),
        kept("content_type", STRING, "user"),
        ro("shared", BOOL, default=False),
        rw("other_config", STRING_MAP, lambda w, it: it.labels, _put("labels")),
        kept("tags", STRINGS),
        kept("sm_config"),
        ro("blobs", Map(STRING, Ref("blob")), default={}),
        ro("local_cache_enabled", BOOL, default=False),
        ro("introduced_by", Ref("DR_task")),
        ro("clustered", BOOL, default=False),
        ro("is_tools_sr", BOOL, default=False),
    ),
    lambda w: repositories(w),
    audience=lambda w, it: {vbd.vm.uuid for vdi in disks_in(w, it) for vbd in vbds_of_vdi(w, vdi)},
    explicit=(
        message("create", _create, _SELF, optional=1, host=Ref("host"), device_config=STRING_MAP, physical_size=INT,
                name_label=STRING, name_description=STRING, type=STRING, content_type=STRING, shared=BOOL,
                sm_config=STRING_MAP),
        message("scan", _scan, sr=_SELF),
        message("update", _update, sr=_SELF),
        message("forget", _forget, sr=_SELF),
        message("destroy", _destroy, sr=_SELF),
        message("get_supported_types", _types, STRINGS),
        message("set_name_label", _put_name, sr=_SELF, value=STRING),
        message("set_name_description", _put_description, sr=_SELF, value=STRING),
        message("assert_can_host_ha_statefile", _assert_plugged, sr=_SELF),
        *(
            message(name, None, sr=_SELF)
            for name in (
                "introduce", "make", "probe", "probe_ext", "set_shared", "create_new_blob", "set_physical_size",
                "set_virtual_allocation", "set_physical_utilisation", "assert_supports_database_replication",
                "enable_database_replication", "disable_database_replication", "get_data_sources",
                "record_data_source", "query_data_source", "forget_data_source_archives", "set_content_type",
            )
        ),
    ),
)  # fmt: skip


def _is_plugged(world: World, sr: Repository) -> bool:
    return not world.fields.get(pbd_id(sr), UNPLUGGED, False)


async def _plug(call: Call, pbd: Found) -> None:
    """PBD.plug."""
    call.world.fields.put(pbd.identity, UNPLUGGED, False)


async def _unplug(call: Call, pbd: Found) -> None:
    """PBD.unplug: not while a domain that runs has a disk of it."""
    own(Found(pbd.it.uuid, pbd.it))
    for vdi in disks_in(call.world, pbd.it):
        if any(vbd.is_attached for vbd in vbds_of_vdi(call.world, vdi)):
            raise Failure("SR_DEVICE_IN_USE", reference(vdi.uuid))
    call.world.fields.put(pbd.identity, UNPLUGGED, True)


PBD = Kind(
    "PBD",
    (
        ro("uuid", STRING, lambda w, it: pbd_id(it)),
        ro("host", Ref("host"), lambda w, it: w.host),
        ro("SR", _SELF, lambda w, it: it.uuid),
        ro("device_config", STRING_MAP, lambda w, it: {"location": str(it.path)}),
        ro("currently_attached", BOOL, _is_plugged),
        kept("other_config"),
    ),
    lambda w: pbds(w),
    explicit=(
        message("plug", _plug, role=Role.POOL_OPERATOR, self=Ref("PBD")),
        message("unplug", _unplug, role=Role.POOL_OPERATOR, self=Ref("PBD")),
        message("create", None, Ref("PBD"), record=Record("PBD")),
        message("destroy", None, self=Ref("PBD")),
        message("set_device_config", None, self=Ref("PBD"), value=STRING_MAP),
    ),
)
