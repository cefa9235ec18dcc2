# SPDX-License-Identifier: Apache-2.0
"""What a vCPU keeps to be fast, and gives back when it has had little to do for a while."""

from domzero import _machine

PERIOD_NS = 10_000_000_000
"""How long a vCPU must have had little to do."""
LITTLE = 20_000_000
"""So many instructions in that time: a hundredth of a processor, or less."""
KEPT_BYTES = 4 << 20
"""What an idle guest's own housekeeping needs again and again; no more than that is worth giving back."""


class IdleMemory:
    """The decoded code and translations of one vCPU. Only for the vCPU's own thread, while it is to sleep."""

    def __init__(self, hw: _machine.Vcpu, now_ns: int) -> None:
        self._hw = hw
        self._instructions = 0
        self._look_ns = now_ns + PERIOD_NS

    def sleep_ns(self, now_ns: int, sleep_ns: float) -> float:
        """How long to sleep, at most, of what the guest would like to: there is something to be given back then."""
        return max(0, min(sleep_ns, self._look_ns - now_ns)) if self._hw.cached_bytes > KEPT_BYTES else sleep_ns

    def give_back(self, now_ns: int) -> bool:
        """Forgets what was kept if it is time to, and says so: `give_back_free` is due then, without any lock."""
        if now_ns < self._look_ns:
            return False
        done, self._instructions = self._hw.instructions - self._instructions, self._hw.instructions
        self._look_ns = now_ns + PERIOD_NS
        if done > LITTLE or self._hw.cached_bytes <= KEPT_BYTES:
            return False
        self._hw.forget_cached()
        return True
