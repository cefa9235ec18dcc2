# SPDX-License-Identifier: Apache-2.0
"""A domain's cap (xl's sched-credit2): how much of the host's processors its vCPUs may use together."""

from __future__ import annotations

from collections.abc import Callable

PERIOD_NS = 50_000_000
"""What the cap allows is given out anew so often."""
SHORTEST_NS = 1_000_000
"""A vCPU that may run is let run for as long as this: what is too much is taken from the periods that follow."""


class Cap:
    """The processor time of a domain's vCPUs. Used with `host.lock` held.

    :param now_ns: system time.
    """

    __slots__ = ("_left_ns", "_now_ns", "_period_ends_ns", "percent")

    def __init__(self, now_ns: Callable[[], int]) -> None:
        self._now_ns = now_ns
        self.percent = 0
        """Of one processor; 0 for as much as there is."""
        self._left_ns = 0
        self._period_ends_ns = 0

    def set(self, percent: int) -> None:
        """Changes it; what was used before does not count."""
        self.percent = percent
        self._period_ends_ns = 0
        self._left_ns = 0

    def slice_ns(self) -> int:
        """How long a vCPU may run now, at least SHORTEST_NS; 0 when it has to wait for `next_period_ns`."""
        now_ns = self._now_ns()
        if now_ns >= self._period_ends_ns:
            quota = PERIOD_NS * self.percent // 100
            periods = 1 + (now_ns - self._period_ends_ns) // PERIOD_NS
            self._left_ns = min(quota, self._left_ns + quota * periods)
            self._period_ends_ns = now_ns + PERIOD_NS
        return max(self._left_ns, SHORTEST_NS) if self._left_ns > 0 else 0

    @property
    def next_period_ns(self) -> int:
        """When there is time again, or more of what is owed is paid."""
        return self._period_ends_ns

    def charge(self, used_ns: int) -> None:
        """A vCPU has used so much of a processor."""
        self._left_ns -= used_ns
