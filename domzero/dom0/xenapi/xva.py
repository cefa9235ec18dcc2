# SPDX-License-Identifier: Apache-2.0
"""XVA: a whole VM in a tar, as XAPI exports and imports it.

First comes `ova.xml`, an XML-RPC value with the records of all objects, in which references are `Ref:NUMBER`; then for
each disk blocks of a MiB, `Ref:NUMBER/BLOCK`, each with its SHA-1 (`.checksum`, or `.xxhash` of newer XAPIs) behind it.
Blocks of zeros are left out, but for the first and the last one.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import tarfile
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from typing import Any
from uuid import UUID

from domzero.dom0.actions import DeleteDisk, UndefineDomain
from domzero.dom0.images.receiving import Writer
from domzero.dom0.records import Record
from domzero.dom0.storage import Disk
from domzero.dom0.vifspec import USER
from domzero.dom0.xenapi import objects
from domzero.dom0.xenapi.failure import Failure
from domzero.dom0.xenapi.raw_vdi import opened
from domzero.dom0.xenapi.registry import KINDS, MESSAGES
from domzero.dom0.xenapi.storage import default_sr, vdi_of
from domzero.dom0.xenapi.values import INT, NULL, PREFIX, reference
from domzero.dom0.xenapi.wire_xml import read_call, value_text
from domzero.dom0.xenapi.world import Call, World
from domzero.errors import DomzeroError

BLOCK = 1 << 20
OVA = "ova.xml"
OVA_MAX = 4 << 20
OBJECTS_MAX = 2000
_TAR_BLOCK = 512
_NAME = re.compile(r"(Ref:[0-9]{1,9})/([0-9]{1,9})(\.checksum|\.xxhash)?", re.ASCII)


# --- out


class Exported:
    """A VM as it is written into an XVA.

    :param disks: those that go with it, by their names in it.
    """

    def __init__(self, world: World, vm: Record) -> None:
        self._world = world
        self._numbers: dict[str, str] = {}
        self.disks: dict[str, Disk] = {}
        stored = {disk.uuid: disk for disk in world.storage.disks()}
        vbds, vifs = objects.vbds_of(world, vm), objects.vifs_of(world, vm)
        wanted: list[tuple[str, UUID]] = [("VM", vm.uuid), *(("VBD", vbd.id) for vbd in vbds)]
        wanted += [("VIF", vif.id) for vif in vifs]
        wanted += dict.fromkeys(("network", objects.network_id(vif.spec.network)) for vif in vifs)
        for vbd in vbds:
            identity = vdi_of(world, vbd.spec)
            if identity is None or identity not in stored:
                continue  # a drive's medium of the host's: it stays there
            wanted += [("VDI", identity), ("SR", stored[identity].storage)]
        wanted = list(dict.fromkeys(wanted))
        for number, (kind, identity) in enumerate(wanted):
            self._numbers[reference(identity)] = f"Ref:{number}"
            if kind == "VDI":
                self.disks[f"Ref:{number}"] = stored[identity]
        self.ova = value_text(
            {
                "version": {"hostname": "domzero", "date": "", "product_brand": "Domzero", "export_vsn": 2},
                "objects": [self._object(kind, identity) for kind, identity in wanted],
            }
        ).encode()

    def _object(self, kind: str, identity: UUID) -> dict[str, Any]:
        it = KINDS[kind].get(self._world, identity)
        record = KINDS[kind].record(self._world, identity, it)
        return {"class": kind, "id": self._numbers[reference(identity)], "snapshot": self._renamed(record)}

    def _renamed(self, value: Any) -> Any:
        """With the names that references have in the file; what is not in it is referred to by none."""
        if isinstance(value, str) and value.startswith(PREFIX):
            return self._numbers.get(value, NULL)
        if isinstance(value, list):
            return [self._renamed(item) for item in value]
        if isinstance(value, Mapping):
            return {key: self._renamed(item) for key, item in value.items()}
        return value


def _entry(name: str, data: bytes) -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.mode = len(data), 0o600
    return info.tobuf(tarfile.USTAR_FORMAT) + data + bytes(-len(data) % _TAR_BLOCK)


async def write(world: World, exported: Exported) -> AsyncIterator[bytes]:
    """The file's bytes. No domain may use a disk while it is written."""
    yield _entry(OVA, exported.ova)
    for name, disk in exported.disks.items():
        async with opened(world.storage, disk, "raw") as (fd, size):
            count = -(-size // BLOCK)
            for number in range(count):
                data = await asyncio.to_thread(os.pread, fd, BLOCK, number * BLOCK)
                if data.count(0) == len(data) and 0 < number < count - 1:
                    continue
                yield _entry(f"{name}/{number:08d}", data)
                yield _entry(
                    f"{name}/{number:08d}.checksum", hashlib.sha1(data, usedforsecurity=False).hexdigest().encode()
                )
    yield bytes(2 * _TAR_BLOCK)


# --- in


class _Reader:
    """A body, so many bytes at a time."""

    def __init__(self, body: AsyncIterator[bytes]) -> None:
        self._body = body
        self._waiting = bytearray()

    async def take(self, count: int) -> bytes:
        """As many bytes. Failure: there are not so many."""
        while len(self._waiting) < count:
            try:
                self._waiting += await anext(self._body)
            except StopAsyncIteration:
                raise Failure("IMPORT_ERROR_PREMATURE_EOF") from None
        data = bytes(self._waiting[:count])
        del self._waiting[:count]
        return data

    async def entry(self, most: int) -> tuple[str, bytes] | None:
        """The next file; None: there are no more. Failure: it is larger than `most`, or this is no tar."""
        head = await self.take(_TAR_BLOCK)
        if not any(head):
            return None
        try:
            info = tarfile.TarInfo.frombuf(head, "utf-8", "surrogateescape")
        except tarfile.HeaderError as error:
            raise Failure("IMPORT_ERROR_UNEXPECTED_FILE", "a tar", str(error)) from error
        if not info.isreg() or not 0 <= info.size <= most:
            raise Failure("IMPORT_ERROR_UNEXPECTED_FILE", f"a file of at most {most} bytes", info.name[:100])
        data = await self.take(info.size + -info.size % _TAR_BLOCK)
        return info.name, data[: info.size]


def read_ova(data: bytes) -> dict[str, tuple[str, dict[str, Any]]]:
    """The objects of an ova.xml: class and record by their names. Failure."""
    text = re.sub(rb"^\s*<\?xml[^>]{0,200}\?>", b"", data)
    call = b"<methodCall><methodName>x</methodName><params><param>" + text + b"</param></params></methodCall>"
    _, values = read_call(call)
    listed = values[0].get("objects") if len(values) == 1 and isinstance(values[0], dict) else None
    if not isinstance(listed, list) or len(listed) > OBJECTS_MAX:
        raise Failure("IMPORT_ERROR_UNEXPECTED_FILE", "objects", OVA)
    found = {}
    for each in listed:
        if not isinstance(each, dict):
            continue
        kind, name, record = each.get("class"), each.get("id"), each.get("snapshot")
        if isinstance(kind, str) and isinstance(name, str) and isinstance(record, dict):
            found[name] = (kind, record)
    return found


class Importer:
    """Makes a VM of a file; what was made goes again if not all of it can be."""

    def __init__(self, call: Call, sr: UUID | None) -> None:
        self._call = call
        self._sr = sr or default_sr(call.world)
        self._disks: dict[str, Disk] = {}
        self._vm: UUID | None = None

    async def run(self, body: AsyncIterator[bytes]) -> UUID:
        """The VM. Failure, DomzeroError."""
        reader = _Reader(body)
        try:
            first = await reader.entry(OVA_MAX)
            if first is None or first[0] != OVA:
                raise Failure("IMPORT_ERROR_UNEXPECTED_FILE", OVA, "" if first is None else first[0][:100])
            await self._make(read_ova(first[1]))
            await self._fill(reader)
        except BaseException:
            await self._undo()
            raise
        assert self._vm is not None
        return self._vm

    async def _send(self, message: str, values: dict[str, Any]) -> UUID:
        do = MESSAGES[message].do
        assert do is not None
        made: UUID = await do(self._call, values)
        return made

    async def _make(self, found: dict[str, tuple[str, dict[str, Any]]]) -> None:
        vms = [(name, record) for name, (kind, record) in found.items() if kind == "VM" and not _is_snapshot(record)]
        if len(vms) != 1:
            raise Failure("IMPORT_ERROR_CANNOT_HANDLE_CHUNKED" if not vms else "NOT_IMPLEMENTED", "one VM in a file")
        name, record = vms[0]
        own = {key: value for key, value in record.items() if key != "affinity"}
        self._vm = await self._send("VM.create", own)
        vbds = [value for kind, value in found.values() if kind == "VBD" and value.get("VM") == name]
        for vbd in vbds:
            vdi = vbd.get("VDI")
            if isinstance(vdi, str) and found.get(vdi, ("",))[0] == "VDI":
                await self._make_disk(vdi, found[vdi][1])
                target = reference(self._disks[vdi].uuid)
            elif vbd.get("type") == "CD":
                target = NULL
            else:
                raise Failure("IMPORT_ERROR_FAILED_TO_FIND_OBJECT", str(vdi)[:100])
            await self._send("VBD.create", {**_of(vbd, _VBD), "VM": reference(self._vm), "VDI": target})
        for kind, vif in found.values():
            if kind == "VIF" and vif.get("VM") == name:
                network = await self._network(found, vif.get("network"))
                await self._send("VIF.create", {**_of(vif, _VIF), "VM": reference(self._vm), "network": network})

    async def _make_disk(self, name: str, record: dict[str, Any]) -> None:
        if name in self._disks:
            return
        size = INT.read(record.get("virtual_size"), "virtual_size")
        given = {"SR": reference(self._sr), "virtual_size": size, **_of(record, ("name_label", "name_description"))}
        made = await self._send("VDI.create", given)
        self._disks[name] = self._call.world.storage.disk(made)

    async def _network(self, found: dict[str, tuple[str, dict[str, Any]]], name: object) -> str:
        """The network of the same name here, or the one to the outside."""
        record = found.get(name, ("", {}))[1] if isinstance(name, str) else {}
        here = objects.networks(self._call.world)
        for key in ("bridge", "name_label"):
            for network in here.values():
                if record.get(key) in (network.name, network.label):
                    return reference(network.id)
        return reference(objects.network_id(USER))

    async def _fill(self, reader: _Reader) -> None:
        """Writes the blocks where those before them end, and what was left out between two numbers beyond that: XAPI
        sends an empty file with a number of its own when it has come upon nothing but zeros for a while."""
        ends = dict.fromkeys(self._disks, (-1, 0))
        async with AsyncExitStack() as stack:
            writers: dict[str, int] = {}
            for name, disk in self._disks.items():
                await stack.enter_async_context(self._call.world.storage.using(disk, "it is imported"))
                writers[name] = os.open(disk.path, os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
                stack.callback(os.close, writers[name])
            last = b""
            while (entry := await reader.entry(BLOCK)) is not None:
                match = _NAME.fullmatch(entry[0])
                if match is None or match[1] not in writers:
                    raise Failure("IMPORT_ERROR_UNEXPECTED_FILE", "a disk's block", entry[0][:100])
                if match[3] == ".checksum":
                    if hashlib.sha1(last, usedforsecurity=False).hexdigest().encode() != entry[1].strip():
                        raise Failure("IMPORT_ERROR_SOME_CHECKSUMS_FAILED")
                elif match[3] is None:
                    last, number = entry[1], int(match[2])
                    before, at = ends[match[1]]
                    if number <= before:
                        raise Failure("IMPORT_ERROR_UNEXPECTED_FILE", f"a block after {before}", entry[0][:100])
                    at += (number - before - 1) * BLOCK
                    await _put(writers[match[1]], self._disks[match[1]], at, last)
                    ends[match[1]] = number, at + len(last)

    async def _undo(self) -> None:
        world = self._call.world
        try:
            if self._vm is not None:
                await self._call.do(UndefineDomain(domain=self._vm))
                world.fields.forget(self._vm)
            for disk in self._disks.values():
                await self._call.do(DeleteDisk(storage=world.storage, disk=disk.uuid))
        except DomzeroError as error:
            world.manager.say(f"what an import has left behind could not be removed: {error}")


_VBD = ("userdevice", "bootable", "mode", "type", "empty", "unpluggable", "other_config", "qos_algorithm_type",
        "qos_algorithm_params")  # fmt: skip
_VIF = ("device", "MAC", "MTU", "other_config", "qos_algorithm_type", "qos_algorithm_params")


def _of(record: dict[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    return {name: record[name] for name in names if name in record}


def _is_snapshot(record: dict[str, Any]) -> bool:
    return record.get("is_a_snapshot") is True


async def _put(fd: int, disk: Disk, at: int, data: bytes) -> None:
    if at + len(data) > disk.bytes:
        raise Failure("VDI_TOO_SMALL", reference(disk.uuid), str(disk.bytes))
    writer = Writer(fd, at + len(data), at)
    await writer.put(data)
    await writer.flush()


__all__ = ["Exported", "Importer", "read_ova", "write"]
