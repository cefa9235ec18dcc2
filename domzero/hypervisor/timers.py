# SPDX-License-Identifier: Apache-2.0
"""A vCPU's timers, and what else its thread does when its time has come.

Times are kept, and what a guest asks for is made of them, by the machine (`_machine.VcpuTimers`); while guest code
runs, its single-shot and periodic timers expire there, without an exit.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

from domzero import _machine


class Timed(Protocol):
    """Something else that a vCPU's thread looks at when its time has come."""

    def next_ns(self) -> int | None:
        """When that is."""

    def fire(self, now_ns: int) -> None:
        """Does what is due."""


class Timers:
    """The timers of one vCPU. Every method needs `host.lock`.

    :param own: those of the guest.
    :param expired: raises VIRQ_TIMER.
    :param poll_over: ends SCHEDOP_poll.
    :param changed: called when `next_ns` may have changed.
    :param also: what else this vCPU's thread looks after.
    """

    __slots__ = ("_also", "_changed", "_expired", "_own", "_poll_over", "next_of_others_ns")

    def __init__(
        self,
        own: _machine.VcpuTimers,
        *,
        expired: Callable[[], None],
        poll_over: Callable[[], None],
        changed: Callable[[], None],
        also: Sequence[Timed] = (),
    ) -> None:
        self._own = own
        self._expired = expired
        self._poll_over = poll_over
        self._changed = changed
        self._also = also
        self.next_of_others_ns: int | None = None
        """When something expires that is not the guest's own timer: `Vcpu.run` has to end for it."""

    @property
    def next_ns(self) -> int | None:
        """When the next one expires."""
        own, others = self._own.next_ns, self.next_of_others_ns
        if own is None or others is None:
            return others if own is None else own
        return min(own, others)

    def changed(self) -> None:
        """A timer was set or stopped: the vCPU's thread must see it."""
        self.next_of_others_ns = min((t for other in self._also if (t := other.next_ns()) is not None), default=None)
        self._changed()

    def set_periodic(self, period_ns: int) -> None:
        """VCPUOP_set_periodic_timer; 0 stops it."""
        self._own.set_periodic(period_ns)
        self._changed()

    def set_poll(self, when_ns: int | None) -> None:
        """The end of SCHEDOP_poll; None: it ends with an event only."""
        self._own.set_poll(when_ns)
        self._changed()

    @property
    def has_poll(self) -> bool:
        """Whether there is an end of SCHEDOP_poll."""
        return self._own.has_poll

    def fire(self, now_ns: int) -> None:
        """Does what is due."""
        timer, poll = self._own.take_due(now_ns)
        if timer:
            self._expired()
        if poll:
            self._poll_over()
        for other in self._also:
            other.fire(now_ns)
        self.changed()
