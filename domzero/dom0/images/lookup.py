# SPDX-License-Identifier: Apache-2.0
"""What `--image NAME` means: a kernel with a ramdisk that was fetched or sent, or a disk."""

from __future__ import annotations

from dataclasses import dataclass

from domzero.dom0.images.cache import Image, ImageCache
from domzero.dom0.images.grub import fetch_pvgrub
from domzero.dom0.images.kernels import KernelStore
from domzero.dom0.images.seed import seed_of
from domzero.dom0.images.store import DiskImage, DiskStore
from domzero.dom0.images.tools import Progress
from domzero.errors import ConfigError

DISK_MEMORY_MIB = 512
"""What a distribution that starts from its disk has room in."""


@dataclass(slots=True, frozen=True)
class Start:
    """How an image starts.

    :param disks: in xl.cfg's syntax.
    :param memory_mib: that it needs, unless somebody says otherwise; None: no wishes.
    :param drives: more disks, that come behind all others: what cloud-init reads.
    """

    kernel: str
    ramdisk: str | None
    cmdline: str
    disks: tuple[str, ...] = ()
    memory_mib: int | None = None
    drives: tuple[str, ...] = ()


def find_image(name: str) -> Image | DiskImage:
    """An image by name, or the newest kernel of a distribution; raises ConfigError if there is none."""
    found = DiskStore().get(name) or KernelStore().get(name)
    if found is not None:
        return found
    try:
        return ImageCache().find(name)
    except ConfigError as error:
        hint = f"{error.hint}; `domzero image list` shows what there is"
        raise ConfigError(error.message, key=error.key, hint=hint) from error


def start_of(name: str, progress: Progress) -> Start:
    """How an image starts. Raises ConfigError if there is none, ImageError if GRUB's PV kernel cannot be had."""
    image = find_image(name)
    if isinstance(image, Image):
        return Start(image.kernel, image.ramdisk or None, image.cmdline)
    kernel = str(fetch_pvgrub(progress))
    seed = seed_of(image)
    drives = () if seed is None else (f"format=raw, access=ro, target={seed}",)
    return Start(kernel, None, "", (disk_spec(image),), DISK_MEMORY_MIB, drives)


def disk_spec(image: DiskImage) -> str:
    """An image as the first disk of a domain, in xl.cfg's syntax (xl-disk-configuration); any path, for it is last."""
    return f"format={image.format}, vdev=xvda, access=rw, target={image.disk}"
