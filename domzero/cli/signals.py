# SPDX-License-Identifier: Apache-2.0
"""Signals that end a command, while its main thread waits for another thread."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

POLL_S = 0.25
"""Seconds after which a wait of the main thread looks up. A signal that comes between Python's last look for one and
the lock's own wait (milliseconds, while other threads want the interpreter) does not end that wait."""


def wait(event: threading.Event, timeout: float | None) -> bool:
    """As `event.wait(timeout)`, in the main thread; a signal's handler runs within `POLL_S`."""
    end = None if timeout is None else time.monotonic() + timeout
    while True:
        left = POLL_S if end is None else min(POLL_S, max(0.0, end - time.monotonic()))
        if event.wait(left):
            return True
        if end is not None and time.monotonic() >= end:
            return False


@contextmanager
def ended_by_signals(*, once: bool = False) -> Iterator[None]:
    """SIGTERM and SIGHUP leave by an exception, so that terminals are restored and half-made files deleted.

    :param once: the same signal again is ignored: what follows is the tidying.
    """

    def end(number: int, _frame: FrameType | None) -> None:
        if once:
            signal.signal(number, signal.SIG_IGN)
        raise SystemExit(128 + number)

    before = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
