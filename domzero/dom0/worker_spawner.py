# SPDX-License-Identifier: Apache-2.0
"""The Domain 0 process's side of the fork server: starts it when it is needed, and starts workers through it."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import socket
import subprocess
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

from domzero.dom0 import file_passing, program_passing
from domzero.dom0.confinement import small_environment
from domzero.dom0.forking import ChildEnded, Kill, Launch, Spawn, Spawned, SpawnFailed, decode, encode, fork_server
from domzero.dom0.json_values import MessageError
from domzero.dom0.outside import Outside
from domzero.errors import DomzeroError, ResourceError

MESSAGE_MAX = 4096
_STOP_SECONDS = 2.0


class Child:
    """A worker process. `ended` gets its exit status; a negative one is the signal that ended it."""

    def __init__(self, spawner: WorkerSpawner, pid: int) -> None:
        self.pid = pid
        self.ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._spawner = spawner

    def kill(self) -> None:
        """Ends it at once."""
        if not self.ended.done():
            self._spawner.kill(self.pid)


class WorkerSpawner:
    """Starts processes. All methods in the event loop.

    :param confined: workers are.
    :param keeps: they wait for another Domain 0 when this one has gone.
    """

    outlives = False
    """Whether what it starts can outlive this process."""

    def __init__(self, *, confined: bool = True, keeps: bool = False) -> None:
        self._confined = confined
        self._keeps = keeps
        self._process: subprocess.Popen[bytes] | None = None
        self._sock: socket.socket | None = None
        self._ids = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[Child]] = {}
        self._children: dict[int, Child] = {}

    async def spawn(
        self,
        sockets: list[socket.socket],
        stderr: int,
        shares: Sequence[tuple[int, bool]] = (),
        *,
        makes_code: bool = False,
    ) -> Child:
        """A worker with these sockets (control, guest, toolstack, files) and this file as stderr. ResourceError.

        :param shares: directories whose files it may open, and whether it may write them.
        :param makes_code: its domain has the translator.
        """
        message = Spawn(self._confined, tuple(writable for _, writable in shares), makes_code, self._keeps)
        return await self._ask(message, [*(s.fileno() for s in sockets), stderr, *(fd for fd, _ in shares)])

    async def launch(self, command: Sequence[str], fds: Sequence[int], stderr: int) -> Child:
        """A QEMU, with these files under the same numbers. ResourceError.

        :param command: what `qemu.launch` is told behind the parent.
        """
        ours, theirs = file_passing.pair()
        with ours, theirs:
            files = program_passing.send_program(ours, command, fds)
            return await self._ask(Launch(files), [theirs.fileno(), stderr])

    async def _ask(self, message: Spawn | Launch, fds: Sequence[int]) -> Child:
        future: asyncio.Future[Child] = asyncio.get_running_loop().create_future()
        request_id = next(self._ids)
        self._waiting[request_id] = future
        try:
            socket.send_fds(self._ready(), [encode(message, request_id)], list(fds))
            return await future
        except OSError as error:
            raise ResourceError(f"no worker process could be started: {error}") from error
        finally:
            self._waiting.pop(request_id, None)

    def prepare(self) -> None:
        """Starts the fork server, so that the first domain need not wait for it; what fails is said then."""
        with contextlib.suppress(OSError):
            self._ready()

    def hold(
        self,
        child: Child,
        domid: int,
        files: Sequence[int],
        outsides: Sequence[Callable[[], Outside]] = (),
        parts: Mapping[str, int] = MappingProxyType({}),
    ) -> None:
        """Has what a worker needs for another Domain 0 kept, if it is to have one.

        :param files: what another Domain 0 talks to it through, and what reads its stderr.
        :param parts: more of it, by names.
        """

    def forget(self, pid: int) -> None:
        """How this process has ended is known."""

    def kill(self, pid: int) -> None:
        """For `Child`."""
        if self._sock is not None:
            with contextlib.suppress(OSError):
                self._sock.send(encode(Kill(pid)))

    def close(self) -> None:
        """Ends the fork server, and all processes that are left."""
        self._lost("Domain 0 shuts down")
        if self._process is not None:
            try:
                self._process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None

    def _ready(self) -> socket.socket:
        if self._sock is not None:
            return self._sock
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            self._process = subprocess.Popen(
                fork_server(theirs.fileno()),
                env=small_environment(),
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                start_new_session=True,
            )
        except OSError:
            ours.close()
            raise
        finally:
            theirs.close()
        ours.setblocking(False)
        asyncio.get_running_loop().add_reader(ours, self._read)
        self._sock = ours
        return ours

    def _read(self) -> None:
        if self._sock is None:
            return
        try:
            data = self._sock.recv(MESSAGE_MAX)
            if data:
                self._message(data)
                return
            why = "it has ended"
        except BlockingIOError:
            return
        except (OSError, DomzeroError) as error:
            why = str(error)
        self._lost(why)

    def _message(self, data: bytes) -> None:
        message, request_id = decode(data)
        future = self._waiting.get(request_id)
        if isinstance(message, ChildEnded):
            child = self._children.pop(message.pid, None)
            self.forget(message.pid)
            if child is not None and not child.ended.done():
                child.ended.set_result(message.status)
        elif isinstance(message, Spawned):
            child = self._children[message.pid] = Child(self, message.pid)
            if future is None or future.done():
                child.kill()  # whoever wanted it has gone
            else:
                future.set_result(child)
        elif isinstance(message, SpawnFailed):
            if future is not None and not future.done():
                future.set_exception(OSError(message.errno, os.strerror(message.errno)))
        else:
            raise MessageError(f"{type(message).__name__} is no answer of the fork server")

    def _lost(self, why: str) -> None:
        """The fork server is gone, and so are its children."""
        sock, self._sock = self._sock, None
        if sock is not None:
            asyncio.get_running_loop().remove_reader(sock)
            sock.close()
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(ResourceError(f"no worker process could be started: the fork server: {why}"))
        children, self._children = self._children, {}
        for child in children.values():
            if not child.ended.done():
                child.ended.set_result(-9)


__all__ = ["Child", "WorkerSpawner"]
