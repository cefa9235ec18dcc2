"""Bits and words that guests change at the same time: atomic read-modify-write on machine memory."""

from typing import Protocol, cast

from domzero._machine import Machine


class _Atomics(Protocol):
    def test_and_set_bit(self, maddr: int, bit: int) -> bool: ...
    def test_and_clear_bit(self, maddr: int, bit: int) -> bool: ...
    def compare_exchange_u32(self, maddr: int, old: int, new: int) -> int: ...


class _PlainAtomics:
    """For tests without the compiled machine: no other writer is there."""

    def __init__(self, memory: memoryview) -> None:
        self._memory = memory

    def test_and_set_bit(self, maddr: int, bit: int) -> bool:
        at, mask = maddr + (bit >> 3), 1 << (bit & 7)
        old = self._memory[at]
        self._memory[at] = old | mask
        return bool(old & mask)

    def test_and_clear_bit(self, maddr: int, bit: int) -> bool:
        at, mask = maddr + (bit >> 3), 1 << (bit & 7)
        old = self._memory[at]
        self._memory[at] = old & ~mask & 0xFF
        return bool(old & mask)

    def compare_exchange_u32(self, maddr: int, old: int, new: int) -> int:
        seen = int.from_bytes(self._memory[maddr : maddr + 4], "little")
        if seen == old:
            self._memory[maddr : maddr + 4] = new.to_bytes(4, "little")
        return seen


class SharedMemory:
    """Machine memory as the host sees it, with the atomic operations that sharing it with guests needs.

    :param memory: all of machine memory, writable.
    """

    def __init__(self, machine: Machine, memory: memoryview) -> None:
        self.memory = memory
        atomics = cast(_Atomics, machine) if hasattr(machine, "test_and_set_bit") else _PlainAtomics(memory)
        self.test_and_set_bit = atomics.test_and_set_bit
        self.test_and_clear_bit = atomics.test_and_clear_bit
        self.compare_exchange_u32 = atomics.compare_exchange_u32

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
