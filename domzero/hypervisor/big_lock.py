# SPDX-License-Identifier: Apache-2.0
"""The hypervisor's big lock: a reentrant lock that is given to threads in the order in which they came.

`threading.RLock` goes to whoever is awake: a vCPU that makes one hypercall after the other takes it again before a
thread that waits for it has woken up, for seconds.
"""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from types import TracebackType


class BigLock:
    """Works with `with` and as the lock of a `threading.Condition`."""

    __slots__ = ("_lock", "_queue")

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._queue: deque[threading.Lock] = deque()
        """Who waits, in order: each on a lock of its own, which whoever releases the big lock opens for the first."""

    def acquire(self, blocking: bool = True) -> bool:
        """Waits until all have had it who came before. Nests.

        :param blocking: wait; else it is had at once or not at all.
        :returns: whether it is held now.
        """
        if (not self._queue or self._is_owned()) and self._lock.acquire(blocking=False):
            return True
        if blocking:
            self._wait()
        return blocking

    def condition(self) -> threading.Condition:
        """A condition whose lock is this one."""
        return threading.Condition(self)  # type: ignore[arg-type]  # any lock that nests will do

    def release(self) -> None:
        """Undoes one `acquire`."""
        self._lock.release()
        if self._queue:
            self._wake()

    @property
    def waiting(self) -> int:
        """How many threads wait for it."""
        return len(self._queue)

    def __enter__(self) -> None:
        self.acquire()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.release()

    def _wait(self) -> None:
        turn = threading.Lock()
        turn.acquire()
        self._queue.append(turn)
        try:
            # If the lock was released before we stood in the queue, nobody will wake us.
            if self._queue[0] is not turn or not self._lock.acquire(blocking=False):
                turn.acquire()
                self._lock.acquire()  # free, or held by one who had looked at the queue before it filled
        except BaseException:  # KeyboardInterrupt: the others must not wait for a thread that is gone
            self._queue.remove(turn)
            self._wake()
            raise
        self._queue.popleft()

    def _wake(self) -> None:
        # The first may have been woken already, or have gone.
        with contextlib.suppress(RuntimeError, IndexError):
            self._queue[0].release()

    # --- what threading.Condition asks for

    def _is_owned(self) -> bool:
        return self._lock._is_owned()  # type: ignore[attr-defined,no-any-return]

    def _release_save(self) -> int:
        count: int = self._lock._release_save()[0]  # type: ignore[attr-defined]
        if self._queue:
            self._wake()
        return count

    def _acquire_restore(self, count: int) -> None:
        self.acquire()
        for _ in range(count - 1):
            self._lock.acquire()
