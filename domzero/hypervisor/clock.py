# SPDX-License-Identifier: Apache-2.0
"""The only reader of the host's clock and of the host's randomness."""

import hashlib
import os
import time


class HostClock:
    """Guest time runs with the host's."""

    virtual_start_ns: int | None = None

    def wallclock_ns(self, system_time_ns: int) -> int:
        """Unix time in nanoseconds at system time `system_time_ns` (which is about now)."""
        return time.time_ns()


def local_offset_s() -> int:
    """What the host's time zone adds to UTC now, in seconds."""
    return time.localtime().tm_gmtoff


def thread_ns() -> int:
    """Processor time of the calling thread, in nanoseconds."""
    return time.thread_time_ns()


class VirtualClock:
    """Guest time is driven by instructions and by idling: the same run each time.

    :param epoch_ns: Unix time at system time zero.
    """

    def __init__(self, epoch_ns: int = 1_600_000_000 * 10**9, start_ns: int = 0) -> None:
        self.epoch_ns = epoch_ns
        self.virtual_start_ns: int | None = start_ns

    def wallclock_ns(self, system_time_ns: int) -> int:
        """Unix time in nanoseconds at system time `system_time_ns`."""
        return self.epoch_ns + system_time_ns


Clock = HostClock | VirtualClock


class Entropy:
    """Where the hypervisor takes random numbers from: reproducible with a seed, the host's without."""

    def __init__(self, seed: int | None) -> None:
        self._seeded = seed is not None
        self.seed = int.from_bytes(os.urandom(8), "little") if seed is None else seed & (2**64 - 1)
        """For orders that need not be secret, such as that of the machine frames."""

    def key(self, purpose: str) -> bytes:
        """32 bytes that no guest can know; with a seed they depend on it and on `purpose` (at most 16 bytes) alone."""
        if not self._seeded:
            return os.urandom(32)
        return hashlib.blake2b(self.seed.to_bytes(8, "little"), digest_size=32, person=purpose.encode()).digest()
