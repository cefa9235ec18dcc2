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
from dataclasses import dataclass

from domzero.dom0.messages import DiskGone, FrameKind, LogLine, Message, VifGone, encode
from domzero.dom0.socket_frames import encode_frame

CHUNK = 64 * 1024
_CONSOLE_HIGH = 64 * 1024
_CONSOLE_LOW = 16 * 1024
LOG_LINES_QUEUED = 2000
_FINISH_SECONDS = 0.5


@dataclass(slots=True)
class _Queued:
    frames: bytes
    console_bytes: int = 0
    is_line: bool = False


class ControlChannel:
    """Sends what is given from any thread, which returns at once.

    Output, lines and events go in the order of the calls. Answers go before all of it, and so does, in order with them,
    that a device is gone, which what comes next may rest on: Domain 0 waits for them, and a guest has much to say.

    The process ends when there is nobody left to send to, unless it is one that waits for the next Domain 0.

    :param hold: called when console output piles up.
    :param release: called when it has gone.
    :param keeps: it waits.
    """

    def __init__(
        self, sock: socket.socket, *, hold: Callable[[], None], release: Callable[[], None], keeps: bool = False
    ) -> None:
        self._sock: socket.socket | None = sock
        self._keeps = keeps
        self._session = 0  # of how many Domain 0s
        self._hold = hold
        self._release = release
        self._changed = threading.Condition()
        self._answers: deque[_Queued] = deque()
        self._queue: deque[_Queued] = deque()
        self._console_bytes = 0
        self._log_lines = 0
        self._dropped = 0
        self._held = False
        self._is_finished = False
        self._thread = threading.Thread(target=self._run, name="control-output", daemon=True)
        self._thread.start()

    @property
    def session(self) -> int:
        """How many Domain 0s there were before this one."""
        return self._session

    def send(self, message: Message, request_id: int = 0, session: int | None = None) -> None:
        """Queues a message: the answer to a request, of which there are no more than requests, or an event (0).

        :param session: in which it was asked: an answer to a Domain 0 that has gone is not sent.
        """
        is_answer = bool(request_id) or isinstance(message, DiskGone | VifGone)  # also no more than requests
        is_line = isinstance(message, LogLine)
        with self._changed:
            if session not in (None, self._session):
                return
            if is_line:
                if self._log_lines >= LOG_LINES_QUEUED:
                    self._dropped += 1
                    return
                self._log_lines += 1
            queued = _Queued(encode_frame(FrameKind.MESSAGE, encode(message, request_id)), is_line=is_line)
            (self._answers if is_answer else self._queue).append(queued)
            self._changed.notify()

    def console(self, data: bytes) -> None:
        """Queues the guest's output."""
        chunks = (data[start : start + CHUNK] for start in range(0, len(data), CHUNK))
        frames = b"".join(encode_frame(FrameKind.CONSOLE, chunk) for chunk in chunks)
        with self._changed:
            self._queue.append(_Queued(frames, console_bytes=len(data)))
            self._console_bytes += len(data)
            hold = self._console_bytes > _CONSOLE_HIGH and not self._held
            self._held |= hold
            self._changed.notify()
        if hold:
            self._hold()

    def detach(self) -> None:
        """Sends nothing until `resume`: Domain 0 has gone."""
        with self._changed:
            self._sock = None

    def resume(self, sock: socket.socket) -> None:
        """Sends to another Domain 0. Lines of the log that wait go to it; answers went to the one before, and what the
        guest has printed comes again, as does what else has happened (`Resumed`)."""
        with self._changed:
            self._answers.clear()
            self._queue = deque(queued for queued in self._queue if queued.is_line)
            self._console_bytes = 0
            release, self._held = self._held, False
            self._sock = sock
            self._session += 1
            self._changed.notify()
        if release:
            self._release()

    def finish(self) -> None:
        """Returns when all has been sent, or half a second has passed."""
        with self._changed:
            self._is_finished = True
            self._changed.notify()
        self._thread.join(_FINISH_SECONDS)

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(self._has_work)
                sock, session = self._sock, self._session
                taken = self._take()
            if not taken or sock is None:
                return
            try:
                sock.sendall(b"".join(each.frames for each in taken))
            except OSError:
                if not self._keeps:
                    os._exit(0)
                self._lose(sock)
                continue
            self._console_sent(sum(each.console_bytes for each in taken), session)

    def _has_work(self) -> bool:
        return self._is_finished or (self._sock is not None and bool(self._answers or self._queue))

    def _lose(self, sock: socket.socket) -> None:
        with self._changed:
            if self._sock is sock:
                self._sock = None

    def _take(self) -> list[_Queued]:
        """What goes next, some `CHUNK` of it: what an answer that comes now has to wait for."""
        taken: list[_Queued] = []
        size = 0
        while size < CHUNK and (queue := self._answers or self._queue):
            taken.append(queued := queue.popleft())
            size += len(queued.frames)
            if queued.is_line:
                self._log_lines -= 1
                if self._dropped:
                    note = LogLine(f"({self._dropped} lines were dropped)")
                    taken.append(_Queued(encode_frame(FrameKind.MESSAGE, encode(note))))
                    self._dropped = 0
        return taken

    def _console_sent(self, count: int, session: int) -> None:
        if not count:
            return
        with self._changed:
            if session != self._session:
                return
            self._console_bytes -= count
            release = self._held and self._console_bytes < _CONSOLE_LOW
            self._held = self._held and not release
        if release:
            self._release()


__all__ = ["CHUNK", "ControlChannel"]
