# SPDX-License-Identifier: Apache-2.0
"""Encodings of RFB (RFC 6143, 7.7), and what viewers ask for by their numbers."""

from __future__ import annotations

import struct
import zlib
from enum import IntEnum

from domzero.dom0.vnc.display import Rect
from domzero.dom0.vnc.pixels import Converter, PixelFormat

TILE = 64
_LEVEL = 2
_RAW_TILE, _SOLID_TILE = 0, 1


class Encoding(IntEnum):
    """Those that are used here; below zero, what is no encoding of pixels."""

    RAW = 0
    ZRLE = 16
    DESKTOP_SIZE = -223
    QEMU_EXTENDED_KEY = -258
    EXTENDED_DESKTOP_SIZE = -308


def header(rect: Rect, encoding: Encoding) -> bytes:
    """What a rectangle begins with."""
    return struct.pack(">HHHHi", *rect, encoding)


class Raw:
    """Pixels as they are."""

    number = Encoding.RAW

    def __init__(self, format: PixelFormat) -> None:
        self._convert = Converter(format)

    def encode(self, rect: Rect, pixels: bytes) -> bytes:
        """A rectangle's pixels, as they are sent."""
        return self._convert(pixels)


class Zrle:
    """Tiles of pixels in a zlib stream, which is one for the whole connection."""

    number = Encoding.ZRLE

    def __init__(self, format: PixelFormat) -> None:
        self._stream = zlib.compressobj(_LEVEL)
        self.use(format)

    def use(self, format: PixelFormat) -> None:
        """Another format from now on, in the same stream."""
        self._convert = Converter(format, compact=True)

    def encode(self, rect: Rect, pixels: bytes) -> bytes:
        """As `Raw`'s."""
        data, size = self._convert(pixels), self._convert.size
        row = rect.width * size
        parts = []
        for top in range(0, rect.height, TILE):
            rows = range(top, min(top + TILE, rect.height))
            for left in range(0, rect.width, TILE):
                width = min(TILE, rect.width - left) * size
                tile = b"".join(data[y * row + left * size : y * row + left * size + width] for y in rows)
                first = tile[:size]
                if tile == first * (len(tile) // size):
                    parts.append(bytes((_SOLID_TILE,)) + first)
                else:
                    parts.append(bytes((_RAW_TILE,)) + tile)
        packed = self._stream.compress(b"".join(parts)) + self._stream.flush(zlib.Z_SYNC_FLUSH)
        return len(packed).to_bytes(4, "big") + packed
