# SPDX-License-Identifier: Apache-2.0
"""A file or directory of the host that a configuration names, and what a domain would do with it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Use(str, Enum):
    """What it is for."""

    BOOT = "boot"
    """A kernel or a ramdisk, which is read once, at the start."""
    DISK = "disk"
    SHARE = "share"
    """A directory, with all that is below it."""
    SOCKET = "socket"
    """Of a channel or a screen, which Domain 0 makes."""
    SOURCE = "source"
    """An image that is brought in: copied."""


@dataclass(slots=True, frozen=True)
class HostFile:
    """One file, and one use of it.

    :param writable: whether a guest may change it.
    :param format: of a disk's image: in one that is understood as something else a guest could have written names of
        other files.
    """

    path: str
    use: Use
    writable: bool = False
    format: str = ""
