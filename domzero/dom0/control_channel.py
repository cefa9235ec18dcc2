# SPDX-License-Identifier: Apache-2.0
"""The worker's end of the control socket: a bounded queue and the thread that empties it.

The guest's output and the hypervisor's log are handed over with the hypervisor's lock held, so nothing here waits for
the Domain 0 process. What it reads too slowly stays with the guest (`hold`), or is dropped and counted (log lines).
"""

from __future__ import annotations

import os
import socket
import threading
from collections import deque
from collections.abc import Callable

from domzero.dom0.messages import FrameKind, LogLine, Message, encode
from domzero.dom0.socket_frames import encode_frame

CHUNK = 64 * 1024
_CONSOLE_HIGH = 64 * 1024
_CONSOLE_LOW = 16 * 1024
LOG_LINES_QUEUED = 2000
_FINISH_SECONDS = 0.5


class ControlChannel:
    """Sends in the order of the calls, which may come from any thread and return at once.

    The process ends when there is nobody left to send to.

    :param hold: called when console output piles up.
    :param release: called when it has gone.
    """

    def __init__(self, sock: socket.socket, *, hold: Callable[[], None], release: Callable[[], None]) -> None:
        self._sock = sock
        self._hold = hold
        self._release = release
        self._changed = threading.Condition()
        self._queue: deque[tuple[FrameKind, bytes, bool]] = deque()  # the last: whether it is a line of the log
        self._console_bytes = 0
        self._log_lines = 0
        self._dropped = 0
        self._held = False
        self._is_finished = False
        self._thread = threading.Thread(target=self._run, name="control-output", daemon=True)
        self._thread.start()

    def send(self, message: Message, request_id: int = 0) -> None:
        """Queues a message: an answer, of which there are no more than requests, or an event."""
        is_line = isinstance(message, LogLine)
        with self._changed:
            if is_line:
                if self._log_lines >= LOG_LINES_QUEUED:
                    self._dropped += 1
                    return
                self._log_lines += 1
            self._queue.append((FrameKind.MESSAGE, encode(message, request_id), is_line))
            self._changed.notify()

    def console(self, data: bytes) -> None:
        """Queues the guest's output."""
        with self._changed:
            self._queue.append((FrameKind.CONSOLE, data, False))
            self._console_bytes += len(data)
            hold = self._console_bytes > _CONSOLE_HIGH and not self._held
            self._held |= hold
            self._changed.notify()
        if hold:
            self._hold()

    def finish(self) -> None:
        """Returns when all has been sent, or half a second has passed."""
        with self._changed:
            self._is_finished = True
            self._changed.notify()
        self._thread.join(_FINISH_SECONDS)

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._queue or self._is_finished)
                if not self._queue:
                    return
                kind, payload, is_line = self._queue.popleft()
                dropped = 0
                if is_line:
                    self._log_lines -= 1
                    dropped, self._dropped = self._dropped, 0
            try:
                for start in range(0, len(payload), CHUNK) if kind is FrameKind.CONSOLE else ():
                    self._sock.sendall(encode_frame(kind, payload[start : start + CHUNK]))
                if kind is FrameKind.MESSAGE:
                    self._sock.sendall(encode_frame(kind, payload))
                if dropped:
                    note = encode(LogLine(f"({dropped} lines were dropped)"))
                    self._sock.sendall(encode_frame(FrameKind.MESSAGE, note))
            except OSError:
                os._exit(0)
            if kind is FrameKind.CONSOLE:
                self._console_sent(len(payload))

    def _console_sent(self, count: int) -> None:
        with self._changed:
            self._console_bytes -= count
            release = self._held and self._console_bytes < _CONSOLE_LOW
            self._held = self._held and not release
        if release:
            self._release()


__all__ = ["CHUNK", "ControlChannel"]
