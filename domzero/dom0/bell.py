# SPDX-License-Identifier: Apache-2.0
"""Tells those who wait that something has changed."""

from __future__ import annotations

import asyncio


class Bell:
    """A bell that is rung after each change.

    `count` says how often it was.
    """

    def __init__(self) -> None:
        self.count = 0
        self._rung = asyncio.Event()

    def ring(self) -> None:
        """Something has changed."""
        self.count += 1
        self._rung.set()
        self._rung = asyncio.Event()

    async def wait(self, count: int, timeout: float) -> None:
        """Returns when it was rung more often than that, or so many seconds have passed."""
        if self.count == count:
            await wait_set(self._rung, timeout)


async def wait_set(event: asyncio.Event, seconds: float) -> None:
    """Returns when an event is set, or so many seconds have passed.

    Before Python 3.12 `asyncio.wait_for` swallows a cancellation that comes in the turn in which the event is set:
    whoever waits in a loop goes on with it, and whoever has cancelled that waits for ever.
    """
    waiting = asyncio.ensure_future(event.wait())
    try:
        await asyncio.wait({waiting}, timeout=seconds)
    finally:
        waiting.cancel()


__all__ = ["Bell", "wait_set"]
