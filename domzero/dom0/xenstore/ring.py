"""The xenstore ring of a domain: moves bytes between its page and a connection.

The guest can write anything to the page at any time: indices are read once per step and checked, and nothing it writes
can do more than end its own connection.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Protocol

from domzero.dom0.xenstore.wire import RING_SIZE, RingError, ServerFeature

_RSP = RING_SIZE
_FIELDS = 2 * RING_SIZE
_REQ_CONS, _REQ_PROD, _RSP_CONS, _RSP_PROD, _FEATURES, _CONNECTION, _ERROR = range(7)
_FIELD_COUNT = 7
_MASK = 0xFFFFFFFF
_RECONNECT = 1


class Transport(Protocol):
    """What a ring needs of a connection: `Connection`, or a relay to one in another process."""

    on_output: Callable[[], None] | None
    error: RingError

    @property
    def wants_input(self) -> bool: ...
    def receive(self, data: bytes) -> None: ...
    def take_output(self, limit: int | None = None) -> bytes: ...
    def reset(self) -> None: ...
    def close(self) -> None: ...


class RingBackend:
    """The store's end of a ring.

    :param page: the shared page (struct xenstore_domain_interface), writable.
    :param notify: sends the event to the guest.

    Call `pump` when the guest's event arrives; it may be called from any thread, and from `notify` itself.
    """

    def __init__(self, page: memoryview, connection: Transport, notify: Callable[[], None]) -> None:
        self._page = page.cast("B") if page.format != "B" else page
        self._fields = self._page[_FIELDS : _FIELDS + 4 * _FIELD_COUNT].cast("I")
        self.connection = connection
        self._notify = notify
        self._state = threading.Lock()
        self._busy = False
        self._again = False
        self._closed = False
        self._fields[_FEATURES] = int(ServerFeature.RECONNECTION | ServerFeature.ERROR | ServerFeature.WATCH_DEPTH)
        connection.on_output = self.pump

    def pump(self) -> None:
        """Moves all that can be moved, both ways, and tells the guest if anything did.

        Never waits for another thread that is pumping: that one goes round once more instead. So a caller may hold
        any lock that `notify` takes.
        """
        with self._state:
            self._again = True
            if self._busy or self._closed:
                return
            self._busy = True
        while True:
            with self._state:
                if self._closed or not self._again:
                    self._busy = False
                    return
                self._again = False
            try:
                moved = self._move()
            except BaseException:
                with self._state:
                    self._busy = False
                raise
            if moved:
                self._notify()

    def close(self) -> None:
        """Ends the connection; the page is not touched once the pump that may be under way is through its step."""
        with self._state:
            self._closed = True
        self.connection.on_output = None
        self.connection.close()

    def _move(self) -> bool:
        if self._fields[_CONNECTION] == _RECONNECT:
            self._reconnect()
            return True
        if self.connection.error == RingError.NONE:
            moved = False
            while self.connection.error == RingError.NONE and not self._closed:
                step = self._take_requests()
                step = self._give_replies() or step
                if not step:
                    break
                moved = True
            if self.connection.error == RingError.NONE:
                return moved
        if self._fields[_ERROR] == int(self.connection.error):
            return False
        self._fields[_ERROR] = int(self.connection.error)
        return True

    def _reconnect(self) -> None:
        self.connection.reset()
        for field in (_REQ_CONS, _REQ_PROD, _RSP_CONS, _RSP_PROD, _ERROR, _CONNECTION):
            self._fields[field] = 0

    def _fail(self, error: RingError) -> None:
        self.connection.reset()
        self.connection.error = error

    def _take_requests(self) -> bool:
        if not self.connection.wants_input:
            return False
        cons, prod = self._fields[_REQ_CONS], self._fields[_REQ_PROD]
        count = (prod - cons) & _MASK
        if count > RING_SIZE:
            self._fail(RingError.RINGIDX)
            return False
        if count == 0:
            return False
        start = cons % RING_SIZE
        first = min(count, RING_SIZE - start)
        data = bytes(self._page[start : start + first]) + bytes(self._page[: count - first])
        self._fields[_REQ_CONS] = (cons + count) & _MASK
        self.connection.receive(data)
        return True

    def _give_replies(self) -> bool:
        cons, prod = self._fields[_RSP_CONS], self._fields[_RSP_PROD]
        used = (prod - cons) & _MASK
        if used > RING_SIZE:
            self._fail(RingError.RINGIDX)
            return False
        data = self.connection.take_output(RING_SIZE - used) if used < RING_SIZE else b""
        if not data:
            return False
        start = prod % RING_SIZE
        first = min(len(data), RING_SIZE - start)
        self._page[_RSP + start : _RSP + start + first] = data[:first]
        self._page[_RSP : _RSP + len(data) - first] = data[first:]
        self._fields[_RSP_PROD] = (prod + len(data)) & _MASK
        return True
