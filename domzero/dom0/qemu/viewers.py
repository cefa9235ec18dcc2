# SPDX-License-Identifier: Apache-2.0
"""Viewers who come to the address of a screen (`vnc.listener`): QEMU's VNC server serves them."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress

from domzero.errors import DomzeroError


class Viewers:
    """Takes them from the listener's socket, which is this one's from here on.

    :param add: hands one to QEMU; the descriptor stays the caller's.
    """

    def __init__(self, sock: socket.socket, add: Callable[[int], Awaitable[None]]) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._add = add
        self._jobs: set[asyncio.Task[None]] = set()
        asyncio.get_running_loop().add_reader(sock, self._take)

    def close(self) -> None:
        """Lets nobody in any more; the address goes with it."""
        for job in self._jobs:
            job.cancel()
        if self._sock.fileno() >= 0:
            asyncio.get_running_loop().remove_reader(self._sock)
            self._sock.close()

    def _take(self) -> None:
        try:
            data, fds, _, _ = socket.recv_fds(self._sock, 1, 1)
        except BlockingIOError:
            return
        except OSError:
            data, fds = b"", []
        if not data:
            self.close()
        for fd in fds:
            job = asyncio.get_running_loop().create_task(self._hand_over(fd))
            self._jobs.add(job)
            job.add_done_callback(self._jobs.discard)

    async def _hand_over(self, fd: int) -> None:
        try:
            with suppress(DomzeroError):
                await self._add(fd)
        finally:
            os.close(fd)


__all__ = ["Viewers"]
