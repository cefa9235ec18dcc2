# SPDX-License-Identifier: Apache-2.0
"""Words of machine memory that guests read and change at the same time."""


class SharedMemory:
    """Machine memory as the host sees it.

    :param memory: all of machine memory, writable.
    """

    def __init__(self, memory: memoryview) -> None:
        self.memory = memory

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
