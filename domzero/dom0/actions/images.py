# SPDX-License-Identifier: Apache-2.0
"""What is done with images that domains start from; the network is asked for what `domzero image` asks it for."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from domzero.dom0.actions.base import Action
from domzero.dom0.actors import Role
from domzero.dom0.config import DomainConfig
from domzero.dom0.events import Operation
from domzero.dom0.hostfiles import HostFile, Use
from domzero.dom0.images import job
from domzero.dom0.images.cache import Image, ImageCache
from domzero.dom0.images.disks import clone_disk
from domzero.dom0.images.kernels import KERNEL_MAX, RAMDISK_MAX, KernelStore, remove_kernel
from domzero.dom0.images.lookup import find_image
from domzero.dom0.images.options import FirstBoot, check_image_name
from domzero.dom0.images.receiving import received
from domzero.dom0.images.seed import Documents, keep_seed, user_data
from domzero.dom0.images.store import DiskImage, DiskStore, data_dir
from domzero.dom0.images.upkeep import resize_disk
from domzero.dom0.manager import Manager
from domzero.dom0.names import shown
from domzero.dom0.places import real_path
from domzero.dom0.roster import NotFound
from domzero.dom0.tasks import report_progress, report_step
from domzero.errors import ConfigError, ImageError


@dataclass(slots=True, frozen=True, kw_only=True)
class CloneImage(Action[DiskImage]):
    """Make another disk with the same contents, for a machine of its own.

    :param size: `20G`, or `+5G` for so much more; empty: as large as the image.
    :param first: what the clone's first start finds; None: what the image's would.
    """

    kind: ClassVar[str] = "image.clone"
    role: ClassVar[Role] = Role.VM_ADMIN
    image: str
    name: str
    size: str = ""
    first: FirstBoot | None = None

    async def run(self, manager: Manager) -> DiskImage:
        """Clones it."""
        check_image_name(self.name)
        if self.first is not None:
            self.first.check()
        clone = await asyncio.to_thread(self._clone)
        manager.events.note("image", clone.name, Operation.ADD)
        return clone

    def detail(self) -> dict[str, Any]:
        """The two names: there may be a password in the rest."""
        return {"image": self.image, "name": self.name}

    def _clone(self) -> DiskImage:
        store = DiskStore()
        if store.get(self.image) is None:
            raise NotFound(f"no such disk image: {self.image}")
        clone = clone_disk(store, self.image, self.name)
        try:
            if self.size:
                clone = resize_disk(store, self.name, self.size)
            if self.first is not None:
                keep_seed(clone, Documents(user_data(self.first), self.first.hostname))
        except BaseException:
            store.remove(self.name)
            raise
        return clone


@dataclass(slots=True, frozen=True, kw_only=True)
class FetchImage(Action[Image]):
    """Get the newest kernel of the host's own Debian, and build an initramfs, unless they are there.

    :param refresh: ask the mirrors for what is newest, even if the package lists are fresh.
    """

    kind: ClassVar[str] = "image.fetch"
    role: ClassVar[Role] = Role.POOL_OPERATOR
    refresh: bool = False

    async def run(self, manager: Manager) -> Image:
        """Fetches it."""
        name = await job.run({"kind": "fetch", "refresh": self.refresh}, report_step)
        manager.events.note("image", name, Operation.ADD)
        return await asyncio.to_thread(ImageCache().find, name)


@dataclass(slots=True, frozen=True, kw_only=True)
class BuildImage(Action[DiskImage]):
    """Make a disk with Debian on it, unless one of this name was made the same way.

    :param size: of the disk, as `4G`.
    :param packages: that it has beside those that it needs.
    """

    kind: ClassVar[str] = "image.build"
    role: ClassVar[Role] = Role.POOL_OPERATOR
    name: str
    suite: str
    size: str
    packages: tuple[str, ...] = ()
    first: FirstBoot

    async def run(self, manager: Manager) -> DiskImage:
        """Builds it."""
        request = {
            "kind": "build",
            "name": self.name,
            "suite": self.suite,
            "size": self.size,
            "packages": self.packages,
            "hostname": self.first.hostname,
            "user": self.first.user,
            "ssh_keys": self.first.ssh_keys,
            "password": self.first.password,
        }
        job.check_build(request)  # what cannot be is said at once
        await job.run(request, report_step)
        manager.events.note("image", self.name, Operation.ADD)
        return await asyncio.to_thread(DiskStore().find, self.name)

    def detail(self) -> dict[str, Any]:
        """All but who may log in: there may be a password in it."""
        return {"name": self.name, "suite": self.suite, "size": self.size, "packages": list(self.packages)}


@dataclass(slots=True, frozen=True, kw_only=True)
class ImportImage(Action[DiskImage]):
    """Bring a disk in from a file of the host's.

    :param format: of the file; None: by its first bytes.
    """

    kind: ClassVar[str] = "image.import"
    role: ClassVar[Role] = Role.POOL_OPERATOR
    file: str
    name: str
    format: str | None = None

    def host_files(self) -> list[HostFile]:
        """The disk."""
        return [HostFile(self.file, Use.SOURCE)]

    async def run(self, manager: Manager) -> DiskImage:
        """Imports it."""
        check_image_name(self.name)
        real = real_path(self.file)
        if real is None:
            raise ImageError(f"{shown(self.file)}: no file can have this name")
        stores = [data_dir(), *(row["path"] for row in manager.database.rows("SELECT path FROM storage"))]
        shared = any(Path(real).is_relative_to(os.path.realpath(store)) for store in stores)
        request = {"kind": "import", "file": self.file, "name": self.name, "format": self.format, "is_shared": shared}
        await job.run(request, report_step)
        manager.events.note("image", self.name, Operation.ADD)
        return await asyncio.to_thread(DiskStore().find, self.name)


@dataclass(slots=True, frozen=True, kw_only=True)
class UploadImage(Action[DiskImage]):
    """Make an image of a disk that somebody sends.

    :param format: of what comes; None: by its first bytes.
    :param file: what its sender calls it.
    :param length: in bytes, as announced.
    :param body: the bytes.
    """

    kind: ClassVar[str] = "image.upload"
    role: ClassVar[Role] = Role.POOL_OPERATOR
    name: str
    format: str | None
    file: str
    length: int | None
    body: AsyncIterator[bytes]

    async def run(self, manager: Manager) -> DiskImage:
        """Takes it in; who cancels this, or goes before the end, leaves nothing."""
        store = DiskStore()
        KernelStore().check_new(self.name)
        report_step("receiving the disk")
        async with received(store, self.body, self.length, self._progress) as file:
            request = {"kind": "import", "file": str(file), "name": self.name, "format": self.format}
            await job.run({**request, "uploaded": shown(self.file)}, report_step)
        manager.events.note("image", self.name, Operation.ADD)
        return await asyncio.to_thread(store.find, self.name)

    def _progress(self, count: int) -> None:
        if self.length:
            report_progress(count / self.length)

    def detail(self) -> dict[str, Any]:
        """All but what comes."""
        return {"name": self.name, "format": self.format, "file": self.file, "length": self.length}


@dataclass(slots=True, frozen=True, kw_only=True)
class UploadKernel(Action[Image]):
    """Make an image of a kernel that somebody sends, or give one its ramdisk.

    :param is_ramdisk: what is sent is the ramdisk of an image that is there.
    :param cmdline: that its domains have, unless somebody says otherwise.
    :param file, length, body: as of `UploadImage`.
    """

    kind: ClassVar[str] = "image.upload-kernel"
    role: ClassVar[Role] = Role.POOL_OPERATOR
    name: str
    is_ramdisk: bool = False
    cmdline: str = ""
    file: str
    length: int | None
    body: AsyncIterator[bytes]

    async def run(self, manager: Manager) -> Image:
        """Takes it in; who cancels this, or goes before the end, leaves nothing."""
        store = KernelStore()
        if self.is_ramdisk and store.get(self.name) is None:
            raise NotFound(f"no such kernel that was sent: {self.name}")
        if not self.is_ramdisk:
            store.check_new(self.name)
            DomainConfig(kernel="/k", cmdline=self.cmdline).check()
        report_step("receiving the ramdisk" if self.is_ramdisk else "receiving the kernel")
        most = RAMDISK_MAX if self.is_ramdisk else KERNEL_MAX
        async with received(DiskStore(), self.body, self.length, self._progress, most) as file:
            if self.is_ramdisk:
                image = await asyncio.to_thread(store.add_ramdisk, self.name, file)
            else:
                image = await asyncio.to_thread(store.keep, self.name, file, shown(self.file), self.cmdline)
        manager.events.note("image", self.name, Operation.MOD if self.is_ramdisk else Operation.ADD)
        return image

    def _progress(self, count: int) -> None:
        if self.length:
            report_progress(count / self.length)

    def detail(self) -> dict[str, Any]:
        """All but what comes."""
        return {"name": self.name, "is_ramdisk": self.is_ramdisk, "file": self.file, "length": self.length}


@dataclass(slots=True, frozen=True, kw_only=True)
class RemoveImage(Action[None]):
    """Delete an image: a disk that no domain has open, or a kernel."""

    kind: ClassVar[str] = "image.remove"
    role: ClassVar[Role] = Role.POOL_OPERATOR
    image: str

    async def run(self, manager: Manager) -> None:
        """Deletes it."""
        await asyncio.to_thread(self._remove)
        manager.events.note("image", self.image, Operation.DEL)

    def _remove(self) -> None:
        try:
            found = find_image(self.image)
        except ConfigError as error:
            raise NotFound(f"no such image: {self.image}") from error
        if found.name != self.image:
            raise NotFound(f"no such image: {self.image}")  # a distribution's name means its newest kernel elsewhere
        if isinstance(found, Image):
            remove_kernel(found)
        else:
            DiskStore().remove(found.name)
