# SPDX-License-Identifier: Apache-2.0
"""Watch events that wait for their client to take them."""

from __future__ import annotations

from domzero.dom0.xenstore.watches import Watch
from domzero.dom0.xenstore.wire import PAYLOAD_MAX

BYTES_MAX = 1 << 20
"""Bytes of paths and tokens that wait; beyond this events become one for the watched path, as beyond the count."""


class EventQueue:
    """Events in the order in which they happened; of equal ones, also of two watches, one waits, as in xenstored.
    They are told also if their watch is gone by then.

    Too many, and those that no message can hold, become one for the watched path itself, which came in a message
    together with the token. So what waits is bounded: by `most`, `BYTES_MAX`, and one event for each watch that the
    client can have made meanwhile (see `behind`).
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._events: dict[tuple[str, str], None] = {}
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._events)

    def behind(self, watches: int) -> bool:
        """Whether more waits than a client with so many watches can have: it made and removed others, and has to
        read before it makes any more."""
        return len(self._events) > self._most + watches or self._bytes > BYTES_MAX + watches * PAYLOAD_MAX

    def add(self, watch: Watch, path: str) -> None:
        """Queues an event.

        :param path: as the client is told it.
        """
        size = _size(path, watch.token)
        if size > PAYLOAD_MAX or len(self._events) >= self._most or self._bytes + size > BYTES_MAX:
            path = watch.given
        if (path, watch.token) not in self._events:
            self._events[path, watch.token] = None
            self._bytes += _size(path, watch.token)

    def take(self) -> tuple[str, str]:
        """The path and token of the oldest event, which must be there."""
        path, token = next(iter(self._events))
        del self._events[path, token]
        self._bytes -= _size(path, token)
        return path, token

    def clear(self) -> None:
        """Drops everything."""
        self._events.clear()
        self._bytes = 0


def _size(path: str, token: str) -> int:
    return len(path) + len(token) + 2
