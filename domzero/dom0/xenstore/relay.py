# SPDX-License-Identifier: Apache-2.0
"""A client of the store in another process: its bytes, framed, over a socket pair.

A worker gives its guest's ring a `RelayConnection` instead of a `Connection`; the Domain 0 process has a `RelayServer`
at the other end, with the connection behind it. Frames are needed as a reset of the ring may come amid a message.
"""

from __future__ import annotations

import asyncio
import contextlib
import selectors
import socket
import threading
from collections import deque
from collections.abc import Callable
from enum import IntEnum

from domzero.dom0.socket_frames import FrameDecoder, encode_frame
from domzero.dom0.xenstore.connection import Connection
from domzero.dom0.xenstore.wire import RingError
from domzero.errors import DomzeroError

_HIGH_WATER = 16 * 1024


class Frame(IntEnum):
    """What a frame carries."""

    DATA = 0
    RESET = 1
    ERROR = 2


class RelayConnection:
    """The worker's end: has the methods of `Connection` that a ring uses. A thread moves the bytes."""

    def __init__(
        self, sock: socket.socket, *, on_output: Callable[[], None] | None = None, name: str = "xenstore"
    ) -> None:
        self.on_output = on_output
        self.error = RingError.NONE
        self._sock = sock
        self._sock.setblocking(False)
        self._wake_read, self._wake_write = socket.socketpair()
        self._wake_read.setblocking(False)
        self._wake_write.setblocking(False)
        self._lock = threading.Lock()
        self._to_store = bytearray()
        self._to_guest = bytearray()
        self._resets_pending = 0
        self._closed = False
        self._thread = threading.Thread(target=self._run, name=f"{name}-relay", daemon=True)
        self._thread.start()

    @property
    def wants_input(self) -> bool:
        """False while the other end is behind."""
        return not self._closed and self.error == RingError.NONE and len(self._to_store) < _HIGH_WATER

    @property
    def has_work(self) -> bool:
        """Never: requests are answered at the other end."""
        return False

    def turn(self) -> None:
        """Nothing: requests are answered at the other end."""

    def receive(self, data: bytes) -> None:
        """Sends the guest's bytes on."""
        with self._lock:
            for start in range(0, len(data), _HIGH_WATER):
                self._to_store += encode_frame(Frame.DATA, data[start : start + _HIGH_WATER])
        self._wake()

    def take_output(self, limit: int | None = None) -> bytes:
        """Bytes for the guest."""
        with self._lock:
            count = len(self._to_guest) if limit is None else min(limit, len(self._to_guest))
            data = bytes(self._to_guest[:count])
            del self._to_guest[:count]
        if data:
            self._wake()
        return data

    def reset(self) -> None:
        """Drops what is on the way, both ways; the store drops watches and transactions."""
        with self._lock:
            self._to_guest.clear()
            self._resets_pending += 1
            self._to_store += encode_frame(Frame.RESET)
            self.error = RingError.NONE
        self._wake()

    def close(self) -> None:
        """Ends the relay and its thread."""
        self._closed = True
        self._wake()
        if threading.current_thread() is not self._thread:
            self._thread.join(timeout=5)

    def _wake(self) -> None:
        with contextlib.suppress(BlockingIOError, OSError):  # it is awake already, or gone
            self._wake_write.send(b"\0")

    def _run(self) -> None:
        decoder = FrameDecoder()
        try:
            with selectors.DefaultSelector() as selector:
                selector.register(self._wake_read, selectors.EVENT_READ)
                interest = 0
                while not self._closed:
                    wanted = (selectors.EVENT_READ if len(self._to_guest) < _HIGH_WATER else 0) | (
                        selectors.EVENT_WRITE if self._to_store else 0
                    )
                    interest = _change_interest(selector, self._sock, interest, wanted)
                    for key, events in selector.select():
                        if key.fileobj is self._wake_read:
                            self._wake_read.recv(4096)
                            continue
                        if events & selectors.EVENT_WRITE:
                            self._send()
                        if events & selectors.EVENT_READ and not self._take(decoder):
                            return
        except (OSError, DomzeroError):
            pass  # the store's process is gone: the control channel says so too
        finally:
            if not self._closed:
                self.error = RingError.COMM
                self._announce()
            self._closed = True
            for sock in (self._sock, self._wake_read, self._wake_write):
                sock.close()

    def _send(self) -> None:
        with self._lock:
            full = len(self._to_store) >= _HIGH_WATER
            try:
                sent = self._sock.send(self._to_store)
            except BlockingIOError:
                return
            del self._to_store[:sent]
            room_again = full and len(self._to_store) < _HIGH_WATER
        if room_again:
            self._announce()

    def _take(self, decoder: FrameDecoder) -> bool:
        try:
            data = self._sock.recv(_HIGH_WATER)
        except BlockingIOError:
            return True
        if not data:
            return False
        for kind, payload in decoder.feed(data):
            with self._lock:
                if kind == Frame.RESET:
                    self._resets_pending -= 1
                elif self._resets_pending:
                    continue  # an answer to what was asked before the reset
                elif kind == Frame.DATA:
                    self._to_guest += payload
                elif kind == Frame.ERROR and payload:
                    self.error = RingError(payload[0])
        self._announce()
        return True

    def _announce(self) -> None:
        if self.on_output is not None:
            self.on_output()


