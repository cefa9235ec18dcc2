# SPDX-License-Identifier: Apache-2.0
"""Files that are opened in threads, for whoever has an event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol, TypeVar

_THREADS = 16


class Closable(Protocol):
    """What holds open files."""

    def close(self) -> None:
        """Closes those that are left."""


C = TypeVar("C", bound=Closable)
_threads: ThreadPoolExecutor | None = None


async def in_thread(opens: Callable[[], C]) -> C:
    """Opens in a thread. What comes after nobody waits for it any more is closed."""
    global _threads
    _threads = _threads or ThreadPoolExecutor(_THREADS, "open")
    future = _threads.submit(opens)
    try:
        return await asyncio.shield(asyncio.wrap_future(future))
    except asyncio.CancelledError:
        future.add_done_callback(_close)
        raise


def _close(future: Future[C]) -> None:
    if not future.cancelled() and future.exception() is None:
        future.result().close()
