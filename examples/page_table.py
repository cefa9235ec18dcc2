# SPDX-License-Identifier: Apache-2.0
"""A page table drawn: `python examples/page_table.py KERNEL`: all that a kernel finds mapped when it starts."""

import sys

import domzero


def draw(guest: domzero.Guest, table: int, level: int, va: int = 0) -> None:
    """Prints a table's entries, and those of the tables below."""
    for index in range(512):
        entry = domzero.PageTableEntry(level, table, index, guest.machine.read_u64(table * 4096 + index * 8))
        if entry.is_present and (level < 4 or not 256 <= index < 272):  # 256 to 271 are the hypervisor's
            at = va | index << 9 * level + 3 | (0xFFFF << 48 if level == 4 and index > 255 else 0)
            print(f"{'  ' * (4 - level)}{at:016x} {entry}")
            if level > 1:
                draw(guest, entry.mfn, level - 1, at)


with domzero.boot(sys.argv[1], memory_mib=16) as guest:
    print(walk := guest.page_walk(guest.vcpus[0].regs.rip))
    draw(guest, walk.entries[0].table_mfn, walk.entries[0].level)
