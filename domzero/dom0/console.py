# SPDX-License-Identifier: Apache-2.0
"""The PV console: a domain's console ring (io/console.h), its sinks, its input queue and its history.

A `Console` belongs to a domain's whole life, reboots included; a `ConsoleRing` to one incarnation of it.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from typing import Protocol

from domzero.abi.io_console import xencons_interface
from domzero.abi.layout import offset_of
from domzero.dom0.ring import SharedRing

_OUT, _FIELDS = offset_of(xencons_interface, "out"), offset_of(xencons_interface, "in_cons")
IN_SIZE, OUT_SIZE = _OUT, _FIELDS - _OUT
_IN_CONS, _IN_PROD, _OUT_CONS, _OUT_PROD = range(4)
HISTORY_SIZE = 256 << 10
INPUT_SIZE = 64 << 10

_LINE_END = re.compile(rb"\r*\n\r*")

Sink = Callable[[bytes], None]


class _Ring(Protocol):
    def pump(self) -> None: ...


class Console:
    """What a domain prints and is told. All methods may be called from any thread.

    :param history_size: bytes of output that are kept, also after the domain's end.
    """

    def __init__(self, history_size: int = HISTORY_SIZE) -> None:
        self._lock = threading.RLock()  # a sink may call `hold`
        self._room = threading.Condition(self._lock)
        self._history = bytearray()
        self._history_size = history_size
        self._total = 0
        self._input = bytearray()
        self._sinks: list[Sink] = []
        self._holders = 0
        self._ring: _Ring | None = None

    @property
    def history(self) -> bytes:
        """The last `history_size` bytes of output."""
        with self._lock:
            return bytes(self._history[-self._history_size :])

    @property
    def total(self) -> int:
        """Bytes of output ever."""
        return self._total

    def add_sink(self, sink: Sink, *, replay: bool = False) -> Callable[[], None]:
        """Calls `sink` with all output from now on; it must return at once.

        :param replay: give it the history first, with nothing missing or doubled in between.
        :returns: a function that removes it.
        """
        with self._lock:
            if replay and self._history:
                sink(bytes(self._history[-self._history_size :]))
            self._sinks.append(sink)

        def remove() -> None:
            with self._lock:
                if sink in self._sinks:
                    self._sinks.remove(sink)

        return remove

    def output(self, data: bytes) -> None:
        """Takes what the guest has printed."""
        with self._lock:
            self._total += len(data)
            self._history += data
            if len(self._history) > 2 * self._history_size:
                del self._history[: -self._history_size]
            for sink in self._sinks:
                sink(data)

    def hold(self) -> None:
        """A sink cannot keep up: the guest's output stays in its ring until as many `release` calls came."""
        with self._lock:
            self._holders += 1

    def release(self) -> None:
        """Ends one `hold`."""
        with self._lock:
            self._holders -= 1
            ring = self._ring if not self._holders else None
        if ring is not None:
            ring.pump()

    @property
    def held(self) -> bool:
        """True while output has to wait."""
        return self._holders > 0

    def send(self, data: bytes) -> int:
        """Queues input for the guest.

        :returns: how many bytes there was room for.
        """
        with self._lock:
            accepted = data[: max(0, INPUT_SIZE - len(self._input))]
            self._input += accepted
            ring = self._ring
        if ring is not None:
            ring.pump()
        return len(accepted)

    def wait_room(self, timeout: float) -> bool:
        """Waits until the input queue is less than half full."""
        with self._room:
            return self._room.wait_for(lambda: len(self._input) < INPUT_SIZE // 2, timeout)

    def take_input(self, limit: int) -> bytes:
        """For the ring: the next input."""
        with self._room:
            data = bytes(self._input[:limit])
            del self._input[:limit]
            self._room.notify_all()
            return data

    def attach(self, ring: _Ring | None) -> None:
        """Connects the ring of a new incarnation, or none."""
        with self._lock:
            self._ring = ring
        if ring is not None:
            ring.pump()


class ConsoleRing(SharedRing):
    """Moves bytes between a console and a domain's ring.

    Indices that make no sense stop that direction until they make sense again, as in Xen's own console daemon.

    :param page: the shared page (struct xencons_interface), writable.
    :param notify: sends the event to the guest.
    :param output: is given what the guest prints, and gives what is shown.
    """

    def __init__(
        self,
        page: memoryview,
        console: Console,
        notify: Callable[[], None],
        *,
        output: Callable[[bytes], bytes] = bytes,
    ) -> None:
        super().__init__(page, (_FIELDS, 4), notify)
        self._console = console
        self._transform = output

    @property
    def used(self) -> bool:
        """Whether the guest has ever printed through the ring."""
        return self._fields[_OUT_PROD] != 0

    def drain(self) -> None:
        """Takes the guest's last words, held or not: the domain has ended."""
        if self._idle:
            self._take_output()

    def _move(self) -> bool:
        moved = not self._console.held and self._take_output()
        return bool(self._write(0, IN_SIZE, _IN_CONS, _IN_PROD, self._console.take_input)) or moved

    def _take_output(self) -> bool:
        data = self._read(_OUT, OUT_SIZE, _OUT_CONS, _OUT_PROD)
        if data and (shown := self._transform(data)):
            self._console.output(shown)
        return bool(data)


class LineFilter:
    """For a console that is not a terminal: a line feed with carriage returns around it is a line feed alone, over any
    cuts between chunks."""

    def __init__(self) -> None:
        self._returns = False  # the last chunk ended in carriage returns, which wait for what comes next
        self._line_start = False

    def __call__(self, data: bytes) -> bytes:
        if not data:
            return b""
        if self._returns:
            data = b"\r" + data
        if self._line_start:
            data = data.lstrip(b"\r")
        kept = data.rstrip(b"\r")
        self._returns = len(kept) != len(data)  # any number of them counts as one
        if kept:
            self._line_start = kept.endswith(b"\n")
        if self._line_start:
            self._returns = False
        return _LINE_END.sub(b"\n", kept)


__all__ = ["Console", "ConsoleRing", "LineFilter"]
