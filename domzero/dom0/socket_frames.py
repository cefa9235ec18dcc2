# SPDX-License-Identifier: Apache-2.0
"""Frames over a stream socket between the Domain 0 process and a worker: a kind, a length, bytes."""

from __future__ import annotations

import struct

from domzero.errors import DomzeroError

_HEADER = struct.Struct("<BI")
FRAME_MAX = 256 * 1024


class FrameError(DomzeroError):
    """The other end sends what is not a frame."""


def encode_frame(kind: int, payload: bytes = b"") -> bytes:
    """One frame as it goes over the socket."""
    return _HEADER.pack(kind, len(payload)) + payload


class FrameDecoder:
    """Cuts a stream into frames."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[tuple[int, bytes]]:
        """Adds bytes; returns the frames that are whole. FrameError for an absurd length."""
        self._buffer += data
        frames = []
        while len(self._buffer) >= _HEADER.size:
            kind, length = _HEADER.unpack_from(self._buffer)
            if length > FRAME_MAX:
                raise FrameError(f"a frame of {length} bytes")
            end = _HEADER.size + length
            if len(self._buffer) < end:
                break
            frames.append((kind, bytes(self._buffer[_HEADER.size : end])))
            del self._buffer[:end]
        return frames
