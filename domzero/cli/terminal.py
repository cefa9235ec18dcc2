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
from types import TracebackType

from domzero.dom0.names import shown

LOG_LINES_QUEUED = 2000


def is_terminal() -> bool:
    """True when both stdin and stdout are terminals: only then raw mode is of use."""
    try:
        return os.isatty(0) and os.isatty(1)
    except OSError:
        return False


class RawMode:
    """A terminal in raw mode, for the length of a `with` block; nothing when stdin is no terminal.

    :param keeps_signals: Ctrl-C and the like still do what they do, and lines end as ever: only keys come one by one.
    """

    def __init__(self, *, enabled: bool, keeps_signals: bool = False) -> None:
        self._enabled = enabled
        self._set = tty.setcbreak if keeps_signals else tty.setraw
        self._saved: list[object] | None = None

    def __enter__(self) -> RawMode:
        if self._enabled:
            self._saved = termios.tcgetattr(0)
            self._set(0, termios.TCSANOW)
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
