# SPDX-License-Identifier: Apache-2.0
"""SCHEDOP_watchdog: two timers per domain that shut it down unless it pokes them."""

from collections.abc import Callable

from domzero.abi.errno import Errno
from domzero.hypervisor.errors import XenError
from domzero.hypervisor.timekeeping import LAST_DEADLINE_NS

NR_DOMAIN_WATCHDOG_TIMERS = 2
UINT_MAX = 0xFFFFFFFF


class Watchdogs:
    """Deadlines of a domain's watchdog timers; they are looked at by vCPU 0's thread.

    :param changed: called when `next_ns` has changed.
    :param expired: called with the number of a timer that has expired.
    """

    __slots__ = ("_changed", "_expired", "_now_ns", "deadlines")

    def __init__(
        self, now_ns: Callable[[], int], *, changed: Callable[[], None], expired: Callable[[int], None]
    ) -> None:
        self._now_ns = now_ns
        self._changed = changed
        self._expired = expired
        self.deadlines: list[int | None] = [None] * NR_DOMAIN_WATCHDOG_TIMERS

    def set(self, watchdog_id: int, timeout_s: int) -> int:
        """SCHEDOP_watchdog: id 0 makes one and returns its id (from 1); timeout 0 removes one.

        :returns: ENOSPC when both are in use, as an unsigned int: no negative number to a 64-bit guest, as on Xen.
        :raises XenError: EINVAL for a wrong id. A new one without time fires at once.
        """
        if watchdog_id > NR_DOMAIN_WATCHDOG_TIMERS:
            raise XenError(Errno.EINVAL)
        deadline = min(self._now_ns() + timeout_s * 10**9, LAST_DEADLINE_NS)
        if watchdog_id == 0:
            for index, used in enumerate(self.deadlines):
                if used is None:
                    self.deadlines[index] = deadline
                    self._changed()
                    return index + 1
            return -Errno.ENOSPC & UINT_MAX
        index = watchdog_id - 1
        if self.deadlines[index] is None:
            raise XenError(Errno.EINVAL)
        self.deadlines[index] = deadline if timeout_s else None
        self._changed()
        return 0

    def next_ns(self) -> int | None:
        """When the next one expires."""
        return min((d for d in self.deadlines if d is not None and d < LAST_DEADLINE_NS), default=None)

    def fire(self, now_ns: int) -> None:
        """Shuts the domain down if one has expired."""
        for index, deadline in enumerate(self.deadlines):
            if deadline is not None and deadline <= now_ns:
                self.deadlines[index] = None
                self._expired(index + 1)
