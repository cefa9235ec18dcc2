# SPDX-License-Identifier: Apache-2.0
"""A client of the store in another process: its bytes, framed, over a socket pair.

A worker gives its guest's ring a `RelayConnection` instead of a `Connection`; the Domain 0 process has a `RelayServer`
at the other end, with the connection behind it. Frames are needed as a reset of the ring may come amid a message.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import selectors
import socket
import struct
import threading
from collections import deque
from collections.abc import Callable

from domzero.dom0.socket_frames import FrameDecoder, FrameError, encode_frame
from domzero.dom0.xenstore.connection import Connection
from domzero.dom0.xenstore.unanswered import BYTES_MAX, NUMBER, Frame, Unanswered
from domzero.dom0.xenstore.wire import RingError
from domzero.errors import DomzeroError

logger = logging.getLogger(__name__)

_HIGH_WATER = 16 * 1024


class RelayConnection:
    """The worker's end: has the methods of `Connection` that a ring uses. A thread moves the bytes.

    :param keeps: when the store's process has gone it waits for `resume`, and goes on with the next one.
    """

    def __init__(
        self,
        sock: socket.socket,
        *,
        on_output: Callable[[], None] | None = None,
        name: str = "xenstore",
        keeps: bool = False,
    ) -> None:
        self.on_output = on_output
        self.error = RingError.NONE
        self._sock: socket.socket | None = sock
        sock.setblocking(False)
        self._next: socket.socket | None = None
        self._unanswered = Unanswered() if keeps else None
        self._decoder = FrameDecoder()
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
        waiting = self._unanswered.bytes if self._unanswered is not None else 0
        is_behind = len(self._to_store) >= _HIGH_WATER or waiting >= BYTES_MAX
        return not self._closed and self.error == RingError.NONE and not is_behind

    @property
    def has_work(self) -> bool:
        """Never: requests are answered at the other end."""
        return False

    @property
    def is_away(self) -> bool:
        """Whether there is nobody at the other end now, who will come again."""
        return self._sock is None and not self._closed

    def turn(self) -> None:
        """Nothing: requests are answered at the other end."""

    def call_home(self, path: str) -> None:
        """Says what relative paths of its client begin with."""
        if self._unanswered is not None:
            self._unanswered.home = path

    def receive(self, data: bytes) -> None:
        """Sends the guest's bytes on."""
        with self._lock:
            if self._unanswered is not None:
                self._unanswered.ask(data)
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
            if self._unanswered is not None:
                self._unanswered.reset()
        self._wake()

    def resume(self, sock: socket.socket) -> None:
        """Goes on with another store at the other end of this socket."""
        sock.setblocking(False)
        with self._lock:
            if self._next is not None:
                self._next.close()
            self._next = sock
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
        try:
            with selectors.DefaultSelector() as selector:
                selector.register(self._wake_read, selectors.EVENT_READ)
                while not self._closed:
                    self._begin_anew()
                    if not self._move(selector):
                        if self._unanswered is None:
                            return
                        with self._lock:
                            self._leave()
        except OSError:
            pass  # the store's process is gone: the control channel says so too
        finally:
            if not self._closed:
                self.error = RingError.COMM
                self._announce()
            self._closed = True
            for sock in (self._sock, self._next, self._wake_read, self._wake_write):
                if sock is not None:
                    sock.close()

    def _leave(self) -> None:
        if self._sock is not None:
            self._sock.close()
            self._sock = None

    def _begin_anew(self) -> None:
        """With the next store, if there is one: as it answers all that is asked again, what went to the one before is
        forgotten."""
        with self._lock:
            if self._next is None or self._unanswered is None:
                return
            self._leave()
            self._sock, self._next = self._next, None
            self._decoder = FrameDecoder()
            self._resets_pending = 0
            again = () if self.error != RingError.NONE else self._unanswered.again()
            self._to_store = bytearray().join(encode_frame(*frame) for frame in again)

    def _move(self, selector: selectors.BaseSelector) -> bool:
        """Moves bytes until the socket changes. False: the store has gone."""
        sock, interest = self._sock, 0
        try:
            while not self._closed and self._next is None:
                wanted = 0
                if sock is not None:
                    wanted = (selectors.EVENT_READ if len(self._to_guest) < _HIGH_WATER else 0) | (
                        selectors.EVENT_WRITE if self._to_store else 0
                    )
                    interest = _change_interest(selector, sock, interest, wanted)
                for key, events in selector.select():
                    if key.fileobj is self._wake_read:
                        self._wake_read.recv(4096)
                    elif sock is not None:
                        if events & selectors.EVENT_WRITE:
                            self._send(sock)
                        if events & selectors.EVENT_READ and not self._take(sock):
                            return False
        except (OSError, DomzeroError):
            return False
        finally:
            if sock is not None and interest:
                selector.unregister(sock)
        return True

    def _send(self, sock: socket.socket) -> None:
        with self._lock:
            full = len(self._to_store) >= _HIGH_WATER
            try:
                sent = sock.send(self._to_store)
            except BlockingIOError:
                return
            del self._to_store[:sent]
            room_again = full and len(self._to_store) < _HIGH_WATER
        if room_again:
            self._announce()

    def _take(self, sock: socket.socket) -> bool:
        try:
            data = sock.recv(_HIGH_WATER)
        except BlockingIOError:
            return True
        if not data:
            return False
        for kind, payload in self._decoder.feed(data):
            with self._lock:
                if kind == Frame.RESET:
                    self._resets_pending -= 1
                elif self._resets_pending:
                    continue  # an answer to what was asked before the reset
                elif kind == Frame.DATA:
                    self._to_guest += payload if self._unanswered is None else self._unanswered.tell(payload)
                elif kind == Frame.ERROR and payload:
                    self.error = RingError(payload[0])
                elif kind == Frame.SEEN and self._unanswered is not None:
                    self._unanswered.has_seen(*NUMBER.unpack(payload))
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
    """Domain 0's end: an asyncio protocol over the other socket of the pair.

    :param resumes: the client has had another store before this one, and says first what it has there.
    """

    def __init__(self, connection: Connection, loop: asyncio.AbstractEventLoop, *, resumes: bool = False) -> None:
        self._connection = connection
        self._resumes = resumes
        self._number = 0  # of the last change that the client has been told of
        self._has_told = False  # it has been sent something since that was said
        self._loop = loop
        self._decoder = FrameDecoder()
        self._transport: asyncio.Transport | None = None
        self._may_write = True
        self._pending: deque[tuple[int, bytes]] = deque()
        self._turn_due = False
        connection.on_output = self._output_ready

    @classmethod
    async def start(cls, sock: socket.socket, connection: Connection, *, resumes: bool = False) -> RelayServer:
        """Serves a socket; the connection ends with it."""
        loop = asyncio.get_running_loop()
        _, protocol = await loop.create_connection(lambda: cls(connection, loop, resumes=resumes), sock=sock)
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
            self._has_told = True
        self.say_seen()
        if not self._turn_due and self._has_turn:
            self._turn_due = True
            self._loop.call_soon(self._next_turn)
        # Backpressure: what the connection does not take stays in the socket, and so in the guest's ring.
        if self._pending:
            self._transport.pause_reading()
        else:
            self._transport.resume_reading()

    def say_seen(self) -> None:
        """Says which change the client has been told of last, if it has been told of all."""
        number = self._connection.store.told
        if number is None or self._resumes or self._connection.has_output:
            return
        if self._transport is not None and self._may_write and (self._has_told or number != self._number):
            self._number, self._has_told = number, False
            self._transport.write(encode_frame(Frame.SEEN, NUMBER.pack(number)))

    @property
    def _has_turn(self) -> bool:
        connection = self._connection
        if self._pending and (connection.wants_input or self._pending[0][0] != Frame.DATA):
            return True
        return connection.has_work

    def _take_turn(self) -> None:
        connection = self._connection
        if not self._has_turn or self._transport is None:
            return
        if self._pending and self._pending[0][0] != Frame.DATA:
            try:
                self._take_other(*self._pending.popleft())
            except (DomzeroError, struct.error) as error:
                logger.error("the xenstore relay of domain %d talks nonsense: %s", connection.domid, error)
                self.close()
                return
        elif connection.has_work:
            connection.turn()
        elif self._resumes:
            logger.error("the xenstore relay of domain %d asks before it has resumed", connection.domid)
            self.close()
            return
        else:
            connection.receive(self._pending.popleft()[1])
        if connection.error != RingError.NONE:
            self._transport.write(encode_frame(Frame.ERROR, bytes([connection.error])))
            self._pending = deque(frame for frame in self._pending if frame[0] == Frame.RESET)

    def _take_other(self, kind: int, payload: bytes) -> None:
        """A frame that is no data; MessageError for one that does not belong here."""
        if kind == Frame.RESET and self._transport is not None:
            self._resumes = False
            self._connection.reset()
            self._transport.write(encode_frame(Frame.RESET))
        elif not self._resumes:
            raise FrameError(f"a frame of kind {kind}")
        elif kind in (Frame.WATCH, Frame.FRESH):
            self._connection.hold_watch(payload, is_new=kind == Frame.FRESH)
        elif kind == Frame.TRANSACTION:
            self._connection.hold_transaction(*NUMBER.unpack(payload))
        elif kind == Frame.SEEN:
            self._resumes = False
            self._connection.catch_up(*NUMBER.unpack(payload))
        else:
            raise FrameError(f"a frame of kind {kind}")
