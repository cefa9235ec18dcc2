# SPDX-License-Identifier: Apache-2.0
"""Threads between a console and files of the host: neither side ever waits for the other with a lock held."""

from __future__ import annotations

import os
import select
import socket
import threading
from collections.abc import Callable
from contextlib import suppress

from domzero.dom0.console import Console

ESCAPE = 0x1D
"""Ctrl-]: leaves the console."""
_HIGH_WATER = 1 << 20
_LOW_WATER = 256 << 10
_LAST_WORDS_S = 0.5


class OutputWriter:
    """Writes a guest's output to a file descriptor from a thread of its own, so that a slow reader never holds the
    hypervisor up: past a limit the guest is held instead.

    :param hold, release: tell the console that output cannot (can again) be taken.
    :param closed: called when the reader has gone.
    """

    def __init__(
        self,
        fd: int,
        *,
        transform: Callable[[bytes], bytes] = bytes,
        hold: Callable[[], None],
        release: Callable[[], None],
        closed: Callable[[], None],
    ) -> None:
        self._fd = fd
        self._transform = transform
        self._hold = hold
        self._release = release
        self._closed = closed
        self._buffer = bytearray()
        self._changed = threading.Condition()
        self._held = False
        self._finished = False
        self._broken = False
        self._thread = threading.Thread(target=self._run, name="console-output", daemon=True)
        self._thread.start()

    def write(self, data: bytes) -> None:
        """Queues output; returns at once."""
        hold = False
        with self._changed:
            if self._broken:
                return
            self._buffer += self._transform(data)
            if len(self._buffer) > _HIGH_WATER and not self._held:
                self._held = hold = True
            self._changed.notify()
        if hold:
            self._hold()

    def finish(self, timeout: float) -> None:
        """Waits until all is written, at most `timeout` seconds."""
        with self._changed:
            self._finished = True
            self._changed.notify()
        self._thread.join(timeout)

    def join(self) -> None:
        """Waits for the end of the thread: after `finish`, when a write under way has returned."""
        self._thread.join()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._buffer or self._finished)
                chunk = bytes(self._buffer[:65536])
                if not chunk:
                    return
            try:
                written = os.write(self._fd, chunk)
            except BlockingIOError:
                select.select([], [self._fd], [], 1.0)
                continue
            except OSError:
                with self._changed:
                    self._broken = True
                    self._buffer.clear()
                self._free()
                self._closed()
                return
            with self._changed:
                del self._buffer[:written]
                low = len(self._buffer) < _LOW_WATER
            if low:
                self._free()

    def _free(self) -> None:
        with self._changed:
            held, self._held = self._held, False
        if held:
            self._release()


class InputReader:
    """Reads a file descriptor in a thread and gives it to the guest, no faster than the guest takes it.

    :param send: takes bytes, returns how many were accepted.
    :param wait_room: waits (at most so many seconds) for room.
    :param escape: called when Ctrl-] was typed; None to pass it on as any other byte.
    """

    def __init__(
        self,
        fd: int,
        *,
        send: Callable[[bytes], int],
        wait_room: Callable[[float], bool],
        escape: Callable[[], None] | None,
    ) -> None:
        self._fd = fd
        self._send = send
        self._wait_room = wait_room
        self._escape = escape
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name="console-input", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Reads no more; a read under way is left to itself."""
        self._stopped = True

    def join(self) -> None:
        """Waits for the end of the thread: after `stop`, when a read under way has returned."""
        self._thread.join()

    def _run(self) -> None:
        while not self._stopped:
            if not self._wait_room(1.0):
                continue
            try:
                data = os.read(self._fd, 4096)
            except BlockingIOError:
                select.select([self._fd], [], [], 1.0)
                continue
            except OSError:
                return
            if not data:
                return  # end of input: the guest goes on
            if self._escape is not None and ESCAPE in data:
                self._deliver(data[: data.index(ESCAPE)])
                self._escape()
                return
            self._deliver(data)

    def _deliver(self, data: bytes) -> None:
        while data and not self._stopped:
            data = data[self._send(data) :]
            if data:
                self._wait_room(1.0)


class ConsoleLink:
    """A console at one end of a connected socket, until `close`. It takes the socket."""

    def __init__(self, console: Console, sock: socket.socket) -> None:
        self._sock = sock
        fd = sock.fileno()
        self._output = OutputWriter(fd, hold=console.hold, release=console.release, closed=lambda: None)
        self._remove = console.add_sink(self._output.write)
        self._input = InputReader(fd, send=console.send, wait_room=console.wait_room, escape=None)

    def close(self) -> None:
        """Hands over what is left, for at most half a second, and closes the socket."""
        self._remove()
        self._output.finish(_LAST_WORDS_S)
        self._input.stop()
        with suppress(OSError):  # the other end went first
            self._sock.shutdown(socket.SHUT_RDWR)
        self._output.join()
        self._input.join()
        self._sock.close()
