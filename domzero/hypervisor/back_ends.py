# SPDX-License-Identifier: Apache-2.0
"""When a domain's back ends answer its events: later, on a thread of their own, never inside the hypercall that sends.

Real back ends are other programs, in another domain. A guest may send with a lock held that its handler of the answer
takes, and hangs if that handler runs before the hypercall returns.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from typing import Protocol

from domzero import _machine

STOP = 0
"""What ends the thread, in place of a port's number."""
LATENCY_NS = 20_000
"""Virtual time from a guest's event to the answer: part of what makes a run reproducible."""


class Due(Protocol):
    """A back end's port: what is called once for all events since the last call."""

    is_due: bool

    @property
    def is_open(self) -> bool:
        """Whether it wants to be called at all."""

    @property
    def callback(self) -> Callable[[], None]:
        """Answers the events."""


class BackEnds:
    """The back ends of one domain.

    :param name: of the thread.
    :param virtual_now: virtual time in nanoseconds, in deterministic runs: the answer then comes from `fire`, at an
        instruction. None: there is a thread, started when there is something to expect.
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
        self.bells = _machine.BellQueue()
        """Where the machine puts the numbers of ports whose events have come: those that `expect` has given."""
        self._numbers = itertools.count(1)
        self._expected: dict[int, Due] = {}
        self._once: dict[int, Due | threading.Event] = {}
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()
        self._stopped = False

    def expect(self, port: Due) -> int:
        """A number for `bells` by which a port's events are told, until `forget`."""
        number = next(self._numbers)
        self._expected[number] = port
        self._start()
        return number

    def forget(self, number: int) -> None:
        """Nobody puts this number into `bells` any more, or it does not matter."""
        self._expected.pop(number, None)

    def _start(self) -> None:
        with self._starting:
            if self._thread is None and self._virtual_now is None and not self._stopped:
                self._thread = threading.Thread(target=self._main, name=self._name, daemon=True)
                self._thread.start()

    def ring(self, port: Due) -> None:
        """Something has happened at a port, and waits for its answer. What comes before the answer is one."""
        if port.is_due or self._stopped:
            return
        port.is_due = True
        if self._virtual_now is None:
            self._put(port)
            self._start()
            return
        self._wait(port)

    def _put(self, item: Due | threading.Event) -> None:
        number = next(self._numbers)
        self._once[number] = item
        self.bells.put(number)

    def _wait(self, port: Due) -> None:
        self._waiting.append(port)
        if self._virtual_now is not None and self._next_ns is None:
            self._next_ns = self._virtual_now() + LATENCY_NS
            self._schedule()

    def collect(self) -> None:
        """In a deterministic run, after whatever may have sent an event; with `host.lock` held."""
        if self._virtual_now is not None:
            for number in self.bells.take():
                port = self._expected.get(number)
                if port is not None and not port.is_due and not self._stopped:
                    port.is_due = True
                    self._wait(port)

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
            self._put(done)
            while not done.wait(0.1) and self._thread.is_alive():
                pass

    def stop(self) -> None:
        """No callback runs any more once this returns. Not with `host.lock` held."""
        with self._starting:
            self._stopped = True
        self._waiting.clear()
        self._next_ns = None
        if self._thread is not None and self._thread is not threading.current_thread():
            self.bells.put(STOP)
            self._thread.join()
            self._once.clear()
        self._expected.clear()

    def _main(self) -> None:
        while (number := self.bells.get()) != STOP:
            item = self._once.pop(number, None) or self._expected.get(number)
            if isinstance(item, threading.Event):
                item.set()
            elif item is not None and not self._stopped:
                self._call(item)

    def _call(self, port: Due) -> None:
        port.is_due = False  # what is sent from now on is another event
        if not port.is_open:
            return
        try:
            port.callback()
        except Exception as error:  # noqa: BLE001 - a bug of ours ends this domain, not the host
            self._failed(error)
