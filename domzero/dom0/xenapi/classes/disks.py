# SPDX-License-Identifier: Apache-2.0
"""VDI, SR and PBD: disks and where they are."""

from __future__ import annotations

from domzero.dom0.xenapi import objects
from domzero.dom0.xenapi.storage import HOST_FILES, HostFile, host_files, repositories, vdi_of
from domzero.dom0.xenapi.table import Kind, kept, ro
from domzero.dom0.xenapi.values import BOOL, DATETIME, INT, STRING, STRING_MAP, STRINGS, Enum, Map, Ref, Set
from domzero.dom0.xenapi.world import World, derived


def _vbds(world: World, it: HostFile) -> list[object]:
    return [vbd.id for vbd in objects.vbds(world).values() if vdi_of(world, vbd.spec) == it.id]


VDI = Kind(
    "VDI",
    (
        ro("uuid", STRING, lambda w, it: it.id),
        ro("name_label", STRING, lambda w, it: it.path.rpartition("/")[2]),
        kept("name_description", STRING),
        ro("allowed_operations", Set(Enum("enum vdi_operations")), default=[]),
        ro("current_operations", Map(STRING, Enum("enum vdi_operations")), default={}),
        ro("SR", Ref("SR"), default=HOST_FILES),
        ro("VBDs", Set(Ref("VBD")), _vbds),
        ro("crash_dumps", Set(Ref("crashdump")), default=[]),
        ro("virtual_size", INT, lambda w, it: it.bytes),
        ro("physical_utilisation", INT, lambda w, it: it.bytes),
        ro("type", Enum("enum vdi_type"), default="user"),
        ro("sharable", BOOL, default=False),
        ro("read_only", BOOL, lambda w, it: not it.writable),
        kept("other_config"),
        ro("storage_lock", BOOL, default=False),
        ro("location", STRING, lambda w, it: it.path),
        ro("managed", BOOL, default=False),
        ro("missing", BOOL, default=False),
        ro("parent", Ref("VDI")),
        kept("xenstore_data"),
        ro("sm_config", STRING_MAP, lambda w, it: {"format": it.format}),
        ro("is_a_snapshot", BOOL, default=False),
        ro("snapshot_of", Ref("VDI")),
        ro("snapshots", Set(Ref("VDI")), default=[]),
        ro("snapshot_time", DATETIME, default=0),
        kept("tags", STRINGS),
        ro("allow_caching", BOOL, default=False),
        ro("on_boot", Enum("enum on_boot", ("reset", "persist")), default="persist"),
        ro("metadata_of_pool", Ref("pool")),
        ro("metadata_latest", BOOL, default=False),
        ro("is_tools_iso", BOOL, default=False),
        ro("cbt_enabled", BOOL, default=False),
    ),
    host_files,
)

SR = Kind(
    "SR",
    (
        ro("uuid", STRING, default=HOST_FILES),
        ro("name_label", STRING, default="Host files"),
        ro("name_description", STRING, default="Files of this host that domains have as disks"),
        ro("allowed_operations", Set(Enum("enum storage_operations")), default=[]),
        ro("current_operations", Map(STRING, Enum("enum storage_operations")), default={}),
        ro("VDIs", Set(Ref("VDI")), lambda w, it: list(host_files(w))),
        ro("PBDs", Set(Ref("PBD")), default=[derived(HOST_FILES, "pbd")]),
        ro("virtual_allocation", INT, default=0),
        ro("physical_utilisation", INT, default=0),
        ro("physical_size", INT, default=0),
        ro("type", STRING, default="file"),
        ro("content_type", STRING, default="user"),
        ro("shared", BOOL, default=False),
        kept("other_config"),
        kept("tags", STRINGS),
        kept("sm_config"),
        ro("blobs", Map(STRING, Ref("blob")), default={}),
        ro("local_cache_enabled", BOOL, default=False),
        ro("introduced_by", Ref("DR_task")),
        ro("clustered", BOOL, default=False),
        ro("is_tools_sr", BOOL, default=False),
    ),
    repositories,
)

PBD = Kind(
    "PBD",
    (
        ro("uuid", STRING, lambda w, it: derived(it, "pbd")),
        ro("host", Ref("host"), lambda w, it: w.host),
        ro("SR", Ref("SR"), lambda w, it: it),
        ro("device_config", STRING_MAP, default={}),
        ro("currently_attached", BOOL, default=True),
        kept("other_config"),
    ),
    lambda w: {derived(sr, "pbd"): sr for sr in repositories(w)},
)
