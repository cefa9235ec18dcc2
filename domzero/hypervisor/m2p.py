# SPDX-License-Identifier: Apache-2.0
"""The machine-to-physical table, as 64-bit and as 32-bit guests see it."""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from typing import TYPE_CHECKING

from domzero.abi.xen import PAGE_SIZE

if TYPE_CHECKING:
    from domzero._machine import Machine


def fill(machine: Machine, memory: memoryview, mfns: array[int], pfns: Iterable[int]) -> None:
    """Says of each frame which pseudo-physical one it is.

    :param memory: the machine's, all of it.
    """
    first, count = machine.m2p
    at = first * PAGE_SIZE
    narrow_at = at + count * PAGE_SIZE  # the table of 32-bit guests lies behind it
    with (
        memory[at:narrow_at] as area,
        area.cast("Q") as table,
        memory[narrow_at : narrow_at + machine.frames * 4] as narrow_area,
        narrow_area.cast("I") as narrow,
    ):
        for mfn, pfn in zip(mfns, pfns, strict=True):
            table[mfn] = pfn
            narrow[mfn] = pfn & 0xFFFFFFFF
