# SPDX-License-Identifier: Apache-2.0
"""How much a guest may send: `rate=10Mb/s` or `rate=1MB/s@20ms`, as xl-network-configuration(5) has it."""

from __future__ import annotations

import re
from dataclasses import dataclass

INTERVAL_US = 50_000
"""Of a rate that names none."""
BYTES_MAX = (1 << 63) - 1
INTERVAL_MAX_US = (1 << 32) - 1

_RATE = re.compile(r"([0-9]{1,19})([GMK]?)([Bb])/s(?:@([0-9]{1,10})(ms|us|m|u|s|))?", re.ASCII)
_FACTORS = {"": 1, "K": 1000, "M": 1000**2, "G": 1000**3}
_UNITS_US = {"": 1_000_000, "s": 1_000_000, "m": 1000, "ms": 1000, "u": 1, "us": 1}


@dataclass(slots=True, frozen=True)
class Rate:
    """A bound of what is sent.

    :param text: as it was given.
    :param bytes: that may be sent in each interval.
    :param interval_us: after which as much may be sent again (uint32_t).
    """

    text: str
    bytes: int
    interval_us: int

    @property
    def node(self) -> str:
        """As the back end's node `rate` has it."""
        return f"{self.bytes},{self.interval_us}"


def parse_rate(text: str) -> Rate:
    """Understands a rate: bits (`b`) or bytes (`B`) a second, and the interval in `s`, `ms` or `us`. ValueError."""
    match = _RATE.fullmatch(text)
    if match is None:
        raise ValueError(f"no rate: {text[:60]!r} (10Mb/s, 1MB/s@20ms)")
    number, factor, unit, interval, interval_unit = match.groups()
    per_second = int(number) * _FACTORS[factor] // (8 if unit == "b" else 1)
    interval_us = INTERVAL_US if interval is None else int(interval) * _UNITS_US[interval_unit]
    if not 1 <= interval_us <= INTERVAL_MAX_US:
        raise ValueError(f"no interval of a rate: {text!r} (1us to 4294s)")
    size = per_second * interval_us // 1_000_000
    if not 1 <= size <= BYTES_MAX:
        few = "less than a byte in each interval of" if size < 1 else "too much:"
        raise ValueError(f"{few} {text!r}")
    return Rate(text, size, interval_us)
