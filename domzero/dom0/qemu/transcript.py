# SPDX-License-Identifier: Apache-2.0
"""The last that a guest has printed, in a file in memory that the keeper holds as well, for another Domain 0."""

from __future__ import annotations

import os
import struct

from domzero.dom0.console import HISTORY_SIZE

_TOTAL = struct.Struct("<Q")  # bytes ever, in front of the ring that they go round in


class Transcript:
    """Writes it down, each piece at once.

    :param fd: of such a file, which is this one's from here on; none: it begins with nothing.
    """

    def __init__(self, fd: int | None = None, size: int = HISTORY_SIZE) -> None:
        self._size = size
        self._fd = os.memfd_create("domzero-console", os.MFD_CLOEXEC) if fd is None else fd
        data = os.pread(self._fd, _TOTAL.size, 0)
        self._total = _TOTAL.unpack(data)[0] if len(data) == _TOTAL.size else 0

    def fileno(self) -> int:
        """Its descriptor."""
        return self._fd

    def add(self, data: bytes) -> None:
        """Adds what was printed."""
        data, skipped = data[-self._size :], max(0, len(data) - self._size)
        at = (self._total + skipped) % self._size
        first = data[: self._size - at]
        os.pwrite(self._fd, first, _TOTAL.size + at)
        os.pwrite(self._fd, data[len(first) :], _TOTAL.size)
        self._total += skipped + len(data)
        os.pwrite(self._fd, _TOTAL.pack(self._total), 0)

    def read(self) -> bytes:
        """What is kept, oldest first."""
        data = os.pread(self._fd, self._size, _TOTAL.size)
        at = self._total % self._size if self._total > self._size else 0
        return data[at:] + data[:at]

    def close(self) -> None:
        """Closes this process's descriptor."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


__all__ = ["Transcript"]
