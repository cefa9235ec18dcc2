# SPDX-License-Identifier: Apache-2.0
"""Which of the host's files somebody other than its owner may name: images and storage."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from domzero.dom0.actors import PermissionDenied, Role
from domzero.dom0.database import Database
from domzero.dom0.diskspec import DiskFormat
from domzero.dom0.hostfiles import HostFile, Use
from domzero.dom0.images.cache import cache_dir
from domzero.dom0.images.grub import find_pvgrub
from domzero.dom0.images.kernels import kernels_dir
from domzero.dom0.images.store import data_dir
from domzero.dom0.names import shown


def check_files(files: Iterable[HostFile], database: Database, theirs: Iterable[HostFile] | None = None) -> None:
    """Raises PermissionDenied for a file that is neither an image's nor in a storage's directory, links followed.

    Kernels that were fetched or sent are everybody's, to be read. A disk is what its name says, qcow2 or not: a guest
    that has it as raw could else write a header that names any other file of the owner's as what it rests on; and no
    guest gets the directory, in which it could put a link in a disk's place.

    :param theirs: files of the domains that they may look at, if they may not look at all: of these only the same use
        will do, since each other one is some other domain's or nobody's yet.
    """
    wanted = [file for file in files if file.path]
    if not wanted:
        return
    to_be_read = [os.path.realpath(place) for place in (cache_dir(), kernels_dir())]
    stores = [] if theirs is not None else [str(data_dir()), *(row["path"] for row in database.rows(_STORAGE))]
    places = [os.path.realpath(place) for place in stores]
    own = [(os.path.realpath(file.path), file) for file in theirs or () if file.path]
    pvgrub = find_pvgrub()
    for file in wanted:
        real = real_path(file.path)
        if real is not None and (
            (file.use is Use.BOOT and pvgrub is not None and real == os.path.realpath(pvgrub))
            or (_is_what_it_is_called(file, real) and _is_in_store(file, real, to_be_read, places))
            or any(_is_as(file, real, each, path) for path, each in own)
        ):
            continue
        raise PermissionDenied(Role.POOL_ADMIN, f"the host's file {shown(file.path[:200])}")


_STORAGE = "SELECT path FROM storage"


def _is_as(file: HostFile, real: str, other: HostFile, place: str) -> bool:
    """Whether a file is one that somebody has, for no more than what they have it for."""
    same = (file.use, file.format) == (other.use, other.format) and (other.writable or not file.writable)
    return same and (_is_below(real, place) if file.use is Use.SHARE else real == place)


def _is_what_it_is_called(file: HostFile, real: str) -> bool:
    """Whether a file in a storage is used as what it is there: an image, of the format that its name has."""
    if file.use in (Use.SHARE, Use.SOCKET):
        return False
    qcow2 = DiskFormat.QCOW2.value
    return file.use is not Use.DISK or (file.format == qcow2) == (Path(real).suffix == f".{qcow2}")


def _is_in_store(file: HostFile, real: str, to_be_read: list[str], places: list[str]) -> bool:
    """Whether a file is among those that everybody reads, if it is to be read, or in a storage."""
    if any(_is_below(real, place) for place in to_be_read):
        return not file.writable
    return any(_is_below(real, place) for place in places)


def _is_below(path: str, place: str) -> bool:
    return Path(path).is_relative_to(place)


def real_path(path: str) -> str | None:
    """A path with links followed; None: no file can have this name."""
    try:
        return os.path.realpath(path)
    except ValueError:  # a zero in it, or what is no UTF-8
        return None
