# SPDX-License-Identifier: Apache-2.0
"""A QEMU's state to a file and back: QEMU's own migration, out of a machine that stands still.

QEMU writes into a pipe, which Domain 0 empties into the file, and reads from another: one that is its guest's can
neither change what is in the file already, nor write without a bound, nor write later. Its disks are closed, or still,
when the state is whole.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import select
import time
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from typing import Any, Protocol, TypeVar

from domzero.dom0.json_values import to_json
from domzero.dom0.life import DomainState
from domzero.dom0.messages import (
    Answer,
    Done,
    ExpectSuspend,
    GoOn,
    Pause,
    Progress,
    Request,
    Save,
    Saved,
    Suspended,
    Unpause,
)
from domzero.dom0.qemu import devices, requests
from domzero.dom0.qemu.machine import Machine
from domzero.dom0.qemu.qmp import Json, QmpError, QmpGone, number
from domzero.dom0.qemu.saved import SavedState, describe
from domzero.dom0.save_format import STREAM_BYTES, ImageWriter
from domzero.dom0.save_progress import in_steps
from domzero.errors import ConfigError, DomzeroError, ResourceError

BESIDES_MEMORY = 512 << 20
"""Bytes that a state may have beyond the domain's memory: the screen's, firmware, devices, and QEMU's own words."""
STALL_SECONDS = 30.0
"""QEMU may write or read nothing, or leave a question without an answer."""
UNDO_SECONDS = 10.0
POLL_SECONDS = (0.01, 0.2)
"""First, and at most."""
LOOK_MS = 200
BANDWIDTH = 1 << 40
"""Bytes a second that QEMU may write: its own default is meant for networks."""
_SAVED, _LOADED = "state-out", "state-in"
_UNDER_WAY = ("setup", "active", "cancelling", "device", "pre-switchover", "wait-unplug")
T = TypeVar("T")


class Saving:
    """What is asked of a machine that is to be saved: to stand still (`ExpectSuspend`), to be written (`Save`), and to
    go on (`GoOn`), which gives up what is being written."""

    def __init__(self, handle: Machine) -> None:
        self._handle = handle
        self._goes_on = False
        self._writing: asyncio.Task[Any] | None = None
        self._is_frozen = False
        """It is written, and has not run since: QEMU has let go of its disks."""

    def check(self, request: Request) -> None:
        """Raises ResourceError for what cannot be asked now."""
        if self._writing is not None and type(request) not in (GoOn, *requests.QUESTIONS):
            raise ResourceError("its state is being saved")
        if self._is_frozen and type(request) in devices.CHANGES_DISKS:
            raise ResourceError("its disks are as in its saved state", hint="unpause it first")

    def answered(self, request: Request) -> None:
        """Something else was asked, and is done."""
        if isinstance(request, Unpause):
            self._is_frozen = False
        elif isinstance(request, Pause):
            self._goes_on = False

    async def answer(self, request: Request, files: Sequence[int]) -> Answer | None:
        """Carries it out; None: it is about something else. DomzeroError."""
        try:
            if isinstance(request, Save):
                return Saved(await self._write(files[0]))
            if isinstance(request, ExpectSuspend):
                await self._stand_still()
            elif isinstance(request, GoOn):
                await self._go_on()
            else:
                return None
            return Done()
        except QmpError as error:
            raise ConfigError(f"QEMU refuses: {error.message}") from error

    async def _stand_still(self) -> None:
        was = await requests.state(self._handle)
        if not was.is_end:
            self._goes_on = was is not DomainState.PAUSED
            await self._handle.qmp.ask("stop")
            was = await requests.state(self._handle)
        if was.is_end:
            raise ConfigError("the guest has ended: there is nothing to be saved")
        self._handle.tell(Suspended())

    async def _write(self, fd: int) -> int:
        self._writing = asyncio.current_task()
        try:
            size = await write(self._handle, fd, in_steps(self._handle.tell))
            self._is_frozen = True
            self._handle.tell(Progress(1.0))
            return size
        finally:
            self._writing = None

    async def _go_on(self) -> None:
        if (writing := self._writing) is not None:
            writing.cancel()
            await asyncio.wait({writing})
        if self._goes_on and not (await requests.state(self._handle)).is_end:
            await self._handle.qmp.ask("cont")
            self._is_frozen = False
        self._goes_on = False


async def write(handle: Machine, fd: int, on_progress: Callable[[float], None]) -> int:
    """Writes the state of a machine that stands still into a file that has been begun (`save_format`); its size. If
    that fails or is cancelled QEMU has its disks, and can go on.

    :param fd: written, and synced; it stays the caller's.
    :param on_progress: told how much is done, of 1.
    """
    machine = await _answer(describe(handle))
    try:
        return await _migrate(handle, fd, to_json(machine), on_progress)
    except BaseException:
        undo = asyncio.ensure_future(_cancel(handle))
        handle.spawn(_waited(undo))
        await asyncio.shield(undo)
        raise


async def _migrate(handle: Machine, fd: int, machine: Json, on_progress: Callable[[float], None]) -> int:
    memory = 0 if handle.config is None else handle.config.static_max_mib << 20
    read, write = os.pipe()
    drain = _Drain(read, fd, machine, memory + BESIDES_MEMORY)
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
        status = await _follow(handle, drain, on_progress)
        if status == "completed":
            await asyncio.shield(drained)
    finally:
        drain.wanted = False
        await asyncio.wait({drained})
    if drain.error is not None:
        raise drain.error
    if status != "completed":
        raise ResourceError(f"QEMU has not written the domain's state: {await _why(handle)}")
    return drain.size


