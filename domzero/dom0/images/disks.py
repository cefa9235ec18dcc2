# SPDX-License-Identifier: Apache-2.0
"""What is done with disk images: brought in, taken out, cloned, shown."""

from __future__ import annotations

import os
import uuid
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from domzero.dom0.images import qemu
from domzero.dom0.images.clock import now
from domzero.dom0.images.copying import copy_file, reflink
from domzero.dom0.images.locks import exclusive, in_use
from domzero.dom0.images.partition import Table, read_table
from domzero.dom0.images.seed import seed_of
from domzero.dom0.images.store import LAYERS, DiskImage, DiskStore
from domzero.dom0.images.tools import find_tool
from domzero.errors import ConfigError, ImageError


@dataclass(slots=True, frozen=True)
class Imported:
    """An image that was brought in, and what it looks like."""

    image: DiskImage
    table: Table | None


def import_disk(
    store: DiskStore,
    source: Path,
    name: str,
    *,
    format: str | None = None,
    replace_old: bool = False,
    uploaded: str | None = None,
    is_shared: bool = False,
) -> Imported:
    """Copies a disk into the store: raw as it is, others as qcow2 through qemu-img.

    :param format: raw, qcow2, vhd, vhdx or vmdk; found out by its first bytes when not given.
    :param uploaded: what its sender calls the file, which is in the store's workplace and goes: nothing is copied then.
    :param is_shared: somebody may write to it meanwhile: what is looked at and then read is a copy.
    :raises ImageError: it cannot be read, is damaged, or needs other files.
    """
    if format is not None and format not in qemu.FORMATS:
        raise ConfigError(f"no such format: {format[:40]}", key="format", hint=", ".join(qemu.FORMATS))
    source = source.absolute()
    if not source.is_file():
        raise ImageError(f"{source}: {'not a regular file' if source.exists() else 'No such file or directory'}")
    if is_shared:
        with store.workplace() as place:
            copy_file(source, place / source.name)
            return _import(store, place / source.name, name, format, replace_old, uploaded, is_ours=True)
    return _import(store, source, name, format, replace_old, uploaded, is_ours=uploaded is not None)


def _import(
    store: DiskStore,
    source: Path,
    name: str,
    format: str | None,
    replace_old: bool,
    uploaded: str | None,
    *,
    is_ours: bool,
) -> Imported:
    format = format or qemu.format_of(source)
    kept = "raw" if format == "raw" else "qcow2"
    with store.draft(name, replace_old=replace_old) as draft:
        disk = draft.path / f"disk.{kept}"
        if format == "raw":
            if is_ours:
                source.rename(disk)
            else:
                copy_file(source, disk)
            _fill_sector(disk)
        else:
            qemu.inspect(source, format)
            qemu.convert(source, format, disk, kept)
            disk.chmod(0o600)
        size = qemu.virtual_size(disk, kept)
        if size == 0:
            raise ImageError(f"{source}: there is no disk in it")
        table = read_table(disk, kept, size)
        origin = f"{source.name} ({format}), imported" if uploaded is None else f"{uploaded} ({format}), uploaded"
        image = DiskImage(name, disk.name, kept, size, origin, now())
        return Imported(draft.keep(image), table)


def _fill_sector(disk: Path) -> None:
    """Makes a file's size one that a disk can have."""
    size = disk.stat().st_size
    if size % 512:
        os.truncate(disk, size + 512 - size % 512)


def export_disk(store: DiskStore, name: str, target: Path, format: str) -> None:
    """Writes an image's disk into a file of its own, that must not be there.

    :raises ImageError: it is in use, or cannot be written.
    """
    if format not in qemu.FORMATS:
        raise ConfigError(f"no such format: {format[:40]}", key="format", hint=", ".join(qemu.FORMATS))
    image = store.find(name)
    if target.exists() or target.is_symlink():
        raise ImageError(f"{target}: File exists")
    part = target.with_name(f".{target.name}.part-{uuid.uuid4().hex[:8]}")
    try:
        with exclusive(Path(image.disk), name):
            if image.format == format == "raw":
                copy_file(Path(image.disk), part)
            else:
                qemu.convert(Path(image.disk), image.format, part, format)
        os.link(part, target)  # unlike a renaming, this replaces nothing
    except OSError as error:
        raise ImageError(f"{target}: {error.strerror}") from error
    finally:
        part.unlink(missing_ok=True)


