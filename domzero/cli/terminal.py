# SPDX-License-Identifier: Apache-2.0
"""The console's two ends in `domzero run` and `domzero console`: a terminal in raw mode, or plain pipes."""

from __future__ import annotations

import os
import select
import sys
import termios
import threading
import tty
from collections import deque
from collections.abc import Callable
from types import TracebackType

from domzero.dom0.names import shown

ESCAPE = 0x1D
"""Ctrl-]: leaves the console."""

LOG_LINES_QUEUED = 2000
_HIGH_WATER = 1 << 20
_LOW_WATER = 256 << 10


def is_terminal() -> bool:
    """True when both stdin and stdout are terminals: only then raw mode is of use."""
    try:
        return os.isatty(0) and os.isatty(1)
    except OSError:
        return False


class RawMode:
    """A terminal in raw mode, for the length of a `with` block; nothing when stdin is no terminal."""

    def __init__(self, *, enabled: bool) -> None:
        self._enabled = enabled
        self._saved: list[object] | None = None

    def __enter__(self) -> RawMode:
        if self._enabled:
            self._saved = termios.tcgetattr(0)
            tty.setraw(0, termios.TCSANOW)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.restore()

    def restore(self) -> None:
        """Back to what it was. May be called twice."""
        if self._saved is not None:
            termios.tcsetattr(0, termios.TCSADRAIN, self._saved)  # type: ignore[arg-type]
            self._saved = None


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
    """Reads stdin in a thread and gives it to the guest, no faster than the guest takes it.

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
        threading.Thread(target=self._run, name="console-input", daemon=True).start()

    def stop(self) -> None:
        """Reads no more; a read under way is left to itself."""
        self._stopped = True

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


class LogWriter:
    """Lines on stderr, written by a thread: the hypervisor says them with its lock held, and never waits for a reader.

    What more than `LOG_LINES_QUEUED` lines nobody has read is dropped and counted.
    """

    def __init__(self, fd: int = 2) -> None:
        self._fd = fd
        self._lines: deque[str] = deque()
        self._dropped = 0
        self._is_finished = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)
        self._thread.start()

    def __call__(self, line: str) -> None:
        """Queues a line; returns at once."""
        with self._changed:
            if len(self._lines) >= LOG_LINES_QUEUED:
                self._dropped += 1
                return
            if self._dropped:
                self._lines.append(f"({self._dropped} lines were dropped)")
                self._dropped = 0
            self._lines.append(line)
            self._changed.notify()

    def finish(self, timeout: float) -> None:
        """Waits until all is written, at most `timeout` seconds."""
        with self._changed:
            self._is_finished = True
            if self._dropped:
                self._lines.append(f"({self._dropped} lines were dropped)")
            self._changed.notify()
        self._thread.join(timeout)

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._lines or self._is_finished)
                if not self._lines:
                    return
                line = self._lines.popleft()
            data = _line(line, self._fd).encode(errors="replace")
            while data:
                try:
                    data = data[os.write(self._fd, data) :]
                except BlockingIOError:
                    select.select([], [self._fd], [], 1.0)
                except OSError:  # nobody reads it any more
                    return


def _line(text: str, fd: int) -> str:
    return shown(text) + ("\r\n" if os.isatty(fd) else "\n")


def say(text: str) -> None:
    """A line on stderr, right in a raw terminal as well; controls in it, which may be a guest's, are shown."""
    sys.stderr.write(_line(text, 2))
    sys.stderr.flush()
