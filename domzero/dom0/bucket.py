# SPDX-License-Identifier: Apache-2.0
"""A bucket that fills steadily up to its brim: what bounds how much of something there is in a second."""

from __future__ import annotations


class Bucket:
    """Full at first. Whoever uses it takes from `left`, once it has been filled up to now.

    :param per_second: what comes in.
    :param burst: its brim.
    :param now: of the monotonic clock, in seconds, as in `fill`.
    """

    __slots__ = ("_at", "_burst", "_per_second", "left")

    def __init__(self, per_second: float, burst: float, now: float) -> None:
        self._per_second = per_second
        self._burst = burst
        self._at = now
        self.left = float(burst)

    def fill(self, now: float) -> None:
        """Adds what has come in since the last time."""
        self.left = min(self._burst, self.left + (now - self._at) * self._per_second)
        self._at = now

    def until(self, level: float) -> float:
        """Seconds after which so much will be in it; 0 if it is."""
        return max(0.0, (level - self.left) / self._per_second)


__all__ = ["Bucket"]
