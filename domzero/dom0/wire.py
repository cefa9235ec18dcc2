# SPDX-License-Identifier: Apache-2.0
"""The open file that a network interface sends its frames to, and gets its own from."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence


class Wire:
    """A connected Unix stream socket, or a tap.

    :param fd: is the wire's from here on.
    :param notes: what the log is to say of the network behind it.
    """

    def __init__(self, fd: int, notes: Sequence[str] = ()) -> None:
        self._fd = fd
        self.notes = tuple(notes)

    def fileno(self) -> int:
        """Its descriptor; -1 when it is closed."""
        return self._fd

    @property
    def is_tap(self) -> bool:
        """It is an interface of the host."""
        return stat.S_ISCHR(os.fstat(self._fd).st_mode)

    def detach(self) -> int:
        """Gives the descriptor away."""
        fd, self._fd = self._fd, -1
        return fd

    def close(self) -> None:
        """Closes it, unless that has happened, or it was given away."""
        if self._fd >= 0:
            os.close(self.detach())