def clone_disk(store: DiskStore, name: str, new_name: str) -> DiskImage:
    """Makes an image with the same contents, in no time and no room: both go on from there on their own.

    Where the file system shares blocks, they do. Otherwise the disk becomes a layer that no longer changes, and both
    images become qcow2 files of what is different. Without qemu-img it is a copy.

    :raises ImageError: it is in use.
    """
    image = store.find(name)
    if name == new_name:
        raise ConfigError("a clone needs a name of its own", key="name")
    disk = Path(image.disk)
    origin = f"{name}, cloned"
    with store.draft(new_name) as draft, store.locked(), exclusive(disk, name) as fd:
        copy = draft.path / disk.name
        shared = _share(fd, copy)
        if not shared and find_tool("qemu-img") is not None:
            layered = image if _is_untouched(image) else _layer(store, image)
            clone = replace(layered, name=new_name, origin=origin, created=now())
            clone = _overlay(clone, draft.path / "disk.qcow2")
            copy = draft.path / clone.disk
        else:
            if not shared:
                copy_file(disk, copy, share=False)
            clone = replace(image, name=new_name, disk=copy.name, origin=origin, created=now())
        copy.chmod(0o600)
        return draft.keep(clone)


def _share(source: int, target: Path) -> bool:
    fd = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        shared = reflink(source, fd)
    finally:
        os.close(fd)
    if not shared:
        target.unlink()
    return shared


def _layer(store: DiskStore, image: DiskImage) -> DiskImage:
    """Makes an image's disk a layer under it; at each moment the image's record names a disk that is whole."""
    disk = Path(image.disk)
    layer = f"{uuid.uuid4().hex}.{image.format}"
    store.layers.mkdir(parents=True, exist_ok=True)
    new = disk.with_name(f"disk-{uuid.uuid4().hex[:8]}.qcow2")
    os.link(disk, store.layers / layer)
    layered = _overlay(replace(image, layers=(layer, *image.layers)), new)
    store.rewrite(layered)
    disk.unlink()
    (store.layers / layer).chmod(0o400)
    return layered


def _overlay(image: DiskImage, path: Path) -> DiskImage:
    """Gives an image a disk that has nothing of its own yet, only what the layers have that it rests on."""
    layer = image.layers[0]
    qemu.overlay(path, f"../{LAYERS}/{layer}", layer.rpartition(".")[2], image.size)
    path.chmod(0o600)
    status = path.stat()
    return replace(image, disk=path.name, format="qcow2", untouched=(status.st_size, status.st_mtime_ns))


def _is_untouched(image: DiskImage) -> bool:
    """Whether nothing was written to its disk since that was laid upon its layers."""
    status = Path(image.disk).stat()
    return bool(image.layers) and image.untouched == (status.st_size, status.st_mtime_ns)


def describe_file(path: Path) -> dict[str, Any]:
    """What a file is that could be imported, for JSON. Errors as of `import_disk`."""
    if not path.is_file():
        raise ImageError(f"{path}: {'not a regular file' if path.exists() else 'No such file or directory'}")
    format = qemu.format_of(path)
    size = path.stat().st_size if format == "raw" else qemu.inspect(path.absolute(), format).size
    table = read_table(path.absolute(), format, size) if size else None
    return {
        "kind": "file",
        "file": str(path.absolute()),
        "format": format,
        "size": size,
        "allocated": path.stat().st_blocks * 512,
        "partitions": None if table is None else table.as_dict(),
    }


def describe(store: DiskStore, image: DiskImage) -> dict[str, Any]:
    """All there is to say about an image, for JSON."""
    disk = Path(image.disk)
    table = read_table(disk, image.format, image.size) if image.format == "raw" or find_tool("qemu-img") else None
    sharing = [
        other.name for other in store.images() if other.name != image.name and set(other.layers) & set(image.layers)
    ]
    return {
        "kind": "disk",
        **image.as_dict(),
        "layers": [str(store.layers / layer) for layer in image.layers],
        "allocated": disk.stat().st_blocks * 512,
        "in_use": in_use(disk),
        "shares_with": sharing,
        "seed": None if (seed := seed_of(image)) is None else str(seed),
        "partitions": None if table is None else table.as_dict(),
    }
