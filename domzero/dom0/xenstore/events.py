# SPDX-License-Identifier: Apache-2.0
"""Watch events that wait for their client to take them."""

from __future__ import annotations

from domzero.dom0.xenstore.watches import Watch
from domzero.dom0.xenstore.wire import PAYLOAD_MAX

BYTES_MAX = 1 << 20
"""Bytes of paths and tokens that wait; beyond this events become one for the watched path, as beyond the count."""


class EventQueue:
    """Events in the order in which they happened, each path once for a watch: twice would tell nothing more.

    Too many, and those that no message can hold, become one for the watched path itself, which came in a message
    together with the token. So what waits is bounded: by `most`, `BYTES_MAX`, and one event for each watch.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._events: dict[tuple[Watch, str], None] = {}
        self._of: dict[Watch, set[str]] = {}
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._events)

    def add(self, watch: Watch, path: str) -> None:
        """Queues an event.

        :param path: as the client is told it.
        """
        size = len(path) + len(watch.token) + 2
        if size > PAYLOAD_MAX or len(self._events) >= self._most or self._bytes + size > BYTES_MAX:
            path = watch.given
        if (watch, path) not in self._events:
            self._events[watch, path] = None
            self._of.setdefault(watch, set()).add(path)
            self._bytes += len(path) + len(watch.token) + 2

    def take(self) -> tuple[str, str]:
        """The path and token of the oldest event, which must be there."""
        watch, path = next(iter(self._events))
        self._remove(watch, path)
        paths = self._of[watch]
        paths.remove(path)
        if not paths:
            del self._of[watch]
        return path, watch.token

    def forget(self, watch: Watch) -> None:
        """Drops the events of a watch."""
        for path in self._of.pop(watch, ()):
            self._remove(watch, path)

    def clear(self) -> None:
        """Drops everything."""
        self._events.clear()
        self._of.clear()
        self._bytes = 0

    def _remove(self, watch: Watch, path: str) -> None:
        del self._events[watch, path]
        self._bytes -= len(path) + len(watch.token) + 2
