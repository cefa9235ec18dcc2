# SPDX-License-Identifier: Apache-2.0
"""What all domains of a host share: the machine, its memory, the clock, the big lock."""

import mmap
from collections.abc import Callable

from domzero._machine import BigLock, Machine
from domzero.abi.xen import PAGE_SIZE
from domzero.hypervisor.clock import Clock, Entropy
from domzero.hypervisor.shared_memory import SharedMemory


class Platform:
    """The ground that domains stand on. It knows none of them.

    :param log: receives one `(XEN)` line per call, without the newline.
    """

    def __init__(
        self, machine: Machine, clock: Clock, entropy: Entropy, log: Callable[[str], None] | None = None
    ) -> None:
        self.machine = machine
        self.clock = clock
        self.entropy = entropy
        self._log = log
        self._mmap = mmap.mmap(machine.fileno(), machine.frames * PAGE_SIZE)
        self.memory = memoryview(self._mmap)
        """All of machine memory, writable. For frames that are in use by a running guest take `Host.frame_view`."""
        self.shared = SharedMemory(self.memory)
        self.lock = BigLock()
        """The hypervisor's big lock: hypercalls, backends and toolstack hold it when they touch domains."""
        self.quiet = self.lock.condition()
        """Notified when a vCPU has left guest code because it was asked to."""

    def forget_touched(self) -> None:
        """Memory that Python has touched counts as this process's a second time until then; nothing in it changes."""
        self._mmap.madvise(mmap.MADV_DONTNEED)

    def log(self, text: str) -> None:
        """One line of the hypervisor's own log."""
        if self._log is not None:
            self._log(f"(XEN) {text}")

    def now_ns(self) -> int:
        """System time in nanoseconds."""
        return self.machine.now_ns()
