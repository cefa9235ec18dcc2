# SPDX-License-Identifier: Apache-2.0
"""A transport that sends what is written in one turn of the event loop at once: an answer's head and body are two
writes of uvicorn's, and would be two system calls and two segments."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

AT_ONCE = 64 << 10
"""Bytes that wait for the turn's end; more are written now, so that the client's pace is felt."""


class JoinedWrites(asyncio.Transport):
    """In the place of another transport, whose methods it has.

    :param transport: the other one.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self._transport = transport
        self._loop = loop
        self._waiting: list[bytes] = []
        self._size = 0

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """asyncio: sends data."""
        if not data:
            return
        if not self._waiting:
            self._loop.call_soon(self._flush)
        self._waiting.append(bytes(data))
        self._size += len(data)
        if self._size >= AT_ONCE:
            self._flush()

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview]) -> None:
        """asyncio: sends data."""
        self.write(b"".join(list_of_data))

    def _flush(self) -> None:
        if self._waiting:
            data = self._waiting[0] if len(self._waiting) == 1 else b"".join(self._waiting)
            self._waiting.clear()
            self._size = 0
            self._transport.write(data)

    def close(self) -> None:
        """asyncio: ends it when all is sent."""
        self._flush()
        self._transport.close()

    def abort(self) -> None:
        """asyncio: ends it at once."""
        self._waiting.clear()
        self._size = 0
        self._transport.abort()

    def write_eof(self) -> None:
        """asyncio: nothing more is written."""
        self._flush()
        self._transport.write_eof()

    def get_write_buffer_size(self) -> int:
        """asyncio: bytes that are not sent."""
        return self._size + self._transport.get_write_buffer_size()

    # --- as the other one

    def can_write_eof(self) -> bool:
        """asyncio."""
        return self._transport.can_write_eof()

    def get_write_buffer_limits(self) -> tuple[int, int]:
        """asyncio."""
        return self._transport.get_write_buffer_limits()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """asyncio."""
        self._transport.set_write_buffer_limits(high, low)

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """asyncio."""
        return self._transport.get_extra_info(name, default)

    def is_closing(self) -> bool:
        """asyncio."""
        return self._transport.is_closing()

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """asyncio."""
        self._transport.set_protocol(protocol)

    def get_protocol(self) -> asyncio.BaseProtocol:
        """asyncio."""
        return self._transport.get_protocol()

    def is_reading(self) -> bool:
        """asyncio."""
        return self._transport.is_reading()

    def pause_reading(self) -> None:
        """asyncio."""
        self._transport.pause_reading()

    def resume_reading(self) -> None:
        """asyncio."""
        self._transport.resume_reading()


__all__ = ["AT_ONCE", "JoinedWrites"]
