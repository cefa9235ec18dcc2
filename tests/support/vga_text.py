# SPDX-License-Identifier: Apache-2.0
"""What a picture of a screen in text mode says: its cells compared with the font of the display adapter's BIOS."""

from __future__ import annotations

import struct
import zlib
from collections import Counter
from functools import cache, lru_cache
from pathlib import Path

VGABIOS = Path("/usr/share/seabios/vgabios-stdvga.bin")
_HEIGHT = 16
_LETTER_A = bytes.fromhex("000010386cc6c6fec6c6c6c600000000")
"""In the adapter's font of 8 by 16."""


@lru_cache(maxsize=8)
def screen_text(png: bytes) -> str:
    """The lines of a screen; a cell that shows no character of ASCII is a space."""
    width, height, rows = _pixels(png)
    cell = 9 if width % 9 == 0 and width % 8 == 0 and width in (720, 360) else 8
    lines = []
    for top in range(0, height - _HEIGHT + 1, _HEIGHT):
        lines.append("".join(_character(rows, left, top) for left in range(0, width - 7, cell)).rstrip())
    return "\n".join(lines).rstrip()


def _character(rows: list[list[bytes]], left: int, top: int) -> str:
    cell = [rows[top + y][left : left + 8] for y in range(_HEIGHT)]
    colours = Counter(pixel for line in cell for pixel in line)
    if len(colours) != 2:
        return " "
    for ink in colours:
        glyph = bytes(sum((pixel == ink) << (7 - x) for x, pixel in enumerate(line)) for line in cell)
        if (found := _font().get(glyph)) is not None:
            return found
    return " "


@cache
def _font() -> dict[bytes, str]:
    bios = VGABIOS.read_bytes()
    start = bios.index(_LETTER_A) - _HEIGHT * ord("A")
    return {bios[start + _HEIGHT * code :][:_HEIGHT]: chr(code) for code in range(33, 127)}


def _pixels(png: bytes) -> tuple[int, int, list[list[bytes]]]:
    """Width, height, and the pixels of each row: 8-bit RGB without interlacing, as QEMU writes it."""
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    width, height, depth, kind = struct.unpack(">IIBB", png[16:26])
    assert (depth, kind) == (8, 2)
    data, at = b"", 8
    while at < len(png):
        (length,) = struct.unpack(">I", png[at : at + 4])
        if png[at + 4 : at + 8] == b"IDAT":
            data += png[at + 8 : at + 8 + length]
        at += length + 12
    raw, stride = zlib.decompress(data), width * 3
    before = bytes(stride)
    rows = []
    for y in range(height):
        line = raw[y * (stride + 1) : (y + 1) * (stride + 1)]
        before = _unfiltered(line[0], line[1:], before)
        rows.append([before[x : x + 3] for x in range(0, stride, 3)])
    return width, height, rows


def _unfiltered(kind: int, line: bytes, before: bytes) -> bytes:
    """One row of a PNG file, whose filter is undone."""
    if kind == 0:
        return line
    if kind == 2:
        return bytes((a + b) & 0xFF for a, b in zip(line, before, strict=True))
    out = bytearray(line)
    for at in range(len(out)):
        left = out[at - 3] if at >= 3 else 0
        corner = before[at - 3] if at >= 3 else 0
        if kind == 1:
            out[at] = (out[at] + left) & 0xFF
        elif kind == 3:
            out[at] = (out[at] + (left + before[at]) // 2) & 0xFF
        else:
            out[at] = (out[at] + _paeth(left, before[at], corner)) & 0xFF
    return bytes(out)


def _paeth(left: int, up: int, corner: int) -> int:
    value = left + up - corner
    return min((left, up, corner), key=lambda each: abs(value - each))
