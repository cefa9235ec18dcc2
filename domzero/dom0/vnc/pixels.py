# SPDX-License-Identifier: Apache-2.0
"""Pixel formats of RFB (RFC 6143, 7.4), and pixels in them."""

from __future__ import annotations

import struct
from dataclasses import dataclass

_FORMAT = struct.Struct(">BBBBHHHBBBxxx")
FORMAT_SIZE = _FORMAT.size


class FormatError(Exception):
    """There is no such format, or it is not supported."""


@dataclass(slots=True, frozen=True)
class PixelFormat:
    """How a viewer wants its pixels: true colour.

    :param bits: for each pixel: 8, 16 or 32.
    :param maxima, shifts: of red, green and blue.
    """

    bits: int
    depth: int
    big_endian: bool
    maxima: tuple[int, int, int]
    shifts: tuple[int, int, int]

    @classmethod
    def unpack(cls, data: bytes) -> PixelFormat:
        """What a viewer sends. FormatError."""
        bits, depth, big, true_colour, *numbers = _FORMAT.unpack(data)
        maxima, shifts = (numbers[0], numbers[1], numbers[2]), (numbers[3], numbers[4], numbers[5])
        if not true_colour:
            raise FormatError("colour maps are not supported")
        if bits not in (8, 16, 32):
            raise FormatError(f"{bits} bits for each pixel")
        for most, shift in zip(maxima, shifts, strict=True):
            if most & (most + 1) or most > 0xFFFF or shift + most.bit_length() > bits:
                raise FormatError(f"a colour up to {most} at bit {shift}")
        return cls(bits, depth, bool(big), maxima, shifts)

    def pack(self) -> bytes:
        """As it is sent."""
        return _FORMAT.pack(self.bits, self.depth, self.big_endian, 1, *self.maxima, *self.shifts)

    def compact_bytes(self) -> range:
        """Which bytes of a pixel ZRLE sends (its CPIXEL), the lowest being 0."""
        used = 0
        for most, shift in zip(self.maxima, self.shifts, strict=True):
            used |= most << shift
        if self.bits == 32 and self.depth <= 24 and used < 1 << 24:
            return range(3)
        if self.bits == 32 and self.depth <= 24 and not used & 0xFF:
            return range(1, 4)
        return range(self.bits // 8)


NATIVE = PixelFormat(32, 24, False, (255, 255, 255), (16, 8, 0))
"""That of the screen."""


class Converter:
    """Turns the screen's pixels into a viewer's.

    :param compact: only those bytes of each that ZRLE sends.
    """

    def __init__(self, format: PixelFormat, *, compact: bool = False) -> None:
        places = format.compact_bytes() if compact else range(format.bits // 8)
        self.size = len(places)
        self._is_native = format == NATIVE and not compact
        order = reversed(places) if format.big_endian else places
        # For each byte that is sent: which of the screen's it is made of, and the tables that make it.
        self._bytes = [_tables(format, place) for place in order]

    def __call__(self, pixels: bytes) -> bytes:
        """:param pixels: of the screen."""
        if self._is_native:
            return pixels
        count = len(pixels) // 4
        out = bytearray(self.size * count)
        for index, sources in enumerate(self._bytes):
            planes = [pixels[channel::4].translate(table) for channel, table in sources]
            if len(planes) == 1:
                out[index :: self.size] = planes[0]
            elif planes:
                mixed = 0
                for plane in planes:
                    mixed |= int.from_bytes(plane, "little")
                out[index :: self.size] = mixed.to_bytes(count, "little")
        return bytes(out)


def _tables(format: PixelFormat, place: int) -> list[tuple[int, bytes]]:
    found = []
    for channel, most, shift in zip((2, 1, 0), format.maxima, format.shifts, strict=True):
        table = bytes(((value * most + 127) // 255 << shift) >> 8 * place & 0xFF for value in range(256))
        if any(table):
            found.append((channel, table))
    return found
