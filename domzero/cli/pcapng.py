# SPDX-License-Identifier: Apache-2.0
"""Counts the frames of a pcapng file while it passes (draft-ietf-opsawg-pcapng; written by crates/backends)."""

from __future__ import annotations

import struct
from collections.abc import Iterator

_STATISTICS = 5
_PACKET = 6
_STATISTICS_OPTIONS = 20
_PACKET_DATA = 28
_EPB_DROPCOUNT = 4
_ISB_IFDROP = 5


class Counter:
    """Is fed with a little-endian file in parts.

    :ivar frames: that are in the file.
    :ivar dropped: that the file says were left out.
    """

    def __init__(self) -> None:
        self.frames = 0
        self.dropped = 0
        self._rest = bytearray()

    def feed(self, part: bytes) -> None:
        """The next bytes of the file."""
        self._rest += part
        at = 0
        while len(self._rest) - at >= 12:
            kind, length = struct.unpack_from("<II", self._rest, at)
            if len(self._rest) - at < length:
                break
            self._take(kind, memoryview(self._rest)[at : at + length].tobytes())
            at += length
        del self._rest[:at]

    def _take(self, kind: int, block: bytes) -> None:
        if kind == _PACKET:
            self.frames += 1
            (kept,) = struct.unpack_from("<I", block, 20)
            self.dropped += _option(block, _PACKET_DATA + (kept + 3) // 4 * 4, _EPB_DROPCOUNT) or 0
        elif kind == _STATISTICS:
            total = _option(block, _STATISTICS_OPTIONS, _ISB_IFDROP)
            self.dropped = self.dropped if total is None else total


def _option(block: bytes, start: int, wanted: int) -> int | None:
    found = (value for code, value in _options(block, start) if code == wanted and len(value) == 8)
    return next((int.from_bytes(value, "little") for value in found), None)


def _options(block: bytes, at: int) -> Iterator[tuple[int, bytes]]:
    while at + 4 <= len(block) - 4:
        code, length = struct.unpack_from("<HH", block, at)
        if code == 0:
            return
        yield code, block[at + 4 : at + 4 + length]
        at += 4 + (length + 3) // 4 * 4
