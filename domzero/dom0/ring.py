# SPDX-License-Identifier: Apache-2.0
"""A page of two byte rings that Domain 0 shares with a guest: what the console and the xenstore ring have in common.

The guest can write anything to the page at any time: an index is read once per step and checked before it is used.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable

_MASK = 0xFFFFFFFF


class SharedRing(ABC):
    """The backend's end.

    :param page: the shared page, writable.
    :param fields: where the indices begin, and how many 32-bit fields there are.
    :param notify: sends the event to the guest.
    """

    def __init__(self, page: memoryview, fields: tuple[int, int], notify: Callable[[], None]) -> None:
        self._page = page.cast("B") if page.format != "B" else page
        at, count = fields
        self._fields = self._page[at : at + 4 * count].cast("I")
        self._notify = notify
        self._state = threading.Condition()
        self._busy = False
        self._again = False
        self._closed = False

    @abstractmethod
    def _move(self) -> bool:
        """Moves what can be moved now, both ways, in a bounded number of steps. Whether anything was."""

    def pump(self) -> None:
        """Moves all that can be moved, and tells the guest if anything was; call it when the guest's event arrives.

        May be called from any thread, and from `notify` itself. Never waits for another thread that is pumping: that
        one goes round once more instead, so that the caller may hold any lock.
        """
        with self._state:
            self._again = True
            if self._busy or self._closed:
                return
            self._busy = True
        while True:
            with self._state:
                if self._closed or not self._again:
                    self._rest()
                    return
                self._again = False
            try:
                moved = self._move()
            except BaseException:
                with self._state:
                    self._rest()
                raise
            if moved:
                self._notify()

    def _rest(self) -> None:
        self._busy = False
        self._state.notify_all()

    @property
    def _idle(self) -> bool:
        with self._state:
            return not self._busy and not self._closed

    def close(self) -> None:
        """No access to the page any more, once the step under way is through."""
        with self._state:
            self._closed = True

    def settle(self) -> None:
        """After `close`: waits for the step under way. Not from `notify`, or with a lock held that a step needs."""
        with self._state:
            self._state.wait_for(lambda: not self._busy)

    def _read(self, base: int, size: int, cons_field: int, prod_field: int) -> bytes | None:
        """Takes all bytes of the ring of `size` bytes at `base`; None when its indices make no sense."""
        cons, prod = self._fields[cons_field], self._fields[prod_field]
        count = (prod - cons) & _MASK
        if count > size:
            return None
        if count == 0:
            return b""
        start = cons % size
        first = min(count, size - start)
        page = self._page
        data = bytes(page[base + start : base + start + first]) + bytes(page[base : base + count - first])
        self._fields[cons_field] = prod
        return data

    def _write(
        self, base: int, size: int, cons_field: int, prod_field: int, take: Callable[[int], bytes]
    ) -> bool | None:
        """Puts what `take` gives (at most as much as it is asked for) into a ring; None as above."""
        cons, prod = self._fields[cons_field], self._fields[prod_field]
        room = size - ((prod - cons) & _MASK)
        if room < 0:
            return None
        data = take(room) if room else b""
        if not data:
            return False
        start = prod % size
        first = min(len(data), size - start)
        self._page[base + start : base + start + first] = data[:first]
        self._page[base : base + len(data) - first] = data[first:]
        self._fields[prod_field] = (prod + len(data)) & _MASK
        return True
