# SPDX-License-Identifier: Apache-2.0
"""Kernels that somebody has sent, with their ramdisks, kept as the cache keeps fetched ones."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from domzero.builder.bzimage import is_bzimage
from domzero.builder.decompress import compression_of
from domzero.builder.files import FILE_MAX
from domzero.dom0.images.cache import Image, ImageCache
from domzero.dom0.images.store import DiskStore, data_dir
from domzero.errors import ConfigError, ImageError

RAMDISK_MAX = 1 << 30
KERNEL_MAX = FILE_MAX
_KERNEL, _RAMDISK = "kernel", "ramdisk"
_HEAD = 4096


def kernels_dir() -> Path:
    """Where they are: read by everybody's domains, written by none."""
    return data_dir() / "kernels"


class KernelStore(ImageCache):
    """Kernels that were sent: they cannot be fetched again."""

    def __init__(self) -> None:
        self.root = kernels_dir()

    def keep(self, name: str, file: Path, origin: str, cmdline: str) -> Image:
        """Takes a file in as a new image's kernel; it is moved. ImageError: it is none.

        :param origin: what its sender calls it.
        """
        self.check_new(name)
        _check(file)
        with self.new(Image(name, origin, "uploaded", _KERNEL, "", cmdline)) as place:
            file.rename(place / _KERNEL)
        return self.find(name)

    def add_ramdisk(self, name: str, file: Path) -> Image:
        """Takes a file in as an image's ramdisk, in the place of the one that it has; it is moved."""
        image = self.get(name)
        if image is None:
            raise ConfigError(f"no such kernel: {name}", key="image", hint="ramdisks are for kernels that were sent")
        with self.new(replace(image, kernel=_KERNEL, ramdisk=_RAMDISK)) as place:
            os.link(image.kernel, place / _KERNEL)
            file.rename(place / _RAMDISK)
        return self.find(name)

    def check_new(self, name: str) -> None:
        """Raises ConfigError unless no image has this name."""
        DiskStore().check_new(name)
        if self.get(name) is not None or any(name in (each.name, each.distribution) for each in ImageCache().images()):
            raise ConfigError(f"there is an image {name} already", key="name")


def all_kernels() -> list[Image]:
    """Kernels that were sent, and those that were fetched."""
    return [*KernelStore().images(), *ImageCache().images()]


def remove_kernel(image: Image) -> Image:
    """Deletes one."""
    store = KernelStore()
    return (store if store.get(image.name) is not None else ImageCache()).remove(image.name)


def _check(file: Path) -> None:
    """Raises ImageError for what no kernel begins like; more is for the process that builds a domain of it."""
    with file.open("rb") as opened:
        head = opened.read(_HEAD)
    if not (head.startswith(b"\x7fELF") or is_bzimage(head) or compression_of(head) is not None):
        raise ImageError("this is no kernel: neither bzImage nor ELF, nor one of them compressed")


__all__ = ["KERNEL_MAX", "RAMDISK_MAX", "KernelStore", "all_kernels", "kernels_dir", "remove_kernel"]
