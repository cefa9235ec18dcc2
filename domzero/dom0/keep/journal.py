# SPDX-License-Identifier: Apache-2.0
"""What a Domain 0 knows, written down for the next one: a file in memory that the keeper holds as well.

Each entry is a JSON object behind its length and a checksum, in one write: after a kill -9 at any moment all entries
but the one that was being written are there, and that one is not. When much of the file is outdated, another one with
all that still holds takes its place, at once, when the keeper gets it.
"""

from __future__ import annotations

import json
import os
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

_HEADER = struct.Struct("<II")  # length and CRC-32
ROOM = 1 << 20
"""Bytes of a file, beside four times what it began with, after which another one takes its place."""
NAME = "journal"
"""What the keeper knows it by."""


class Journal:
    """Writes entries down.

    :param hold: gives a file to the keeper, in the place of the one before.
    :param state: all entries of a journal that begins now.
    """

    def __init__(self, hold: Callable[[int], None], state: Callable[[], Iterable[dict[str, Any]]]) -> None:
        self._hold = hold
        self._state = state
        self._fd = -1
        self._size = self._limit = 0

    def begin(self) -> None:
        """Takes another file, with all that holds."""
        fd = os.memfd_create("domzero-journal", os.MFD_CLOEXEC)
        data = b"".join(_packed(entry) for entry in self._state())
        view = memoryview(data)
        while view:
            view = view[os.write(fd, view) :]
        self._hold(fd)
        self.close()
        self._fd, self._size, self._limit = fd, len(data), 4 * len(data) + ROOM

    def write(self, entry: dict[str, Any]) -> None:
        """Adds an entry."""
        if self._fd < 0:
            return
        data = _packed(entry)
        self._size += os.write(self._fd, data)
        if self._size > self._limit:
            self.begin()

    def close(self) -> None:
        """Closes this process's descriptor of it."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _packed(entry: dict[str, Any]) -> bytes:
    data = json.dumps(entry, separators=(",", ":")).encode()
    return _HEADER.pack(len(data), zlib.crc32(data)) + data


def entries(fd: int) -> Iterator[dict[str, Any]]:
    """What is whole in a journal's file, oldest first."""
    data = os.pread(fd, os.fstat(fd).st_size, 0)
    at = 0
    while at + _HEADER.size <= len(data):
        length, checksum = _HEADER.unpack_from(data, at)
        at += _HEADER.size
        body = data[at : at + length]
        if len(body) < length or zlib.crc32(body) != checksum:
            return
        yield json.loads(body)
        at += length


__all__ = ["NAME", "Journal", "entries"]
