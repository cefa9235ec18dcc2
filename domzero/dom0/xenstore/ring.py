# SPDX-License-Identifier: Apache-2.0
"""The xenstore ring of a domain: moves bytes between its page and a connection.

The guest can write anything to the page at any time: indices are read once per step and checked, and nothing it writes
can do more than end its own connection.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from domzero.dom0.ring import SharedRing
from domzero.dom0.xenstore.wire import RING_SIZE, RingError, ServerFeature

_RSP = RING_SIZE
_FIELDS = 2 * RING_SIZE
_REQ_CONS, _REQ_PROD, _RSP_CONS, _RSP_PROD, _FEATURES, _CONNECTION, _ERROR = range(7)
_FIELD_COUNT = 7
_RECONNECT = 1
ROUNDS = 4
"""How often one pump looks for more requests: four rings full."""


class Transport(Protocol):
    """What a ring needs of a connection: `Connection`, or a relay to one in another process."""

    on_output: Callable[[], None] | None
    error: RingError

    @property
    def wants_input(self) -> bool: ...
    @property
    def has_work(self) -> bool: ...
    def receive(self, data: bytes) -> None: ...
    def turn(self) -> None: ...
    def take_output(self, limit: int | None = None) -> bytes: ...
    def reset(self) -> None: ...
    def close(self) -> None: ...


class RingBackend(SharedRing):
    """The store's end of a ring.

    :param page: the shared page (struct xenstore_domain_interface), writable.
    :param notify: sends the event to the guest.
    """

    def __init__(self, page: memoryview, connection: Transport, notify: Callable[[], None]) -> None:
        super().__init__(page, (_FIELDS, _FIELD_COUNT), notify)
        self.connection = connection
        self._fields[_FEATURES] = int(ServerFeature.RECONNECTION | ServerFeature.ERROR | ServerFeature.WATCH_DEPTH)
        connection.on_output = self.pump

    def close(self) -> None:
        """Ends the connection; the page is not touched once the pump that may be under way is through its step."""
        super().close()
        self.connection.on_output = None
        self.connection.close()

    def _move(self) -> bool:
        if self._fields[_CONNECTION] == _RECONNECT:
            self._reconnect()
            return True
        moved = False
        # A guest that goes on writing meanwhile sends another event for that, so nobody waits for it here.
        for _ in range(ROUNDS):
            if self.connection.error != RingError.NONE or self._closed:
                break
            step = self._take_requests()
            step = self._give_replies() or step
            moved = moved or step
            if not step:
                break
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
        # A ring full of requests has an end; the store is free for others between the turns.
        worked = False
        while self.connection.has_work and not self._closed:
            self.connection.turn()
            worked = True
        if not self.connection.wants_input:
            return worked
        data = self._read(0, RING_SIZE, _REQ_CONS, _REQ_PROD)
        if data is None:
            self._fail(RingError.RINGIDX)
        if not data:
            return worked
        self.connection.receive(data)
        return True

    def _give_replies(self) -> bool:
        done = self._write(_RSP, RING_SIZE, _RSP_CONS, _RSP_PROD, self.connection.take_output)
        if done is None:
            self._fail(RingError.RINGIDX)
        return bool(done)
