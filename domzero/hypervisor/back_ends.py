# SPDX-License-Identifier: Apache-2.0
"""When a domain's back ends answer its events: later, on a thread of their own, never inside the hypercall that sends.

Real back ends are other programs, in another domain. A guest may send with a lock held that its handler of the answer
takes, and hangs if that handler runs before the hypercall returns.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import Protocol

LATENCY_NS = 20_000
"""Virtual time from a guest's event to the answer: part of what makes a run reproducible."""


class Due(Protocol):
    """A back end's port: what is called once for all events since the last call."""

    is_open: bool
    is_due: bool

    @property
    def callback(self) -> Callable[[], None]:
        """Answers the events."""


class BackEnds:
    """The back ends of one domain.

    :param name: of the thread.
    :param virtual_now: virtual time in nanoseconds, in deterministic runs: the answer then comes from `fire`, at an
        instruction. None: there is a thread, started with the first event.
    :param schedule: in deterministic runs, called when `next_ns` has changed.
    :param failed: told what a callback raised, which is our bug.
    """

    def __init__(
        self,
        name: str,
        *,
        virtual_now: Callable[[], int] | None,
        schedule: Callable[[], None],
        failed: Callable[[Exception], None],
    ) -> None:
        self._name = name
        self._virtual_now = virtual_now
        self._schedule = schedule
        self._failed = failed
        self._waiting: list[Due] = []
        self._next_ns: int | None = None
        self._queue: queue.SimpleQueue[Due | threading.Event | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._stopped = False

    def ring(self, port: Due) -> None:
        """The guest has sent an event; with `host.lock` held. Events that come before the answer are one."""
        if port.is_due or self._stopped:
            return
        port.is_due = True
        if self._virtual_now is None:
            if self._thread is None:
                self._thread = threading.Thread(target=self._main, name=self._name, daemon=True)
                self._thread.start()
            self._queue.put(port)
            return
        self._waiting.append(port)
        if self._next_ns is None:
            self._next_ns = self._virtual_now() + LATENCY_NS
            self._schedule()

    def next_ns(self) -> int | None:
        """When `fire` has something to do: never, when there is a thread."""
        return self._next_ns

    def fire(self, now_ns: int) -> None:
        """Answers what is due; in a vCPU's thread, with `host.lock` held."""
        if self._next_ns is None or self._next_ns > now_ns:
            return
        waiting, self._waiting = self._waiting, []
        self._next_ns = None
        for port in waiting:
            self._call(port)

    def settle(self) -> None:
        """Returns when every event that was sent before has been answered. Without `host.lock` if there is a thread."""
        if self._virtual_now is not None:
            while self._next_ns is not None:
                self.fire(self._next_ns)
        elif self._thread is not None and self._thread is not threading.current_thread():
            done = threading.Event()
            self._queue.put(done)
            while not done.wait(0.1) and self._thread.is_alive():
                pass

    def stop(self) -> None:
        """No callback runs any more once this returns. Not with `host.lock` held."""
        self._stopped = True
        self._waiting.clear()
        self._next_ns = None
        if self._thread is not None and self._thread is not threading.current_thread():
            self._queue.put(None)
            self._thread.join()

    def _main(self) -> None:
        while (item := self._queue.get()) is not None:
            if isinstance(item, threading.Event):
                item.set()
            elif not self._stopped:
                self._call(item)

    def _call(self, port: Due) -> None:
        port.is_due = False  # what is sent from now on is another event
        if not port.is_open:
            return
        try:
            port.callback()
        except Exception as error:  # noqa: BLE001 - a bug of ours ends this domain, not the host
            self._failed(error)
