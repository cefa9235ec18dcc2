# SPDX-License-Identifier: Apache-2.0
"""A QEMU's state to a file and back: QEMU's own migration, out of a machine that stands still.

QEMU writes into a pipe, which Domain 0 empties into the file, so that one that is its guest's can write no more than
that, and nothing else of the file. Its disks are closed, or still, when the state is whole.
"""

from __future__ import annotations

import asyncio
import errno
import os
import select
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, TypeVar

from domzero.dom0.life import DomainState
from domzero.dom0.qemu import requests
from domzero.dom0.qemu.machine import Machine
from domzero.dom0.qemu.qmp import Json, number
from domzero.dom0.qemu.saved import SavedMachine, SavedState, describe
from domzero.errors import ConfigError, DomzeroError, ResourceError

CHUNK = 1 << 20
BESIDES_MEMORY = 512 << 20
"""Bytes that a state may have beyond the domain's memory: the screen's, firmware, devices, and QEMU's own words."""
STALL_SECONDS = 30.0
"""QEMU may write or read nothing, or leave a question without an answer."""
UNDO_SECONDS = 10.0
POLL_SECONDS = (0.01, 0.2)
"""First, and at most."""
BANDWIDTH = 1 << 40
"""Bytes a second that QEMU may write: its own default is meant for networks."""
_SAVED, _LOADED = "state-out", "state-in"
_UNDER_WAY = ("setup", "active", "cancelling", "device", "pre-switchover", "wait-unplug")
T = TypeVar("T")


async def save(
    handle: Machine, accelerator: str, fd: int, on_progress: Callable[[float], None] = lambda done: None
) -> SavedMachine:
    """Stops the vCPUs and writes the state to a file, from where that is; what it is of. The machine stands still
    then, and its disks are what the state says. If anything goes wrong, or the caller is cancelled, it is as it was.

    :param fd: written, and synced; it stays the caller's.
    :param on_progress: told how much is done, from 0 to 1.
    """
    was = await requests.state(handle)
    if was.is_end:
        raise ConfigError("the guest has ended: there is nothing to be saved")
    try:
        await _answer(handle.qmp.ask("stop"))
        if (await requests.state(handle)).is_end:
            raise ConfigError("the guest has ended: there is nothing to be saved")
        machine = await _answer(describe(handle, accelerator))
        await _migrate(handle, fd, on_progress)
    except BaseException:
        undo = asyncio.ensure_future(_undo(handle, goes_on=was is not DomainState.PAUSED))
        handle.spawn(_waited(undo))
        await asyncio.shield(undo)
        raise
    on_progress(1.0)
    return machine


async def _migrate(handle: Machine, fd: int, on_progress: Callable[[float], None]) -> None:
    memory = 0 if handle.config is None else handle.config.static_max_mib << 20
    read, write = os.pipe()
    drain = _Drain(read, fd, memory + BESIDES_MEMORY)
    try:
        await _answer(handle.qmp.ask("getfd", {"fdname": _SAVED}, [write]))
    except BaseException:
        os.close(read)
        raise
    finally:
        os.close(write)
    drained = asyncio.ensure_future(asyncio.to_thread(drain.run))
    try:
        await _answer(handle.qmp.ask("migrate-set-parameters", {"max-bandwidth": BANDWIDTH}))
        await _answer(handle.qmp.ask("migrate", {"uri": f"fd:{_SAVED}"}))
        status = await _follow(handle, lambda: drain.written, on_progress)
        if status == "completed":
            await drained
    finally:
        drain.wanted = False
        with suppress(asyncio.CancelledError):
            await asyncio.shield(drained)
    if drain.error is not None:
        raise drain.error
    if status != "completed":
        raise ResourceError(f"QEMU has not written the domain's state: {await _why(handle)}")


async def load(handle: Machine, accelerator: str, state: SavedState) -> None:
    """Lets a QEMU that has not run (`-incoming defer`) have a state; it stands still then. A QEMU that cannot take it
    ends, with the reason as its last words. ConfigError: it is another machine's.
    """
    state.machine.check_same(await describe(handle, accelerator))
    fd = os.open(f"/proc/self/fd/{state.fd}", os.O_RDONLY | os.O_CLOEXEC)  # it may only be read
    try:
        os.lseek(fd, os.lseek(state.fd, 0, os.SEEK_CUR), os.SEEK_SET)
        await handle.qmp.ask("getfd", {"fdname": _LOADED}, [fd])
        await handle.qmp.ask("migrate-incoming", {"uri": f"fd:{_LOADED}"})
        status = await _follow(handle, lambda: os.lseek(fd, 0, os.SEEK_CUR))
    finally:
        os.close(fd)
    if status != "completed":
        raise ResourceError(f"QEMU has not taken the domain's state: {await _why(handle)}")