async def load(handle: Machine, state: SavedState) -> None:
    """Lets a QEMU that has not run (`-incoming defer`) have a state; it stands still then, and the whole file was
    right. A QEMU that cannot take it ends, with the reason as its last words. ConfigError: it is another machine's.
    RestoreError: the file is damaged.
    """
    state.machine.check_same(await describe(handle))
    read, write = os.pipe()
    try:
        await handle.qmp.ask("getfd", {"fdname": _LOADED}, [read])
    except BaseException:
        os.close(write)
        raise
    finally:
        os.close(read)
    feed = _Feed(state, write)
    fed = asyncio.ensure_future(asyncio.to_thread(feed.run))
    try:
        await handle.qmp.ask("migrate-incoming", {"uri": f"fd:{_LOADED}"})
        status = await _follow(handle, feed)
        if status == "completed":
            await asyncio.shield(fed)
    except QmpGone:
        await asyncio.wait({fed})
        if feed.error is not None:
            raise feed.error from None
        raise
    finally:
        feed.wanted = False
        await asyncio.wait({fed})
    if feed.error is not None:
        raise feed.error
    if status != "completed":
        raise ResourceError(f"QEMU has not taken the domain's state: {await _why(handle)}")


async def go_on(handle: Machine) -> None:
    """Lets a machine go on that stands still because a Domain 0 that is gone was saving it, or about to."""
    await _cancel(handle)
    await handle.qmp.ask("cont")


async def _follow(handle: Machine, end: _End, on_progress: Callable[[float], None] = lambda done: None) -> str:
    """Waits until a migration is over; its status. While something moves, it is waited for; an error of our end is
    raised."""
    pause, last, since = POLL_SECONDS[0], end.moved, time.monotonic()
    while True:
        migration = await _answer(_migration(handle))
        status = migration.get("status")
        if status not in (None, *_UNDER_WAY):
            return str(status)
        total = number(migration, "ram", "total")
        if total:
            on_progress(max(0.0, 1.0 - number(migration, "ram", "remaining") / total))
        if end.error is not None:  # QEMU may wait for ever
            raise end.error
        if end.moved != last:
            last, since = end.moved, time.monotonic()
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


async def _cancel(handle: Machine) -> None:
    with suppress(DomzeroError, TimeoutError, asyncio.TimeoutError):
        await asyncio.wait_for(_give_up(handle), UNDO_SECONDS)


async def _give_up(handle: Machine) -> None:
    for command, arguments in (("closefd", {"fdname": _SAVED}), ("migrate_cancel", {})):
        with suppress(DomzeroError):
            await handle.qmp.ask(command, arguments)
    while (await _migration(handle)).get("status") in _UNDER_WAY:
        await asyncio.sleep(POLL_SECONDS[0])


class _End(Protocol):
    """Our end of the pipe.

    moved: bytes that have gone through.
    """

    moved: int
    error: DomzeroError | None


class _Drain:
    """Empties a pipe into a file.

    :param source: the pipe's descriptor, which is this one's from here on.
    :param target: the file's, which stays the caller's.
    :param most: bytes out of the pipe.
    """

    def __init__(self, source: int, target: int, machine: Json, most: int) -> None:
        self._source = source
        self._target = target
        self._machine = machine
        self._most = most
        self.moved = self.size = 0
        self.wanted = True
        self.error: DomzeroError | None = None

    def run(self) -> None:
        """Does it, in a thread, until the pipe's other end is closed or nobody wants it any more."""
        try:
            with suppress(OSError):  # it is smaller then
                fcntl.fcntl(self._source, fcntl.F_SETPIPE_SZ, STREAM_BYTES)
            writer = ImageWriter(self._target)
            writer.machine(self._machine)
            self._run(writer)
            if self.wanted:
                self.size = writer.finish()
                os.fsync(self._target)
        except OSError as error:
            why = "the disk is full" if error.errno in (errno.ENOSPC, errno.EDQUOT) else str(error)
            self.error = ResourceError(f"the domain's state cannot be written: {why}")
        finally:
            os.close(self._source)  # QEMU sees that nobody reads any more

    def _run(self, writer: ImageWriter) -> None:
        poll = select.poll()
        poll.register(self._source, select.POLLIN)
        kept = bytearray()
        while self.wanted:
            if not poll.poll(LOOK_MS):
                continue
            data = os.read(self._source, STREAM_BYTES - len(kept))
            self.moved += len(data)
            if self.moved > self._most:
                raise OSError(errno.EFBIG, f"it has more than {self._most >> 20} MiB")
            kept += data
            if kept and (not data or len(kept) == STREAM_BYTES):
                writer.stream(bytes(kept))
                kept.clear()
            if not data:
                return


class _Feed:
    """Fills a pipe out of the file of a saved domain, and looks at all of that.

    :param target: the pipe's descriptor, which is this one's from here on.
    """

    def __init__(self, state: SavedState, target: int) -> None:
        self._state = state
        self._target = target
        self.moved = 0
        self.wanted = True
        self.error: DomzeroError | None = None

    def run(self) -> None:
        """Does it, in a thread, to the end of the file, or until nobody wants it any more."""
        try:
            os.set_blocking(self._target, False)
            poll = select.poll()
            poll.register(self._target, select.POLLOUT)
            for piece in self._state.stream():
                data = memoryview(piece)
                while data and self.wanted:
                    if poll.poll(LOOK_MS):
                        count = os.write(self._target, data)
                        data = data[count:]
                        self.moved += count
                if not self.wanted:
                    return
        except BrokenPipeError:
            self.error = ResourceError("QEMU has not taken the whole of the domain's state")
        except DomzeroError as error:
            self.error = error
        except OSError as error:
            self.error = ResourceError(f"the domain's state cannot be read: {error.strerror}")
        finally:
            os.close(self._target)


__all__ = ["Saving", "go_on", "load", "write"]
