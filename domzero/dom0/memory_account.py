# SPDX-License-Identifier: Apache-2.0
"""Domain 0's account of the host's memory: what domains have been promised, and whether there is room for more.

A domain is promised its limit (`Record.memory_limit_mib`): the hypervisor lets it have no more, whatever its maxmem.
What it has touched of that the host counts as used; what its balloon gives back the host has again at once.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from domzero.dom0.records import Record
from domzero.errors import ResourceError


def check_room(wanted_mib: int, records: Iterable[Record], *, key: str = "memory") -> None:
    """Raises ResourceError when the host has not so much left beside what these domains may still take."""
    total, available = memory_mib()
    promised = sum(max(0, record.memory_limit_mib - touched_mib(record)) for record in records)
    if total and wanted_mib > available - promised:
        others = f", and other domains may still take {promised} of them" if promised else ""
        raise ResourceError(f"{wanted_mib} MiB are not there: the host has {available} MiB available{others}", key=key)


def check_growth(record: Record, limit_mib: int, records: Iterable[Record], *, key: str) -> None:
    """Raises ResourceError when the host has no room for this domain to grow to this limit.

    :param records: all domains, this one among them.
    """
    more = limit_mib - max(record.memory_limit_mib, touched_mib(record))
    if more > 0:
        check_room(more, records, key=key)


def touched_mib(record: Record) -> int:
    """Memory of the domain that the host does not count as available any more."""
    worker = record.worker
    return guest_memory_mib(worker.pid) if worker is not None and worker.pid else 0


def memory_mib() -> tuple[int, int]:
    """The host's memory, and how much of it is available, in MiB."""
    try:
        text = Path("/proc/meminfo").read_text()
    except OSError:
        pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        return pages >> 20, 0
    values = {key: int(value) for key, value in re.findall(r"^(\w+):\s+(\d+) kB", text, re.MULTILINE)}
    return values.get("MemTotal", 0) >> 10, values.get("MemAvailable", values.get("MemFree", 0)) >> 10


def guest_memory_mib(pid: int) -> int:
    """Memory of a worker's guest in MiB, rounded up: what its memfd has allocated; 0 when the worker is gone.

    Resident memory would not tell: the guest's is mapped more than once, and the interpreter's is among it.
    """
    blocks: dict[int, int] = {}  # by inode: a file may be open more than once
    with suppress(OSError):
        for fd in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(OSError):
                if str(fd.readlink()).startswith("/memfd:domzero-ram"):
                    status = fd.stat()
                    blocks[status.st_ino] = status.st_blocks
    return -(-sum(blocks.values()) * 512 >> 20)
