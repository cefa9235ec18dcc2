# SPDX-License-Identifier: Apache-2.0
"""Bits and words that guests change at the same time: atomic read-modify-write on machine memory."""

from domzero._machine import Machine


class SharedMemory:
    """Machine memory as the host sees it, with the atomic operations that sharing it with guests needs.

    :param memory: all of machine memory, writable.
    """

    def __init__(self, machine: Machine, memory: memoryview) -> None:
        self.memory = memory
        self.test_and_set_bit = machine.test_and_set_bit
        self.test_and_clear_bit = machine.test_and_clear_bit
        self.compare_exchange_u32 = machine.compare_exchange_u32

    def test_bit(self, maddr: int, bit: int) -> bool:
        """Bit `bit` of the little-endian bit string at `maddr`."""
        return bool(self.memory[maddr + (bit >> 3)] >> (bit & 7) & 1)

    def u16(self, maddr: int) -> int:
        """The 16-bit word at `maddr`, read once."""
        return int.from_bytes(self.memory[maddr : maddr + 2], "little")

    def u32(self, maddr: int) -> int:
        """The 32-bit word at `maddr`, read once."""
        return int.from_bytes(self.memory[maddr : maddr + 4], "little")

    def u64(self, maddr: int) -> int:
        """The 64-bit word at `maddr`, read once."""
        return int.from_bytes(self.memory[maddr : maddr + 8], "little")

    def write(self, maddr: int, data: bytes) -> None:
        """Stores `data` at `maddr`."""
        self.memory[maddr : maddr + len(data)] = data
