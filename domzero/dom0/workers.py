"""The Domain 0 process's side of a worker: starts it, talks to it, and notices when it dies."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable

from domzero.dom0.config import DomainConfig
from domzero.dom0.control import Json, Kind, config_to_json, decode_json, encode_json, error_from_json
from domzero.dom0.framing import FrameDecoder, encode_frame
from domzero.dom0.xenstore import Connection, Store
from domzero.dom0.xenstore.relay import RelayServer
from domzero.errors import DomzeroError

logger = logging.getLogger(__name__)

STDERR_KEPT = 8192
INPUT_CHUNK = 4096
INPUT_AHEAD = 16 * 1024
STOP_GRACE_SECONDS = 0.7


class WorkerGone(DomzeroError):
    """The worker process has ended."""


class Worker(asyncio.Protocol):
    """One worker process. Its callbacks run in the event loop.

    :param on_console: the guest's output.
    :param on_event: `log` and `exit` messages.
    :param on_gone: the process has ended without being told to; with a line that says how.
    """

    def __init__(
        self,
        store: Store,
        domid: int,
        scope: tuple[str, ...],
        *,
        on_console: Callable[[bytes], None],
        on_event: Callable[[Json], None],
        on_gone: Callable[[str], None],
    ) -> None:
        self.domid = domid
        self._store = store
        self._scope = scope
        self._on_console = on_console
        self._on_event = on_event
        self._on_gone = on_gone
        self._decoder = FrameDecoder()
        self._ids = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[Json]] = {}
        self._transport: asyncio.Transport | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._relays: list[RelayServer] = []
        self._unread_input = 0
        self._input_taken = asyncio.Event()
        self._stderr = bytearray()
        self._watcher: asyncio.Task[None] | None = None
        self._stopping = False

    @property
    def pid(self) -> int | None:
        """The process's id, while it runs."""
        return self._process.pid if self._process is not None and self._process.returncode is None else None

    async def start(self, config: DomainConfig) -> None:
        """Starts the process and builds the domain in it; raises what goes wrong there."""
        pairs = [socket.socketpair() for _ in range(3)]
        ours = [pair[0] for pair in pairs]
        theirs = [pair[1] for pair in pairs]
        try:
            fds = [sock.fileno() for sock in theirs]
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                *("-m", "domzero.dom0.worker", *map(str, fds), str(os.getpid())),
                pass_fds=fds,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.PIPE,
                start_new_session=True,
            )
        except OSError as error:
            for sock in ours:
                sock.close()
            raise DomzeroError(f"no worker process could be started: {error}") from error
        finally:
            for sock in theirs:
                sock.close()
        self._watcher = asyncio.get_running_loop().create_task(self._watch(self._process))
        await asyncio.get_running_loop().create_connection(lambda: self, sock=ours[0])
        guest = Connection(self._store, self.domid)
        toolstack = Connection(self._store, 0, scope=self._scope)
        for sock, connection in ((ours[1], guest), (ours[2], toolstack)):
            self._relays.append(await RelayServer.start(sock, connection))
        try:
            await self.request("start", domid=self.domid, config=config_to_json(config))
        except WorkerGone:
            status = await self._process.wait()
            await self._watcher
            raise WorkerGone(self._how_it_ended(status)) from None

    async def request(self, op: str, **arguments: object) -> Json:
        """Asks the worker; raises the error that it answers, or WorkerGone."""
        if self._transport is None:
            raise WorkerGone("its worker process has ended")
        request_id = next(self._ids)
        future: asyncio.Future[Json] = asyncio.get_running_loop().create_future()
        self._waiting[request_id] = future
        self._send(Kind.JSON, encode_json({"id": request_id, "op": op, **arguments}))
        try:
            return await future
        finally:
            self._waiting.pop(request_id, None)

    async def console_input(self, data: bytes) -> None:
        """Types on the guest's console; waits while the guest is behind with reading. WorkerGone."""
        for start in range(0, len(data), INPUT_CHUNK):
            while self._unread_input >= INPUT_AHEAD and self._transport is not None:
                self._input_taken.clear()
                await self._input_taken.wait()
            if self._transport is None:
                raise WorkerGone("its worker process has ended")
            chunk = data[start : start + INPUT_CHUNK]
            self._unread_input += len(chunk)
            self._send(Kind.CONSOLE, chunk)

    async def stop(self) -> None:
        """Ends the process, by force if it must be, and all that belongs to it."""
        self._stopping = True
        process = self._process
        if process is not None and process.returncode is None:
            with contextlib.suppress(DomzeroError, TimeoutError, asyncio.TimeoutError):
                await asyncio.wait_for(self.request("stop"), STOP_GRACE_SECONDS)
            with contextlib.suppress(TimeoutError, asyncio.TimeoutError):
                await asyncio.wait_for(process.wait(), STOP_GRACE_SECONDS / 2)
            self.kill()
            await process.wait()
        if self._watcher is not None:
            await self._watcher
        self._close()

    def kill(self) -> None:
        """Ends the process at once."""
        self._stopping = True
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()

    # --- asyncio's protocol of the control socket

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """asyncio: the control socket is there."""
        if isinstance(transport, asyncio.Transport):
            self._transport = transport

    def data_received(self, data: bytes) -> None:
        """asyncio: frames of the worker."""
        try:
            for kind, payload in self._decoder.feed(data):
                if kind == Kind.CONSOLE:
                    self._on_console(payload)
                elif kind == Kind.JSON:
                    self._message(decode_json(payload))
        except DomzeroError as error:
            logger.error("the worker of domain %d talks nonsense: %s", self.domid, error)
            self.kill()

    def connection_lost(self, exc: Exception | None) -> None:
        """asyncio: the worker is gone, or going."""
        self._transport = None
        self._input_taken.set()
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(WorkerGone("its worker process has ended"))

    def _message(self, message: Json) -> None:
        if message.get("event") == "input":
            self._unread_input -= int(message.get("bytes", 0))
            self._input_taken.set()
            return
        if "event" in message:
            self._on_event(message)
            return
        future = self._waiting.get(int(message.get("id", 0)))
        if future is None or future.done():
            return
        if "error" in message:
            future.set_exception(error_from_json(message["error"]))
        else:
            future.set_result(message.get("result") or {})

    def _send(self, kind: Kind, payload: bytes) -> None:
        if self._transport is not None:
            self._transport.write(encode_frame(kind, payload))

    async def _watch(self, process: asyncio.subprocess.Process) -> None:
        if process.stderr is not None:
            while chunk := await process.stderr.read(4096):
                self._stderr += chunk
                del self._stderr[:-STDERR_KEPT]
        status = await process.wait()
        if not self._stopping:
            self._on_gone(self._how_it_ended(status))

    def _how_it_ended(self, status: int) -> str:
        lines = self._stderr.decode("utf-8", "replace").strip().splitlines()
        how = f"signal {signal.Signals(-status).name}" if status < 0 else f"status {status}"
        return f"its worker process ended with {how}" + (f": {lines[-1]}" if lines else "")

    @property
    def stderr_text(self) -> str:
        """The last that the process wrote to stderr: a traceback, if it failed."""
        return self._stderr.decode("utf-8", "replace")

    def _close(self) -> None:
        for relay in self._relays:
            relay.close()
        self._relays.clear()
        if self._transport is not None:
            self._transport.close()
