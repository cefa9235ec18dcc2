# SPDX-License-Identifier: Apache-2.0
"""A vCPU's timers, in system time: single-shot, periodic, the end of SCHEDOP_poll."""

from collections.abc import Callable, Sequence
from typing import Protocol

from domzero.hypervisor.timekeeping import deadline


class Timed(Protocol):
    """Something else that a vCPU's thread looks at when its time has come."""

    def next_ns(self) -> int | None:
        """When that is."""

    def fire(self, now_ns: int) -> None:
        """Does what is due."""


class Timers:
    """The timers of one vCPU. Every method needs `host.lock`.

    :param expired: raises VIRQ_TIMER.
    :param poll_over: ends SCHEDOP_poll.
    :param changed: called when `next_ns` may have changed.
    :param also: what else this vCPU's thread looks after.
    """

    def __init__(
        self,
        now_ns: Callable[[], int],
        *,
        expired: Callable[[], None],
        poll_over: Callable[[], None],
        changed: Callable[[], None],
        also: Sequence[Timed] = (),
    ) -> None:
        self._now_ns = now_ns
        self._expired = expired
        self._poll_over = poll_over
        self._changed = changed
        self._also = also
        self._singleshot_ns: int | None = None
        self._periodic_ns: int | None = None
        self._period_ns = 0
        self._periodic_last_ns = 0
        self._poll_ns: int | None = None
        self.next_ns: int | None = None
        """When the next one expires."""

    def changed(self) -> None:
        """A timer was set or stopped: the vCPU's thread must see it."""
        times = [t for t in (self._singleshot_ns, self._periodic_ns, self._poll_ns) if t is not None]
        times += [t for other in self._also if (t := other.next_ns()) is not None]
        self.next_ns = min(times, default=None)
        self._changed()

    def set_periodic(self, period_ns: int) -> None:
        """VCPUOP_set_periodic_timer; 0 stops it. The first event comes at once if the last one is a period ago."""
        self._period_ns = period_ns
        self._periodic_ns = None
        if period_ns:
            self._periodic_work(self._now_ns())
        self.changed()

    def _periodic_work(self, now_ns: int) -> None:
        if self._periodic_last_ns + self._period_ns <= now_ns:
            self._periodic_last_ns = now_ns
            self._expired()
        self._periodic_ns = deadline(self._periodic_last_ns + self._period_ns)

    def set_singleshot(self, when_ns: int | None) -> None:
        """VCPUOP_set_singleshot_timer, set_timer_op; None stops it."""
        self._singleshot_ns = None if when_ns is None else deadline(when_ns)
        self.changed()

    def set_poll(self, when_ns: int | None) -> None:
        """The end of SCHEDOP_poll; None: it ends with an event only."""
        self._poll_ns = None if when_ns is None else deadline(when_ns)
        self.changed()

    @property
    def has_poll(self) -> bool:
        """Whether there is an end of SCHEDOP_poll."""
        return self._poll_ns is not None

    def fire(self, now_ns: int) -> None:
        """Does what is due."""
        if self._singleshot_ns is not None and self._singleshot_ns <= now_ns:
            self._singleshot_ns = None
            self._expired()
        if self._periodic_ns is not None and self._periodic_ns <= now_ns:
            self._periodic_work(now_ns)
        if self._poll_ns is not None and self._poll_ns <= now_ns:
            self._poll_ns = None
            self._poll_over()
        for other in self._also:
            other.fire(now_ns)
        self.changed()
