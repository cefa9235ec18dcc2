# SPDX-License-Identifier: Apache-2.0
"""A picture as a PNG file."""

from __future__ import annotations

import struct
import zlib

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_LEVEL = 6
_NO_FILTER = b"\0"


def encode_png(width: int, height: int, pixels: bytes) -> bytes:
    """:param pixels: 4 bytes each, as blue, green, red and one that means nothing."""
    rgb = bytearray(3 * width * height)
    for channel, byte in enumerate((2, 1, 0)):
        rgb[channel::3] = pixels[byte::4]
    rows = (bytes(rgb[3 * width * y : 3 * width * (y + 1)]) for y in range(height))
    data = zlib.compress(b"".join(_NO_FILTER + row for row in rows), _LEVEL)
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return _SIGNATURE + _chunk(b"IHDR", header) + _chunk(b"IDAT", data) + _chunk(b"IEND", b"")


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