async def is_interrupted(handle: Machine) -> bool:
    """Whether a machine stands still because somebody was saving it."""
    return bool((await _migration(handle)).get("status"))


async def give_up(handle: Machine, *, goes_on: bool) -> None:
    """Ends what somebody began who is gone; as `save` does if anything goes wrong."""
    await _undo(handle, goes_on=goes_on)


async def _follow(
    handle: Machine, moved: Callable[[], int], on_progress: Callable[[float], None] = lambda done: None
) -> str:
    """Waits until a migration is over; its status.

    :param moved: how much has gone through: while that grows, it is waited for.
    """
    pause, last, since = POLL_SECONDS[0], moved(), time.monotonic()
    while True:
        migration = await _answer(_migration(handle))
        status = migration.get("status")
        if status not in (None, *_UNDER_WAY):
            return str(status)
        total = number(migration, "ram", "total")
        if total:
            on_progress(max(0.0, 1.0 - number(migration, "ram", "remaining") / total))
        if (now := moved()) != last:
            last, since = now, time.monotonic()
        elif time.monotonic() - since > STALL_SECONDS:
            raise ResourceError(f"QEMU has moved nothing of the domain's state for {STALL_SECONDS:g} s")
        await asyncio.sleep(pause)
        pause = min(2 * pause, POLL_SECONDS[1])


async def _migration(handle: Machine) -> Json:
    answer = await handle.qmp.ask("query-migrate")
    return answer if isinstance(answer, dict) else {}


async def _why(handle: Machine) -> str:
    text = (await _answer(_migration(handle))).get("error-desc")
    return str(text)[:200] if text else "it does not say why"


async def _answer(question: Coroutine[Any, Any, T]) -> T:
    """An answer, unless QEMU hangs."""
    try:
        return await asyncio.wait_for(question, STALL_SECONDS)
    except (TimeoutError, asyncio.TimeoutError):
        raise ResourceError(f"QEMU has not answered for {STALL_SECONDS:g} s") from None


async def _waited(job: asyncio.Future[None]) -> None:
    await job


async def _undo(handle: Machine, *, goes_on: bool) -> None:
    with suppress(DomzeroError, TimeoutError, asyncio.TimeoutError):
        await asyncio.wait_for(_cancel(handle, goes_on=goes_on), UNDO_SECONDS)


async def _cancel(handle: Machine, *, goes_on: bool) -> None:
    with suppress(DomzeroError):
        await handle.qmp.ask("closefd", {"fdname": _SAVED})
    with suppress(DomzeroError):
        await handle.qmp.ask("migrate_cancel")
    while (await _migration(handle)).get("status") in _UNDER_WAY:
        await asyncio.sleep(POLL_SECONDS[0])
    if goes_on and not (await requests.state(handle)).is_end:
        await handle.qmp.ask("cont")


class _Drain:
    """Empties a pipe into a file.

    :param source: the pipe's descriptor, which is this one's from here on.
    :param target: the file's, which stays the caller's.
    :param most: bytes.
    """

    def __init__(self, source: int, target: int, most: int) -> None:
        self._source = source
        self._target = target
        self._most = most
        self.written = 0
        self.wanted = True
        self.error: ResourceError | None = None

    def run(self) -> None:
        """Does it, in a thread, until the pipe's other end is closed or nobody wants it any more."""
        try:
            self._run()
            if self.wanted:
                os.fsync(self._target)
        except OSError as error:
            why = "the disk is full" if error.errno in (errno.ENOSPC, errno.EDQUOT) else str(error)
            self.error = ResourceError(f"the domain's state cannot be written: {why}")
        finally:
            os.close(self._source)  # QEMU sees that nobody reads any more

    def _run(self) -> None:
        poll = select.poll()
        poll.register(self._source, select.POLLIN)
        while self.wanted:
            if not poll.poll(200):
                continue
            data = memoryview(os.read(self._source, CHUNK))
            if not data:
                return
            if self.written + len(data) > self._most:
                raise OSError(errno.EFBIG, f"it has more than {self._most >> 20} MiB")
            self.written += len(data)
            while data:
                data = data[os.write(self._target, data) :]


__all__ = ["give_up", "is_interrupted", "load", "save"]
