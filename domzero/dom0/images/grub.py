# SPDX-License-Identifier: Apache-2.0
"""GRUB's own PV kernel, which reads the kernel from inside a disk: the host parses no file system of a guest."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from domzero.builder.image import parse_kernel
from domzero.dom0.images.apt import Apt
from domzero.dom0.images.cache import cache_dir
from domzero.dom0.images.deb import extract
from domzero.dom0.images.tools import Progress
from domzero.errors import ImageError

PACKAGE = "grub-xen-host"
NAME = "grub-x86_64-xen.bin"
INSTALLED = Path("/usr/lib/grub-xen") / NAME


def find_pvgrub(cache: Path | None = None, *, kind: str = "x86_64") -> Path | None:
    """Where it is: installed, or in the cache.

    :param kind: of domains: `x86_64` or `i386`.
    """
    name = f"grub-{kind}-xen.bin"
    places = (INSTALLED.with_name(name), _cached(cache).with_name(name))
    return next((path for path in places if path.is_file()), None)


def fetch_pvgrub(progress: Progress, cache: Path | None = None) -> Path:
    """Where it is, fetched with apt (as an ordinary user; nothing is installed) unless it is there.

    :raises ImageError: it cannot be had.
    """
    if (found := find_pvgrub(cache)) is not None:
        return found
    try:
        return _fetch(progress, cache)
    except ImageError as error:
        raise ImageError(
            f"GRUB's PV kernel starts disks, and it cannot be had: {error.message}", hint=f"apt-get install {PACKAGE}"
        ) from error


def _fetch(progress: Progress, cache: Path | None) -> Path:
    apt = Apt((cache or cache_dir()) / "apt", progress)
    package = apt.show(PACKAGE)
    if package is None:
        apt.update()
        package = apt.show(PACKAGE)
    if package is None:
        raise ImageError(f"the package lists have no {PACKAGE}")
    target = _cached(cache)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".deb-", dir=target.parent) as directory:
            progress(f"fetching {package.name} {package.version} ({package.size / 1e6:.1f} MB)")
            path = apt.download(package, Path(directory))
            data = extract(path, {NAME: f"usr/lib/grub-xen/{NAME}"})[NAME][1]
            parse_kernel(data, NAME)
            part = Path(directory) / NAME
            part.write_bytes(data)
            os.chmod(part, 0o644)
            part.rename(target)
    except OSError as error:
        raise ImageError(f"{target.parent}: {error.strerror}", hint="XDG_CACHE_HOME says where it is kept") from error
    return target


def _cached(cache: Path | None) -> Path:
    return (cache or cache_dir()) / "grub" / NAME
