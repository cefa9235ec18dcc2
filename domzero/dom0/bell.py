# SPDX-License-Identifier: Apache-2.0
"""Tells those who wait that something has changed."""

from __future__ import annotations

import asyncio
from contextlib import suppress


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
            with suppress(TimeoutError, asyncio.TimeoutError):
                await asyncio.wait_for(self._rung.wait(), timeout)
