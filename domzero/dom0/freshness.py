# SPDX-License-Identifier: Apache-2.0
"""What a domain does now, and what it has used: asked of its worker when somebody wants to know."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress

from domzero.dom0.handles import Handle
from domzero.dom0.life import DomainState
from domzero.dom0.messages import GetStats, Stats
from domzero.dom0.records import Record
from domzero.errors import DomzeroError

STATS_SECONDS = 0.5
STATS_FRESH_SECONDS = 0.05


async def refresh(record: Record) -> None:
    """Asks the worker for the state and the time used; keeps what is known if it does not answer at once.

    It is asked once for all who want to know at the same time, or soon after one another.
    """
    if record.worker is None or record.state == DomainState.BUILDING or record.ending:
        return
    if record.refreshing is None or record.refreshing.done():
        if time.monotonic() - record.refreshed_mono < STATS_FRESH_SECONDS:
            return
        record.refreshing = asyncio.get_running_loop().create_task(_ask_stats(record, record.worker))
    await asyncio.wait({record.refreshing}, timeout=STATS_SECONDS)


async def _ask_stats(record: Record, worker: Handle) -> None:
    with suppress(DomzeroError):
        stats = await worker.request(GetStats(), Stats)
        if record.worker is not worker:
            return
        record.cpu_ns, record.current_memory_mib = stats.cpu_ns, stats.memory_mib
        record.refreshed_mono = time.monotonic()
        is_up = stats.state in (DomainState.RUNNING, DomainState.BLOCKED)
        if is_up and not record.ended and record.state != DomainState.PAUSED:
            record.state = stats.state


__all__ = ["refresh"]
