# SPDX-License-Identifier: Apache-2.0
"""How many requests a user may make: a bucket that fills steadily, and is emptied by one with each request."""

from __future__ import annotations

import time
from collections import OrderedDict

PER_SECOND = 500.0
BURST = 2000.0
"""Requests at once, after a time with few."""
_USERS_MAX = 2000


class Rate:
    """The buckets of all users. The owner has none: nobody else is to be protected from them."""

    def __init__(self, per_second: float = PER_SECOND, burst: float = BURST) -> None:
        self._per_second = per_second
        self._burst = burst
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, user: str, now: float | None = None) -> float:
        """Counts a request: 0, or the seconds after which the next one will be answered.

        :param now: of the monotonic clock.
        """
        now = time.monotonic() if now is None else now
        left, at = self._buckets.pop(user, (self._burst, now))
        left = min(self._burst, left + (now - at) * self._per_second)
        refused = left < 1.0
        self._buckets[user] = (left if refused else left - 1.0, now)
        if len(self._buckets) > _USERS_MAX:
            self._buckets.popitem(last=False)
        return (1.0 - left) / self._per_second if refused else 0.0
