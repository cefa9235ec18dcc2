# SPDX-License-Identifier: Apache-2.0
"""Weights of domains (xl's sched-credit2, xl.cfg's cpu_weight), held by the host's scheduler.

A host gives a thread 1.25 times the processor time of one whose nice value is higher by one, wherever both want the
same processor. Domains get nice values whose distances say their weights; the heaviest has NICE. Values are told to
the threads of vCPUs and, where the kernel groups processes by session (sched_autogroup) and compares groups, to the
worker's group. Both are done by Domain 0: a confined worker has no such call.
"""

from __future__ import annotations

import asyncio
import math
import os
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from contextlib import suppress
from pathlib import Path

from domzero.dom0.messages import VcpuStats
from domzero.dom0.records import Record
from domzero.errors import DomzeroError

NICE = 5
"""Of the heaviest, above Domain 0's own, which answers for all domains and has little to do for each."""
NICE_MAX = 19
STEP = 1.25
"""What one nice value is worth (setpriority(2), sched(7))."""
_GROUP_TRIES, _GROUP_APART_SECONDS = 100, 0.1
"""Of ordinary users a kernel takes only ten changes of groups a second."""


def steps_down(weights: list[int]) -> list[int]:
    """How many nice values each of these weights is behind the heaviest. What is 1/22 of that is as far as it goes."""
    heaviest = max(weights, default=1)
    return [min(round(math.log(heaviest / weight, STEP)), NICE_MAX - NICE) for weight in weights]


class Weights:
    """Keeps the nice values of all domains as their weights are. Used in the event loop.

    :param list_vcpus: asks a domain's worker for its vCPUs.
    :param renew_threads: lets a domain's worker give its vCPUs new threads, which begin with NICE.
    :param spawn: does something beside what goes on.
    :param say: is told what could not be done.
    """

    def __init__(
        self,
        list_vcpus: Callable[[Record], Awaitable[Iterable[VcpuStats]]],
        renew_threads: Callable[[Record], Awaitable[object]],
        spawn: Callable[[Coroutine[object, object, None]], object],
        say: Callable[[str], None],
    ) -> None:
        self._list_vcpus = list_vcpus
        self._renew_threads = renew_threads
        self._spawn = spawn
        self._say = say
        self._busy = asyncio.Lock()

    async def hold(self, records: Iterable[Record], *, started: Record | None = None) -> None:
        """Tells the host what has changed.

        :param records: all domains that exist.
        :param started: one whose vCPUs have new threads.
        """
        async with self._busy:
            running = [record for record in records if record.is_up]
            for record, steps in zip(running, steps_down([each.config.cpu_weight for each in running]), strict=True):
                if steps != record.steps_down or (record is started and steps):
                    record.steps_down = steps
                    await self._tell(record)

    async def tell_group(self, record: Record) -> None:
        """Tells the group of a worker that has just been started, or of another weight."""
        worker = record.worker
        if worker is None or not worker.pid:
            return
        path = Path(f"/proc/{worker.pid}/autogroup")
        for _ in range(_GROUP_TRIES):
            if record.worker is not worker:
                return
            try:
                path.write_text(str(NICE + record.steps_down))
                return
            except BlockingIOError:
                await asyncio.sleep(_GROUP_APART_SECONDS)
            except OSError:  # no such thing here, or the process has ended
                return

    async def _tell(self, record: Record) -> None:
        self._spawn(self.tell_group(record))
        nice = min(os.getpriority(os.PRIO_PROCESS, 0) + NICE + record.steps_down, NICE_MAX)
        try:
            if not _set_nice(record, await self._list_vcpus(record), nice):
                # Only who may raise priorities takes a nice value back: threads that never had it need not.
                await self._renew_threads(record)
                _set_nice(record, await self._list_vcpus(record), nice)
        except DomzeroError as error:
            self._say(f"domain {record.name}: its weight is not what it should be: {error}")


def _set_nice(record: Record, vcpus: Iterable[VcpuStats], nice: int) -> bool:
    """False when one has a higher nice value already, and may not have it lowered.

    Only threads of the domain's worker are touched, whatever the worker says that its threads are.
    """
    threads = Path(f"/proc/{record.worker.pid if record.worker is not None else 0}/task")
    for vcpu in vcpus:
        if vcpu.thread_id is not None and (threads / str(vcpu.thread_id)).exists():
            try:
                with suppress(ProcessLookupError):
                    os.setpriority(os.PRIO_PROCESS, vcpu.thread_id, nice)
            except PermissionError:
                return False
    return True
