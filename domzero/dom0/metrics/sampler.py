# SPDX-License-Identifier: Apache-2.0
"""Asks the workers of all domains what they have used so far, once for all who want to know at the same time."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from dataclasses import dataclass, fields, is_dataclass

from domzero.dom0.hostinfo import thread_usage
from domzero.dom0.manager import Manager
from domzero.dom0.messages import Measure, Measured
from domzero.dom0.records import Record
from domzero.errors import DomzeroError

COUNT_MAX = 1 << 60
DEVICES_MAX = 1024
FRESH_SECONDS = 0.1
"""A sweep as young as this is shown again."""


@dataclass(slots=True, frozen=True)
class Counters:
    """What only grows while a domain runs; all of its devices together."""

    cpu_ns: int = 0
    disk_reads: int = 0
    disk_writes: int = 0
    disk_read_bytes: int = 0
    disk_written_bytes: int = 0
    network_sent_frames: int = 0
    network_received_frames: int = 0
    network_sent_bytes: int = 0
    network_received_bytes: int = 0
    exits: int = 0

    def since(self, before: Counters) -> Counters:
        """How much more it is than before; what has begun again at 0 (a device that was taken away) counts whole."""
        now = {field.name: getattr(self, field.name) for field in fields(self)}
        return Counters(
            **{name: value - was if value >= (was := getattr(before, name)) else value for name, value in now.items()}
        )


@dataclass(slots=True, frozen=True)
class Sample:
    """One domain at one moment.

    :param at: seconds since 1970.
    :param record: the domain; its domid is the one that was measured.
    :param measured: what its worker has said; None for one that does not run, or does not answer.
    :param vcpu_ns: processor time of each vCPU.
    """

    at: float
    record: Record
    domid: int | None
    measured: Measured | None
    vcpu_ns: tuple[int, ...] = ()

    @property
    def counters(self) -> Counters:
        """Its sums."""
        measured = self.measured
        if measured is None:
            return Counters()
        disks, vifs = measured.disks, measured.vifs
        return Counters(
            cpu_ns=measured.cpu_ns,
            disk_reads=sum(disk.reads for disk in disks),
            disk_writes=sum(disk.writes for disk in disks),
            disk_read_bytes=sum(disk.read_bytes for disk in disks),
            disk_written_bytes=sum(disk.written_bytes for disk in disks),
            network_sent_frames=sum(vif.sent_frames for vif in vifs),
            network_received_frames=sum(vif.received_frames for vif in vifs),
            network_sent_bytes=sum(vif.sent_bytes for vif in vifs),
            network_received_bytes=sum(vif.received_bytes for vif in vifs),
            exits=sum(each.count for each in measured.exits),
        )


def is_sane(value: object) -> bool:
    """Whether all numbers of a worker's answer can be counts: they are added, and kept in 64 bits."""
    if isinstance(value, int):
        return 0 <= value < COUNT_MAX
    if isinstance(value, tuple):
        return len(value) <= DEVICES_MAX and all(map(is_sane, value))
    return not is_dataclass(value) or all(is_sane(getattr(value, field.name)) for field in fields(value))


class Sampler:
    """Measures the domains of a manager. Used in the event loop."""

    def __init__(self, manager: Manager) -> None:
        self.manager = manager
        self._sweep: asyncio.Task[list[Sample]] | None = None
        self._begun_mono = 0.0

    async def samples(self) -> list[Sample]:
        """All domains that exist."""
        now = time.monotonic()
        if self._sweep is None or (self._sweep.done() and now - self._begun_mono > FRESH_SECONDS):
            self._begun_mono = now
            self._sweep = asyncio.get_running_loop().create_task(self._measure_all())
        return await asyncio.shield(self._sweep)

    async def _measure_all(self) -> list[Sample]:
        return list(await asyncio.gather(*(self.measure(record) for record in self.manager.all())))

    async def measure(self, record: Record) -> Sample:
        """One domain, now."""
        worker, domid = record.worker, record.domid
        measured: Measured | None = None
        with suppress(DomzeroError):
            if worker is not None:
                measured = await self.manager.ask(record, Measure(), Measured)
        if measured is None or not is_sane(measured) or record.worker is not worker or worker is None:
            return Sample(time.time(), record, domid, None)
        usages = [thread_usage(worker.pid, vcpu.thread_id or 0) if worker.pid else None for vcpu in measured.vcpus]
        spent = tuple(
            vcpu.spent_ns + (usage.cpu_ns if usage else 0) for vcpu, usage in zip(measured.vcpus, usages, strict=True)
        )
        return Sample(time.time(), record, domid, measured, spent)

    async def close(self) -> None:
        """Ends a sweep under way."""
        if self._sweep is not None and not self._sweep.done():
            self._sweep.cancel()
            with suppress(asyncio.CancelledError):
                await self._sweep
