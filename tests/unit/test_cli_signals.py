# SPDX-License-Identifier: Apache-2.0
"""Signals while the main thread waits: one that did not wake it is heard all the same."""

from __future__ import annotations

import signal
import threading
from types import FrameType

from domzero.cli.signals import wait


def test_a_signal_that_another_thread_received_ends_the_wait() -> None:
    event = threading.Event()

    def handler(_number: int, _frame: FrameType | None) -> None:
        event.set()

    before = signal.signal(signal.SIGUSR1, handler)

    thread = threading.Timer(0.1, lambda: signal.pthread_kill(threading.get_ident(), signal.SIGUSR1))
    thread.start()
    try:
        assert wait(event, 30)
    finally:
        thread.join()
        signal.signal(signal.SIGUSR1, before)


def test_a_wait_ends_with_its_time_or_its_event() -> None:
    event = threading.Event()
    assert not wait(event, 0.0)
    assert not wait(event, 0.3)
    event.set()
    assert wait(event, 0.0) and wait(event, None)
