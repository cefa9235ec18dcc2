# SPDX-License-Identifier: Apache-2.0
"""Watch events that wait for their client to take them."""

from __future__ import annotations

from domzero.dom0.xenstore.watches import Watch
from domzero.dom0.xenstore.wire import PAYLOAD_MAX

BYTES_MAX = 1 << 20
"""Bytes of paths and tokens that wait; beyond this events become one for the watched path, as beyond the count."""


class EventQueue:
    """Events in the order in which they happened; of equal ones, also of two watches, one waits, as in xenstored.

    Too many, and those that no message can hold, become one for the watched path itself, which came in a message
    together with the token. So what waits is bounded: by `most`, `BYTES_MAX`, and one event for each watch.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._events: dict[tuple[str, str], set[Watch]] = {}
        self._of: dict[Watch, set[str]] = {}
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._events)

    def add(self, watch: Watch, path: str) -> None:
        """Queues an event.

        :param path: as the client is told it.
        """
        size = _size(path, watch.token)
        if size > PAYLOAD_MAX or len(self._events) >= self._most or self._bytes + size > BYTES_MAX:
            path = watch.given
        watches = self._events.get((path, watch.token))
        if watches is None:
            watches = self._events[path, watch.token] = set()
            self._bytes += _size(path, watch.token)
        watches.add(watch)
        self._of.setdefault(watch, set()).add(path)

    def take(self) -> tuple[str, str]:
        """The path and token of the oldest event, which must be there."""
        path, token = next(iter(self._events))
        self._bytes -= _size(path, token)
        for watch in self._events.pop((path, token)):
            paths = self._of[watch]
            paths.remove(path)
            if not paths:
                del self._of[watch]
        return path, token

    def forget(self, watch: Watch) -> None:
        """Drops the events that are of this watch only."""
        for path in self._of.pop(watch, ()):
            watches = self._events[path, watch.token]
            watches.remove(watch)
            if not watches:
                del self._events[path, watch.token]
                self._bytes -= _size(path, watch.token)

    def clear(self) -> None:
        """Drops everything."""
        self._events.clear()
        self._of.clear()
        self._bytes = 0


def _size(path: str, token: str) -> int:
    return len(path) + len(token) + 2
