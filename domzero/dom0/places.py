# SPDX-License-Identifier: Apache-2.0
"""Which of the host's files somebody other than its owner may name: images and storage."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from domzero.dom0.actors import PermissionDenied, Role
from domzero.dom0.database import Database
from domzero.dom0.images.cache import cache_dir
from domzero.dom0.images.grub import find_pvgrub
from domzero.dom0.images.store import data_dir
from domzero.dom0.names import shown


def check_files(paths: Iterable[str], database: Database, theirs: Iterable[str] | None = None) -> None:
    """Raises PermissionDenied for a file that is neither an image's nor in a storage's directory, links followed.

    :param theirs: files of the domains that they may look at, if they may not look at all: of disks only those will do,
        since each other one is some other domain's or nobody's yet.
    """
    wanted = [path for path in paths if path]
    if not wanted:
        return
    if theirs is None:
        theirs = [str(data_dir()), *(row["path"] for row in database.rows("SELECT path FROM storage"))]
    places = [os.path.realpath(place) for place in (str(cache_dir()), *filter(None, theirs))]
    pvgrub = find_pvgrub()
    for path in wanted:
        real = _real(path)
        if real is not None and pvgrub is not None and real == os.path.realpath(pvgrub):
            continue
        if real is None or not any(Path(real).is_relative_to(place) for place in places):
            raise PermissionDenied(Role.POOL_ADMIN, f"the host's file {shown(path[:200])}")


def _real(path: str) -> str | None:
    """A path with links followed; None: no file can have this name."""
    try:
        return os.path.realpath(path)
    except ValueError:  # a zero in it, or what is no UTF-8
        return None
