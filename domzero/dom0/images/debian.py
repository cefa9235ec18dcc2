# SPDX-License-Identifier: Apache-2.0
"""Gets the newest kernel of the machine's own Debian (or Ubuntu) and builds an initramfs to go with it."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

from domzero.builder.image import parse_kernel
from domzero.dom0.images import modules
from domzero.dom0.images.apt import Apt, Package, Progress
from domzero.dom0.images.cache import Image, ImageCache, cache_dir
from domzero.dom0.images.deb import extract
from domzero.dom0.images.initramfs import build_initramfs
from domzero.errors import ImageError

KERNELS = ("linux-image-amd64", "linux-image-generic")
"""The packages that depend on the newest kernel: Debian's, Ubuntu's."""
CMDLINE = "console=hvc0 xen_blkfront.max_indirect_segments=64"
"""Larger requests than Linux makes by itself, which are of 32 segments: a disk is read faster by a sixth (disks.md)."""
REVISION = 8
"""Grows when the initramfs or the command line changes, so that cached images are built again."""


def fetch_debian(progress: Progress, cache: ImageCache | None = None, *, refresh: bool = False) -> tuple[Image, bool]:
    """Brings the newest kernel into the cache, unless it is there.

    :param refresh: ask the mirrors for what is newest, even if the package lists are fresh.
    :returns: the image, and whether anything was fetched.
    :raises ImageError: no network, no such packages, or a kernel without PV support.
    """
    cache = cache or ImageCache()
    apt = Apt(cache.root.parent / "apt", progress)
    if refresh:
        apt.update(force=True)
    kernel, busybox = _newest(apt)
    image = _image(kernel)
    cached = cache.get(image.name)
    if cached is not None:
        return cached, False
    try:
        return _fetch(apt, cache, image, kernel, busybox, progress), True
    except ImageError:
        if refresh:
            raise
    # Package lists that are older than the mirror name packages that are gone: take new ones and try once more.
    apt.update(force=True)
    kernel, busybox = _newest(apt)
    image = _image(kernel)
    return cache.get(image.name) or _fetch(apt, cache, image, kernel, busybox, progress), True


def _image(kernel: Package) -> Image:
    release = kernel.name.removeprefix("linux-image-")
    distribution = "debian" if release.endswith("amd64") else "ubuntu"
    name = f"{distribution}-{release}-{kernel.version}-{REVISION}".replace("/", "_").replace(":", "_")
    return Image(name, distribution, f"{release} ({kernel.version})", "vmlinuz", "initramfs.cpio", CMDLINE)


def _newest(apt: Apt) -> tuple[Package, Package]:
    found = _lookup(apt)
    if found is None:
        apt.update()
        found = _lookup(apt)
    if found is None:
        raise ImageError(
            "the package lists have no Linux kernel for amd64 with busybox-static",
            hint="images can be fetched where the package sources are Debian's or Ubuntu's",
        )
    return found


def _lookup(apt: Apt) -> tuple[Package, Package] | None:
    busybox = apt.show("busybox-static")
    for meta in KERNELS:
        package = apt.show(meta)
        match = package and re.search(r"\blinux-image-\d[^\s,|(]*", package.depends)
        kernel = apt.show(match.group()) if match else None
        if kernel is not None and busybox is not None:
            return kernel, busybox
    return None


def _fetch(apt: Apt, cache: ImageCache, image: Image, kernel: Package, busybox: Package, progress: Progress) -> Image:
    with cache.new(image) as directory, tempfile.TemporaryDirectory(prefix=".deb-", dir=cache.root) as downloads:
        packages = {}
        for package in (busybox, kernel):
            progress(f"fetching {package.name} {package.version} ({package.size / 1e6:.1f} MB)")
            packages[package.name] = apt.download(package, Path(downloads))
        progress("unpacking, and building the initramfs")
        release = kernel.name.removeprefix("linux-image-")
        found = extract(packages[kernel.name], {"kernel": "boot/vmlinuz-"}, modules.wanted(release))
        vmlinuz = found.pop("kernel")[1]
        program = extract(packages[busybox.name], {"busybox": "bin/busybox"})["busybox"][1]
        parsed = parse_kernel(vmlinuz, kernel.name)
        (directory / "vmlinuz").write_bytes(vmlinuz)
        # Unpacked beside it: saves a second at each start (see builder.image). Written last, so it is newer.
        (directory / "vmlinuz.elf").write_bytes(parsed.elf.data)
        (directory / "initramfs.cpio").write_bytes(build_initramfs(program, extra=modules.entries(release, found)))
    result = cache.get(image.name)
    if result is None:
        raise ImageError(f"{cache.root / image.name} vanished")
    return result


__all__ = ["cache_dir", "fetch_debian"]