def _change_interest(selector: selectors.BaseSelector, sock: socket.socket, old: int, new: int) -> int:
    if old == new:
        return new
    if old == 0:
        selector.register(sock, new)
    elif new == 0:
        selector.unregister(sock)
    else:
        selector.modify(sock, new)
    return new


class RelayServer(asyncio.Protocol):
    """Domain 0's end: an asyncio protocol over the other socket of the pair."""

    def __init__(self, connection: Connection, loop: asyncio.AbstractEventLoop) -> None:
        self._connection = connection
        self._loop = loop
        self._decoder = FrameDecoder()
        self._transport: asyncio.Transport | None = None
        self._may_write = True
        self._pending: deque[tuple[int, bytes]] = deque()
        self._turn_due = False
        connection.on_output = self._output_ready

    @classmethod
    async def start(cls, sock: socket.socket, connection: Connection) -> RelayServer:
        """Serves a socket; the connection ends with it."""
        loop = asyncio.get_running_loop()
        _, protocol = await loop.create_connection(lambda: cls(connection, loop), sock=sock)
        return protocol

    def close(self) -> None:
        """Ends the connection and the socket."""
        self._connection.close()
        if self._transport is not None:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """asyncio: the socket is there."""
        if isinstance(transport, asyncio.Transport):
            self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        """asyncio: the worker is gone."""
        self._transport = None
        self._connection.close()

    def pause_writing(self) -> None:
        """asyncio: the worker does not read."""
        self._may_write = False

    def resume_writing(self) -> None:
        """asyncio: the worker reads again."""
        self._may_write = True
        self._pump()

    def data_received(self, data: bytes) -> None:
        """asyncio: frames of the worker."""
        try:
            self._pending += self._decoder.feed(data)
        except DomzeroError:
            self.close()
            return
        self._pump()

    def _output_ready(self) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: Domain 0 is going down
            self._loop.call_soon_threadsafe(self._pump)

    def _next_turn(self) -> None:
        self._turn_due = False
        self._pump()

    def _pump(self) -> None:
        """Gives the worker its replies and does one turn of its requests; what is left waits for the loop's next round,
        in which all others have theirs."""
        if self._transport is None or self._transport.is_closing():
            return
        connection = self._connection
        if not self._turn_due:
            self._take_turn()
        while self._may_write and (data := connection.take_output(_HIGH_WATER)):
            self._transport.write(encode_frame(Frame.DATA, data))
        if not self._turn_due and self._has_turn:
            self._turn_due = True
            self._loop.call_soon(self._next_turn)
        # Backpressure: what the connection does not take stays in the socket, and so in the guest's ring.
        if self._pending:
            self._transport.pause_reading()
        else:
            self._transport.resume_reading()

    @property
    def _has_turn(self) -> bool:
        connection = self._connection
        if self._pending and (connection.wants_input or self._pending[0][0] == Frame.RESET):
            return True
        return connection.has_work

    def _take_turn(self) -> None:
        connection = self._connection
        if not self._has_turn or self._transport is None:
            return
        if self._pending and self._pending[0][0] == Frame.RESET:
            self._pending.popleft()
            connection.reset()
            self._transport.write(encode_frame(Frame.RESET))
        elif connection.has_work:
            connection.turn()
        else:
            kind, payload = self._pending.popleft()
            if kind == Frame.DATA:
                connection.receive(payload)
        if connection.error != RingError.NONE:
            self._transport.write(encode_frame(Frame.ERROR, bytes([connection.error])))
            self._pending = deque(frame for frame in self._pending if frame[0] == Frame.RESET)
