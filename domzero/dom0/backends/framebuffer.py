# SPDX-License-Identifier: Apache-2.0
"""The pixels of a PV framebuffer: which frames they are in, as a guest says, and what of that can be.

Nothing here is granted: io/fbif.h has a guest write down numbers of machine frames. Each is taken once, by
`host_frames`, which takes only the domain's own.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from domzero.abi.io_fbif import xenfb_page, xenfb_resize
from domzero.abi.layout import layout_for
from domzero.abi.xen import PAGE_SHIFT, PAGE_SIZE
from domzero.dom0.backends.xenbus import FrontendError
from domzero.dom0.vnc.display import PIXEL, Rect
from domzero.hypervisor.host_frames import HostFrames, NotItsFrame

SIDE_MAX = 8192
"""Pixels."""
BYTES_MAX = 64 << 20
DEPTH = 32
DIRECTORY_PAGES = 256


@dataclass(slots=True, frozen=True)
class Geometry:
    """Where the pixels are in a framebuffer's memory.

    :param stride: bytes from a row to the next one.
    :param offset: bytes to the first pixel.
    """

    width: int
    height: int
    stride: int
    offset: int = 0

    @classmethod
    def of_page(cls, page: xenfb_page) -> Geometry:
        """What the shared page says. FrontendError: it cannot be."""
        return cls._checked(page.width, page.height, page.line_length, 0, page.depth, page.mem_length)

    @classmethod
    def of_resize(cls, event: xenfb_resize, size: int) -> Geometry:
        """What an event says, of a memory of so many bytes. FrontendError: it cannot be."""
        return cls._checked(event.width, event.height, event.stride, event.offset, event.depth, size)

    @classmethod
    def _checked(cls, width: int, height: int, stride: int, offset: int, depth: int, size: int) -> Geometry:
        if depth != DEPTH:
            raise FrontendError(f"{depth} bits for each pixel: {DEPTH} are possible")
        if not 1 <= width <= SIDE_MAX or not 1 <= height <= SIDE_MAX:
            raise FrontendError(f"a screen of {width} by {height} pixels: up to {SIDE_MAX} by {SIDE_MAX} are possible")
        if stride < width * PIXEL or offset < 0 or offset + (height - 1) * stride + width * PIXEL > size:
            raise FrontendError(
                f"{height} rows, each {stride} bytes behind the other from byte {offset}, with {width} pixels are not "
                f"in {size} bytes"
            )
        return cls(width, height, stride, offset)


class Framebuffer:
    """A framebuffer of a connected front end: a `vnc.display.Source`."""

    def __init__(self, pages: list[memoryview], size: int, geometry: Geometry) -> None:
        self._pages = pages
        self.bytes = size
        self._geometry = geometry
        self.width = geometry.width
        self.height = geometry.height

    @classmethod
    def take(cls, page: bytes, frames: HostFrames, *, is_32bit: bool) -> Framebuffer:
        """The one that a copy of the shared page describes. FrontendError.

        :param frames: where those that it consists of are held.
        :param is_32bit: how wide the front end's `unsigned long` is.
        """
        layout = layout_for(xenfb_page, is_32bit)
        shared = layout.from_buffer_copy(page)
        if not 0 < shared.mem_length <= BYTES_MAX:
            raise FrontendError(f"a framebuffer of {shared.mem_length} bytes: up to {BYTES_MAX} are possible")
        geometry = Geometry.of_page(shared)
        count = (shared.mem_length + PAGE_SIZE - 1) >> PAGE_SHIFT
        per_page = PAGE_SIZE // (4 if is_32bit else 8)
        directories = (count + per_page - 1) // per_page
        if directories > DIRECTORY_PAGES:
            raise FrontendError(f"{count} frames are not listed in {DIRECTORY_PAGES} pages")
        pages: list[memoryview] = []
        for mfn in shared.pd[:directories]:
            listed = struct.unpack(f"<{per_page}{'I' if is_32bit else 'Q'}", _taken(frames, mfn, "that lists others"))
            pages += [_taken(frames, each, "of pixels") for each in listed[: count - len(pages)]]
        return cls(pages, shared.mem_length, geometry)

    def resized(self, event: xenfb_resize) -> Framebuffer:
        """The same memory with another size of the screen. FrontendError."""
        return Framebuffer(self._pages, self.bytes, Geometry.of_resize(event, self.bytes))

    def read(self, rect: Rect) -> bytes:
        """The pixels of a part of the screen, row by row."""
        if rect.is_empty:
            return b""
        geometry, width = self._geometry, rect.width * PIXEL
        start = geometry.offset + rect.y * geometry.stride + rect.x * PIXEL
        end = start + (rect.height - 1) * geometry.stride + width
        first = start >> PAGE_SHIFT
        data = b"".join(self._pages[first : (end - 1 >> PAGE_SHIFT) + 1])
        start, end = start - first * PAGE_SIZE, end - first * PAGE_SIZE
        if width == geometry.stride:
            return data[start:end]
        return b"".join(data[at : at + width] for at in range(start, end, geometry.stride))


def _taken(frames: HostFrames, mfn: int, what: str) -> memoryview:
    try:
        return frames.take(mfn)
    except NotItsFrame:
        raise FrontendError(f"frame {mfn:#x}, {what}, is none of the domain's") from None


__all__ = ["BYTES_MAX", "DEPTH", "SIDE_MAX", "Framebuffer", "Geometry"]
