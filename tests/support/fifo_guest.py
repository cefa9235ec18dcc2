# SPDX-License-Identifier: Apache-2.0
"""A guest's side of the FIFO ABI: takes events off its queues as event_channel.h and the ABI's design ask for."""

from typing import Any

from domzero.abi.event_channel import EVTCHN_FIFO_LINK_BITS, EVTCHN_FIFO_MAX_QUEUES

PENDING, MASKED, LINKED, BUSY = (1 << bit for bit in (31, 30, 29, 28))
LINK = (1 << EVTCHN_FIFO_LINK_BITS) - 1


class FifoGuest:
    """One domain's guest.

    :param blocks: machine address of each vCPU's control block.
    :param array: frames of the event array, in order.
    """

    def __init__(self, machine: Any, blocks: list[int], array: list[int]) -> None:
        self.machine = machine
        self.blocks = blocks
        self.array = array
        self.heads = [[0] * EVTCHN_FIFO_MAX_QUEUES for _ in blocks]

    def word_at(self, port: int) -> int:
        return self.array[port // 1024] * 4096 + port % 1024 * 4

    def word(self, port: int) -> int:
        return int.from_bytes(self.machine.read(self.word_at(port), 4), "little")

    def change(self, port: int, *, clear: int = 0, put: int = 0) -> int:
        """Atomically changes a word; returns what it was."""
        while True:
            seen = self.word(port)
            if self.machine.compare_exchange_u32(self.word_at(port), seen, seen & ~clear | put) == seen:
                return seen

    def unmask_needs_hypercall(self, port: int) -> bool:
        """Unmasks where the guest may do so itself: a pending event is the hypervisor's to link."""
        while True:
            seen = self.word(port)
            if not seen & MASKED:
                return False
            if seen & PENDING:
                return True
            if self.machine.compare_exchange_u32(self.word_at(port), seen & ~BUSY, seen & ~(MASKED | BUSY)) == (
                seen & ~BUSY
            ):
                return False

    def ready(self, vcpu: int) -> int:
        return int.from_bytes(self.machine.read(self.blocks[vcpu], 4), "little")

    def take(self, vcpu: int) -> list[int]:
        """Handles all events of a vCPU, as an upcall does: ports in the order of their delivery."""
        handled: list[int] = []
        ready = 0
        while True:
            for bit in range(32):
                if self.machine.test_and_clear_bit(self.blocks[vcpu], bit):
                    ready |= 1 << bit
            if not ready:
                return handled
            priority = (ready & -ready).bit_length() - 1
            port = self._next(vcpu, priority)
            if self.heads[vcpu][priority] == 0:
                ready &= ~(1 << priority)
            if port is not None:
                handled.append(port)

    def _next(self, vcpu: int, priority: int) -> int | None:
        head = self.heads[vcpu][priority]
        if head == 0:
            at = self.blocks[vcpu] + 8 + 4 * priority
            head = int.from_bytes(self.machine.read(at, 4), "little")
        seen = self.change(head, clear=LINKED | LINK)
        self.heads[vcpu][priority] = seen & LINK
        if seen & PENDING and not seen & MASKED:
            self.change(head, clear=PENDING)
            return head
        return None
