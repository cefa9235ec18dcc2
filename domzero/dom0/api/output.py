# SPDX-License-Identifier: Apache-2.0
"""A console's output on its way to one client."""

from __future__ import annotations

import asyncio

BACKLOG_MAX = 4 << 20
"""Bytes that may wait for a client; one that lets more pile up is cut off: it can come back, and gets the history."""
CHUNK = 64 << 10
"""Bytes of one message."""
_SENT_MAX = 4 * CHUNK  # what of it waits in the transport: its high-water mark, a message and what is around it
QUEUE_MAX = BACKLOG_MAX - _SENT_MAX


class Output:
    """A queue with a bound. `put` is a console's sink; everything happens in the event loop."""

    def __init__(self) -> None:
        self._pending = bytearray()
        self._changed = asyncio.Event()
        self._finished = False
        self._overrun = asyncio.Event()

    @property
    def overrun(self) -> bool:
        """The client is too slow: what waited was dropped, and nothing is taken any more."""
        return self._overrun.is_set()

    async def wait_overrun(self) -> None:
        """Returns when it is overrun, also while what was taken last is being sent."""
        await self._overrun.wait()

    def __len__(self) -> int:
        return len(self._pending)

    def put(self, data: bytes) -> None:
        """Takes output, or drops all and is overrun."""
        if len(self._pending) + len(data) > QUEUE_MAX:
            self._overrun.set()
            self._pending.clear()
        if not self.overrun and not self._finished:
            self._pending += data
        self._changed.set()

    def finish(self) -> None:
        """There will be no more."""
        self._finished = True
        self._changed.set()

    async def take(self) -> bytes:
        """The next output, at most CHUNK bytes; none when it is overrun, or finished and taken."""
        while not self._pending and not self._finished and not self.overrun:
            self._changed.clear()
            await self._changed.wait()
        data = bytes(self._pending[:CHUNK])
        del self._pending[:CHUNK]
        return data
