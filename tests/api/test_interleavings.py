# SPDX-License-Identifier: Apache-2.0
"""Domains created, ended, killed and started again at random moments: processes and records agree when it is quiet."""

from __future__ import annotations

import asyncio
import gc
import os
import random
import signal
import threading
from collections.abc import Callable, Coroutine
from contextlib import suppress
from pathlib import Path

import pytest
from dom0_server import children

from domzero.dom0.config import Action, DomainConfig
from domzero.dom0.life import DomainState
from domzero.dom0.manager import Manager
from domzero.errors import DomzeroError

MOMENTS = 0.15
"""Seconds, about what a start takes: all that is asked for is asked within them."""
Job = Coroutine[object, object, None]


def workers(manager: Manager) -> set[int]:
    """Process ids of the workers that exist: the fork server's children."""
    process = manager._spawner._process
    if process is None:
        return set()
    try:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    except FileNotFoundError:
        return set()
    return {int(child) for child in children}


def agree(manager: Manager) -> bool:
    """Every worker is a record's, every record has its worker, and xenstore knows the domains that live, no others."""
    records = manager.all()
    if any(record.ending or record.state in (DomainState.BUILDING, *ENDS) for record in records):
        return False  # not quiet yet
    pids = {record.worker.pid for record in records if record.worker is not None}
    domids = {str(record.domid) for record in records} | {"0"}
    return (
        workers(manager) == pids
        and len(pids) == len(records)
        and set(manager.store.ls("/local/domain")) == domids
        and all(record.worker is None for record in manager.all(ended=True) if record.gone)
    )


ENDS = tuple(state for state in DomainState if state.is_end)


async def quiet(manager: Manager) -> None:
    for _ in range(6000):
        if agree(manager):
            return
        await asyncio.sleep(0.01)
    told = [(r.name, r.domid, r.state, r.worker and r.worker.pid, r.ending, r.gone) for r in manager.all(ended=True)]
    raise AssertionError(f"workers {workers(manager)}, xenstore {manager.store.ls('/local/domain')}, {told}")


def actions(manager: Manager, kernel: str, chance: random.Random) -> list[Job]:
    """What happens in one round."""
    names = ["a", "b"]

    async def create(name: str) -> None:
        action = chance.choice([Action.RESTART, Action.DESTROY])
        await manager.create(
            DomainConfig(kernel=kernel, name=name, memory_mib=16, on_reboot=Action.RESTART, on_crash=action)
        )

    async def give_up(name: str) -> None:
        job = asyncio.ensure_future(create(name))
        await asyncio.sleep(chance.random() * MOMENTS)
        job.cancel()
        with suppress(asyncio.CancelledError):
            await job

    async def destroy(name: str) -> None:
        await manager.destroy(manager.find(name))

    async def kill(name: str) -> None:
        worker = manager.find(name).worker
        if worker is not None and worker.pid is not None:
            os.kill(worker.pid, signal.SIGKILL)

    async def reboot(name: str) -> None:
        worker = manager.find(name).worker
        if worker is not None:
            await worker.console_input(b"reboot\n")

    async def at_some_moment(action: Callable[[str], Job], name: str) -> None:
        await asyncio.sleep(chance.random() * MOMENTS)
        with suppress(DomzeroError, ProcessLookupError):
            await action(name)

    kinds = [create, create, give_up, destroy, destroy, kill, reboot]
    chosen = [create, *(chance.choice(kinds) for _ in range(chance.randint(1, 6)))]
    return [at_some_moment(action, chance.choice(names)) for action in chosen]


async def interleave(rounds: int, kernel: str, seed: int) -> None:
    chance = random.Random(seed)
    manager = Manager()
    for number in range(rounds):
        jobs = [asyncio.ensure_future(job) for job in actions(manager, kernel, chance)]
        if number % 4 == 3:  # Domain 0 shuts down in the middle of it
            await asyncio.sleep(chance.random() * MOMENTS)
            pids = workers(manager)
            await manager.close()
            await asyncio.gather(*jobs)
            assert manager.all() == [] and workers(manager) == set()
            assert not any(Path(f"/proc/{pid}").exists() for pid in pids)
            manager = Manager()
            continue
        await asyncio.gather(*jobs)
        await quiet(manager)
        for pid in workers(manager):
            assert not named_files(pid)
        for record in manager.all():
            await manager.destroy(record)
        await quiet(manager)
    await manager.close()


def descriptors() -> dict[str, str]:
    """What this process has open, without what earlier tests have left for the collector."""
    gc.collect()
    found = {}
    for name in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):  # the listing's own
            found[name] = os.readlink(f"/proc/self/fd/{name}")
    return found


def own_threads() -> set[str]:
    """Names of this process's threads, but of those that open files: they stay, up to a number."""
    return {thread.name for thread in threading.enumerate() if not thread.name.startswith("open_")}


def named_files(pid: int) -> set[str]:
    """Files with names, other than devices, that a process has open for writing or maps: they could outlive it."""
    found = set()
    with suppress(OSError):  # it has ended
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(OSError):
                found.add(str(entry.readlink()))
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            fields = line.split(maxsplit=5)
            if len(fields) == 6 and {*"ws"} <= {*fields[1]}:
                found.add(fields[5])
    return {name for name in found if name.startswith("/") and not name.startswith(("/dev/null", "/memfd:"))}


def leaves_nothing(rounds: int, kernel: str, seed: int) -> None:
    """Interleaves, and compares what this process has, and what was left of those that it started."""
    asyncio.run(interleave(4, kernel, 1))
    before, threads, processes = descriptors(), own_threads(), children(os.getpid())
    asyncio.run(interleave(rounds, kernel, seed))
    after = descriptors()
    assert len(after) == len(before), {name: what for name, what in after.items() if before.get(name) != what}
    assert (own_threads(), children(os.getpid())) == (threads, processes)


def test_no_interleaving_leaves_a_process_without_its_record(shell: str) -> None:
    leaves_nothing(36, shell, 2)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_thousand_interleavings_leave_no_process_without_its_record(
    shell: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    leaves_nothing(1000, shell, seed)
    assert not list(tmp_path.iterdir())


def test_a_domain_destroyed_while_its_worker_is_started_leaves_none(shell: str) -> None:
    async def run(steps: int) -> None:
        manager = Manager()
        create = asyncio.ensure_future(manager.create(DomainConfig(kernel=shell, name="x", memory_mib=16)))
        for _ in range(steps):
            await asyncio.sleep(0)
        for record in manager.all():
            await manager.destroy(record)
        with suppress(DomzeroError):
            await create
        await quiet(manager)
        assert workers(manager) == set() or steps == 0
        await manager.close()

    for steps in (1, 2, 3, 5, 8):
        asyncio.run(run(steps))
