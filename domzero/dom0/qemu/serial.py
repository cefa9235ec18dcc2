# SPDX-License-Identifier: Apache-2.0
"""A domain's first serial port as its console: bytes of a connected socket, both ways."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

CHUNK = 64 << 10
INPUT_AHEAD = 16 << 10
"""Bytes of input that may be on their way to a guest that reads slowly."""


class SerialConsole(asyncio.Protocol):
    """One end of the socket.

    :param on_output: what the guest has printed.
    """

    def __init__(self, on_output: Callable[[bytes], None]) -> None:
        self._on_output = on_output
        self._transport: asyncio.Transport | None = None
        self._room = asyncio.Event()
        self._room.set()
        self._held_by: set[object] = set()
        self._behind: set[SerialConsole] = set()

    @classmethod
    async def start(cls, sock: socket.socket, on_output: Callable[[bytes], None]) -> SerialConsole:
        """Takes the socket."""
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, INPUT_AHEAD)
        _, console = await asyncio.get_running_loop().create_connection(lambda: cls(on_output), sock=sock)
        return console

    async def type(self, data: bytes) -> bool:
        """Types; waits while the guest is behind with reading. False: nobody is there any more."""
        await self._room.wait()
        if self._transport is None:
            return False
        self._transport.write(data)
        await self._room.wait()
        return self._transport is not None

    def pass_on(self, data: bytes, source: SerialConsole) -> None:
        """Types what another one has put out, of which no more is taken while this guest, or program, is behind."""
        if self._transport is None:
            return
        self._transport.write(data)
        if not self._room.is_set():
            self._behind.add(source)
            source.hold(held=True, by=self)

    def hold(self, *, held: bool, by: object = None) -> None:
        """Takes no output for a while, or takes it again once nobody else holds it."""
        (self._held_by.add if held else self._held_by.discard)(by)
        if self._transport is not None and bool(self._held_by) == self._transport.is_reading():
            (self._transport.pause_reading if self._held_by else self._transport.resume_reading)()

    def close(self) -> None:
        """Ends it."""
        if self._transport is not None:
            self._transport.abort()

    # --- asyncio's protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """asyncio: it is connected."""
        if isinstance(transport, asyncio.Transport):
            transport.set_write_buffer_limits(high=0)
            self._transport = transport

    def data_received(self, data: bytes) -> None:
        """asyncio: output."""
        self._on_output(data)

    def pause_writing(self) -> None:
        """asyncio: the guest is behind."""
        self._room.clear()

    def resume_writing(self) -> None:
        """asyncio: it has caught up."""
        self._caught_up()

    def connection_lost(self, exc: Exception | None) -> None:
        """asyncio: QEMU is gone."""
        self._transport = None
        self._caught_up()

    def _caught_up(self) -> None:
        self._room.set()
        behind, self._behind = self._behind, set()
        for source in behind:
            source.hold(held=False, by=self)


__all__ = ["SerialConsole"]
