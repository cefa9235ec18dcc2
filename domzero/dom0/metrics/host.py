# SPDX-License-Identifier: Apache-2.0
"""What the host has used: all of it, not only Domain 0 and its domains."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

from domzero.dom0.memory_account import memory_mib
from domzero.dom0.metrics.history import Point
from domzero.dom0.metrics.sampler import Counters

_STAT = Path("/proc/stat")
_IDLE, _IOWAIT = 3, 4
"""Fields of its first line (proc(5)) in which no processor works."""
_FIELDS = 8
"""The others after them are parts of the first ones: guests' time."""


def busy_ns(text: str) -> int:
    """Nanoseconds that all processors have worked, of /proc/stat's text."""
    ticks = [int(word) for word in text.split("\n", 1)[0].split()[1 : 1 + _FIELDS]]
    return (sum(ticks) - ticks[_IDLE] - ticks[_IOWAIT]) * 10**9 // os.sysconf("SC_CLK_TCK")


class HostMeter:
    """Measures the host: `memory_mib` of its points is what is free.

    :param now: seconds since 1970.
    """

    def __init__(self, now: Callable[[], float] = time.time) -> None:
        self._now = now
        self._at, self._busy_ns = self._read()

    def _read(self) -> tuple[float, int]:
        try:
            return self._now(), busy_ns(_STAT.read_text())
        except (OSError, ValueError, IndexError):
            return self._now(), 0

    def point(self) -> Point | None:
        """What it used since the last one; None: no time has passed."""
        (before, was), (self._at, self._busy_ns) = (self._at, self._busy_ns), self._read()
        if (covered := self._at - before) <= 0:
            return None
        used = Counters(cpu_ns=max(0, self._busy_ns - was))
        return Point(int(self._at - covered / 2), covered, memory_mib()[1], used)


__all__ = ["HostMeter", "busy_ns"]
