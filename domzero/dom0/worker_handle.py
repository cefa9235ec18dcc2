# SPDX-License-Identifier: Apache-2.0
"""The Domain 0 process's side of a worker: starts it, talks to it, and notices when it dies."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import io
import itertools
import logging
import os
import signal
import socket
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeVar

from domzero.dom0 import file_passing
from domzero.dom0.config import DomainConfig
from domzero.dom0.descriptors import check_for_worker
from domzero.dom0.json_values import MessageError
from domzero.dom0.message_set import Refused
from domzero.dom0.messages import (
    Answer,
    Change,
    Done,
    FrameKind,
    InputTaken,
    LogLine,
    Message,
    Request,
    Resume,
    Resumed,
    Start,
    Started,
    Stop,
    decode,
    encode,
)
from domzero.dom0.open_files import DomainFiles, open_domain
from domzero.dom0.opening import in_thread
from domzero.dom0.outside import Outside
from domzero.dom0.socket_frames import FrameDecoder, encode_frame
from domzero.dom0.worker_spawner import Child, WorkerSpawner
from domzero.dom0.xenstore import Connection, Store
from domzero.dom0.xenstore.relay import RelayServer
from domzero.errors import DomzeroError, ResourceError
from domzero.hypervisor.engine import Engine, makes_code

logger = logging.getLogger(__name__)

STDERR_KEPT = 8192
INPUT_CHUNK = 4096
INPUT_AHEAD = 16 * 1024
STOP_GRACE_SECONDS = 0.7


A = TypeVar("A", bound=Answer)


def how_it_ended(status: int, words: str, *, most: int | None = None) -> str:
    """The end of a process: its exit status (negative: the signal that ended it), and the last line that it wrote.

    :param most: characters of that line; all if None.
    """
    lines = words.strip().splitlines()
    how = f"signal {signal.Signals(-status).name}" if status < 0 else f"status {status}"
    return how + (f": {lines[-1][:most]}" if lines else "")


NOT_WANTED = "its worker process was ended while it was started"


class WorkerGone(ResourceError):
    """The worker process has ended."""


class WorkerHandle(asyncio.Protocol):
    """One worker process. Its callbacks run in the event loop.

    :param on_console: the guest's output.
    :param on_event: its log, what has become of its devices, and the guest's end.
    :param on_gone: the process has ended without being told to; with a line that says how.
    """

    def __init__(
        self,
        spawner: WorkerSpawner,
        store: Store,
        domid: int,
        scope: tuple[str, ...],
        *,
        on_console: Callable[[bytes], None],
        on_event: Callable[[Change], None],
        on_gone: Callable[[str], None],
    ) -> None:
        self.domid = domid
        self.engine: str | None = None
        """What executes the domain's code, once it is built."""
        self._spawner = spawner
        self._store = store
        self._scope = scope
        self._on_console = on_console
        self._on_event = on_event
        self._on_gone = on_gone
        self._decoder = FrameDecoder()
        self._ids = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[Answer]] = {}
        self._transport: asyncio.Transport | None = None
        self._files: socket.socket | None = None
        self._child: Child | None = None
        self._relays: list[RelayServer] = []
        self._unread_input = 0
        self._input_taken = asyncio.Event()
        self._stderr = bytearray()
        self._watcher: asyncio.Task[None] | None = None
        self._stopping = False
        self._settled = asyncio.Event()  # no process is being started
        self._settled.set()

    @property
    def pid(self) -> int | None:
        """The process's id, while it runs."""
        return self._child.pid if self._child is not None and not self._child.ended.done() else None

    async def start(self, config: DomainConfig, saved: int | None = None) -> None:
        """Starts the process and builds the domain in it; raises what goes wrong there.

        :param saved: an open file, which is the caller's: the domain goes on from what is in there (`save_format`).
        """
        is_saved = saved is not None
        if is_saved:
            config = replace(config, ramdisk=None)
        opening = functools.partial(open_domain, config, self.domid, kernel=not is_saved)
        with contextlib.closing(await in_thread(opening)) as files:
            if saved is not None:
                files.kernel = os.dup(saved)
            await self._start(config, files, is_saved=is_saved)

    async def _start(self, config: DomainConfig, files: DomainFiles, *, is_saved: bool) -> None:
        if self._stopping:
            raise WorkerGone(NOT_WANTED)
        check_for_worker()
        for note in files.notes:
            self._on_event(LogLine(f"(DOM0) {note}"))
        self._settled.clear()
        try:
            writable = [share.writable for share in config.share_specs]
            shares = list(zip(files.shares, writable, strict=True))
            child = await self._start_process(shares, files.outsides(), makes_code=makes_code(Engine(config.engine)))
        except OSError as error:
            raise ResourceError(f"no worker process could be started: {error}") from error
        finally:
            self._settled.set()
        if self._stopping:  # who said so waits, and ends it
            raise WorkerGone(NOT_WANTED)
        try:
            request = Start(self.domid, config, files.disk_files(), files.ttys(), files.addresses(), is_saved)
            started = await self.request(request, Started, files.numbers())
        except WorkerGone:
            status = await child.ended
            if self._watcher is not None:
                await self._watcher
            raise WorkerGone(self._how_it_ended(status)) from None
        if child.ended.done():  # and `on_gone` came while nobody took it for running
            raise WorkerGone(self._how_it_ended(child.ended.result()))
        self.engine = started.engine.value

    async def _start_process(
        self, shares: list[tuple[int, bool]], outsides: Sequence[Callable[[], Outside]], *, makes_code: bool
    ) -> Child:
        """The process, with its sockets; all of them are closed if that fails."""
        with contextlib.ExitStack() as ours, contextlib.ExitStack() as theirs:
            pairs = []
            for _ in range(3):
                pairs.append(socket.socketpair())
                ours.enter_context(pairs[-1][0])
                theirs.enter_context(pairs[-1][1])
            pairs.append(file_passing.pair())
            ours.enter_context(pairs[-1][0])
            theirs.enter_context(pairs[-1][1])
            stderr_read, stderr_write = os.pipe()
            stderr = ours.enter_context(os.fdopen(stderr_read, "rb", 0))
            theirs.callback(os.close, stderr_write)
            sockets = [pair[1] for pair in pairs]
            self._child = child = await self._spawner.spawn(sockets, stderr_write, shares, makes_code=makes_code)
            if self._stopping:
                child.kill()
            ours.pop_all()
        self._files = pairs.pop()[0]
        self._spawner.hold(child, self.domid, [self._files.fileno(), stderr.fileno()], outsides)
        self._watcher = asyncio.get_running_loop().create_task(self._watch(child, stderr))
        await self._connect([pair[0] for pair in pairs])
        return child

    async def _connect(self, sockets: Sequence[socket.socket], *, resumes: bool = False) -> None:
        """Talks to the worker over these: control, the guest's xenstore, the toolstack's xenstore."""
        await asyncio.get_running_loop().create_connection(lambda: self, sock=sockets[0])
        guest = Connection(self._store, self.domid)
        toolstack = Connection(self._store, 0, scope=self._scope)
        for sock, connection in zip(sockets[1:], (guest, toolstack), strict=True):
            self._relays.append(await RelayServer.start(sock, connection, resumes=resumes))

    async def take_over(self, child: Child, files: Sequence[int], words: str, *, is_up: bool = True) -> Resumed | None:
        """Goes on with the worker of a Domain 0 that has gone; None: it has ended, and `how_it_ended` says how.

        :param files: what `WorkerSpawner.hold` was given, of which it takes the first and, if it is there, the second.
        :param words: what has been read from its stderr.
        :param is_up: the domain was started; else its worker is there to be ended, and is not talked to.
        """
        self._child = child
        self._stderr += words.encode()
        self._files = socket.socket(fileno=files[0])
        self._files.setblocking(False)
        if child.ended.done():
            for fd in files[1:]:
                os.close(fd)
            return None
        self._watcher = asyncio.get_running_loop().create_task(self._watch(child, os.fdopen(files[1], "rb", 0)))
        if not is_up:
            return None
        with contextlib.ExitStack() as theirs:
            pairs = [socket.socketpair() for _ in range(file_passing.SOCKETS)]
            for _, their in pairs:
                theirs.enter_context(their)
            numbers = [their.fileno() for _, their in pairs]
            try:
                file_passing.send_files(self._files, file_passing.RESUMPTION, numbers)
            except (ConnectionError, ResourceError):  # it is about to end
                logger.info("the worker of domain %d takes no sockets", self.domid)
        await self._connect([our for our, _ in pairs], resumes=True)
        try:
            resumed = await self.request(Resume(), Resumed)
        except WorkerGone:
            await child.ended
            await self._watcher
            return None
        return resumed

    def leave(self) -> None:
        """Lets the worker wait for another Domain 0."""
        if self._watcher is not None:
            self._watcher.cancel()
        self._close()

    @property
    def how_it_ended(self) -> str:
        """In a line, once it has."""
        return self._how_it_ended(self._child.ended.result()) if self._child is not None else "it was not started"

    async def request(self, request: Request, expected: type[A], files: Sequence[int] = ()) -> A:
        """Asks the worker; raises the error that it answers, or WorkerGone.

        :param files: that go with the request; they stay the caller's, to be closed when this returns.
        """
        if self._transport is None or self._files is None:
            raise WorkerGone("its worker process has ended")
        request_id = next(self._ids)
        try:
            file_passing.send_files(self._files, request_id, files)
        except ConnectionError:
            raise WorkerGone("its worker process has ended") from None
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting[request_id] = future
        self._send(FrameKind.MESSAGE, encode(request, request_id, len(files)))
        try:
            answer = await future
        finally:
            self._waiting.pop(request_id, None)
        if isinstance(answer, Refused):
            raise answer.error()
        if not isinstance(answer, expected):
            raise MessageError(f"{type(answer).__name__} is no answer to {type(request).__name__}")
        return answer

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
            self._send(FrameKind.CONSOLE, chunk)

    async def stop(self) -> None:
        """Ends the process, by force if it must be, and all that belongs to it.

        One that is being started is waited for, and ended. May be called several times at once.
        """
        self._stopping = True
        await self._settled.wait()
        child = self._child
        if child is not None and not child.ended.done():
            with contextlib.suppress(DomzeroError, TimeoutError, asyncio.TimeoutError):
                await asyncio.wait_for(self.request(Stop(), Done), STOP_GRACE_SECONDS)
            with contextlib.suppress(TimeoutError, asyncio.TimeoutError):
                await asyncio.wait_for(asyncio.shield(child.ended), STOP_GRACE_SECONDS / 2)
            self.kill()
            await child.ended
        if self._watcher is not None:
            await self._watcher
        self._close()

    def kill(self) -> None:
        """Ends the process at once; one that is being started as soon as it is there."""
        self._stopping = True
        if self._child is not None:
            self._child.kill()

    # --- asyncio's protocol of the control socket

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """asyncio: the control socket is there."""
        if isinstance(transport, asyncio.Transport):
            self._transport = transport

    def data_received(self, data: bytes) -> None:
        """asyncio: frames of the worker."""
        try:
            for kind, payload in self._decoder.feed(data):
                if kind == FrameKind.CONSOLE:
                    self._on_console(payload)
                elif kind == FrameKind.MESSAGE:
                    self._message(*decode(payload))
                else:
                    raise MessageError(f"a frame of the unknown kind {kind}")
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

    def _message(self, message: Message, request_id: int) -> None:
        if isinstance(message, InputTaken):
            self._unread_input -= message.count
            self._input_taken.set()
        elif isinstance(message, Change):
            self._on_event(message)
        elif isinstance(message, Answer):
            if isinstance(message, Resumed):
                self._unread_input = message.unread_input  # what was taken since is told behind it
            future = self._waiting.get(request_id)
            if future is not None and not future.done():
                future.set_result(message)
        else:
            raise MessageError(f"{type(message).__name__} is a request")

    def _send(self, kind: FrameKind, payload: bytes) -> None:
        if self._transport is not None:
            self._transport.write(encode_frame(kind, payload))

    async def _watch(self, child: Child, stderr: io.FileIO) -> None:
        reader = asyncio.StreamReader()
        loop = asyncio.get_running_loop()
        transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), stderr)
        while chunk := await reader.read(4096):
            self._stderr += chunk
            del self._stderr[:-STDERR_KEPT]
        transport.close()
        status = await child.ended
        if not self._stopping:
            self._on_gone(self._how_it_ended(status))

    def _how_it_ended(self, status: int) -> str:
        return f"its worker process ended with {how_it_ended(status, self.stderr_text)}"

    @property
    def stderr_text(self) -> str:
        """The last that the process wrote to stderr: a traceback, if it failed."""
        return self._stderr.decode("utf-8", "replace")

    def _close(self) -> None:
        for relay in self._relays:
            relay.close()
        self._relays.clear()
        if self._files is not None:
            self._files.close()
        if self._transport is not None:
            self._transport.close()
