# SPDX-License-Identifier: Apache-2.0
"""What a domain shows of itself to the host's programs, for as long as it lives: ptys, sockets, addresses of screens.

A thread of Domain 0 serves each. Its descriptors can be kept, so that the thread of another Domain 0 goes on.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from domzero.dom0.descriptors import Descriptors


class Kind(str, Enum):
    """Which descriptors these are."""

    PTY = "pty"
    """The inner end, the pty's master and its slave."""
    SOCKET = "socket"
    """The inner end, and the socket that listens."""
    SCREEN = "screen"
    """As `SOCKET`, for viewers."""


@dataclass(slots=True)
class Outside(Descriptors):
    """Descriptors that belong to one thread, again.

    :param name: of the pty, path of the socket, or address.
    :param path: of the file that goes with it; "": there is none.
    :param device, inode: which file that is.
    """

    kind: Kind
    name: str
    path: str = ""
    device: int = 0
    inode: int = 0

    @classmethod
    def of(
        cls, kind: Kind, name: str, fds: Sequence[int], path: str = "", identity: tuple[int, int] = (0, 0)
    ) -> Outside:
        """Of descriptors that stay the thread's: these are others of the same files."""
        return cls(kind, name, path, *identity, fds=[os.dup(fd) for fd in fds])


__all__ = ["Kind", "Outside"]
