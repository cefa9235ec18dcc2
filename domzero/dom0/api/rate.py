# SPDX-License-Identifier: Apache-2.0
"""How many requests a user may make: a bucket that fills steadily, and is emptied by one with each request."""

from __future__ import annotations

import time
from collections import OrderedDict

from domzero.dom0.bucket import Bucket

PER_SECOND = 500.0
BURST = 2000.0
"""Requests at once, after a time with few."""
_USERS_MAX = 2000


class Rate:
    """The buckets of all users. The owner has none: nobody else is to be protected from them."""

    def __init__(self, per_second: float = PER_SECOND, burst: float = BURST) -> None:
        self._per_second = per_second
        self._burst = burst
        self._buckets: OrderedDict[str, Bucket] = OrderedDict()

    def take(self, user: str, now: float | None = None) -> float:
        """Counts a request: 0, or the seconds after which the next one will be answered.

        :param now: of the monotonic clock.
        """
        now = time.monotonic() if now is None else now
        bucket = self._buckets.pop(user, None) or Bucket(self._per_second, self._burst, now)
        bucket.fill(now)
        wait = bucket.until(1.0)
        if not wait:
            bucket.left -= 1.0
        self._buckets[user] = bucket
        if len(self._buckets) > _USERS_MAX:
            self._buckets.popitem(last=False)
        return wait
