# SPDX-License-Identifier: Apache-2.0
"""A domain whose machine is QEMU's, in this process over its restarts: for `domzero run` what `lifecycle.DomainSession`
is for a PV domain. An event loop in a thread of its own has the QEMU."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from contextlib import closing, suppress

from domzero.dom0.config import Action, DomainConfig
from domzero.dom0.console import Console
from domzero.dom0.corefile import CoreFile
from domzero.dom0.life import End, EndReason, Next, after_end
from domzero.dom0.messages import Change, DumpCore, Dumped, Exited, LogLine
from domzero.dom0.opening import in_thread
from domzero.dom0.qemu.handle import QemuHandle
from domzero.dom0.xenstore import Store
from domzero.dom0.xenstore_nodes import forget_nodes
from domzero.errors import DomzeroError

INPUT_CHUNK = 4096


class QemuSession:
    """One domain as its user sees it. Methods may be called from any thread.

    :param log: receives lines of Domain 0; must not wait.
    :param on_restart: told the end that was followed by another start.
    """

    def __init__(
        self, config: DomainConfig, *, log: Callable[[str], None], on_restart: Callable[[End], None] | None = None
    ) -> None:
        config.check()
        self.config = config
        self.store = Store()
        self.console = Console()
        self.domid = 0
        self.boots = 0
        self.instructions = 0
        """Nobody counts them."""
        self.ending: End | None = None
        self.handle: QemuHandle | None = None
        """Its QEMU, while there is one; for `loop` alone."""
        self._log = log
        self._on_restart = on_restart
        self.loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._started = threading.Event()
        self._failure: BaseException | None = None
        self._wanted: EndReason | None = None
        self._wake: asyncio.Event | None = None

    def start(self) -> None:
        """Starts the domain. DomzeroError; nothing is left then."""
        self._thread = threading.Thread(target=lambda: asyncio.run(self._live()), name="qemu", daemon=True)
        self._thread.start()
        self._started.wait()
        if self._failure is not None:
            self._thread.join()
            raise self._failure

    def wait(self) -> End | None:
        """Waits for the end that is no restart."""
        if self._thread is not None:
            self._thread.join()
        return self.ending

    def destroy(self, reason: EndReason = EndReason.DESTROYED) -> None:
        """Ends the domain at once and gives everything back. Returns when that is done."""
        self._wanted = self._wanted or reason
        loop, wake = self.loop, self._wake
        if loop is not None and wake is not None:
            with suppress(RuntimeError):  # it has ended
                loop.call_soon_threadsafe(wake.set)
        self.wait()
        self.ending = self.ending or End(reason)

    def audit(self) -> list[str]:
        """There are no books of ours."""
        return []

    async def _live(self) -> None:
        self.loop, self._wake = asyncio.get_running_loop(), asyncio.Event()
        quick_crashes = 0
        try:
            while self._wanted is None:
                end, following = await self._once(quick_crashes)
                quick_crashes = following.quick_crashes
                self.ending = end.noted(following.note)
                if following.action is not Action.RESTART or self._wanted is not None:
                    return
                if self._on_restart is not None:
                    self._on_restart(end)
                self.ending = None
                with suppress(TimeoutError, asyncio.TimeoutError):
                    await asyncio.wait_for(self._wake.wait(), max(following.delay_s, 0.001))
        except BaseException as error:  # noqa: BLE001 - raised again by `start`, or the end of a restart
            self._failure = error
            self.ending = End(EndReason.FAILED, (str(error),))
        finally:
            self._started.set()

    async def _once(self, quick_crashes: int) -> tuple[End, Next]:
        """One start, to its end."""
        assert self._wake is not None
        over: asyncio.Future[End] = asyncio.get_running_loop().create_future()
        begun = time.monotonic()

        def on_event(event: Change) -> None:
            if isinstance(event, LogLine):
                self._log(event.line)
            elif isinstance(event, Exited) and not over.done():
                over.set_result(End(event.reason, event.detail))

        def on_gone(how: str) -> None:
            if not over.done():
                over.set_result(End(EndReason.CRASH, (how,)))

        self.domid += 1
        self.handle = handle = QemuHandle(
            self.store, self.domid, on_console=self.console.output, on_event=on_event, on_gone=on_gone
        )
        typist = _Typist(self.console, handle)
        try:
            await handle.start(self.config)
            self.boots += 1
            self._started.set()
            self.console.attach(typist)
            waker = asyncio.get_running_loop().create_task(self._stopped(over))
            await asyncio.wait({over}, return_when=asyncio.FIRST_COMPLETED)
            waker.cancel()
            end = over.result()
            lived_s = time.monotonic() - begun
            following = after_end(self.config, end, lived_s, quick_crashes)
            if following.core and handle.pid is not None:
                await self._dump(handle)
            return end, following
        finally:
            self.handle = None
            self.console.attach(None)
            typist.close()
            await handle.stop()
            self.store.release(self.domid)
            forget_nodes(self.store, self.config.uuid, self.domid)

    async def _stopped(self, over: asyncio.Future[End]) -> None:
        """Somebody wants it to end."""
        assert self._wake is not None
        await self._wake.wait()
        if not over.done():
            over.set_result(End(self._wanted or EndReason.DESTROYED))

    async def _dump(self, handle: QemuHandle) -> None:
        try:
            with closing(await in_thread(lambda: CoreFile.automatic(self.config.name))) as file:
                await handle.request(DumpCore(), Dumped, [file.fd])
                await in_thread(file.keep)
            self._log(f"(DOM0) core dump in {file.path}")
        except DomzeroError as error:
            self._log(f"(DOM0) no core dump: {error}")


class _Typist:
    """What a console takes for its ring: moves input to the serial port, and holds output that nobody takes."""

    def __init__(self, console: Console, handle: QemuHandle) -> None:
        self._console = console
        self._handle = handle
        self._loop = asyncio.get_running_loop()
        self._asked = asyncio.Event()
        self._task = self._loop.create_task(self._run())

    def pump(self) -> None:
        """Something has changed. From any thread."""
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._asked.set)

    def close(self) -> None:
        """Ends it."""
        self._task.cancel()

    async def _run(self) -> None:
        while True:
            await self._asked.wait()
            self._asked.clear()
            self._handle.hold_console(held=self._console.held)
            with suppress(DomzeroError):
                while data := self._console.take_input(INPUT_CHUNK):
                    await self._handle.console_input(data)


__all__ = ["QemuSession"]
