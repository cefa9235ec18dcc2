# SPDX-License-Identifier: Apache-2.0
"""What is done to disk images that stay where they are: made larger, checked."""

from __future__ import annotations

import os
import re
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

from domzero.dom0.images import qemu
from domzero.dom0.images.locks import exclusive, in_use
from domzero.dom0.images.options import SIZE_MAX, parse_size
from domzero.dom0.images.partition import ALIGNMENT, grow_partition, read_table
from domzero.dom0.images.store import DiskImage, DiskStore
from domzero.dom0.images.tools import find_tool
from domzero.errors import ConfigError, ImageError


def new_size(text: str, present: int) -> int:
    """Bytes of "20G", or of "+5G" more than at present. ConfigError: no size, or a smaller one."""
    size = parse_size(text.removeprefix("+")) + (present if text.startswith("+") else 0)
    if size > SIZE_MAX:
        raise ConfigError("a disk has at most 16T", key="size")
    if size < present:
        hint = "the guest can make its file system smaller; a new, smaller disk is copied to"
        raise ConfigError(f"it has {present >> 20} MiB, and is not made smaller", key="size", hint=hint)
    return size


def resize_disk(store: DiskStore, name: str, text: str) -> DiskImage:
    """Makes an image's disk larger. What is new is zeros; of one that was built here, the partition grows, too.

    :param text: of `new_size`.
    :raises ImageError: it is in use, or there is no room for its tables.
    """
    image = store.find(name)
    disk = Path(image.disk)
    size = new_size(text, qemu.virtual_size(disk, image.format))
    size += -size % (ALIGNMENT if image.recipe else 512)
    with store.locked(), exclusive(disk, name) if image.format == "raw" else nullcontext():
        if image.format == "raw":
            try:
                os.truncate(disk, size)
            except OSError as error:
                raise ImageError(f"{disk}: {error.strerror}") from error
            if image.recipe:
                grow_partition(disk)
        elif in_use(disk):
            raise ImageError(f"{name} is in use", hint="`domzero block-resize` makes disks of domains larger")
        else:
            qemu.resize(disk, image.format, size)
        store.rewrite(replace(image, disk=disk.name, size=size))
    return store.find(name)


def check_disk(store: DiskStore, name: str) -> list[str]:
    """What is wrong with an image's file; nothing if it is sound. Its file systems are not looked at.

    :raises ImageError: it is in use.
    """
    image = store.find(name)
    disk = Path(image.disk)
    if in_use(disk):
        raise ImageError(f"{name} is in use", hint="it is checked when its domain has ended")
    gone = [layer for layer in image.layers if not (store.layers / layer).exists()]
    problems = [f"{layer}, which it rests on, is not there" for layer in gone]
    if problems:
        return problems
    if image.format != "raw":
        problems += qemu.check(disk, image.format)
    if not problems and (size := qemu.virtual_size(disk, image.format)) != image.size:
        problems.append(f"it has {size} bytes, and had {image.size}")
    if not problems and image.recipe and find_tool("sfdisk") is not None:
        table = read_table(disk, image.format, image.size)
        ends = [] if table is None else [partition.start + partition.size for partition in table.partitions]
        if not ends:
            problems.append("its partition table is not there any more")
        problems += ["a partition goes on behind its end" for end in ends if end > image.size]
    return problems


def is_file(word: str) -> bool:
    """Whether a word that may be an image's name is a path."""
    return "/" in word or (re.search(r"\.\w+$", word) is not None and Path(word).is_file())
