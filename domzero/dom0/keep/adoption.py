# SPDX-License-Identifier: Apache-2.0
"""A Domain 0 goes on with the domains of the one before it.

What was going on in that one is finished or undone, as what was written down says: a domain that was being built is
ended, one that was being given back is gone, one that was to start again starts.
"""

from __future__ import annotations

import asyncio
from contextlib import closing
from typing import TypeAlias

from domzero.dom0 import console_relay as consoles
from domzero.dom0.config import Action, DomainConfig
from domzero.dom0.handles import Handle
from domzero.dom0.keep.keeping import Keeping
from domzero.dom0.keep.protocol import Kept
from domzero.dom0.life import DomainState, End, EndReason
from domzero.dom0.manager import Manager
from domzero.dom0.messages import DetachDisk, DetachVif, Done, Request, Resumed
from domzero.dom0.outside import Kind
from domzero.dom0.records import Record
from domzero.dom0.vnc import listener as screens
from domzero.dom0.worker_handle import WorkerHandle
from domzero.errors import DomzeroError

Found: TypeAlias = "tuple[Kept, list[int], dict[str, int]]"
"""A worker, its files and its parts (`WorkerSpawner.hold`)."""
WAIT_SECONDS = 5.0
"""For workers that do not answer; what comes later is heard, too."""


async def take_over(manager: Manager, keeping: Keeping) -> None:
    """Goes on with all that there is; from now on it is written down for the next Domain 0.

    :raises ConfigError: the workers are of a version that this one does not speak with.
    :raises ResourceError: the keeper does not answer, or cannot be started.
    """
    left, records = keeping.read(manager.database.path)
    for record in records:
        manager.roster.enter(record)
    keeping.begin()
    with closing(left):
        jobs = []
        for record in records:
            found: Found | None = None
            if (worker := left.worker(record.domid)) is not None:
                pid = worker[0].pid
                found = (*worker, left.parts(pid))
                for outside in left.outsides(pid):
                    (screens if outside.kind is Kind.SCREEN else consoles).serve_again(outside)
            jobs.append(_go_on(manager, keeping, record, found))
        for pid, kept in left.workers.items():  # those were being started, or were of domains that were being forgotten
            if kept.status is None:
                keeping.spawner.adopt(kept).kill()
            else:
                keeping.spawner.forget(pid)
    tasks = [manager.spawn(job) for job in jobs]
    if tasks:
        await asyncio.wait(tasks, timeout=WAIT_SECONDS)


async def _go_on(manager: Manager, keeping: Keeping, record: Record, found: Found | None) -> None:
    """Goes on with one domain."""
    worker: Handle | None = None
    resumed = None
    if found is not None and record.domid is not None:
        kept, files, parts = found
        worker = manager.new_worker(record, record.domid)
        child = keeping.spawner.adopt(kept)
        is_up = not record.ending and record.state is not DomainState.BUILDING
        if isinstance(worker, WorkerHandle):
            resumed = await worker.take_over(child, files, kept.words, is_up=is_up)
        else:
            resumed = await worker.take_over(
                child,
                files,
                parts,
                kept.words,
                record.config,
                engine=record.engine,
                started_mono=record.started_mono,
                is_up=is_up,
                was_paused=record.state is DomainState.PAUSED,
            )
    if record.ending or record.state is DomainState.BUILDING or (worker is None and not record.ended):
        end, record.ending = _interrupted(record), False
        await manager.end(record, end)
    elif record.ended:
        is_preserved = record.following is not None and record.following.action == Action.PRESERVE
        if resumed is None and is_preserved:
            await manager.end(record, record.exit)
        else:
            manager.go_on(record)
    elif resumed is None and worker is not None:
        manager.worker_gone(record, worker, worker.how_it_ended)
    elif resumed is not None and worker is not None:
        manager.say(f"domain {record.name} ({record.domid}) goes on under this Domain 0")
        if resumed.exited is not None:
            manager.worker_event(record, worker, resumed.exited)
        else:
            record.state = DomainState.PAUSED if resumed.is_paused else DomainState.RUNNING
            _forget_devices(record.config, resumed)
            await _take_back(manager, record, resumed)
        await manager.changed(record)
    if found is not None and found[0].status is not None:  # what has become of it is written down
        keeping.spawner.forget(found[0].pid)


def _interrupted(record: Record) -> End:
    """The end of a domain that was not there yet, or not any more, when its Domain 0 ended."""
    if record.ending and record.exit is not None:
        return record.exit
    if record.state is DomainState.BUILDING:
        return End(EndReason.FAILED, ("its Domain 0 ended while it was built",))
    return End(EndReason.CRASH, ("its worker process ended, and nobody knows how",))


def _forget_devices(config: DomainConfig, resumed: Resumed) -> None:
    """Takes out of a configuration what has gone while no Domain 0 was there."""
    for disk in config.disk_specs:
        if disk.vdev not in resumed.disks:
            config.put_disk(disk.devid, None)
    for vif in config.vif_specs:
        if vif.devid not in resumed.vifs:
            config.put_vif(vif.devid, None)


async def _take_back(manager: Manager, record: Record, resumed: Resumed) -> None:
    """Has those devices taken away whose plugging in was not answered any more: what a worker says that it has is not
    enough to open it again at the next start."""
    disks = {disk.vdev for disk in record.config.disk_specs}
    vifs = {vif.devid for vif in record.config.vif_specs}
    requests: list[Request] = [DetachDisk(vdev, force=False) for vdev in resumed.disks if vdev not in disks]
    requests += [DetachVif(devid, force=False) for devid in resumed.vifs if devid not in vifs]
    for request in requests:
        manager.say(f"domain {record.name}: a device is taken away that was being plugged in when Domain 0 ended")
        try:
            await manager.ask(record, request, Done)
        except DomzeroError as error:
            manager.say(f"domain {record.name}: it stays: {error}")


__all__ = ["take_over"]
